"""How likely the order of two published means is wrong, from what a table says and nothing else."""

import math
from dataclasses import dataclass

import numpy as np

from segbench.stats.errors import StatsError


@dataclass(frozen=True, slots=True)
class Reported:
    """What is known, or assumed, of one mean of a table; every number in the unit of the mean.

    Attributes:
        mean: over the test cases.
        sd: standard deviation over the cases.
        n: test cases.
        seed_sd: standard deviation of the mean from one training to the next.
        seeds: trainings that the mean rests on.
    """

    mean: float
    sd: float
    n: int
    seed_sd: float
    seeds: int = 1


def false_order(a: Reported, b: Reported, *, congruence: float) -> float:
    """The chance that the order of two means is wrong: Phi(-|difference| / SE), at most 0.5.

    SE^2 = sd_a^2/n_a + sd_b^2/n_b - 2 r sd_a sd_b / sqrt(n_a n_b) + seed_a^2/S_a + seed_b^2/S_b

    With the same cases on both sides the first three terms are the error of a paired difference; the last two
    are what another training would change, which no number of cases makes smaller. Only chance is in it: not
    that a model was tuned on the test cases, saw them in training, or was scored on others.

    Args:
        a: one mean.
        b: the other.
        congruence: correlation r of the two models' scores over the cases; 0 where the cases differ.

    Raises:
        StatsError: a number that is not finite, a deviation below 0, fewer than 1 case or training, a
            correlation outside -1 to 1.

    **Source:** Christodoulou et al. 2025 (arXiv 2505.04720), the terms of the cases; Sanchez et al. 2025
    (arXiv 2511.02453), those of the seeds.
    """
    for side in (a, b):
        if not np.all(np.isfinite((side.mean, side.sd, side.seed_sd))) or min(side.sd, side.seed_sd) < 0:
            raise StatsError(f"expected finite means and deviations of 0 or more, found {side}")
        if side.n < 1 or side.seeds < 1:
            raise StatsError(f"expected at least 1 case and 1 training, found {side}")
    if not -1.0 <= congruence <= 1.0:
        raise StatsError(f"congruence: expected -1 to 1, found {congruence!r}")
    error = standard_error(a, b, congruence=congruence)
    difference = abs(a.mean - b.mean)
    if error == 0.0:
        return 0.0 if difference else 0.5
    return 0.5 * math.erfc(difference / error * math.sqrt(0.5))


def standard_error(a: Reported, b: Reported, *, congruence: float) -> float:
    """The standard error of the difference of two means, cases and trainings both random."""
    first, second = a.sd / np.sqrt(a.n), b.sd / np.sqrt(b.n)
    cases = first**2 + second**2 - 2 * congruence * first * second
    return float(np.sqrt(max(cases, 0.0) + a.seed_sd**2 / a.seeds + b.seed_sd**2 / b.seeds))
