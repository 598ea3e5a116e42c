"""Rank schemes as challengeR has them, and the stability of the order against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from segbench.stats import SCHEMES, StatsError, holm, rank_cases, rank_stability, wilcoxon_signed_rank
from segbench.stats.arrays import generator
from segbench.stats.schemes import one_sided_z, rivals_beaten

TABLE = np.array(
    [
        [0.91, 0.88, 0.90, 0.70],
        [0.85, 0.86, 0.80, 0.66],
        [0.93, 0.90, 0.93, 0.81],
        [0.78, 0.70, 0.79, 0.74],
        [0.88, 0.87, 0.85, 0.60],
        [0.95, 0.91, 0.92, 0.90],
        [0.66, 0.60, 0.61, 0.62],
        [0.90, 0.89, 0.90, 0.72],
        [0.83, 0.80, 0.84, 0.79],
        [0.97, 0.95, 0.96, 0.94],
        [0.74, 0.75, 0.70, 0.52],
        [0.89, 0.84, 0.88, 0.83],
    ]
)
# R 4.2.2, the definitions of challengeR 1.0.5 in base R: colMeans, apply(., 2, median), rank(., ties = "min")
# over columns or rows; wins = rowSums(p <= 0.05) with p[i, j] = wilcox.test(x_i, x_j, paired = TRUE,
# exact = FALSE, alternative = "greater")$p.value, p.adjust(., "holm") over all ordered pairs for holm.
R_RANKS = {
    "mean_then_rank": [1, 3, 2, 4],
    "median_then_rank": [1, 2, 2, 4],
    "rank_then_mean": [1, 3, 2, 4],
    "rank_then_median": [1, 3, 2, 4],
    "test_then_rank_none": [1, 2, 2, 4],
    "test_then_rank_holm": [1, 3, 2, 3],
}
R_SCORES = {
    "rank_then_mean": [1.3333333333333333, 2.75, 2, 3.75],
    "rank_then_median": [1, 3, 2, 4],
    "test_then_rank_none": [3, 1, 1, 0],
    "test_then_rank_holm": [2, 0, 1, 0],
}
# The same R session: p.value of every ordered pair, row beats column
R_P = {
    (0, 1): 0.0041557644249545162,
    (0, 2): 0.015046251877931844,
    (1, 2): 0.84711684779029972,
    (2, 1): 0.17223613698436518,
    (1, 3): 0.015170008071152888,
    (3, 2): 0.99874657916923593,
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_equal_challenger(scheme):
    result = rank_cases(TABLE, scheme=scheme)
    assert list(result.ranks) == R_RANKS[scheme]
    if scheme in R_SCORES:
        assert list(result.scores) == pytest.approx(R_SCORES[scheme])
    lower = rank_cases(-TABLE, scheme=scheme, higher_is_better=False)
    assert list(lower.ranks) == R_RANKS[scheme]


def test_ordered_pairs_equal_r():
    for (a, b), pvalue in R_P.items():
        greater, _ = one_sided_z(TABLE[:, a] - TABLE[:, b], np.ones((12, 1)))
        assert stats.norm.sf(greater[0]) == pytest.approx(pvalue, rel=1e-9)
        # In hundredths, where sizes that are equal are equal to the last bit
        whole = np.rint(100 * TABLE[:, a]) - np.rint(100 * TABLE[:, b])
        p_less = wilcoxon_signed_rank(whole, method="normal", alternative="less").pvalue
        less = one_sided_z(whole, np.ones((12, 1)))[1]
        assert stats.norm.sf(less[0]) == pytest.approx(p_less, rel=1e-9)


# What challengeR's own test suite states (tests/testthat/test-testThenRank.R, test-rankThenAggregate.R)
@pytest.mark.parametrize(
    ("table", "higher", "scheme", "ranks"),
    [
        ([[0.2, 1.0]] * 4, False, "test_then_rank_none", [1, 2]),
        ([[0.2, 1.0]] * 4, True, "test_then_rank_none", [2, 1]),
        ([[0.6, 0.8]] * 2, False, "test_then_rank_none", [1, 1]),
        ([[0.6, 0.8]], False, "test_then_rank_none", [1, 1]),
        ([[0.6, 0.8]], False, "rank_then_mean", [1, 2]),
        ([[0.6, 0.6]], False, "rank_then_mean", [1, 1]),
        ([[0.6, 0.8], [0.4, 1.0]], False, "median_then_rank", [1, 2]),
        ([[0.6, 0.8], [0.4, 1.0]], False, "rank_then_median", [1, 2]),
        ([[0.6]], False, "mean_then_rank", [1]),
    ],
)
def test_small_cases_stated_by_challenger(table, higher, scheme, ranks):
    assert list(rank_cases(table, scheme=scheme, higher_is_better=higher).ranks) == ranks


def test_float_noise_does_not_break_a_tie():
    # 0.1 + 0.2 + 0.3 in two orders differ in the last bit
    assert list(rank_cases([[0.1, 0.3], [0.2, 0.2], [0.3, 0.1]]).ranks) == [1, 1]


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 8), st.just(3)), elements=st.integers(-3, 3)),
    st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
@settings(max_examples=120, deadline=None)
def test_weighted_signed_rank_equals_the_test_on_the_expanded_sample(table, weights):
    counts = np.array(weights[: table.shape[0]])
    expanded = np.repeat(table[:, 0] - table[:, 1], counts).astype(float)
    greater, less = one_sided_z((table[:, 0] - table[:, 1]).astype(float), counts[:, None].astype(float))
    if not expanded.any():
        assert greater[0] == less[0] == -np.inf
        return
    for z, alternative in ((greater, "greater"), (less, "less")):
        pvalue = wilcoxon_signed_rank(expanded, method="normal", alternative=alternative).pvalue
        assert stats.norm.sf(z[0]) == pytest.approx(pvalue, rel=1e-9)


def loop_ranks(table, scheme, higher):
    """One ranking, by scipy and plain loops."""
    sign = 1 if higher else -1
    if scheme == "mean_then_rank":
        score = np.round(table.mean(axis=0), 12) * sign
    elif scheme == "median_then_rank":
        score = np.round(np.median(table, axis=0), 12) * sign
    elif scheme.startswith("rank"):
        ranks = stats.rankdata(-sign * table, method="min", axis=1)
        score = -np.round(getattr(np, scheme.rsplit("_", 1)[1])(ranks, axis=0), 12)
    else:
        k = table.shape[1]
        pairs = [(a, b) for a in range(k) for b in range(k) if a != b]
        turned = table * sign
        tests = [
            wilcoxon_signed_rank(turned[:, a], turned[:, b], method="normal", alternative="greater")
            for a, b in pairs
        ]
        p = np.array([test.pvalue for test in tests])
        if scheme.endswith("holm"):
            p = holm(p)
        score = np.zeros(k)
        for (a, _), value in zip(pairs, p, strict=True):
            score[a] += value <= 0.05
    return stats.rankdata(-score, method="min").astype(int)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("higher", [True, False])
def test_stability_equals_a_loop_over_the_same_draws(scheme, higher):
    rng = np.random.default_rng(3)
    table = rng.integers(0, 8, (25, 4)) / 8 + np.array([0, 3, 6, 19]) / 64  # differences are exact
    resamples = 60
    result = rank_stability(table, scheme=scheme, higher_is_better=higher, resamples=resamples, seed=11)
    drawn = generator(11).integers(0, 25, (resamples, 25), dtype=np.uint32)
    full = loop_ranks(table, scheme, higher)
    assert list(result.ranks) == list(full)
    ranks = np.array([loop_ranks(table[row], scheme, higher) for row in drawn])
    for rank in range(4):
        assert result.frequencies[:, rank] == pytest.approx((ranks == rank + 1).mean(axis=0))
    assert result.probability_best == pytest.approx((ranks == 1).mean(axis=0))
    expected = [stats.kendalltau(row, full).statistic for row in ranks]
    assert result.kendall_tau == pytest.approx(expected, nan_ok=True, abs=1e-12)
    assert list(result.rank_low) == list(np.quantile(ranks, 0.025, axis=0, method="inverted_cdf"))
    assert list(result.rank_high) == list(np.quantile(ranks, 0.975, axis=0, method="inverted_cdf"))
    means = np.array([table[row].mean(axis=0) for row in drawn])
    assert result.mean_low == pytest.approx(np.quantile(means, 0.025, axis=0))
    assert result.mean_high == pytest.approx(np.quantile(means, 0.975, axis=0))
    changes = sum(
        set(np.flatnonzero(loop_ranks(np.delete(table, c, axis=0), scheme, higher) == 1))
        != set(np.flatnonzero(full == 1))
        for c in range(25)
    )
    assert result.leave_one_out_winner_changes == changes


def test_series_share_their_draws_and_equal_single_calls():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(30, 5, 3))
    together = rank_stability(table, higher_is_better=[True, False, True], resamples=500, seed=2)
    for series, higher in enumerate([True, False, True]):
        alone = rank_stability(table[:, :, series], higher_is_better=higher, resamples=500, seed=2)
        assert np.array_equal(together.ranks[:, series], alone.ranks)
        assert np.array_equal(together.frequencies[:, :, series], alone.frequencies)
        assert together.kendall_tau[:, series] == pytest.approx(alone.kendall_tau)
        assert together.mean_low[:, series] == pytest.approx(alone.mean_low)
        assert together.leave_one_out_winner_changes[series] == alone.leave_one_out_winner_changes
    assert together.frequencies.shape == (5, 5, 3)
    assert together.kendall_tau.shape == (500, 3)


def test_intervals_agree_with_scipy_bootstrap_within_monte_carlo_error():
    table = np.random.default_rng(1).beta(9, 1.5, (120, 3))
    result = rank_stability(table, resamples=10_000)
    for model in range(3):
        peer = stats.bootstrap(
            (table[:, model],),
            np.mean,
            n_resamples=10_000,
            method="percentile",
            rng=np.random.default_rng(model),
        ).confidence_interval
        width = peer.high - peer.low
        assert result.mean_low[model] == pytest.approx(peer.low, abs=0.04 * width)
        assert result.mean_high[model] == pytest.approx(peer.high, abs=0.04 * width)


def test_patients_are_resampled_whole():
    table = np.array([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 4)
    groups = ["p0"] * 6 + ["p1", "p2", "p3", "p4"]
    by_case = rank_stability(table, resamples=20_000)
    by_patient = rank_stability(table, resamples=20_000, groups=groups)
    # Model 1 leads a draw of patients only when p0, with its six cases, is not among the five drawn
    assert by_patient.probability_best[1] == pytest.approx(0.8**5, abs=0.015)
    assert by_case.probability_best[1] == pytest.approx(stats.binom.sf(4, 10, 0.4), abs=0.015)
    with pytest.raises(StatsError, match="one label per case"):
        rank_stability(table, groups=["a", "b"])


def test_identical_models_share_every_rank():
    result = rank_stability(np.full((10, 3), 0.5), resamples=100)
    assert list(result.ranks) == [1, 1, 1]
    assert list(result.probability_best) == [1, 1, 1]
    assert result.leave_one_out_winner_changes == 0
    assert np.isnan(result.kendall_tau).all()


def test_one_model_is_always_first():
    result = rank_stability(np.linspace(0, 1, 12)[:, None], resamples=50)
    assert (list(result.ranks), list(result.probability_best)) == ([1], [1])


def test_a_clear_order_is_stable_and_a_close_one_is_not():
    rng = np.random.default_rng(0)
    clear = rank_stability(rng.normal(0, 0.01, (50, 3)) + np.array([0.3, 0.2, 0.1]), resamples=500)
    assert list(clear.probability_best) == [1, 0, 0]
    assert (clear.kendall_tau == 1).all()
    close = rank_stability(rng.normal(0, 1, (50, 3)), resamples=500)
    assert close.probability_best.max() < 1
    assert (close.rank_high > close.rank_low).any()


def test_counts_of_beaten_rivals_add_up():
    table = np.random.default_rng(4).normal(size=(40, 6)) + np.arange(6) * 0.4
    none = rivals_beaten(table, np.ones((1, 40)), 0.05, holm=False)[0]
    holm = rivals_beaten(table, np.ones((1, 40)), 0.05, holm=True)[0]
    assert (holm <= none).all()
    assert none.sum() <= 15  # of two models at most one beats the other


def test_the_same_seed_repeats_and_results_cannot_be_changed():
    one, two = (rank_stability(TABLE, resamples=200, seed=5) for _ in range(2))
    assert np.array_equal(one.kendall_tau, two.kendall_tau)
    with pytest.raises(ValueError, match="read-only"):
        one.ranks[0] = 7


def test_faults_are_named():
    with pytest.raises(StatsError, match="mean_then_rank"):
        rank_cases(TABLE, scheme="mean")
    with pytest.raises(StatsError, match="at least 2 cases"):
        rank_stability(TABLE[:1])
    with pytest.raises(StatsError, match=r"\(3, 1\)"):
        broken = TABLE.copy()
        broken[3, 1] = np.nan
        rank_cases(broken)
    with pytest.raises(StatsError, match="higher_is_better"):
        rank_stability(TABLE, higher_is_better=[True, False])
