"""Conditions of a pipeline: a mean that must be reached, a loss that must be excluded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segbench.core.errors import SegbenchError
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column
from segbench.report.analysis.sentences import withheld
from segbench.stats.comparison import BELOW_FLOOR


class Gate(NamedTuple):
    """One condition of `--fail-under` or `--no-worse-than`.

    Attributes:
        name: the flag.
        passed: whether it held.
        message: what was asked and what was found.
    """

    name: str
    passed: bool
    message: str


def judge(
    fail_under: Mapping[str, float],
    no_worse_than: Mapping[str, float] | float | None,
    labels: Sequence[str],
    analysis: Analysis,
) -> tuple[Gate, ...]:
    """The gates of the rows of one side, in every deciding column of a metric; nothing found does not pass.

    Args:
        fail_under: by metric, what the mean of the side must reach.
        no_worse_than: by metric (a bare number is for the first that has a direction) how much worse than
            each other model the side may be.
        labels: the rows of the side.
        analysis: of all that is compared.

    Raises:
        SegbenchError: SB104 for a gate on a metric that is not compared or has no direction.
    """
    known = {metric.name: metric for metric in analysis.metrics}
    if no_worse_than is None or isinstance(no_worse_than, Mapping):
        margins = no_worse_than or {}
    else:
        directed = [name for name, metric in known.items() if metric.higher_is_better is not None]
        if not directed:
            raise SegbenchError("SB104", "--no-worse-than: no compared metric has a direction")
        margins = {directed[0]: float(no_worse_than)}
    gates: list[Gate] = []
    for flag, bounds, judged, lacking in (
        ("--fail-under", fail_under, _reached, "has no"),
        ("--no-worse-than", margins, _not_lost, "was compared with nothing in"),
    ):
        for name, bound in bounds.items():
            if name not in known:
                what, mend = f"a gate names the metric {name!r}, which is not compared", f"--metrics {name}"
                raise SegbenchError("SB104", what, expected=", ".join(known), mend=f"add it with {mend}")
            if known[name].higher_is_better is None:
                what = f"a gate on {name} is not valid: the metric has no better direction"
                raise SegbenchError("SB104", what)
            if not np.isfinite(bound):
                raise SegbenchError("SB104", f"the gate on {name} is not a number", found=bound)
            found = [
                Gate(flag, passed, f"{column.block.name}: {name} ({column.region_words}) of {label}{text}")
                for column in analysis.main_columns(known[name])
                for label in labels
                for passed, text in judged(analysis, column, label, bound)
            ]
            gates += found or [Gate(flag, False, f"{', '.join(labels)} {lacking} {name}")]
    return tuple(gates)


def _reached(analysis: Analysis, column: Column, label: str, bound: float) -> Iterator[tuple[bool, str]]:
    """Whether a mean reaches its bound."""
    if label not in column.means:
        return
    mean = column.means[label].value
    reached = mean is not None and (mean >= bound if column.metric.higher_is_better else mean <= bound)
    yield reached, f" is {'n/a' if mean is None else f'{mean:.6g}'}, asked for {bound:g} or better"


def _not_lost(analysis: Analysis, column: Column, label: str, margin: float) -> Iterator[tuple[bool, str]]:
    """Whether the one-sided bound, at 1 - alpha, of the loss to each other model lies within the margin.

    What cannot be tested does not pass.
    """
    higher = bool(column.metric.higher_is_better)
    for other in sorted(column.left_out.keys() - {label}):
        yield False, f" against {other}: not compared ({column.left_out[other]})"
    if label not in column.tables:
        yield False, f": not compared ({column.left_out.get(label, 'no value')})"
        return
    pairs = column.pairs(reference=label, confidence=1.0 - 2.0 * analysis.options.alpha)
    for pair in sorted(pairs, key=lambda pair: pair.a):
        # the difference is other less label: what the label lacks where higher is better
        largest = pair.high if higher else -pair.low
        tested = np.isfinite(largest) and (BELOW_FLOOR in pair.note or not withheld(pair))
        if tested:
            text = f"the largest loss not excluded is {max(largest, 0.0):.6g}, allowed {margin:g}"
        else:
            text = f"not tested ({pair.note or 'no interval'})"
        yield bool(tested and largest <= margin), f" against {pair.a}: {text}"
