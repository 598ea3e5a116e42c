"""The text fields of NRRD and MetaImage headers: understood, or refused; never taken as absent.

Every function reads its text once from left to right: a header may be a megabyte of anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segbench.core.errors import SegbenchError
from segbench.volumes.volume import UNITS_MM

_UNIT_WORDS = {
    "?": "", "???": "", "none": "", "unknown": "",
    "millimeter": "mm", "millimetre": "mm", "millimeters": "mm", "millimetres": "mm",
    "micrometer": "um", "micrometre": "um", "micrometers": "um", "micrometres": "um", "micron": "um",
    "microns": "um", "centimeter": "cm", "centimetre": "cm", "centimeters": "cm", "centimetres": "cm",
    "meter": "m", "metre": "m", "meters": "m", "metres": "m",
    "nanometer": "nm", "nanometre": "nm", "nanometers": "nm", "nanometres": "nm",
}  # fmt: skip
_MEANT = {
    "type", "dimension", "sizes", "encoding", "endian", "space", "spacedimension", "spacedirections",
    "spaceorigin", "spaceunits", "spacings", "kinds", "units", "lineskip", "byteskip",
    "ndims", "dimsize", "elementtype", "elementspacing", "elementsize", "elementnumberofchannels",
    "transformmatrix", "rotation", "orientation", "offset", "position", "origin", "distanceunits",
    "binarydata", "binarydatabyteordermsb", "elementbyteordermsb", "compresseddata", "headersize",
}  # fmt: skip
"""Fields that decide what is read: one that is there has to be understood."""


def read_fields(lines: list[str], separator: str, path: Path) -> dict[str, str]:
    """Values by name, names in lower case without blanks; a name that stands twice is refused."""
    fields: dict[str, str] = {}
    for line in lines:
        key, found, value = line.partition(separator)
        name = key.strip().lower().replace(" ", "")
        if name == "comment":
            continue
        if not found and name:  # a lost separator: the field would count as absent
            raise unreadable(path, "a line of the header", repr(line[:80]), f"name{separator} value")
        if found and fields.setdefault(name, value.strip()) != value.strip():
            raise unreadable(path, key.strip(), f"{fields[name]} and {value.strip()}", "one value")
    return fields


def check_given(fields: Mapping[str, str], path: Path) -> None:
    """Refuse a field of the geometry or of the voxels that is there and says nothing (SB207)."""
    empty = [name for name, value in fields.items() if not value and name in _MEANT]
    if empty:
        raise unreadable(path, spelled(empty[0]), "an empty field", "a value, or no such field")


def counts(text: str, path: Path) -> list[int]:
    """Whole numbers between blanks (SB207 when there are none)."""
    values = numbers(text, path)
    if any(value != int(value) for value in values):
        raise unreadable(path, "the length of an axis", text[:80], "whole numbers")
    return [int(value) for value in values]


def numbers(text: str, path: Path) -> list[float]:
    """Finite numbers between blanks (SB207 when there are none)."""
    try:
        values = [float(part) for part in text.split()]
    except ValueError:
        values = []
    if "_" in text or not values or not all(math.isfinite(value) for value in values):
        raise SegbenchError(
            "SB207",
            "the header holds no numbers where they must be",
            path=path,
            expected="finite numbers",
            found=repr(text[:80]),
        )
    return values


def vectors(fields: Mapping[str, str], name: str, path: Path) -> list[list[float] | None]:
    """The vectors of an NRRD field, None for `none`; empty only when the field is not there.

    Raises:
        SegbenchError: SB207 for anything that is not a row of vectors of numbers.
    """
    if name not in fields:
        return []
    text, at = fields[name], 0
    found: list[list[float] | None] = []
    while at < len(text):
        end = text.find(")", at) if text[at] == "(" else -1
        if text[at].isspace():
            at += 1
        elif text[at : at + 4].lower() == "none":
            found.append(None)
            at += 4
        elif end > 0:
            inner = text[at + 1 : end]
            found.append(numbers(inner.replace(",", " "), path))
            if "," in inner and inner.count(",") != len(found[-1] or ()) - 1:
                raise unreadable(path, spelled(name), text[:80], "numbers with one comma between them")
            at = end + 1
        else:
            break
    if at < len(text) or not found:
        raise unreadable(path, spelled(name), repr(text[:80]), "vectors such as (1,0,0), or none")
    return found


def words(text: str) -> list[str]:
    """The words of a line, with or without quotation marks around each; a torn line as one word."""
    if '"' not in text:
        return text.split()
    parts = text.split('"')
    whole = len(parts) % 2 == 1 and not any(part.strip() for part in parts[::2])
    return [part.strip() for part in parts[1::2]] if whole else [text]


def unit_of(word: str, field: str, path: Path) -> str:
    """The key of `UNITS_MM` that a header's word means.

    Raises:
        SegbenchError: SB207 for a word that is not a unit of length.
    """
    with suppress(UnicodeError):  # headers are read byte by byte; a micro sign may be two in UTF-8
        word = word.encode("latin-1").decode("utf-8")
    lowered = word.strip().lower().replace("\u00b5", "u").replace("\u03bc", "u")
    known = lowered if lowered in UNITS_MM else _UNIT_WORDS.get(lowered)
    if known is None:
        raise unreadable(path, field, repr(word[:80]), ", ".join(unit for unit in UNITS_MM if unit))
    return known


def first_of(
    fields: Mapping[str, str], names: Sequence[str], default: Sequence[float] | NDArray[Any], path: Path
) -> list[float]:
    """Numbers of the first of several fields that is there."""
    given = next((fields[name] for name in names if name in fields), None)
    return [float(value) for value in default] if given is None else numbers(given, path)


def truth(fields: Mapping[str, str], name: str, path: Path) -> bool:
    """Whether a MetaImage field says True; absent means False."""
    text = fields.get(name, "False").lower()
    if text not in {"true", "false", "1", "0"}:
        raise unreadable(path, name, text[:80], "True or False")
    return text in {"true", "1"}


def spelled(name: str) -> str:
    """A field's name as NRRD spells it."""
    return re.sub("^(space|line|byte|data)(?=.)", r"\1 ", name) if name != "spacings" else name


def unreadable(path: Path, field: str, found: str | None, expected: str) -> SegbenchError:
    """SB207 for a field of a header."""
    return SegbenchError(
        "SB207", f"{field} is not valid", path=path, expected=expected, found=found or "nothing"
    )
