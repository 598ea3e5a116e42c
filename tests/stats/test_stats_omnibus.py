"""Friedman, Iman-Davenport, Nemenyi, critical difference against R, scikit-posthocs, autorank, textbooks."""

from typing import Any

import numpy as np
import pytest
import scikit_posthocs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from segbench.stats import StatsError, critical_difference, friedman, nemenyi, wilcoxon_signed_rank
from segbench.stats.omnibus import rank_cliques

# Hollander and Wolfe 1973, p. 140: rounding first base; the example of R's ?friedman.test.
ROUNDING = np.array(
    [
        [5.40, 5.50, 5.55], [5.85, 5.70, 5.75], [5.20, 5.60, 5.50], [5.55, 5.50, 5.40], [5.90, 5.85, 5.70],
        [5.45, 5.55, 5.60], [5.40, 5.40, 5.35], [5.45, 5.50, 5.35], [5.25, 5.15, 5.00], [5.85, 5.80, 5.70],
        [5.25, 5.20, 5.10], [5.65, 5.55, 5.45], [5.60, 5.35, 5.45], [5.05, 5.00, 4.95], [5.50, 5.50, 5.40],
        [5.45, 5.55, 5.50], [5.55, 5.55, 5.35], [5.45, 5.50, 5.55], [5.50, 5.45, 5.25], [5.65, 5.60, 5.40],
        [5.70, 5.65, 5.55], [6.30, 6.30, 6.25],
    ]
)  # fmt: skip
# Demsar 2006, table 6: AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets. The table prints 0.975
# twice in its last row but one and ranks the two 2 and 3, from digits it does not show: hence 0.9751.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
    ]
)  # fmt: skip


def test_friedman_equals_r():
    # R 4.2.2: friedman.test(RoundingTimes): chi-squared = 11.143, df = 2, p-value = 0.003805
    result = friedman(ROUNDING, higher_is_better=False)
    assert result.statistic == pytest.approx(11.142857142857142, rel=1e-12)
    assert result.pvalue == pytest.approx(0.003805040775511363, rel=1e-12)
    assert (result.n, result.k) == (22, 3)


def test_friedman_equals_scipy_with_ties():
    table = np.random.default_rng(0).integers(0, 5, (40, 6)).astype(float)
    peer = stats.friedmanchisquare(*table.T)
    result = friedman(table)
    assert (result.statistic, result.pvalue) == pytest.approx((peer.statistic, peer.pvalue), rel=1e-12)
    assert result.statistic_uncorrected < result.statistic


def test_demsar_2006_is_reproduced():
    result = friedman(DEMSAR)
    assert result.mean_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert result.statistic_uncorrected == pytest.approx(9.28, abs=5e-3)
    assert result.iman_davenport == pytest.approx(3.69, abs=5e-3)
    assert result.iman_davenport_pvalue == pytest.approx(stats.f.sf(result.iman_davenport, 3, 39), rel=1e-12)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=5e-3)
    assert critical_difference(4, 14, alpha=0.10) == pytest.approx(1.12, abs=5e-3)


@pytest.mark.parametrize(
    ("k", "q05", "q10"),
    # R 4.2.2: qtukey(0.95, k, Inf), qtukey(0.90, k, Inf)
    [
        (2, 2.771807649019189, 2.326174307396593),
        (3, 3.3144931575530054, 2.9023802135023899),
        (5, 3.8576555268516346, 3.4782805509266534),
        (10, 4.4741244712630657, 4.1293463990649748),
        (20, 5.0116887946867648, 4.6941044134550918),
    ],
)
def test_critical_difference_uses_the_quantiles_of_r(k, q05, q10):
    scale = np.sqrt(k * (k + 1) / (12 * 30))
    assert critical_difference(k, 30) == pytest.approx(q05 * scale, rel=1e-6)
    assert critical_difference(k, 30, alpha=0.1) == pytest.approx(q10 * scale, rel=1e-6)


def test_nemenyi_equals_scikit_posthocs():
    table = np.random.default_rng(2).normal(size=(25, 5)) + np.arange(5) * 0.3
    result = nemenyi(table)
    assert result.pvalues == pytest.approx(
        scikit_posthocs.posthoc_nemenyi_friedman(table).to_numpy(), rel=1e-6
    )
    assert np.array_equal(result.pvalues, result.pvalues.T)


def test_z_pvalues_equal_garcia_and_herrera_2008():
    # Mean ranks of C4.5, 1-NN, NaiveBayes, Kernel, CN2 over 30 data sets; raw p-values as printed by scmamp's
    # friedmanPost(data.gh.2008): the formula is theirs, and ours equals the formula.
    ranks = np.array([2.100, 3.250, 2.200, 4.3333333333, 3.1166666667])
    z = np.abs(ranks[:, None] - ranks[None, :]) / np.sqrt(5 * 6 / (6 * 30))
    for (a, b), pvalue in {(0, 1): 0.004848763, (0, 2): 0.8064959, (0, 3): 4.486991e-08}.items():
        assert 2 * stats.norm.sf(z[a, b]) == pytest.approx(pvalue, rel=1e-6)
    table = np.random.default_rng(3).normal(size=(30, 5))
    ours = nemenyi(table)
    gap = np.abs(ours.mean_ranks[:, None] - ours.mean_ranks[None, :])
    assert ours.z_pvalues == pytest.approx(2 * stats.norm.sf(gap / np.sqrt(5 * 6 / (6 * 30))), rel=1e-12)


@given(
    hnp.arrays(float, st.integers(1, 12), elements=st.integers(0, 20).map(lambda v: v / 2)), st.floats(0.1, 6)
)
@settings(max_examples=150, deadline=None)
def test_cliques_are_maximal_runs(ranks, difference):
    cliques = rank_cliques(ranks, difference)
    for clique in cliques:
        values = ranks[list(clique)]
        assert len(clique) >= 2
        assert values.max() - values.min() < difference
        assert list(values) == sorted(values)
    for one in cliques:
        assert not any(set(one) < set(other) for other in cliques)
    for a in range(ranks.size):  # every pair that is close is in some clique
        for b in range(a):
            close = abs(ranks[a] - ranks[b]) < difference
            assert close == any({a, b} <= set(clique) for clique in cliques)


def test_all_ties_are_no_difference():
    result = friedman(np.ones((10, 4)))
    assert (result.statistic, result.pvalue, result.statistic_uncorrected) == (0.0, 1.0, 0.0)
    assert result.iman_davenport_pvalue == 1.0
    assert nemenyi(np.ones((10, 4))).cliques == ((0, 1, 2, 3),)


def test_perfect_order_gives_an_infinite_f():
    result = friedman(np.tile([3.0, 2.0, 1.0], (8, 1)))
    assert result.iman_davenport == np.inf
    assert result.iman_davenport_pvalue == 0.0
    assert list(result.mean_ranks) == [1, 2, 3]


def test_direction_turns_ranks_and_no_p_value():
    table = np.random.default_rng(1).normal(size=(20, 4))
    up, down = friedman(table), friedman(table, higher_is_better=False)
    assert up.pvalue == pytest.approx(down.pvalue, rel=1e-12)
    assert up.mean_ranks == pytest.approx(5 - down.mean_ranks)


@pytest.mark.parametrize("shape", [(1, 3), (3, 1)])
def test_one_case_or_one_model_is_refused(shape):
    with pytest.raises(StatsError, match="at least 2 cases and 2 models"):
        friedman(np.ones(shape))
    with pytest.raises(StatsError, match="at least 2 cases and 2 models"):
        nemenyi(np.ones(shape))


def test_autorank_is_reproduced():
    """autorank 1.3.0 on a table without ties: the same ranks and p-values; its q has three decimals only."""
    case, model = np.arange(30)[:, None], np.arange(5)
    table = 0.6 + 0.25 * ((case * 7) % 30) / 30 + ((case * 37 + model * 53) % 41) / 400 + 0.01 * model
    found = nemenyi(table)
    assert friedman(table).pvalue == pytest.approx(3.1644611697734766e-05, rel=1e-9)
    assert found.mean_ranks == pytest.approx(
        [3.933333333333333, 3.4, 3.033333333333333, 2.6333333333333333, 2.0]
    )
    assert found.critical_difference == pytest.approx(1.1135996351508262, rel=2e-5)
    # of two models it tests one-sided towards the one that is ahead, which doubles the size of the test
    pair = np.rint(table[:, 3] * 1e12), np.rint(table[:, 0] * 1e12)
    looked = wilcoxon_signed_rank(*pair, method="normal", alternative="greater", correction=False)
    peer: Any = stats.wilcoxon(pair[0] - pair[1], alternative="greater", correction=False, method="approx")
    assert looked.pvalue == pytest.approx(peer.pvalue, rel=1e-9)
    both = wilcoxon_signed_rank(*pair, method="normal", correction=False)
    assert both.pvalue > 1.99 * looked.pvalue
