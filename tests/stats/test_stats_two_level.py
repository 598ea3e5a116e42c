"""The test over seeds and cases: its formula, its size under retraining, its power."""

import numpy as np
import pytest
from scipy import stats

from segbench.stats import NotEnoughSeeds, StatsError, detectable_difference, two_level_test
from segbench.stats.arrays import FloatArray


def by_hand(a, b):
    """Section 2.7 written out with loops, as slowly and plainly as it stands there."""
    n = a.shape[1]
    d = np.array([a[:, c].mean() - b[:, c].mean() for c in range(n)])
    va, vb = (np.var([row.mean() for row in m], ddof=1) / m.shape[0] for m in (a, b))
    vc = np.var(d, ddof=1) / n
    ve = 0.0
    for m in (a, b):
        s = m.shape[0]
        rest = sum(
            (m[i, c] - m[i].mean() - m[:, c].mean() + m.mean()) ** 2 for i in range(s) for c in range(n)
        )
        ve += rest / ((s - 1) * (n - 1)) / (s * n)
    vs = va + vb
    v = max(vs + vc - ve, vs, vc)
    dfs = vs**2 / (va**2 / (a.shape[0] - 1) + vb**2 / (b.shape[0] - 1))
    df = v**2 / (vs**2 / dfs + vc**2 / (n - 1))
    return d.mean(), v, df, vs, vc, ve


def test_equals_the_definition_written_out():
    rng = np.random.default_rng(0)
    a = rng.normal(0.8, 0.1, (4, 30)) + rng.normal(0, 0.02, (4, 1))
    b = rng.normal(0.78, 0.1, (3, 30)) + rng.normal(0, 0.05, (3, 1))
    difference, v, df, vs, vc, ve = by_hand(a, b)
    result = two_level_test(a, b, confidence=0.9, alpha=0.01)
    assert result.difference == pytest.approx(difference, rel=1e-12)
    assert result.standard_error == pytest.approx(np.sqrt(v), rel=1e-12)
    assert result.df == pytest.approx(df, rel=1e-10)
    assert (result.variance_seed, result.variance_case, result.variance_interaction) == pytest.approx(
        (vs, vc, ve)
    )
    assert result.statistic == pytest.approx(difference / np.sqrt(v))
    assert result.pvalue == pytest.approx(2 * stats.t.sf(abs(result.statistic), df), rel=1e-9)
    half = stats.t.ppf(0.95, df) * np.sqrt(v)
    assert (result.low, result.high) == pytest.approx((difference - half, difference + half))
    assert result.detectable_difference == pytest.approx(
        (stats.t.ppf(0.995, df) + stats.t.ppf(0.8, df)) * np.sqrt(v)
    )
    assert (result.seeds_a, result.seeds_b, result.cases, result.degenerate) == (4, 3, 30, False)


def test_seed_order_and_case_order_do_not_matter_but_case_pairing_does():
    rng = np.random.default_rng(1)
    difficulty = rng.normal(0, 0.2, 40)
    a, b = (difficulty + rng.normal(0, 0.02, (3, 40)) for _ in range(2))
    base = two_level_test(a, b)
    order = rng.permutation(40)
    moved = two_level_test(a[[2, 0, 1]][:, order], b[:, order])
    assert moved.pvalue == pytest.approx(base.pvalue, rel=1e-9)
    broken = two_level_test(a, b[:, order])
    assert broken.standard_error > 3 * base.standard_error


def test_without_variance_it_says_degenerate():
    same = two_level_test(np.full((2, 5), 0.7), np.full((3, 5), 0.7))
    assert (same.degenerate, same.pvalue, same.statistic, same.difference) == (True, 1.0, 0.0, 0.0)
    apart = two_level_test(np.full((2, 5), 0.7), np.full((3, 5), 0.8))
    assert (apart.degenerate, apart.pvalue, apart.statistic) == (True, 0.0, -np.inf)
    assert (apart.low, apart.high) == (apart.difference, apart.difference)
    assert np.isnan(apart.df)


def test_a_term_without_variance_leaves_the_degrees_of_freedom_alone():
    a = np.array([[0.8] * 6, [0.9] * 6])  # all spread is between the seeds
    b = np.full((2, 6), 0.5)
    result = two_level_test(a, b)
    assert result.variance_case == pytest.approx(0, abs=1e-30)
    assert result.df == pytest.approx(1.0)


def test_one_seed_or_one_case_is_refused():
    two, one = np.ones((2, 4)), np.ones((1, 4))
    for a, b in ((one, two), (two, one)):
        with pytest.raises(NotEnoughSeeds, match="2 seeds a side"):
            two_level_test(a, b)
    with pytest.raises(StatsError, match="at least 2 cases"):
        two_level_test(np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(StatsError, match="share their cases"):
        two_level_test(np.ones((2, 4)), np.ones((2, 5)))


def test_detectable_difference_is_found_in_four_of_five_repeats():
    rng = np.random.default_rng(0)
    n, sd = 40, 0.05
    gain = detectable_difference(sd**2 / n, n - 1)
    draws = rng.normal(gain, sd, (4000, n))
    t = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / np.sqrt(n))
    found = (t > stats.t.ppf(0.975, n - 1)).mean()
    assert found == pytest.approx(0.8, abs=0.025)
    assert detectable_difference(0.0, 5) == 0.0


def retrained(rng, seeds: int, seed_sd: float, cases: int, gain: float) -> tuple[FloatArray, FloatArray]:
    """Two methods in Dice points: skewed shared case difficulty, seed effects, Laplace noise.

    Half of the noise belongs to the method on a case and stays when it is retrained, half to the run. The
    paired difference of two single runs has SD 2.8 points.
    """
    difficulty = 100 * rng.beta(9, 1.5, cases)
    methods = []
    for _ in range(2):
        method = difficulty + rng.laplace(0, 0.99, cases)
        methods.append(method + rng.normal(0, seed_sd, (seeds, 1)) + rng.laplace(0, 0.99, (seeds, cases)))
    return methods[0] + gain, methods[1]


def rejections(seeds: int, seed_sd: float, gain: float, repeats: int, seed: int) -> float:
    """Share of simulated comparisons that the two-level test calls significant at 5 %."""
    rng = np.random.default_rng(seed)
    pvalues = [two_level_test(*retrained(rng, seeds, seed_sd, 250, gain)).pvalue for _ in range(repeats)]
    return float(np.mean(np.array(pvalues) < 0.05))


@pytest.mark.ci
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_sd", [0.1, 0.3, 0.5])
def test_false_positive_rate_under_retraining(seeds, seed_sd):
    found = rejections(seeds, seed_sd, gain=0.0, repeats=1500, seed=round(seeds * 100 + seed_sd * 10))
    slack = 2.6 * np.sqrt(0.05 * 0.95 / 1500)  # Monte Carlo error of the estimate itself
    assert 0.03 - slack <= found <= 0.07 + slack


def test_power_for_one_point_with_five_seeds():
    assert rejections(5, 0.1, gain=1.0, repeats=150, seed=1) > 0.95


def test_the_usual_paired_test_is_not_honest_here():
    """Why the test exists: one run per model and a paired test claims differences that retraining undoes."""
    rng = np.random.default_rng(5)
    claims = 0
    for _ in range(300):
        a, b = retrained(rng, 1, 0.5, 250, 0.0)
        claims += stats.ttest_rel(a[0], b[0]).pvalue < 0.05
    assert claims / 300 > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_sd", [0.1, 0.3, 0.5])
def test_false_positive_rate_with_many_repeats(seeds, seed_sd):
    found = rejections(seeds, seed_sd, gain=0.0, repeats=20_000, seed=round(seeds * 1000 + seed_sd * 10))
    assert 0.03 <= found <= 0.07
