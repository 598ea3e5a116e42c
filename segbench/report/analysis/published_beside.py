"""Published numbers beside ours: graded, never mixed in.

A number is worth what its source says about how it came about. Grade **A**: same dataset, split digest,
regions, metric profile and empty policy. **B**: same dataset and region, metric definition known to be
equal, split different or unknown. **C**: same family of datasets, anything else different or unknown. None
takes part in a test, a rank or a mark; each gets a difference and no verdict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from segbench.core.errors import SegbenchError
from segbench.metrics.registry import METRICS
from segbench.published.claims import Side, chance_words, judge, side_of
from segbench.published.tables import (
    Number,
    PublishedProtocol,
    PublishedTable,
    load_published,
)
from segbench.records import facts
from segbench.records.schema import RunRecord
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.numbers import format_number

Grade = Literal["A", "B", "C"]
GRADES: Mapping[Grade, str] = {
    "A": "same split, regions and metric",
    "B": "same metric",
    "C": "anything else differs or is unknown",
}
"""What a grade means, in words."""

# Slugs that name different releases or copies of one collection of images
FAMILIES: Mapping[str, str] = {
    r"brats(20\d\d)?(-gli)?|msd-brain-tumour": "brats-glioma",
    r"btcv|synapse": "btcv",
    r"lits(17)?|msd-liver": "lits",
    r"abdomenatlas.*|touchstone-jhh": "abdomenatlas",
}


def published_beside(analysis: Analysis) -> tuple[PublishedRow, ...]:
    """Published numbers beside the means of an analysis; empty where they were not asked for.

    Raises:
        SegbenchError: SB703 with every fault of every file.
    """
    if not analysis.options.published:
        return ()
    return beside(load_published(analysis.options.published_root), our_numbers(analysis))


class OurNumber(NamedTuple):
    """A mean of ours that published numbers may stand beside; None where a record does not say.

    Attributes:
        block: name of its block.
        value: the mean in stored units, None when there is none.
        regions: all regions that were scored.
        split_sha256: digest of the split.
        metric_profile: name of the metric profile.
        side: the mean with its spreads, as a claim is judged; None when there is no mean.
    """

    block: str
    dataset: str
    model: str
    region: str
    metric: str
    value: float | None
    regions: tuple[str, ...]
    split_sha256: str | None = None
    metric_profile: str | None = None
    empty_policy: str | None = None
    side: Side | None = None


def our_numbers(analysis: Analysis) -> list[OurNumber]:
    """Means of ours as published numbers are graded against them; what differs between runs is unknown."""
    found: list[OurNumber] = []
    for (_, region, metric), column in analysis.columns.items():
        block = column.block
        for scores in (scores for scores in block.scores if scores.label in column.means):
            mean, records = column.means[scores.label], [run.record for run in scores.entry.runs]
            read = (facts.split_digest, _profile_name, facts.empty_policy)
            split, profile, policy = (_same({fact(record) for record in records}) for fact in read)
            side = None
            if mean.value is not None and math.isfinite(mean.value):
                side = Side(
                    scores.label, mean.value, mean.sd_units, mean.n, len(mean.per_seed), mean.sd_seeds
                )
            place = (block.name, block.dataset, scores.entry.model, region, metric, mean.value)
            found.append(OurNumber(*place, tuple(block.regions), split, profile, policy, side))
    return found


def _same(values: set[str | None]) -> str | None:
    """The one value of all; None where they differ or say nothing."""
    return (values.pop() or None) if len(values) == 1 else None


def _profile_name(record: RunRecord) -> str | None:
    return facts.text(facts.metric_profile(record), "name")


class PublishedRow(NamedTuple):
    """A published number beside ours.

    Attributes:
        table: where it stands.
        number: the number there.
        ours: the mean of ours it stands beside.
        paired: whether that is the same model's; else only the column is shared.
        grade: A, B or C; what differs or is unknown stands in `reasons`.
        order_wrong: low, middle and high chance that chance alone made the order of the two; None without a
            mean of ours, or where too little is known of the published one.
    """

    table: PublishedTable
    number: Number
    ours: OurNumber
    paired: bool
    grade: Grade
    reasons: tuple[str, ...]
    order_wrong: tuple[float, float, float] | None = None

    @property
    def our_value(self) -> float | None:
        """Our mean of the same model in stored units, None without a run of it."""
        return self.ours.value if self.paired else None

    @property
    def difference(self) -> float | None:
        """Ours minus published, stored units."""
        return None if self.our_value is None else self.our_value - self.number.stored

    def as_json(self) -> dict[str, Any]:
        """The row as report.json has it; `published_dataset` is the name that the source gives."""
        number, ours = self.number, self.ours
        return {
            "source": self.table.source.id,
            "published_dataset": number.dataset,
            "value": number.stored,
            "sd": None if number.sd is None else number.sd / (100 if number.unit == "%" else 1),
            "second_hand": not number.verified,
            **{name: getattr(number, name) for name in ("model", "our_model", "n", "read_from", "comment")},
            **{name: getattr(ours, name) for name in ("block", "dataset", "region", "metric")},
            **{name: getattr(self, name) for name in ("our_value", "difference", "grade")},
            "reasons": list(self.reasons),
            "order_wrong": None if self.order_wrong is None else list(self.order_wrong),
        }


def family(dataset: str) -> str:
    """The collection of images a slug belongs to, such as brats-glioma for brats2021 and brats2023-gli."""
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
    definition = list(_other_definition(protocol, number, ours))
    same_regions = bool(protocol.regions) and set(protocol.regions) - {"mean"} == set(ours.regions) - {"mean"}
    same_split = bool(protocol.split_sha256) and protocol.split_sha256 == ours.split_sha256
    reasons = [f"dataset {number.dataset}"] if number.dataset != ours.dataset else []
    reasons += definition
    if not same_regions:
        reasons.append("regions differ" if protocol.regions else "regions unknown")
    if not same_split:
        known = protocol.split_sha256 and ours.split_sha256
        reasons.append("split differs" if known else "split unknown")
    if not number.verified:
        reasons.append("second-hand")
    if number.dataset != ours.dataset or definition or not number.verified:
        return "C", tuple(reasons)
    return ("A" if same_split and same_regions else "B"), tuple(reasons)


def _other_definition(protocol: PublishedProtocol, number: Number, ours: OurNumber) -> Iterator[str]:
    """Why the metric is not known to be defined as ours is."""
    for name, theirs, mine in (
        ("metric profile", protocol.metric_profile, ours.metric_profile),
        ("empty policy", protocol.empty_policy, ours.empty_policy),
    ):
        if not theirs or mine is None:
            yield f"{name} unknown"
        elif theirs != mine:
            yield f"{name} {theirs}"
    if METRICS[number.metric].unit == "mm" and protocol.spacing_known is not True:
        yield "spacing unknown"


def beside(tables: Iterable[PublishedTable], ours: Sequence[OurNumber]) -> tuple[PublishedRow, ...]:
    """Published numbers next to ours, by dataset, metric, region, grade, source and place in the source.

    A number whose model has a run here stands beside that run; any other number of the same collection,
    region and metric is listed once in each block, without a value of ours.
    """
    rows: list[tuple[tuple[Any, ...], PublishedRow]] = []
    columns: dict[tuple[str, str, str, str], list[OurNumber]] = {}
    for item in ours:
        columns.setdefault((item.dataset, item.block, item.metric, item.region), []).append(item)
    for table in tables:
        for place, number in enumerate(table.number):
            for key, cells in sorted(columns.items()):
                same = [cell for cell in cells if number.our_model and cell.model == number.our_model]
                cell, paired = (same or cells)[0], bool(same)
                graded = grade_of(table, number, cell)
                if graded is not None:
                    chance = _order_wrong(table, number, cell, graded[0]) if paired else None
                    row = PublishedRow(table, number, cell, paired, *graded, chance)
                    rows.append(((*key, row.grade, table.source.id, place), row))
    return tuple(row for _, row in sorted(rows, key=lambda item: item[0]))


def _order_wrong(
    table: PublishedTable, number: Number, cell: OurNumber, grade: Grade
) -> tuple[float, float, float] | None:
    """The band of a claim about ours and theirs; only with grade A on the same cases."""
    theirs = side_of(table, number)
    if cell.side is None or theirs.n is None:
        return None
    try:
        claim = judge(cell.side, theirs, number.metric, dataset=cell.dataset, same_cases=grade == "A")
    except SegbenchError:
        return None
    return claim.low, claim.middle, claim.high


def beside_sentence(analysis: Analysis, row: PublishedRow) -> str:
    """A published number and ours as one line, with the grade and why it is no better."""
    metric = next(item for item in analysis.metrics if item.name == row.ours.metric)
    value, ours, less = (
        "n/a" if number is None else format_number(number, scale=metric.scale, digits=analysis.options.digits)
        for number in (row.number.stored, row.our_value, row.difference)
    )
    why = "; ".join(row.reasons) or GRADES[row.grade]
    chance = ""
    if row.order_wrong is not None:
        low, _, high = map(chance_words, row.order_wrong)
        chance = f"; order wrong by chance alone with {low} to {high} %"
    return (
        f"{row.ours.block}, {metric.head}, {row.ours.region}: {row.number.model} {value} "
        f"({row.table.source.id}), ours {ours}, difference {less} {metric.difference_unit}".rstrip()
        + f"{chance}; grade {row.grade}: {why}"
    )
