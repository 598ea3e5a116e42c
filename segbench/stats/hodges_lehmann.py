"""The Hodges-Lehmann shift of paired differences with its signed-rank interval, for any number of cases."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import FloatArray, IntArray, open_unit, paired_differences
from segbench.stats.intervals import CONSTANT, Interval
from segbench.stats.laws import normal_quantile

NOT_REACHED = "confidence not reached"
FULL_LIMIT = 500  # above, bisection is faster too; from 4,000 on the full row would not fit small machines


def hodges_lehmann(x: ArrayLike, y: ArrayLike | None = None, *, confidence: float = 0.95) -> Interval:
    """The median of the Walsh averages (d_i + d_j)/2, i <= j, of the differences d = x - y, with interval.

    Zeros are **kept**: a case on which both models are equal pulls the estimate to zero. R's
    `wilcox.test(conf.int=TRUE)` drops them, so its estimate differs when there are zeros.
    With M = n(n+1)/2 sorted averages and q = floor(M/2 - z sqrt(n(n+1)(2n+1)/24)), at least 1, the
    interval is (w_q, w_(M+1-q)).

    Args:
        x: (n,) values, or the differences when `y` is None.
        y: (n,) values of the other model, same case order.
        confidence: nominal level.

    Raises:
        StatsError: NaN or inf, unequal lengths.

    **Source:** Hodges and Lehmann 1963; Hollander and Wolfe, section 3.2-3.3.
    """
    open_unit(confidence, "confidence")
    differences = np.sort(paired_differences(x, y))
    n = differences.size
    total = n * (n + 1) // 2
    z = normal_quantile((1 + confidence) / 2)
    wanted = int(np.floor(total / 2 - z * np.sqrt(n * (n + 1) * (2 * n + 1) / 24)))
    q = max(1, wanted)
    places = (q, (total + 1) // 2, total // 2 + 1, total + 1 - q)
    low, left, right, high = walsh_order_statistics(differences, places)
    note = NOT_REACHED if wanted < 1 else CONSTANT if differences[0] == differences[-1] else ""
    return Interval((left + right) / 2, low, high, confidence, "hodges_lehmann", n, note)


def walsh_order_statistics(ordered: FloatArray, places: tuple[int, ...]) -> list[float]:
    """The Walsh averages of `ordered` (ascending) at the given 1-based places in their sorted row."""
    n = ordered.size
    if n <= FULL_LIMIT:
        rows, columns = upper_triangle(n)
        sums = ordered[rows] + ordered[columns]
        sums.partition(sorted({place - 1 for place in places}))
        return [float(sums[place - 1]) / 2 for place in places]
    return [_select_sum(ordered, place) / 2 for place in places]


@lru_cache(maxsize=1)  # all pairs of a table have one number of cases
def upper_triangle(n: int) -> tuple[IntArray, IntArray]:
    """Rows and columns of the pairs i <= j among n."""
    return np.triu_indices(n)


def _select_sum(ordered: FloatArray, place: int) -> float:
    """The sum d_i + d_j, i <= j, at 1-based `place`, by bisection on counts.

    A step costs n binary searches. Once at most 4n sums lie between the bounds they are listed and the wanted
    one is picked; bounds that are neighbouring doubles mean that all remaining sums are equal.
    """
    index = np.arange(ordered.size)

    def ends(bound: float) -> IntArray:
        """Per i: one past the last j >= i with d_i + d_j <= bound (i itself when there is none)."""
        return np.maximum(np.searchsorted(ordered, bound - ordered, side="right"), index)

    low, high = 2 * ordered[0], 2 * ordered[-1]
    low = float(np.nextafter(low, -np.inf)) - abs(low) * 1e-15
    high = float(np.nextafter(high, np.inf)) + abs(high) * 1e-15
    start, stop = ends(low), np.full(ordered.size, ordered.size)
    while int((stop - start).sum()) > 4 * ordered.size:
        middle = low + (high - low) / 2
        if not low < middle < high:
            return high
        cut = ends(middle)
        if int((cut - index).sum()) >= place:
            high, stop = middle, cut
        else:
            low, start = middle, cut
    lengths = stop - start
    rows = np.repeat(index, lengths)
    offsets = np.arange(rows.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    sums = ordered[rows] + ordered[np.repeat(start, lengths) + offsets]
    wanted = place - 1 - int((start - index).sum())
    return float(np.partition(sums, wanted)[wanted])
