"""Scores of several models as the comparisons take them: named, checked, one column a patient."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import FloatArray, finite_array, noise_floor
from segbench.stats.errors import StatsError
from segbench.stats.resampling import group_index

Bounds = tuple[float, float]


def checked_scores(
    scores: Mapping[str, ArrayLike], *, patients: ArrayLike | None = None, fewest: int = 2
) -> dict[str, FloatArray]:
    """(seeds, patients) of each model, in the order given; the images of a patient are averaged.

    The seeds of a model have no order: they are sorted, so that no result depends on their numbering, not
    even in its last bit.

    Args:
        scores: per model (seeds, cases), the same cases in the same order.
        patients: (cases,) labels; None makes each case its own patient.
        fewest: number of models that the caller needs.

    Raises:
        StatsError: too few models, unequal numbers of cases, NaN or inf, labels that do not fit.
    """
    if len(scores) < fewest:
        raise StatsError(f"scores: expected at least {fewest} models, found {len(scores)}")
    checked = {name: finite_array(values, f"scores of {name}", ndim=2) for name, values in scores.items()}
    cases = {name: values.shape[1] for name, values in checked.items()}
    if len(set(cases.values())) > 1:
        found = ", ".join(f"{name} {number}" for name, number in cases.items())
        raise StatsError(f"scores: the models share their cases, found different numbers of cases: {found}")
    groups = group_index(patients, next(iter(cases.values())))
    return {name: _sorted_rows(by_patient(values, groups)) for name, values in checked.items()}


def by_patient(values: FloatArray, groups: np.ndarray | None) -> FloatArray:
    """(..., patients) means of `values` (..., cases) over the images of each patient."""
    if groups is None:
        return values
    member = np.eye(int(groups.max()) + 1)[groups]  # (cases, patients)
    return (values @ member) / member.sum(axis=0)


def _sorted_rows(values: FloatArray) -> FloatArray:
    """The rows in lexicographic order."""
    return values[sorted(range(values.shape[0]), key=values.tolist().__getitem__)]


def checked_bounds(bounds: Bounds | None, values: Sequence[FloatArray]) -> Bounds:
    """The lowest and the highest value of the metric; unbounded for None.

    Raises:
        StatsError: no range, or a value outside it.
    """
    if bounds is None:
        return -np.inf, np.inf
    low, high = sorted(float(bound) for bound in bounds)
    if not low < high:
        raise StatsError(f"bounds: expected the lowest and the highest value of the metric, found {bounds!r}")
    slack = noise_floor(*values)
    for array in values:
        outside = array[(array < low - slack) | (array > high + slack)]
        if outside.size:
            raise StatsError(f"bounds: the metric ends at {low:g} and {high:g}, found {float(outside[0])!r}")
    return low, high
