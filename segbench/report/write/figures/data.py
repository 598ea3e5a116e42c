"""What several figures need from the analysis: the column shown, values in printed units, rows, labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segbench.report.analysis import Analysis, Key
from segbench.report.block import Block, ModelScores
from segbench.report.display import MetricDisplay
from segbench.report.figures.labels import fitted
from segbench.report.figures.sketch import NoData
from segbench.report.figures.style import Look, looks
from segbench.report.missing import FloatArray


@dataclass(frozen=True, slots=True)
class View:
    """One block as a figure sees it.

    Attributes:
        analysis: everything.
        number: of the block.
        block: the block.
        metric: metric shown.
        regions: regions shown.
        models: in row order, floors last.
        looks: colour and marker by model.
    """

    analysis: Analysis
    number: int
    block: Block
    metric: MetricDisplay
    regions: tuple[str, ...]
    models: tuple[str, ...]
    looks: dict[str, Look]

    def scores(self, model: str) -> ModelScores:
        """Arrays of a model."""
        return next(item for item in self.block.models if item.model == model)

    def values(self, model: str, region: str) -> FloatArray:
        """(cases,) seed-averaged values in printed units; NaN where undefined or infinite."""
        values = self.block.per_case(self.scores(model), region, self.metric.name) * self.metric.scale
        return np.where(np.isfinite(values), values, np.nan)

    def known(self, model: str, region: str) -> FloatArray:
        """Finite values of a model in a region, printed units."""
        values = self.values(model, region)
        return values[~np.isnan(values)]

    def label(self, model: str) -> str:
        """Display name."""
        return self.analysis.labels.get(model, model)

    def names(self, *, length: int = 28, lines: int = 2) -> dict[str, str]:
        """Text of every model where there is little room, all different."""
        return fitted({model: self.label(model) for model in self.models}, length=length, lines=lines)

    def key(self, region: str) -> Key:
        """Key of a column."""
        return (self.number, region, self.metric.name)

    @property
    def single(self) -> frozenset[str]:
        """Models known from one training run only."""
        return frozenset(item.model for item in self.block.ranked if len(item.seeds) < 2)


def view(analysis: Analysis, number: int, *, floors: bool = True) -> View:
    """The block with its first metric.

    Raises:
        NoData: the block has none of the asked metrics, or no model.
    """
    block = analysis.blocks[number]
    metric = next((item for item in analysis.metrics if item.name in block.metrics), None)
    if metric is None:
        raise NoData("none of the metrics asked for was measured")
    chosen = block.models if floors else block.ranked
    models = tuple(analysis.ordered([item.model for item in chosen]))
    if not models:
        raise NoData("no model")
    every = sorted({item.model for one in analysis.blocks for item in one.models})
    return View(analysis, number, block, metric, analysis.regions(number), models, looks(every))


def complete_values(shown: View, region: str) -> tuple[list[str], FloatArray]:
    """Models with values in a region, and the (cases, models) table of cases complete for all of them."""
    models = [model for model in shown.models if shown.known(model, region).size]
    if not models:
        return [], np.empty((0, 0))
    table = np.stack([shown.values(model, region) for model in models], axis=1)
    return models, table[~np.any(np.isnan(table), axis=1)]


def limits(metric: MetricDisplay, low: float, high: float) -> tuple[float, float]:
    """Axis limits with a margin, never beyond what a fraction can be."""
    pad = 0.04 * (high - low) if high > low else max(abs(high), 1.0) * 0.05
    low, high = low - pad, high + pad
    if metric.unit == "%":
        return max(low, -1.0) if metric.higher_is_better is not None else low, min(high, 101.0)
    return (max(low, -0.02 * high), high) if metric.unit == "mm" else (low, high)
