"""Conditions of a pipeline: a mean that must be reached, a loss that must be excluded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segbench.core.errors import SegbenchError
from segbench.report.compared import ComparedPair
from segbench.report.display import MetricDisplay
from segbench.report.rows import MEAN_REGION
from segbench.report.summary import Summary


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


def gate_margins(
    given: Mapping[str, float] | float | None, metrics: Sequence[MetricDisplay]
) -> dict[str, float]:
    """Margins of `--no-worse-than` by metric; a bare number is for the first metric that has a direction."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    first = next((metric.name for metric in metrics if metric.higher_is_better is not None), None)
    if first is None:
        raise SegbenchError("SB104", "--no-worse-than: no compared metric has a direction")
    return {first: float(given)}


def check_gates(gates: Mapping[str, float], metrics: Sequence[MetricDisplay]) -> None:
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


def _gated_region(regions: Iterable[str]) -> str:
    """The region a gate looks at: the mean where it was compared, else the only or last region."""
    shown = list(regions)
    return MEAN_REGION if MEAN_REGION in shown else shown[-1]


def floor_gates(bounds: Mapping[str, float], side: str, means: Sequence[Summary]) -> list[Gate]:
    """`--fail-under`: the mean of the first side must reach the bound on every dataset."""
    from segbench.metrics.registry import METRICS

    gates: list[Gate] = []
    for name, bound in bounds.items():
        mine = [item for item in means if item.model == side and item.metric == name]
        for block in {id(item.block): item.block for item in mine}.values():
            here = {item.region: item for item in mine if item.block is block}
            item = here[_gated_region(here)]
            higher = METRICS[name].direction == "higher"
            reached = item.mean is not None and (item.mean >= bound if higher else item.mean <= bound)
            shown = "n/a" if item.mean is None else f"{item.mean:.6g}"
            where = f"{block.name}: mean {name} ({item.region}) of {side}"
            text = f"{where} is {shown}, asked for {bound:g} or better"
            gates.append(Gate("--fail-under", reached, text))
        if not mine:
            gates.append(Gate("--fail-under", False, f"{side} has no {name}"))
    return gates


def loss_gates(
    margins: Mapping[str, float], side: str, pairs: Sequence[ComparedPair], metrics: Sequence[MetricDisplay]
) -> list[Gate]:
    """`--no-worse-than`: the interval of the first side against each other one must exclude a larger loss."""
    directions = {metric.name: bool(metric.higher_is_better) for metric in metrics}
    gates: list[Gate] = []
    for name, margin in margins.items():
        mine = [item for item in pairs if item.pair.metric == name and side in (item.pair.a, item.pair.b)]
        for block in {id(item.pair.block): item.pair.block for item in mine}.values():
            here = [item for item in mine if item.pair.block is block]
            region = _gated_region([item.pair.region for item in here])
            gates += [
                _loss_gate(item, side, margin, directions[name])
                for item in here
                if item.pair.region == region
            ]
        if not mine:
            gates.append(Gate("--no-worse-than", False, f"{side} was compared with nothing in {name}"))
    return gates


def _loss_gate(item: ComparedPair, side: str, margin: float, higher: bool) -> Gate:
    """One gate: the bound of the pair's difference on the side where `side` is worse."""
    pair = item.pair
    other = pair.b if pair.a == side else pair.a
    where = f"{pair.block.name}: {pair.metric} ({pair.region}) of {side} against {other}"
    if item.low is None or item.high is None:
        return Gate("--no-worse-than", False, f"{where}: no interval ({pair.note or 'not tested'})")
    # pair is a - b; the loss of `side` is what it lacks in the metric's good direction
    turned = (pair.a == side) == higher
    largest = -item.low if turned else item.high
    text = f"{where}: a loss up to {max(largest, 0.0):.6g} is not excluded, allowed {margin:g}"
    return Gate("--no-worse-than", bool(largest <= margin), text)
