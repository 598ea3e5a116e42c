"""What the usual test says about retrainings of one and the same model, where every claim is false."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from numpy.typing import ArrayLike

from segbench.stats.arrays import open_unit
from segbench.stats.paired import wilcoxon_signed_rank
from segbench.stats.scores import checked_scores


@dataclass(frozen=True, slots=True)
class NullCheck:
    """How often the usual one-run paired test calls two trainings of one model different.

    Attributes:
        pairs: pairs of retrainings, over all models.
        significant: of these, p < alpha.
        share: significant / pairs; nan without pairs. An honest test would have about alpha.
        per_model: (model, pairs, significant) of each model with two seeds or more.
        alpha: level of each test.
        n: patients, or cases where no patients were given.
    """

    pairs: int
    significant: int
    share: float
    per_model: tuple[tuple[str, int, int], ...]
    alpha: float
    n: int


def null_check(
    scores: Mapping[str, ArrayLike], *, alpha: float = 0.05, patients: ArrayLike | None = None
) -> NullCheck:
    """How many pairs of retrainings of one and the same model the usual test calls different.

    The usual test is Wilcoxon's signed rank over the cases of one run against one run, not adjusted.

    Args:
        scores: per model (seeds, cases), the same cases in the same order; models of one seed add nothing.
        alpha: level of each test.
        patients: (cases,) labels; the images of a patient are averaged first.

    Raises:
        StatsError: no model, unequal cases, NaN or inf.

    **Source:** Bouthillier et al. 2021 (variance of benchmarks).
    """
    open_unit(alpha, "alpha")
    checked = checked_scores(scores, patients=patients, fewest=1)
    per_model: list[tuple[str, int, int]] = []
    for name, values in checked.items():
        runs = list(combinations(values, 2))
        if runs:
            called = sum(wilcoxon_signed_rank(one, other).pvalue < alpha for one, other in runs)
            per_model.append((name, len(runs), called))
    pairs, significant = sum(row[1] for row in per_model), sum(row[2] for row in per_model)
    n = next(iter(checked.values())).shape[1]
    return NullCheck(
        pairs, significant, significant / pairs if pairs else float("nan"), tuple(per_model), alpha, n
    )
