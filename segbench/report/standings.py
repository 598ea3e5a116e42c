"""Where models stand in a column: ranks, marks and daggers, and why they may be withheld."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segbench.metrics.registry import METRICS
from segbench.report import guards
from segbench.report.block import Block
from segbench.report.display import MetricDisplay
from segbench.report.pairwise import Pair
from segbench.report.recipes import recipe_differs
from segbench.report.spread import (
    Discrimination,
    coverage_differs,
)
from segbench.report.summary import Summary
from segbench.report.table import Mark, column_marks


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a model stands in a column; empty where marks are withheld."""

    rank: int | None = None
    mark: Mark = ""
    not_different_from_best: bool = False


def withheld_reason(block: Block, metric: MetricDisplay, discrimination: Discrimination) -> str:
    """Why a column has no marks, or an empty text."""
    if metric.higher_is_better is None:
        return "direction unknown" if metric.name not in METRICS else "descriptive"
    if recipe_differs(block):
        return "recipes differ"
    if coverage_differs(block):
        return "test cases differ"
    return "cannot rank methods" if discrimination.cannot_rank else ""


def column_standings(
    summaries: Sequence[Summary], pairs: Sequence[Pair], metric: MetricDisplay, withheld: str, alpha: float
) -> dict[str, Standing]:
    """Ranks, marks and daggers of one column; models whose runs leak take no part, floors never do."""
    eligible = {
        item.model: round(item.mean, 12)
        for item in summaries
        if item.mean is not None and not item.scores.floor and not guards.leaks(item.scores)
    }
    rankable = metric.higher_is_better is not None and withheld not in {"recipes differ", "test cases differ"}
    if not rankable or len(eligible) < 2:
        return {item.model: Standing() for item in summaries}
    names = list(eligible)
    sign = 1 if metric.higher_is_better else -1
    ranks = {
        name: 1 + sum(sign * other > sign * eligible[name] for other in eligible.values()) for name in names
    }
    marks: list[Mark] = ["" for _ in names]
    if not withheld:
        marks = column_marks(list(eligible.values()), higher_is_better=metric.higher_is_better)
    best = [name for name, mark in zip(names, marks, strict=True) if mark == "best"]
    beaten = {
        name: all(_decided(pairs, name, rival) < alpha for rival in best)
        for name in names
        if name not in best
    }
    found: dict[str, Standing] = {item.model: Standing() for item in summaries}
    for name, mark in zip(names, marks, strict=True):
        dagger = bool(best) and name in beaten and not beaten[name] and _tested(pairs, name, best)
        found[name] = Standing(ranks[name], mark, dagger)
    return found


def _decided(pairs: Sequence[Pair], a: str, b: str) -> float:
    """The deciding adjusted p of two models; 0 where they were not tested."""
    for pair in pairs:
        if {pair.a, pair.b} == {a, b}:
            return 0.0 if pair.p_decision is None else pair.p_decision
    return 0.0


def _tested(pairs: Sequence[Pair], name: str, best: Sequence[str]) -> bool:
    return any(
        pair.p_decision is not None and {pair.a, pair.b} in [{name, b} for b in best] for pair in pairs
    )
