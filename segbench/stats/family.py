"""The tests of all pairs of a family, with seeds and patients as random, for any number of tables at once.

`compare_models` calls this on one table; `benchmarks/false_claims.py` on thousands.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segbench.stats.arrays import FloatArray
from segbench.stats.laws import student_quantiles, student_tail
from segbench.stats.moderation import moderate
from segbench.stats.two_level import combined_variance

FEWEST_SEEDS = 3  # of a claim about methods among three models or more
BISECTIONS = 100
SMALLEST_TAIL = 1e-30

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True, eq=False)
class PairTests:
    """Tests of pairs whose squared error is a sum of parts, each known with its own degrees of freedom.

    The interval is difference -+ sqrt(sum of t^2 part), t being the quantile at the part's own df.
    One part is Student's test; with several the interval covers at least at its level whatever the ratio of
    the parts is (Banerjee 1961).

    Attributes:
        difference: (..., pairs).
        parts: (..., pairs, terms) variances; all zero where nothing varies.
        df: (..., pairs, terms) their degrees of freedom, 1 where a part is zero.
    """

    difference: FloatArray
    parts: FloatArray
    df: FloatArray

    def reach(self, level: float | FloatArray) -> FloatArray:
        """Half the width of the interval whose upper end is passed with probability `level`."""
        quantiles = student_quantiles(self.df, np.broadcast_to(np.asarray(level)[..., None], self.df.shape))
        return np.sqrt((quantiles**2 * self.parts).sum(axis=-1))

    def tail(self, distance: FloatArray) -> FloatArray:
        """One-sided p of an estimate `distance` beyond its null value; without variance 0, 1/2 or 1."""
        whole = self.parts.sum(axis=-1)
        certain = whole == 0
        largest = self.parts.argmax(axis=-1)[..., None]
        df = np.take_along_axis(self.df, largest, axis=-1)[..., 0]
        statistic = distance / np.sqrt(np.where(certain, 1.0, whole))
        found = np.where(certain, (1 - np.sign(distance)) / 2, student_tail(df, statistic))
        several = ((self.parts > 0).sum(axis=-1) > 1).nonzero()
        if several[0].size:
            picked = PairTests(self.difference[several], self.parts[several], self.df[several])
            found[several] = picked._searched(distance[several])
        return found

    def _searched(self, distance: FloatArray) -> FloatArray:
        """The tail at which the interval just reaches, by bisection on its logarithm."""
        low, high = np.full(distance.shape, np.log(SMALLEST_TAIL)), np.full(distance.shape, np.log(0.5))
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            short = self.reach(np.exp(middle)) > np.abs(distance)  # t of a small level: the same, negative
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        tail = np.exp((low + high) / 2)
        return np.where(distance < 0, 1 - tail, tail)

    @property
    def pvalue(self) -> FloatArray:
        """Two-sided p of no difference."""
        return 2 * self.tail(np.abs(self.difference))


def too_few_seeds(numbers: Sequence[int], pair: tuple[int, int]) -> bool:
    """Whether `pair` has two seeds on a side, among three models or more: then it gets no verdict.

    `numbers` are the seeds of all models.
    """
    return len(numbers) > 2 and 1 < min(numbers[place] for place in pair) < FEWEST_SEEDS


def decide(first: PairTests, second: PairTests) -> tuple[PairTests, FloatArray]:
    """The test with the larger p of no difference, and that p."""
    p, other = np.minimum(first.pvalue, 1.0), np.minimum(second.pvalue, 1.0)
    return larger(first, second, p, other), np.maximum(p, other)


def larger(first: PairTests, second: PairTests, p: FloatArray, other: FloatArray) -> PairTests:
    """Of two tests of each pair the one with the larger p: the only place where one is chosen."""
    keep = (p >= other)[..., None]
    return PairTests(
        first.difference, np.where(keep, first.parts, second.parts), np.where(keep, first.df, second.df)
    )


def pair_tests(models: Sequence[FloatArray], pairs: Pairs, *, floor: float) -> tuple[PairTests, PairTests]:
    """The tests of `pairs` with each model's own seed variance, and with the moderated ones.

    A pair with one seed on a side is a paired t-test of the patients' differences, in both. Two models that
    are all there is have no family to lean on, and Satterthwaite's degrees of freedom for their seeds err too
    often when one varies more than the other: they have those of the side with fewer seeds, and with two
    seeds on a side the parts stay apart.

    Args:
        models: per model (..., seeds, patients), with at least 2 patients.
        pairs: places in `models`; the difference is the first less the second.
        floor: differences, and roots of variances, up to here are zero.
    """
    seeds = np.array([model.shape[-2] for model in models])
    averages = [model.mean(axis=-2) for model in models]
    own = np.stack([seed_variance(model) for model in models], axis=-1)
    own[own <= floor**2] = 0.0
    own_df = np.broadcast_to(np.maximum(seeds - 1.0, 1.0), own.shape)
    shrunk, shrunk_df = own.copy(), own_df.copy()
    many = np.flatnonzero(seeds >= 2)
    if many.size:
        shrunk[..., many], shrunk_df[..., many] = moderate(own[..., many], seeds[many] - 1.0)
    interaction = np.stack([interaction_variance(model) for model in models], axis=-1)
    differences: list[FloatArray] = []
    tests: tuple[list[_Parts], list[_Parts]] = ([], [])
    for a, b in pairs:
        per_case = averages[a] - averages[b]
        difference = per_case.mean(axis=-1)
        differences.append(np.where(np.abs(difference) <= floor, 0.0, difference))
        case = (per_case.var(axis=-1, ddof=1) / per_case.shape[-1], per_case.shape[-1] - 1.0)
        both = float(min(seeds[a], seeds[b]) >= 2)
        apart = len(models) == 2 and min(seeds[a], seeds[b]) == 2
        shared = both * (interaction[..., a] + interaction[..., b])
        for place, (variances, df) in enumerate(((own, own_df), (shrunk, shrunk_df))):
            first = (both * variances[..., a] / seeds[a], df[..., a])
            second = (both * variances[..., b] / seeds[b], df[..., b])
            if place == 0 and apart:
                tests[place].append(_parts_apart(first, second, case, floor))
            else:
                cautious = place == 0 and len(models) == 2
                tests[place].append(
                    _one_part(*combined_variance(first, second, case, shared, floor, cautious=cautious))
                )
    difference = np.stack(differences, axis=-1)
    both_tests = [
        PairTests(difference, *(np.stack(column, axis=-2) for column in zip(*test, strict=True)))
        for test in tests
    ]
    return both_tests[0], both_tests[1]


_Parts = tuple[FloatArray, FloatArray]


def _one_part(variance: FloatArray, df: FloatArray) -> _Parts:
    """Student's test as parts: one, beside two of zero."""
    nothing, one = np.zeros(variance.shape), np.ones(variance.shape)
    known = np.where(variance > 0, df, 1.0)
    return np.stack([variance, nothing, nothing], axis=-1), np.stack([known, one, one], axis=-1)


def _parts_apart(
    first: tuple[FloatArray, FloatArray],
    second: tuple[FloatArray, FloatArray],
    case: tuple[FloatArray, float],
    floor: float,
) -> _Parts:
    """Seeds of the one, seeds of the other, cases; nothing is taken off for what two of them count."""
    parts = np.stack([first[0], second[0], case[0]], axis=-1)
    parts[parts <= floor**2] = 0.0
    df = np.stack([first[1], second[1], np.full(case[0].shape, case[1])], axis=-1)
    return parts, np.where(parts > 0, df, 1.0)


def seed_variance(model: FloatArray) -> FloatArray:
    """Variance (ddof 1) of the seeds' means; zero for one seed."""
    if model.shape[-2] < 2:
        return np.zeros(model.shape[:-2])
    return np.asarray(model.mean(axis=-1).var(axis=-1, ddof=1), dtype=np.float64)


def interaction_variance(model: FloatArray) -> FloatArray:
    """What both the seed and the case term count: residuals after row and column means; zero for one seed."""
    seeds, cases = model.shape[-2:]
    if seeds < 2:
        return np.zeros(model.shape[:-2])
    rows = model.mean(axis=-1, keepdims=True)
    residual = model - rows - model.mean(axis=-2, keepdims=True) + rows.mean(axis=-2, keepdims=True)
    return (residual**2).sum(axis=(-2, -1)) / ((seeds - 1) * (cases - 1) * seeds * cases)
