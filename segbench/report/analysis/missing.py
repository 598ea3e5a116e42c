"""What stands in a table where a prediction is missing or broken: never anything that helps.

`fill` is pure: one series of one model in, the values that enter every mean out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from segbench.metrics.policies import FAILED, POLICIES, STATUSES, filled_value, may_be_undefined
from segbench.metrics.registry import METRICS

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
StatusArray = npt.NDArray[np.uint8]

STATUS_CODE: Mapping[str, int] = {name: index for index, name in enumerate(STATUSES)}
NOT_RUN = 255  # no run covers this case (another fold): not expected, not counted
FAILED_CODES = tuple(STATUS_CODE[name] for name in sorted(FAILED))
BOTH_EMPTY = STATUS_CODE["both_empty"]
MISSING = STATUS_CODE["missing"]
OK = STATUS_CODE["ok"]


def failed(status: StatusArray) -> BoolArray:
    """Where there is no usable prediction."""
    return np.isin(status, FAILED_CODES)


def worst_values(metric: str, diagonal: FloatArray, empty_policy: str | None) -> FloatArray | None:
    """The worst value of a metric per case, NaN where it needs a diagonal that is not known.

    Args:
        metric: column name.
        diagonal: (cases,) physical diagonals in mm, NaN where unknown.
        empty_policy: of the metric profile, None when unknown. Under `inf`, `brats` and `paper` a failure
            costs at least what their own tables say, so that deleting a stored failure cannot help.

    Returns:
        (cases,), or None for metrics without a worst value (descriptive and unknown ones).
    """
    info = METRICS.get(metric)
    if info is None or info.worst is None:
        return None
    policy = empty_policy if empty_policy is not None and empty_policy in POLICIES else "worst"
    return np.array(
        [filled_value(metric, "missing", policy=policy, diagonal_mm=each) for each in diagonal.tolist()]
    )


def fill(
    stored: FloatArray,
    status: StatusArray,
    diagonal: FloatArray,
    metrics: Sequence[str],
    *,
    empty_policy: str | None,
) -> tuple[FloatArray, BoolArray]:
    """Values of one series with every failure at its worst.

    Failed rows take the worst value, a stored one that is as bad or worse stays. Rows with one side empty,
    and rows that should hold a measurement, keep a finite stored value and take the worst in place of
    anything else. `both_empty` keeps what is stored. A metric that a run did not measure at all stays
    undefined.

    Args:
        stored: (cases, regions, metrics) as read, NaN where empty.
        status: (cases, regions) codes, `NOT_RUN` where no run covers the case.
        diagonal: (cases,) mm, NaN where unknown.
        metrics: names along the last axis.
        empty_policy: see `worst_values`.

    Returns:
        values, NaN where undefined, not measured, not run or not known; and where a penalty is due and no
        diagonal is known. Both (cases, regions, metrics).
    """
    values = np.full(stored.shape, np.nan)
    unknown = np.zeros(stored.shape, dtype=bool)
    covered = status != NOT_RUN
    broken = failed(status) & covered
    empty = (status == BOTH_EMPTY) & covered
    other = covered & ~broken & ~empty
    for index, metric in enumerate(metrics):
        column = stored[:, :, index]
        if np.isnan(column).all() and bool(np.any(status == OK)):
            continue  # the run did not measure it, though a row could have held a value
        out = np.where(other | empty, column, np.nan)
        worst = worst_values(metric, diagonal, empty_policy)
        if worst is not None:
            higher = METRICS[metric].direction == "higher"
            limit = np.broadcast_to(worst[:, None], column.shape)
            needs = other & ~np.isfinite(column)
            if may_be_undefined(metric, empty_policy):
                needs &= ~np.isnan(column)
            beyond = column <= limit if higher else (column >= limit) | np.isposinf(column)
            keep = broken & ~np.isnan(column) & beyond
            out = np.where(needs | (broken & ~keep), limit, out)
            out = np.where(keep, column, out)
            unknown[:, :, index] = (needs | broken) & np.isnan(out)
        values[:, :, index] = out
    return values, unknown
