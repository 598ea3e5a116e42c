"""Cases, labels and regions as whoever scores has named them: lists of ids, `dataset.json`, `--region`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json


def read_case_list(listed: Path | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return case ids as listed, or those of a file: one per line (`#` begins a comment), or a JSON list.

    Raises:
        SegbenchError: SB104 unreadable, SB311 no id in it, SB324 ids without a reference.
    """
    path = listed if isinstance(listed, Path) else None
    names = _read_names(listed) if isinstance(listed, Path) else list(listed)
    if not names:
        raise SegbenchError("SB311", "the list of cases is empty", path=path)
    absent = sorted(set(names).difference(known))
    if absent:
        raise SegbenchError(
            "SB324",
            f"{len(absent)} of {len(names)} listed cases have no reference",
            path=path,
            found=", ".join(absent[:10]),
            mend="name cases of the references: the names of their files without the ending",
        )
    return tuple(sorted(set(names)))


def _read_names(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SegbenchError("SB104", f"the list of cases is not readable: {error}", path=path) from error
    if not text.lstrip().startswith("["):
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        return [line for line in lines if line]
    try:
        listed: Any = parse_json(text)
    except ValueError as error:
        raise SegbenchError("SB104", f"the list of cases is not valid JSON: {error}", path=path) from error
    if not all(isinstance(name, str) for name in listed):
        raise SegbenchError("SB104", "the list of cases holds something that is not a text", path=path)
    return list(listed)


@dataclass(frozen=True)
class Labelling:
    """Regions and labels as a user named them.

    Attributes:
        name: of the dataset, for the rows.
        regions: name -> labels.
        labels: values that are declared, 0 included.
        ignore_label: nnU-Net's ignore label.
    """

    name: str
    regions: Mapping[str, tuple[int, ...]]
    labels: tuple[int, ...]
    ignore_label: int | None = None


def labelling_of_json(path: Path) -> Labelling:
    """Return the regions of an nnU-Net or MSD `dataset.json`; `background` and `ignore` are not regions.

    Raises:
        SegbenchError: SB331 for labels that are those of neither.
    """
    from segbench.data.adapters.dataset_json import read_labels

    document = read_labels(path)
    regions = dict(document.regions)
    if not regions:
        regions = {
            name: (value,) for value, name in document.labels.items() if value not in (0, document.ignore)
        }
    ignored = () if document.ignore is None else (document.ignore,)
    declared = {0, *document.labels, *ignored, *(label for members in regions.values() for label in members)}
    return Labelling(document.name, regions, tuple(sorted(declared)), document.ignore)


def parse_regions(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the regions of `NAME=1,2` texts.

    Raises:
        SegbenchError: SB104 for a text of another form, a label 0, or a name given twice.
    """
    regions: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, sign, labels = text.rpartition("=")
        parts = [part.strip() for part in labels.split(",")]
        if not sign or not name.strip() or not all(part.isascii() and part.isdigit() for part in parts):
            raise SegbenchError(
                "SB104", f"--region {text!r} is not valid", mend="for example --region tumour=1,2"
            )
        values = tuple(dict.fromkeys(int(part) for part in parts))
        if 0 in values:
            raise SegbenchError("SB104", f"--region {text!r}: label 0 is the background")
        if name.strip() in regions:
            raise SegbenchError("SB104", f"--region {name.strip()!r} is given twice")
        regions[name.strip()] = values
    return regions
