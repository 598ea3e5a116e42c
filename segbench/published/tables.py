"""Published numbers as files: read from `results/published/*.toml` and checked, every fault named.

How they stand beside ours is decided in `published_beside`.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_toml
from segbench.metrics.registry import METRICS

_COST_UNITS = {"parameters_m": "M", "compute_g": "G", "memory_mb": "MB", "latency_s": "s"}
COST_METRICS = tuple(_COST_UNITS)


def _not_blank(value: object) -> object:
    if isinstance(value, str) and not value.strip():
        raise ValueError("must say something")
    return value


Unknown = BeforeValidator(lambda value: None if value == "" else value)  # "" in a file
Text = Annotated[str, BeforeValidator(_not_blank)]
Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Date = Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")]
Year = Annotated[int, Field(ge=1990, le=2100)]
Real = Annotated[float, Field(allow_inf_nan=False)]


class Source(BaseModel, frozen=True, extra="forbid"):
    """Where a file's numbers stand."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    title: Text
    authors: tuple[str, ...] = ()
    year: Annotated[Year | None, Unknown] = None
    kind: Literal["paper", "repository", "leaderboard"]
    doi_or_arxiv: str = ""
    url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    licence_note: str = ""


class PublishedProtocol(BaseModel, frozen=True, extra="forbid"):
    """How the numbers came about, as far as the source says; empty means unknown."""

    dataset: str = ""
    dataset_version: str = ""
    cases: Annotated[int | None, Unknown] = None
    split: Text = "unknown"
    split_sha256: Digest = ""
    metric_profile: str = ""
    empty_policy: str = ""
    spacing_known: Annotated[bool | None, Unknown] = None
    recipe: str = ""
    seeds: Annotated[int | None, Unknown] = None
    tta: Annotated[bool | str | None, Unknown] = None
    regions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Number(BaseModel, frozen=True, extra="forbid"):
    """One published number.

    `read_from` and `verified` are required: a number that nobody can look up is not loaded. `verified` says
    that somebody read it in the primary source named.
    """

    model: Text
    our_model: str = ""
    dataset: str = ""
    region: str = ""
    metric: Text
    value: Real
    unit: Literal["%", "1", "mm", "M", "G", "MB", "s"]
    sd: Annotated[Real | None, Unknown] = None
    ci_low: Annotated[Real | None, Unknown] = None
    ci_high: Annotated[Real | None, Unknown] = None
    n: Annotated[int | None, Unknown] = None
    read_from: Text
    verified: bool
    date_read: Date = ""
    comment: str = ""
    input: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.metric in COST_METRICS:
            units: tuple[str, ...] = (_COST_UNITS[self.metric],)
            if not self.input.strip():
                raise ValueError(f"{self.metric} needs `input`, such as 1x4x128x128x128 (or unknown)")
            if self.region or self.n is not None:
                raise ValueError(f"{self.metric} has an input in place of region and n")
        else:
            if self.metric not in METRICS:
                raise ValueError(f"metric {self.metric!r} is not known; see segbench list metrics")
            if not self.dataset or not self.region:
                raise ValueError("a score needs dataset and region")
            if self.input:
                raise ValueError("`input` belongs to costs only")
            units = ("mm",) if METRICS[self.metric].unit == "mm" else ("%", "1")
        if self.unit not in units:
            raise ValueError(f"unit of {self.metric} is one of {', '.join(units)}, not {self.unit}")
        low = -math.inf if self.ci_low is None else self.ci_low
        high = math.inf if self.ci_high is None else self.ci_high
        if not low <= self.value <= high:
            raise ValueError("the value lies outside its own interval")
        return self

    @property
    def stored(self) -> float:
        """The value in the unit of `cases.csv`: a percentage becomes a fraction."""
        return self.value / 100 if self.unit == "%" else self.value


class PublishedTable(BaseModel, frozen=True, extra="forbid"):
    """One file: a source, how its numbers came about, and the numbers."""

    schema_version: Literal[1]
    source: Source
    protocol: PublishedProtocol
    number: tuple[Number, ...] = ()


def load_published(root: Path | str | Iterable[Path | str] | None = None) -> tuple[PublishedTable, ...]:
    """Every table of published numbers, by source id.

    Args:
        root: folder of TOML files, or several; None takes `results/published` of segbench and of every
            further folder of cards (`--cards`, `SEGBENCH_CARDS`).

    Raises:
        SegbenchError: SB703 with every fault of every file.
    """
    from segbench.cards import list_model_cards

    tables: dict[str, tuple[Path, PublishedTable]] = {}
    faults: list[str] = []
    known = list_model_cards()
    files = [path for folder in _folders(root) for path in sorted(folder.glob("*.toml"))]
    for path in files:
        table, found = _read(path, known)
        faults += found
        if table is None:
            continue
        if table.source.id in tables:
            faults.append(
                f"{path.name}: source.id {table.source.id!r} is taken by {tables[table.source.id][0].name}"
            )
        tables[table.source.id] = (path, table)
    if faults:
        raise SegbenchError("SB703", _count(faults), path=files[0].parent if files else None, details=faults)
    return tuple(table for _, (_, table) in sorted(tables.items()))


def load_table(path: Path | str) -> PublishedTable:
    """One file of published numbers, wherever it lies.

    Raises:
        SegbenchError: SB703 with every fault of it.
    """
    from segbench.cards import list_model_cards

    table, faults = _read(Path(path), list_model_cards())
    if table is None:
        raise SegbenchError("SB703", _count(faults), path=path, details=faults)
    return table


def _count(faults: Sequence[str]) -> str:
    return f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'} in published numbers"


def _folders(root: Path | str | Iterable[Path | str] | None) -> list[Path]:
    """Folders to look into, each once."""
    if root is None:
        from segbench.cards.locate import card_roots

        places = [folder / "results" / "published" for folder in card_roots()]
        return [place for place in places if place.is_dir()]
    places = [Path(root)] if isinstance(root, str | Path) else [Path(item) for item in root]
    for place in places:
        if not place.is_dir():
            raise SegbenchError("SB703", f"{place} is not a folder of published tables", path=place)
    return list(dict.fromkeys(places))


def _read(path: Path, known: Collection[str]) -> tuple[PublishedTable | None, list[str]]:
    """One file and all its faults, each a line that names the file, the number and the field."""
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return None, [f"{path.name}: cannot be read: {getattr(error, 'strerror', None) or error}"]
    try:
        table = PublishedTable.model_validate(content)
    except ValidationError as error:
        return None, [f"{path.name}: {_fault(item, content)}" for item in error.errors()]
    strangers = [
        f"{path.name}: number {place} ({number.model}): our_model {number.our_model!r} has no card"
        for place, number in enumerate(table.number, start=1)
        if number.our_model and number.our_model not in known
    ]
    return (None if strangers else table), strangers


def _fault(item: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """One validation error as words: where in the file, and what is wrong."""
    place = list(item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    if place[:1] == ["number"] and len(place) > 1:
        row = content["number"][place[1]]
        name = row.get("model", "?") if isinstance(row, Mapping) else "?"
        field = ".".join(str(part) for part in place[2:])
        return f"number {place[1] + 1} ({name}){': ' + field if field else ''}: {message}"
    return f"{'.'.join(str(part) for part in place) or 'file'}: {message}"
