"""What a cell of `cases.csv` can hold: by its metric, the grid of its row, the policy of its run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from segbench.metrics.policies import FAILED, POLICIES
from segbench.metrics.registry import METRICS, value_range

FloatArray = npt.NDArray[np.float64]
NUMBERS = (
    "reference_voxels",
    "prediction_voxels",
    "reference_volume_ml",
    "prediction_volume_ml",
    "diagonal_mm",
)
"""Columns of sizes: at least 0, finite."""
_SLACK = 1e-9  # of a fraction, and of a length relative to its limit: rounding of 17 digits and of sums


def first_outside(
    columns: Mapping[str, FloatArray],
    status: Sequence[str],
    diagonal_mm: FloatArray,
    empty_policy: str | None,
) -> tuple[int, str, str] | None:
    """The first cell outside what its column can hold as row, column and why, or None.

    Args:
        columns: name to values; NaN is undefined and always allowed.
        status: of every row.
        diagonal_mm: of every row; NaN where unknown, without a limit.
        empty_policy: name of the policy that filled undefined values; None or unknown allows any policy's.
    """
    lengths = np.where(np.isnan(diagonal_mm), np.inf, diagonal_mm)
    filled = _fill_limits(status, lengths, empty_policy)
    measured = np.array([word == "ok" for word in status])
    for name, values in columns.items():
        low, high = (0.0, math.inf) if name in NUMBERS else value_range(name)
        info = METRICS.get(name)
        most = np.full(len(values), high)
        endless = np.zeros(len(values), dtype=bool)
        if info is not None and info.unit == "mm":
            least_penalty = float(info.worst) if isinstance(info.worst, float) else 0.0
            most = np.maximum(np.where(measured, lengths, filled), least_penalty)
            endless = ~measured & np.isinf(filled)
        bad = (values < low - _SLACK) | (values > most + _SLACK * np.maximum(1.0, np.abs(most)))
        if info is not None or name in NUMBERS:
            bad |= np.isinf(values) & ~endless
        if bad.any():
            row = int(np.argmax(bad))
            return row, name, f"is outside {_words(low, float(most[row]))}"
    return None


def _fill_limits(status: Sequence[str], lengths: FloatArray, empty_policy: str | None) -> FloatArray:
    """(rows,) the largest distance that a policy puts into a row of this status, inf where it puts inf."""
    policies = [empty_policy] if empty_policy in POLICIES else list(POLICIES)
    limits: dict[str, float] = {"ok": 0.0}
    for word in set(status) - {"ok"}:
        fills = [POLICIES[str(name)]["failed" if word in FAILED else word].distance for name in policies]
        limits[word] = max((value for value in fills if not math.isnan(value)), default=0.0)
    return np.maximum([limits[word] for word in status], lengths)


def _words(low: float, high: float) -> str:
    if math.isinf(low):
        return "the finite numbers"
    return f"{low:g} or more, finite" if math.isinf(high) else f"{low:g} to {high:.6g}"
