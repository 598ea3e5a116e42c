"""Published numbers: read from `results/published/*.toml`, checked, graded against our runs, never mixed in.

A number is worth what its source says about how it came about. Grade **A**: same dataset, split digest,
regions, metric profile and empty policy. **B**: same dataset and region, metric definition known to be equal,
split different or unknown. **C**: same family of datasets, anything else different or unknown. Only A may
stand in a ranking, apart and without tests; B and C get a difference and no rank, mark or verdict word.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_toml
from segbench.report import facts
from segbench.report.runs import slug_of

if TYPE_CHECKING:
    from segbench.report.summary import Summary

COST_METRICS = ("parameters_m", "compute_g", "memory_mb", "latency_s")
Grade = Literal["A", "B", "C"]

# Slugs that name different releases or copies of one collection of scans
FAMILIES: Mapping[str, str] = {
    r"brats(20\d\d)?(-gli)?|msd-brain-tumour": "brats-glioma",
    r"btcv|synapse": "btcv",
    r"lits(17)?|msd-liver": "lits",
    r"abdomenatlas.*|touchstone-jhh": "abdomenatlas",
}


def _empty_to_none(value: object) -> object:
    return None if value == "" else value


def _not_blank(value: object) -> object:
    if isinstance(value, str) and not value.strip():
        raise ValueError("must say something")
    return value


Unknown = BeforeValidator(_empty_to_none)  # an empty text in the file means unknown
Text = Annotated[str, BeforeValidator(_not_blank)]
Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
Date = Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")]
Year = Annotated[int, Field(ge=1990, le=2100)]
Real = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Source(_Strict):
    """Where a file's numbers stand."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    title: Text
    authors: tuple[str, ...] = ()
    year: Annotated[Year | None, Unknown] = None
    kind: Literal["paper", "repository", "leaderboard"]
    doi_or_arxiv: str = ""
    url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    licence_note: str = ""


class PublishedProtocol(_Strict):
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


class Number(_Strict):
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
        from segbench.metrics.registry import METRICS

        if self.metric in COST_METRICS:
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
        allowed = _units(self.metric)
        if self.unit not in allowed:
            raise ValueError(f"unit of {self.metric} is one of {', '.join(allowed)}, not {self.unit}")
        low = -math.inf if self.ci_low is None else self.ci_low
        high = math.inf if self.ci_high is None else self.ci_high
        if not low <= self.value <= high:
            raise ValueError("the value lies outside its own interval")
        return self

    @property
    def stored(self) -> float:
        """The value in the unit of `cases.csv`: a percentage becomes a fraction."""
        return self.value / 100 if self.unit == "%" else self.value


def _units(metric: str) -> tuple[str, ...]:
    """Units in which a metric may be given."""
    costs = {"parameters_m": ("M",), "compute_g": ("G",), "memory_mb": ("MB",), "latency_s": ("s",)}
    if metric in costs:
        return costs[metric]
    from segbench.metrics.registry import METRICS

    return ("mm",) if METRICS[metric].unit == "mm" else ("%", "1")


class PublishedTable(_Strict):
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
    tables: dict[str, tuple[Path, PublishedTable]] = {}
    faults: list[str] = []
    known = _known_models()
    files = [path for folder in _folders(root) for path in sorted(folder.glob("*.toml"))]
    for path in files:
        table, found = read_published(path, known_models=known)
        faults += found
        if table is None:
            continue
        if table.source.id in tables:
            faults.append(
                f"{path.name}: source.id {table.source.id!r} is taken by {tables[table.source.id][0].name}"
            )
        tables[table.source.id] = (path, table)
    if faults:
        count = len(faults)
        raise SegbenchError(
            "SB703",
            f"{count} {'fault' if count == 1 else 'faults'} in published numbers",
            path=files[0].parent if files else None,
            details=faults,
        )
    return tuple(table for _, (_, table) in sorted(tables.items()))


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


def _known_models() -> frozenset[str]:
    from segbench.cards import list_model_cards

    return frozenset(list_model_cards())


def read_published(
    path: Path, *, known_models: frozenset[str] = frozenset()
) -> tuple[PublishedTable | None, list[str]]:
    """One file and all its faults, each a line that names the file, the number and the field.

    Args:
        path: a TOML file.
        known_models: slugs that `our_model` may name; empty checks nothing.
    """
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return None, [f"{path.name}: cannot be read: {error}"]
    try:
        table = PublishedTable.model_validate(content)
    except ValidationError as error:
        return None, [f"{path.name}: {_fault(item, content)}" for item in error.errors()]
    strangers = [
        f"{path.name}: number {place} ({number.model}): our_model {number.our_model!r} has no card"
        for place, number in enumerate(table.number, start=1)
        if number.our_model and known_models and number.our_model not in known_models
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OurNumber:
    """A mean of ours that published numbers may stand beside; None where a record does not say.

    Attributes:
        value: the mean in stored units, None when there is none.
        regions: all regions that were scored.
        split_sha256: digest of the split.
        metric_profile: name of the metric profile.
    """

    dataset: str
    protocol: str
    model: str
    region: str
    metric: str
    value: float | None
    regions: tuple[str, ...]
    split_sha256: str | None = None
    metric_profile: str | None = None
    empty_policy: str | None = None


def our_numbers(summaries: Iterable[Summary]) -> list[OurNumber]:
    """Means of ours as published numbers are graded against them; what differs between runs is unknown."""
    found: list[OurNumber] = []
    for item in summaries:
        runs = item.scores.runs
        models = {slug_of(run.record.get("model")) for run in runs}
        splits = {facts.split_digest(run) for run in runs}
        profiles = {facts.metric_profile(run).get("name") for run in runs}
        policies = {facts.empty_policy(run) for run in runs}
        profile = profiles.pop() if len(profiles) == 1 else None
        found.append(
            OurNumber(
                dataset=item.block.dataset,
                protocol=item.block.protocol,
                model=(models.pop() if len(models) == 1 else "") or item.model,
                region=item.region,
                metric=item.metric,
                value=item.mean,
                regions=item.block.regions,
                split_sha256=splits.pop() if len(splits) == 1 else None,
                metric_profile=None if profile is None else str(profile),
                empty_policy=policies.pop() if len(policies) == 1 else None,
            )
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """A published number beside ours.

    Attributes:
        source: id of the source.
        model: name of the model there.
        our_model: slug of the same model here, "" when there is none.
        dataset: slug of our dataset; `published_dataset` is that of the source.
        value: the published value in stored units.
        our_value: our mean of the same model, None without a run of it.
        difference: ours minus published.
        grade: A, B or C; what differs or is unknown stands in `reasons`.
        second_hand: nobody has read the number in the primary source.
    """

    source: str
    model: str
    our_model: str
    dataset: str
    protocol: str
    published_dataset: str
    region: str
    metric: str
    value: float
    sd: float | None
    n: int | None
    our_value: float | None
    difference: float | None
    grade: Grade
    reasons: tuple[str, ...]
    second_hand: bool
    read_from: str
    comment: str

    def as_json(self) -> dict[str, Any]:
        """The row as report.json has it."""
        return {name: getattr(self, name) for name in self.__slots__} | {"reasons": list(self.reasons)}


def family(dataset: str) -> str:
    """The collection of scans a slug belongs to, such as brats-glioma for brats2021 and brats2023-gli."""
    for pattern, name in FAMILIES.items():
        if re.fullmatch(pattern, dataset):
            return name
    return re.sub(r"[-_.]?\d[\w.]*$", "", dataset) or dataset


def grade_of(table: PublishedTable, number: Number, ours: OurNumber) -> tuple[Grade, tuple[str, ...]] | None:
    """How comparable a published number is with ours and why it is no better; None for another collection.

    A number that nobody read in its primary source is C at best.
    """
    protocol = table.protocol
    if family(number.dataset) != family(ours.dataset) or number.metric != ours.metric:
        return None
    if number.region != ours.region:
        return None
    reasons: list[str] = []
    if number.dataset != ours.dataset:
        reasons.append(f"dataset {number.dataset}")
    same_definition = _same_definition(protocol, number, ours, reasons)
    same_regions = bool(protocol.regions) and set(protocol.regions) - {"mean"} == set(ours.regions) - {"mean"}
    if not same_regions:
        reasons.append("regions differ" if protocol.regions else "regions unknown")
    same_split = bool(protocol.split_sha256) and protocol.split_sha256 == ours.split_sha256
    if not same_split:
        known = protocol.split_sha256 and ours.split_sha256
        reasons.append("split differs" if known else "split unknown")
    if not number.verified:
        reasons.append("second-hand")
    if number.dataset != ours.dataset or not same_definition or not number.verified:
        return "C", tuple(reasons)
    return ("A" if same_split and same_regions else "B"), tuple(reasons)


def _same_definition(
    protocol: PublishedProtocol, number: Number, ours: OurNumber, reasons: list[str]
) -> bool:
    """Whether the metric is known to be defined as ours is; adds what is not."""
    from segbench.metrics.registry import METRICS

    same = True
    for name, theirs, mine in (
        ("metric profile", protocol.metric_profile, ours.metric_profile),
        ("empty policy", protocol.empty_policy, ours.empty_policy),
    ):
        if not theirs or mine is None:
            reasons.append(f"{name} unknown")
            same = False
        elif theirs != mine:
            reasons.append(f"{name} {theirs}")
            same = False
    if METRICS[number.metric].unit == "mm" and protocol.spacing_known is not True:
        reasons.append("spacing unknown")
        same = False
    return same


def beside(tables: Iterable[PublishedTable], ours: Sequence[OurNumber]) -> tuple[PublishedRow, ...]:
    """Published numbers next to ours, by dataset, metric, region, grade, source and place in the source.

    A number whose model has a run here stands beside that run; any other number of the same collection,
    region and metric is listed once per dataset and protocol, without a value of ours.
    """
    rows: list[tuple[tuple[Any, ...], PublishedRow]] = []
    columns: dict[tuple[str, str, str, str], list[OurNumber]] = {}
    for item in ours:
        columns.setdefault((item.dataset, item.protocol, item.metric, item.region), []).append(item)
    for table in tables:
        for place, number in enumerate(table.number):
            if number.metric in COST_METRICS:
                continue
            for key, cells in sorted(columns.items()):
                same = [cell for cell in cells if number.our_model and cell.model == number.our_model]
                graded = grade_of(table, number, (same or cells)[0])
                if graded is not None:
                    row = _row(table, number, (same or cells)[0], graded, paired=bool(same))
                    rows.append(((*key, row.grade, table.source.id, place), row))
    return tuple(row for _, row in sorted(rows, key=lambda item: item[0]))


def _row(
    table: PublishedTable,
    number: Number,
    cell: OurNumber,
    graded: tuple[Grade, tuple[str, ...]],
    *,
    paired: bool,
) -> PublishedRow:
    value = cell.value if paired else None
    return PublishedRow(
        source=table.source.id,
        model=number.model,
        our_model=number.our_model,
        dataset=cell.dataset,
        protocol=cell.protocol,
        published_dataset=number.dataset,
        region=number.region,
        metric=number.metric,
        value=number.stored,
        sd=None if number.sd is None else number.sd / (100 if number.unit == "%" else 1),
        n=number.n,
        our_value=value,
        difference=None if value is None else value - number.stored,
        grade=graded[0],
        reasons=graded[1],
        second_hand=not number.verified,
        read_from=number.read_from,
        comment=number.comment,
    )


def published_costs(tables: Iterable[PublishedTable]) -> tuple[tuple[str, Number], ...]:
    """(source id, number) of every published parameter count, FLOP count, memory and latency."""
    return tuple(
        (table.source.id, number)
        for table in tables
        for number in table.number
        if number.metric in COST_METRICS
    )
