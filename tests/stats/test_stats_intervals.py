"""Intervals of a mean and a median: definitions, notes and coverage."""

import inspect

import numpy as np
import pytest
from scipy import stats

from segbench.stats import NotEnoughSeeds, StatsError, mean_interval, resampling, two_level_test
from segbench.stats.intervals import bca_levels
from segbench.stats.resampling import bootstrap_means, count_blocks


def dice_like(rng, shape):
    """Skewed to the left, like Dice over cases."""
    return rng.beta(9, 1.5, shape)


def test_t_interval_equals_scipy():
    x = dice_like(np.random.default_rng(0), 12)
    result = mean_interval(x)
    expected = stats.t.interval(0.95, 11, loc=x.mean(), scale=stats.sem(x))
    assert (result.low, result.high) == pytest.approx(expected, rel=1e-12)
    assert (result.method, result.n, result.note) == ("t", 12, "")


@pytest.mark.parametrize(("ours", "theirs"), [("bca", "BCa"), ("percentile", "percentile")])
def test_bootstrap_intervals_equal_scipy_within_monte_carlo_error(ours, theirs):
    x = dice_like(np.random.default_rng(5), 60)
    # scipy before 1.15 says random_state
    word = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
    peer = stats.bootstrap(
        (x,), np.mean, n_resamples=40_000, method=theirs, **{word: np.random.default_rng(1)}
    )
    result = mean_interval(x, method=ours, resamples=40_000)
    width = peer.confidence_interval.high - peer.confidence_interval.low
    assert result.low == pytest.approx(peer.confidence_interval.low, abs=0.02 * width)
    assert result.high == pytest.approx(peer.confidence_interval.high, abs=0.02 * width)


def test_bca_levels_equal_the_formula_from_the_jackknife():
    x = dice_like(np.random.default_rng(2), 30)
    draws = bootstrap_means(x[:, None], resamples=5000, seed=0)[:, 0]
    jackknife = np.array([np.delete(x, i).mean() for i in range(30)])
    u = jackknife.mean() - jackknife
    a = (u**3).sum() / (6 * (u**2).sum() ** 1.5)
    z0 = stats.norm.ppf((draws < x.mean()).mean())
    z = z0 + stats.norm.ppf([0.025, 0.975])
    levels = bca_levels(x, draws, np.array([0.025, 0.975]))
    assert levels == pytest.approx(stats.norm.cdf(z0 + z / (1 - a * z)), rel=1e-6)


@pytest.mark.parametrize(("n", "method"), [(19, "t"), (20, "bca")])
def test_auto_switches_at_twenty_cases(n, method):
    assert mean_interval(dice_like(np.random.default_rng(0), n)).method == method


def test_two_seeds_make_it_two_level_and_equal_the_test_against_a_constant():
    a = dice_like(np.random.default_rng(4), (3, 40)) + np.array([[0.0], [0.02], [-0.01]])
    result = mean_interval(a)
    assert (result.method, result.n) == ("two_level", 40)
    # Against a model that is 0 everywhere every term of the second model vanishes
    peer = two_level_test(a, np.zeros((2, 40)))
    assert (result.estimate, result.low, result.high) == pytest.approx((peer.difference, peer.low, peer.high))


def test_one_seed_row_is_a_plain_sample_and_two_level_needs_two():
    a = dice_like(np.random.default_rng(4), (1, 40))
    assert mean_interval(a).method == "bca"
    with pytest.raises(NotEnoughSeeds, match="found 1"):
        mean_interval(a, method="two_level")


def test_constant_one_case_and_total_failures_are_said():
    constant = mean_interval([0.7] * 25)
    assert (constant.low, constant.high, constant.note) == (constant.estimate, constant.estimate, "constant")
    single = mean_interval([0.7])
    assert np.isnan(single.low)
    assert np.isnan(single.high)
    assert single.note
    few = [0.0, 0.8, 0.9, 0.85, 0.7, 0.95, 0.9, 0.8, 0.9, 0.86]
    assert mean_interval(few, worst=0.0).note == "few cases with total failures: interval too short"
    assert mean_interval(few, worst=1.0).note == ""
    assert mean_interval(few * 3, worst=0.0).note == ""


def test_draws_do_not_depend_on_the_block_size(monkeypatch):
    big = np.concatenate(list(count_blocks(50, resamples=400, seed=9)))
    monkeypatch.setattr(resampling, "BLOCK_BYTES", 8 * 50 * 17)
    small = np.concatenate(list(count_blocks(50, resamples=400, seed=9)))
    assert np.array_equal(big, small)
    assert (big.sum(axis=1) == 50).all()


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_gives_the_same_interval(seed):
    x = dice_like(np.random.default_rng(1), 50)
    assert mean_interval(x, seed=seed) == mean_interval(x, seed=seed)
    assert mean_interval(x, seed=seed) != mean_interval(x, seed=seed + 1)


def test_an_unknown_method_is_refused():
    with pytest.raises(StatsError, match="expected one of"):
        mean_interval([1.0, 2.0], method="normal")


def coverage(n, repeats, interval, target, seed):
    """Share of samples from the Dice-like population whose interval holds the target."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(repeats):
        result = interval(dice_like(rng, n))
        hits += result.low <= target <= result.high
    return hits / repeats


def test_coverage_of_the_mean_at_fifty_cases():
    target = 9 / 10.5
    found = coverage(50, 600, lambda x: mean_interval(x, resamples=1500), target, seed=11)
    assert 0.92 <= found <= 0.985  # nominal .95; the standard error of this estimate is .009


@pytest.mark.slow
@pytest.mark.parametrize(("n", "lowest"), [(10, 0.90), (20, 0.90), (50, 0.93), (200, 0.935)])
def test_coverage_of_the_automatic_mean_interval(n, lowest):
    found = coverage(n, 3000, lambda x: mean_interval(x, resamples=3000), 9 / 10.5, seed=n)
    assert lowest <= found <= 0.975
