"""A BibTeX entry as a card holds it: read strictly, because it ends in an author's manuscript."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

TYPES = frozenset(
    re.findall(
        r"\w+",
        "article book booklet conference dataset inbook incollection inproceedings manual mastersthesis misc "
        "online phdthesis proceedings report software techreport thesis unpublished",
    )
)
COMMANDS = frozenset(
    re.findall(
        r"\w+", "aa AA ae AE i j l L o O oe OE ss emph textbf textit textsc textsubscript textsuperscript url"
    )
)
"""Words after a backslash that an entry may use, beside accents: a card never runs anything in TeX."""

_HEAD = re.compile(r"\s*@(\w+)\s*\{\s*([A-Za-z][A-Za-z0-9:._+-]*)\s*,")
_FIELD = re.compile(r"\s*([A-Za-z][\w-]*)\s*=\s*")
_ACCENT = re.compile(r"[cvuHkrbdt](?![A-Za-z])|[^A-Za-z]")


@dataclass(frozen=True, slots=True)
class BibEntry:
    """One entry.

    Attributes:
        kind: `article`, `inproceedings` and so on, in lower case.
        key: what a citation names.
        fields: values by name in lower case, without their outer braces or quotes.
    """

    kind: str
    key: str
    fields: Mapping[str, str]

    def text(self) -> str:
        """The entry as a `.bib` file has it, ending with a line break; equal entries give equal text."""
        width = max(map(len, self.fields))
        lines = [f"  {name:<{width}} = {{{value}}}," for name, value in self.fields.items()]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"]) + "\n"


def parse_bibtex(text: str) -> BibEntry:
    """The one entry of a text.

    Values stand in braces or quotes, or are plain numbers; of TeX only accents and the commands in `COMMANDS`
    are taken.

    Raises:
        ValueError: what is wrong, in one line.
    """
    head = _HEAD.match(text)
    if head is None:
        raise ValueError("expected one entry @type{key, field = {...}, ...}")
    kind = head.group(1).lower()
    if kind not in TYPES:
        raise ValueError(f"unknown entry type @{kind}; known: {', '.join(sorted(TYPES))}")
    fields: dict[str, str] = {}
    place = head.end()
    while field := _FIELD.match(text, place):
        name = field.group(1).lower()
        if name in fields:
            raise ValueError(f"field {name} appears twice")
        fields[name], place = _value(text, field.end(), name)
        comma = re.compile(r"\s*,").match(text, place)
        if comma is None:
            break
        place = comma.end()
    if text[place:].strip() != "}":
        raise ValueError(f"expected a field or the closing brace at {text[place : place + 30].strip()!r}")
    if "title" not in fields:
        raise ValueError("field title is missing")
    return BibEntry(kind, head.group(2), fields)


def _value(text: str, start: int, name: str) -> tuple[str, int]:
    """The value that begins at `start`, checked, and where it ends."""
    opening = text[start : start + 1]
    if opening.isdigit():
        number = re.compile(r"\d+").match(text, start)
        assert number is not None
        return number.group(), number.end()
    if opening not in {"{", '"'}:
        raise ValueError(f'field {name}: expected {{...}}, "..." or a number')
    depth, place = 0, start + 1
    while place < len(text):
        character = text[place]
        if depth == 0 and character == ("}" if opening == "{" else '"'):
            value = " ".join(text[start + 1 : place].split())
            _check_value(value, name)
            return value, place + 1
        depth += (character == "{") - (character == "}")
        if depth < 0:
            break
        place += 1
    raise ValueError(f"field {name}: braces are not balanced")


def _check_value(value: str, name: str) -> None:
    if not value:
        raise ValueError(f"field {name} is empty")
    if not value.isprintable():
        raise ValueError(f"field {name} holds control or direction characters")
    bare = re.sub(r"\\(?:[A-Za-z]+|.)", "", value)
    for character in sorted(set("%#@^" if name in {"url", "doi"} else "%#@^&_") & set(bare)):
        raise ValueError(f"field {name}: {character!r} needs a backslash or has no place here")
    for command in re.findall(r"\\([A-Za-z]+|.|$)", value):
        if command not in COMMANDS and not _ACCENT.fullmatch(command):
            raise ValueError(f"field {name}: the TeX command \\{command} is not allowed in a card")
