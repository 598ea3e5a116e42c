"""Conditions of a pipeline: a mean that must be reached, a loss that must be excluded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from segbench.core.errors import SegbenchError
from segbench.metrics.summary import MEAN_REGION
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column, bounds_of, family_of
from segbench.report.analysis.metric import Metric


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of `--fail-under` or `--no-worse-than`.

    Attributes:
        name: the flag.
        passed: whether it held.
        message: what was asked and what was found.
    """

    name: str
    passed: bool
    message: str

    def as_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        return asdict(self)


def gate_margins(given: Mapping[str, float] | float | None, metrics: Sequence[Metric]) -> dict[str, float]:
    """Margins of `--no-worse-than` by metric; a bare number is for the first metric that has a direction."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    first = next((metric.name for metric in metrics if metric.higher_is_better is not None), None)
    if first is None:
        raise SegbenchError("SB104", "--no-worse-than: no compared metric has a direction")
    return {first: float(given)}


def check_gates(gates: Mapping[str, float], metrics: Sequence[Metric]) -> None:
    """SB104 for a gate on a metric that is not compared or has no direction."""
    known = {metric.name: metric for metric in metrics}
    for name in gates:
        if name not in known:
            raise SegbenchError(
                "SB104",
                f"a gate names the metric {name!r}, which is not compared",
                expected=", ".join(known),
                mend=f"add it with --metrics {name}",
            )
        if known[name].higher_is_better is None:
            raise SegbenchError("SB104", f"a gate on {name} cannot be: it has no better direction")
        if not np.isfinite(gates[name]):
            raise SegbenchError("SB104", f"the gate on {name} is not a number", found=gates[name])


def mean_gates(bounds: Mapping[str, float], labels: Sequence[str], analysis: Analysis) -> list[Gate]:
    """`--fail-under`: the mean of the first side must reach the bound on every dataset."""
    gates: list[Gate] = []
    for name, bound in bounds.items():
        found = [
            (column, label)
            for column in _deciding(analysis, name)
            for label in labels
            if label in column.means
        ]
        for column, label in found:
            mean = column.means[label].value
            higher = bool(column.metric.higher_is_better)
            reached = mean is not None and (mean >= bound if higher else mean <= bound)
            shown = "n/a" if mean is None else f"{mean:.6g}"
            text = f"{_where(analysis, column)} of {label} is {shown}, asked for {bound:g} or better"
            gates.append(Gate("--fail-under", reached, text))
        if not found:
            gates.append(Gate("--fail-under", False, f"{', '.join(labels)} has no {name}"))
    return gates


def loss_gates(margins: Mapping[str, float], labels: Sequence[str], analysis: Analysis) -> list[Gate]:
    """`--no-worse-than`: the one-sided bound of the loss of the first side to each other one, at 1 - alpha,
    must lie within the margin. What cannot be tested does not pass.
    """
    gates: list[Gate] = []
    for name, margin in margins.items():
        found = [
            gate
            for column in _deciding(analysis, name)
            for label in labels
            for gate in _loss_gates(analysis, column, label, margin)
        ]
        gates += found
        if not found:
            text = f"{', '.join(labels)} was compared with nothing in {name}"
            gates.append(Gate("--no-worse-than", False, text))
    return gates


def _loss_gates(analysis: Analysis, column: Column, label: str, margin: float) -> list[Gate]:
    """The gates of one model in one column, one for each model that it is compared with."""
    from segbench.stats import compare_models

    block, metric, options = analysis.blocks[column.block], column.metric, analysis.options
    tables, left_out = family_of(block, column.region, metric, column.means, options)
    where = f"{_where(analysis, column)} of {label}"
    gates = [
        Gate("--no-worse-than", False, f"{where} against {other}: not compared ({left_out[other]})")
        for other in sorted(left_out)
        if other != label
    ]
    if label not in tables:
        reason = left_out.get(label, "no value")
        return [*gates, Gate("--no-worse-than", False, f"{where}: not compared ({reason})")]
    if len(tables) < 2:
        return gates
    higher = bool(metric.higher_is_better)
    pairs = compare_models(
        tables,
        higher_is_better=higher,
        alpha=options.alpha,
        confidence=1.0 - 2.0 * options.alpha,
        reference=label,
        bounds=bounds_of(metric, block, tables.values()),
    )
    for pair in pairs:  # the difference is other less label: what the label lacks where higher is better
        largest = pair.high if higher else -pair.low
        here = f"{where} against {pair.a}"
        if not np.isfinite(largest):
            gates.append(Gate("--no-worse-than", False, f"{here}: no interval ({pair.note or 'not tested'})"))
            continue
        text = f"{here}: the largest loss not excluded is {max(largest, 0.0):.6g}, allowed {margin:g}"
        gates.append(Gate("--no-worse-than", bool(largest <= margin), text))
    return gates


def _deciding(analysis: Analysis, name: str) -> list[Column]:
    metric = next(item for item in analysis.metrics if item.name == name)
    return analysis.main_columns(metric)


def _where(analysis: Analysis, column: Column) -> str:
    region = "mean over regions" if column.region == MEAN_REGION else column.region
    return f"{analysis.blocks[column.block].name}: {column.metric.name} ({region})"
