"""Two models on the same cases: the signed-rank test and its effect sizes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from segbench.stats.arrays import (
    FloatArray,
    choice,
    generator,
    noise_floor,
    paired_differences,
    positive_count,
)
from segbench.stats.errors import StatsError
from segbench.stats.laws import normal_cdf, ranks

ALTERNATIVES = ("two-sided", "greater", "less")
EXACT_LIMIT = 200
EXACT_UP_TO = 50  # pairs, by default; above, the normal approximation errs by less than 0.004


@dataclass(frozen=True, slots=True)
class WilcoxonResult:
    """Signed-rank test of paired differences.

    Attributes:
        statistic: W+, the sum of the ranks of the positive differences.
        pvalue: in [0, 1].
        n: pairs that were ranked (zeros left out with `drop`, counted with `pratt`).
        zeros: pairs without a difference.
        ties: ranked non-zero pairs that share their absolute difference with another pair.
        alternative, method, correction: the variant, for the caption; method is the one that was used.
    """

    statistic: float
    pvalue: float
    n: int
    zeros: int
    ties: int
    alternative: str
    method: str
    correction: bool


@dataclass(frozen=True, slots=True)
class SignedRanks:
    """Ranks of |d| after the zero rule, with what the laws of W+ need."""

    ranks: FloatArray  # of the non-zero differences
    positive: FloatArray  # 1.0 where d > 0
    ranked: int
    zeros: int
    tie_sizes: FloatArray

    @property
    def w_plus(self) -> float:
        """Sum of the ranks of the positive differences."""
        return float(self.ranks @ self.positive)


def signed_ranks(differences: FloatArray, zeros: str) -> SignedRanks:
    """Average ranks of |d| under the zero rule `drop` or `pratt`."""
    nonzero = differences[differences != 0]
    n_zero = differences.size - nonzero.size
    offset = n_zero if zeros == "pratt" else 0
    _, counts = np.unique(np.abs(nonzero), return_counts=True)
    return SignedRanks(
        ranks=ranks(np.abs(nonzero), ties="average") + offset,
        positive=(nonzero > 0).astype(np.float64),
        ranked=nonzero.size + offset,
        zeros=n_zero,
        tie_sizes=counts.astype(np.float64),
    )


def wilcoxon_signed_rank(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    alternative: str = "two-sided",
    zeros: str = "drop",
    method: str = "auto",
    correction: bool = True,
    resamples: int = 10_000,
    seed: int = 0,
) -> WilcoxonResult:
    """The Wilcoxon signed-rank test of the paired differences x - y.

    Up to 50 pairs that differ the law of W+ is exact, also with ties and zeros (R's exactRankTests); above,
    the normal approximation equals R `wilcox.test(x, y, paired=TRUE, exact=FALSE, correct=TRUE)`. scipy's
    default is another variant (no correction), so captions name the variant. Differences below the rounding
    noise of the values are zeros.

    Args:
        x: (n,) values, or the differences when `y` is None.
        y: (n,) values of the other model, same case order.
        alternative: `two-sided`, `greater` (x above y) or `less`.
        zeros: `drop` pairs without a difference, or rank them and leave them out of W+ (`pratt`).
        method: `auto` is `exact` up to 50 pairs that differ and `normal` above; `normal` approximation with
            tie correction; `exact` law of W+ given the ties (at most 200 ranked pairs); `permutation` of
            signs, on the mean difference, p = (1 + hits) / (1 + resamples).
        correction: continuity correction of the normal approximation.
        resamples: sign flips of `permutation`.
        seed: of `permutation`.

    Raises:
        StatsError: NaN or inf, unequal lengths, unknown option, too many pairs for `exact`.

    **Source:** Wilcoxon 1945; Pratt 1959 (zeros); R stats::wilcox.test (normal approximation).
    """
    choice(alternative, ALTERNATIVES, "alternative")
    choice(zeros, ("drop", "pratt"), "zeros")
    choice(method, ("auto", "normal", "exact", "permutation"), "method")
    differences = paired_differences(x, y)
    ranked = signed_ranks(differences, zeros)
    if method == "auto":
        method = "exact" if ranked.ranked <= EXACT_UP_TO else "normal"
    if ranked.ranks.size == 0:
        pvalue = 1.0
    elif method == "normal":
        pvalue = _normal_pvalue(ranked, alternative, correction)
    elif method == "exact":
        pvalue = _exact_pvalue(ranked, alternative)
    else:
        pvalue = _permutation_pvalue(differences, alternative, positive_count(resamples, "resamples"), seed)
    return WilcoxonResult(
        statistic=ranked.w_plus,
        pvalue=pvalue,
        n=ranked.ranked if ranked.ranks.size else 0,
        zeros=ranked.zeros,
        ties=int(ranked.tie_sizes[ranked.tie_sizes > 1].sum()),
        alternative=alternative,
        method=method,
        correction=correction,
    )


def _normal_pvalue(ranked: SignedRanks, alternative: str, correction: bool) -> float:
    """P-value of W+ by its tie-corrected normal approximation."""
    n = float(ranked.ranked)
    dropped = n - ranked.ranks.size  # zeros that were ranked (pratt); 0 otherwise
    mean = (n * (n + 1) - dropped * (dropped + 1)) / 4
    variance = (n * (n + 1) * (2 * n + 1) - dropped * (dropped + 1) * (2 * dropped + 1)) / 24
    variance -= float((ranked.tie_sizes**3 - ranked.tie_sizes).sum()) / 48
    distance = ranked.w_plus - mean
    if correction:
        distance -= {"two-sided": 0.5 * float(np.sign(distance)), "greater": 0.5, "less": -0.5}[alternative]
    z = distance / float(np.sqrt(variance))
    if alternative == "two-sided":
        return 2 * normal_cdf(-abs(z))
    return normal_cdf(-z) if alternative == "greater" else normal_cdf(z)


def _exact_pvalue(ranked: SignedRanks, alternative: str) -> float:
    """P-value by the law of W+ over all sign patterns; doubled ranks are integers even with ties."""
    if ranked.ranked > EXACT_LIMIT:
        raise StatsError(f"method exact takes at most {EXACT_LIMIT} ranked pairs, found {ranked.ranked}")
    doubled = np.rint(2 * ranked.ranks).astype(np.int64)
    law = np.zeros(int(doubled.sum()) + 1)
    law[0] = 1.0
    for step in doubled:
        moved = np.zeros_like(law)
        moved[step:] = law[: law.size - step]
        law = (law + moved) / 2
    at = int(np.rint(2 * ranked.w_plus))
    above, below = float(law[at:].sum()), float(law[: at + 1].sum())
    wanted = {"two-sided": 2 * min(above, below), "greater": above, "less": below}[alternative]
    return min(1.0, wanted)


def _permutation_pvalue(differences: FloatArray, alternative: str, resamples: int, seed: int) -> float:
    """Share of random sign patterns whose mean difference is at least as extreme as the one seen."""
    rng = generator(seed)
    moving = differences[differences != 0]
    total = float(moving.sum())
    slack = noise_floor(moving) * moving.size  # equal sums may differ in their last bits
    block = max(1, 4_000_000 // moving.size)
    hits = 0
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        bits = np.frombuffer(rng.bytes(rows * (-(-moving.size // 8))), dtype=np.uint8).reshape(rows, -1)
        signs = np.unpackbits(bits, axis=1, count=moving.size)
        flipped = 2 * (signs @ moving) - total
        if alternative == "two-sided":
            hits += int((np.abs(flipped) >= abs(total) - slack).sum())
        elif alternative == "greater":
            hits += int((flipped >= total - slack).sum())
        else:
            hits += int((flipped <= total + slack).sum())
    return (1 + hits) / (1 + resamples)
