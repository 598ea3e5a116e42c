"""Retrainings of one network (scripts/retraining.py): many tests at once, and how sure a share is."""

import importlib.util
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench import stats as s

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "retraining.py"
_spec = importlib.util.spec_from_file_location("retraining", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
retraining = importlib.util.module_from_spec(_spec)
sys.modules["retraining"] = retraining
_spec.loader.exec_module(retraining)
disjoint_sets, share_interval = retraining.disjoint_sets, retraining.share_interval
model_pvalues, wilcoxon_pvalues = retraining.model_pvalues, retraining.wilcoxon_pvalues
signed_rank_pvalues = retraining.signed_rank_pvalues


@given(st.integers(2, 60), st.integers(0, 3), st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_many_signed_rank_tests_at_once_are_each_test(cases, digits, seed):
    """Also with ties, zeros, the law of more than 50 cases, and rows that differ in nothing."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 1, (5, cases)).round(digits), rng.normal(0.3, 1, (5, cases)).round(digits)
    y[0] = x[0]
    expected = [s.wilcoxon_signed_rank(one, other).pvalue for one, other in zip(x, y, strict=True)]
    assert signed_rank_pvalues(x, y) == pytest.approx(expected, abs=1e-14)


def test_rounding_noise_is_no_difference_in_many_tests_either():
    x = np.array([[0.1 + 0.2, 0.5, 0.7], [100.0, 5.0, 7.0]])
    y = np.array([[0.3, 0.5, 0.7], [100.0, 5.0, 7.0]])
    assert signed_rank_pvalues(x, y).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sets_are_tested_as_compare_models_tests_two_models(size):
    values = np.random.default_rng(size).normal(0.8, 0.05, (7, 12))
    sets = disjoint_sets(7, size)
    found = model_pvalues(values, sets)
    for place in (0, len(sets) // 2, len(sets) - 1):
        pair = s.compare_models({"a": values[sets[place, 0]], "b": values[sets[place, 1]]})[0]
        assert found[place] == pytest.approx(pair.p, rel=1e-9)


@given(st.integers(1, 3), st.integers(0, 4))
def test_all_disjoint_sets_are_there_once(size, more):
    runs = 2 * size + more
    found = {tuple(sorted(map(tuple, map(sorted, pair.tolist())))) for pair in disjoint_sets(runs, size)}
    expected = {(a, b) for a, b in combinations(combinations(range(runs), size), 2) if not set(a) & set(b)}
    assert found == expected
    assert len(disjoint_sets(runs, size)) == len(expected)


def test_many_sets_are_drawn_disjoint_and_again_the_same():
    drawn = disjoint_sets(24, 5, most=500, seed=3)
    assert drawn.shape == (500, 2, 5)
    assert all(len(set(pair.ravel().tolist())) == 10 for pair in drawn)
    assert (drawn == disjoint_sets(24, 5, most=500, seed=3)).all()
    with pytest.raises(ValueError, match="need 10 runs, found 9"):
        disjoint_sets(9, 5)


def test_the_null_check_and_the_pairs_agree():
    values = np.random.default_rng(5).normal(0, 1, (6, 1)) + np.random.default_rng(6).normal(0, 1, (6, 30))
    check = s.null_check({"net": values})
    assert check.significant == int((wilcoxon_pvalues(values, disjoint_sets(6, 1)) < 0.05).sum()) > 0


def test_the_interval_of_a_share_leaves_runs_out_by_hand():
    """The jackknife against a loop that recounts the pairs without each run."""
    rng = np.random.default_rng(0)
    pairs = disjoint_sets(10, 1)
    called = rng.random(len(pairs)) < 0.4
    found = share_interval(called, pairs, 10)
    without = np.array([called[~(pairs == run).any(axis=(1, 2))].mean() for run in range(10)])
    variance = 9 / 10 * ((without - without.mean()) ** 2).sum()
    share = called.mean()
    from scipy import stats

    trials = share * (1 - share) / variance * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 9)) ** 2
    trials = min(max(trials, 5), 45)
    hits = share * trials
    assert found.estimate == share
    assert found.low == pytest.approx(stats.beta.ppf(0.025, hits, trials - hits + 1))
    assert found.high == pytest.approx(stats.beta.ppf(0.975, hits + 1, trials - hits))


def test_no_call_among_pairs_that_share_runs_is_little_evidence():
    """24 runs make 276 pairs and 12 that share nothing: as much as 12 trials, and no more, is certain."""
    pairs = disjoint_sets(24, 1)
    none = share_interval(np.zeros(len(pairs)), pairs, 24)
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 12)))
    every = share_interval(np.ones(len(pairs)), pairs, 24)
    assert (every.low, every.high) == (pytest.approx(0.025 ** (1 / 12)), 1.0)


def test_too_few_runs_have_a_share_and_no_interval():
    pairs = disjoint_sets(3, 1)
    found = share_interval(np.array([True, False, False]), pairs, 3)
    assert (found.estimate, np.isnan(found.low), found.note) == (1 / 3, True, "too few runs")


def test_the_interval_covers_the_truth_of_simulated_boards():
    """12 runs, a spread that the one-run test calls different in about 3 of 10 pairs; see the benchmark."""
    rng, pairs, covered = np.random.default_rng(1), disjoint_sets(12, 1), 0
    far = rng.normal(0, 0.2, (8000, 1)) + rng.normal(0, 0.75, (8000, 40))
    truth = (model_pvalues(far, np.arange(8000).reshape(-1, 2, 1)) < 0.05).mean()
    assert 0.2 < truth < 0.4
    for _ in range(60):
        board = rng.normal(0, 0.2, (12, 1)) + rng.normal(0, 0.75, (12, 40))
        found = share_interval(model_pvalues(board, pairs) < 0.05, pairs, 12)
        covered += found.low <= truth <= found.high
    assert covered >= 53
