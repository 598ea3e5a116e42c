"""Published numbers beside ours: graded, never mixed in.

A number is worth what its source says about how it came about. Grade **A**: same dataset, split digest,
regions, metric profile and empty policy. **B**: same dataset and region, metric definition known to be
equal, split different or unknown. **C**: same family of datasets, anything else different or unknown. None
takes part in a test, a rank or a mark; each gets a difference and no verdict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from segbench.core.errors import SegbenchError
from segbench.core.text import count
from segbench.metrics.registry import METRICS
from segbench.published.claims import Side, chance_words, judge, side_of
from segbench.published.tables import Number, PublishedTable, load_published
from segbench.records import facts
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import Block, Scores
from segbench.report.analysis.columns import Column, Mean

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


class PublishedRow(NamedTuple):
    """A published number beside the mean of the same model here.

    Attributes:
        table: where it stands.
        number: the number there.
        column: where ours stands.
        label: of ours.
        grade: A, B or C; what differs or is unknown stands in `reasons`.
        order_wrong: low, middle and high chance that chance alone made the order of the two; None where too
            little is known of the published one.
    """

    table: PublishedTable
    number: Number
    column: Column
    label: str
    grade: Grade
    reasons: tuple[str, ...]
    order_wrong: tuple[float, float, float] | None

    @property
    def our_value(self) -> float:
        """Our mean in stored units."""
        return self.column.means[self.label].value or 0.0

    @property
    def difference(self) -> float:
        """Ours minus published, stored units."""
        return self.our_value - self.number.stored

    def as_json(self) -> dict[str, Any]:
        """The row as report.json has it; `published_dataset` is the name that the source gives."""
        number, column = self.number, self.column
        return {
            "source": self.table.source.id,
            "published_dataset": number.dataset,
            "value": number.stored,
            "sd": None if number.sd is None else number.sd / (100 if number.unit == "%" else 1),
            "second_hand": not number.verified,
            **{name: getattr(number, name) for name in ("model", "our_model", "n", "read_from", "comment")},
            **{"block": column.block.name, "dataset": column.block.dataset},
            **{"region": column.region, "metric": column.metric.name},
            **{name: getattr(self, name) for name in ("our_value", "difference", "grade")},
            "reasons": list(self.reasons),
            "order_wrong": None if self.order_wrong is None else list(self.order_wrong),
        }


def published_beside(analysis: Analysis) -> list[PublishedRow]:
    """Published numbers of the models of an analysis, each beside our mean of the same region and metric.

    They stand by dataset, metric, region, grade, source and place in the source; none where they were not
    asked for.

    Raises:
        SegbenchError: SB703 with every fault of every file.
    """
    options, rows = analysis.options, list[tuple[tuple[Any, ...], PublishedRow]]()
    for table in load_published(options.published_root) if options.published else ():
        for place, number in enumerate(table.number):
            for column in analysis.columns.values():
                if (number.metric, number.region) != (column.metric.name, column.region):
                    continue
                for scores in column.block.scores:
                    mean = column.means.get(scores.label)
                    if number.our_model != scores.entry.model or mean is None or mean.value is None:
                        continue
                    graded = grade_of(table, number, scores, column.block)
                    if graded is not None:
                        chance = _order_wrong(table, number, mean, column, graded[0])
                        row = PublishedRow(table, number, column, scores.label, *graded, chance)
                        order = (column.block.name, number.metric, number.region, row.grade)
                        rows.append(((column.block.dataset, *order, table.source.id, place), row))
                        break
    return [row for _, row in sorted(rows, key=lambda item: item[0])]


def family(dataset: str) -> str:
    """The collection of images a slug belongs to, such as brats-glioma for brats2021 and brats2023-gli."""
    for pattern, name in FAMILIES.items():
        if re.fullmatch(pattern, dataset):
            return name
    return re.sub(r"[-_.]?\d[\w.]*$", "", dataset) or dataset


def grade_of(
    table: PublishedTable, number: Number, scores: Scores, block: Block
) -> tuple[Grade, tuple[str, ...]] | None:
    """How comparable a published number is with ours and why it is no better; None for another collection.

    What differs between our runs is unknown. A number that nobody read in its primary source is C at best.
    """
    if family(number.dataset) != family(block.dataset):
        return None
    protocol, records = table.protocol, [run.record for run in scores.entry.runs]
    split, profile, policy = (
        next(iter(values)) if len(values) == 1 else None
        for values in (
            {facts.split_digest(record) for record in records},
            {facts.text(facts.metric_profile(record), "name") or None for record in records},
            {facts.empty_policy(record) for record in records},
        )
    )
    definition: list[str] = []
    for name, theirs, mine in (
        ("metric profile", protocol.metric_profile, profile),
        ("empty policy", protocol.empty_policy, policy),
    ):
        if not theirs or mine is None:
            definition.append(f"{name} unknown")
        elif theirs != mine:
            definition.append(f"{name} {theirs}")
    if METRICS[number.metric].unit == "mm" and protocol.spacing_known is not True:
        definition.append("spacing unknown")
    same_regions = bool(protocol.regions) and set(protocol.regions) - {"mean"} == set(block.regions)
    same_split = bool(protocol.split_sha256) and protocol.split_sha256 == split
    reasons = [f"dataset {number.dataset}"] if number.dataset != block.dataset else []
    reasons += definition
    if not same_regions:
        reasons.append("regions differ" if protocol.regions else "regions unknown")
    if not same_split:
        reasons.append("split differs" if protocol.split_sha256 and split else "split unknown")
    if not number.verified:
        reasons.append("second-hand")
    if number.dataset != block.dataset or definition or not number.verified:
        return "C", tuple(reasons)
    return ("A" if same_split and same_regions else "B"), tuple(reasons)


def _order_wrong(
    table: PublishedTable, number: Number, mean: Mean, column: Column, grade: Grade
) -> tuple[float, float, float] | None:
    """The band of a claim about ours and theirs, of the same cases only with grade A."""
    theirs = side_of(table, number)
    if theirs.n is None or mean.value is None or not math.isfinite(mean.value):
        return None
    ours = Side("ours", mean.value, mean.sd_units, mean.n, len(mean.per_seed), mean.sd_seeds)
    try:
        claim = judge(ours, theirs, number.metric, dataset=column.block.dataset, same_cases=grade == "A")
    except SegbenchError:
        return None
    return claim.low, claim.middle, claim.high


def beside_sentence(row: PublishedRow) -> str:
    """A published number and ours as one line, what each rests on, the grade and why it is no better."""
    column, metric, mean = row.column, row.column.metric, row.column.means[row.label]
    rests, n = f"{count(len(mean.per_seed), 'seed')}, n {mean.n}", side_of(row.table, row.number).n
    value, ours, less = map(column.number, (row.number.stored, row.our_value, row.difference))
    chance = ""
    if row.order_wrong is not None:
        low, _, high = map(chance_words, row.order_wrong)
        chance = f"; order wrong by chance alone with {low} to {high} %"
    return (
        f"{column.block.name}, {metric.head}, {column.region}: {row.number.model} {value} "
        f"({row.table.source.id}, n {n or 'unknown'}), ours {ours} ({rests}), difference {less} "
        f"{metric.difference_unit}".rstrip()
        + f"{chance}; grade {row.grade}: {'; '.join(row.reasons) or GRADES[row.grade]}"
    )
