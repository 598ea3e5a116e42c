"""Signed-rank test and Hodges-Lehmann against R, scipy and brute force."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from segbench.stats import StatsError, hodges_lehmann, wilcoxon_signed_rank
from segbench.stats.hodges_lehmann import _select_sum, walsh_order_statistics

# Hollander and Wolfe 1973, depression scale; the example of R's ?wilcox.test.
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
# Whole numbers, so that ties and zeros are exact in both languages.
A = [3, 5, 5, 7, 8, 2, 9, 4, 4, 6, 1, 0, 5, 7, 3, 8, 8, 2, 6, 9]
B = [3, 4, 6, 5, 5, 2, 4, 4, 1, 8, 1, 3, 5, 2, 3, 9, 4, 0, 4, 4]

# R 4.2.2: wilcox.test(x, y, paired = TRUE, exact = FALSE, correct = CORRECT, alternative = ALTERNATIVE)
R_NORMAL = [
    (BEFORE, AFTER, "two-sided", True, 40.0, 0.044010984012951455),
    (BEFORE, AFTER, "two-sided", False, 40.0, 0.038151710173415156),
    (BEFORE, AFTER, "greater", True, 40.0, 0.022005492006475728),
    (BEFORE, AFTER, "greater", False, 40.0, 0.019075855086707578),
    (BEFORE, AFTER, "less", True, 40.0, 0.98351530937788989),
    (BEFORE, AFTER, "less", False, 40.0, 0.98092414491329238),
    (A, B, "two-sided", True, 86.5, 0.034472478083910151),
    (A, B, "two-sided", False, 86.5, 0.031868114623923124),
    (A, B, "greater", True, 86.5, 0.017236239041955075),
    (A, B, "greater", False, 86.5, 0.015934057311961562),
    (A, B, "less", True, 86.5, 0.9852828560832313),
    (A, B, "less", False, 86.5, 0.98406594268803849),
]
# R 4.2.2: wilcox.test(x, y, paired = TRUE, exact = TRUE, alternative = ALTERNATIVE)
R_EXACT = [("two-sided", 0.0390625), ("greater", 0.01953125), ("less", 0.986328125)]

# R 4.2.2, exactRankTests 0.8.35, coin 1.4.2, of the differences: p-values two-sided, greater, less by
# wilcox.exact(d, 0, paired = TRUE, exact = TRUE), which equals coin's
# wilcoxsign_test(d ~ 0, distribution = "exact", zero.method = "Wilcoxon"), and by zero.method = "Pratt".
# `benchmarks/against_r.py` compares more of them where R is installed.
PLAIN = [5, -2, 9, 1, 14, -3, 7, 11, 6, -8, 12, 4]
TIED = [1, 2, -1, 3, 2, -4, 1, 5, 0, 2] * 5
R_EXACT_TIES = [
    (np.subtract(A, B), "drop", (0.033203125, 0.0166015625, 0.98779296875)),
    (np.subtract(A, B), "pratt", (0.0511474609375, 0.02557373046875, 0.97735595703125)),
    (PLAIN, "drop", (0.04248046875, 0.021240234375, 0.98291015625)),
    (PLAIN, "pratt", (0.04248046875, 0.021240234375, 0.98291015625)),
    (TIED, "drop", (0.00075235568635889649, 0.00037617784317944825, 0.99963450962852107)),
    (TIED, "pratt", (0.00046000182499028597, 0.00023000091249514298, 0.99977581356901624)),
]


@pytest.mark.parametrize(("differences", "zeros", "pvalues"), R_EXACT_TIES)
def test_exact_form_with_ties_and_zeros_equals_r(differences, zeros, pvalues):
    ways = ("two-sided", "greater", "less")
    found = [wilcoxon_signed_rank(differences, zeros=zeros, alternative=way) for way in ways]
    assert [result.pvalue for result in found] == pytest.approx(pvalues, rel=1e-12)
    assert {result.method for result in found} == {"exact"}


@pytest.mark.parametrize(("x", "y", "alternative", "correction", "statistic", "pvalue"), R_NORMAL)
def test_normal_form_equals_r(x, y, alternative, correction, statistic, pvalue):
    result = wilcoxon_signed_rank(x, y, method="normal", alternative=alternative, correction=correction)
    assert result.statistic == statistic
    assert result.pvalue == pytest.approx(pvalue, rel=1e-12)


@pytest.mark.parametrize(("alternative", "pvalue"), R_EXACT)
def test_exact_form_equals_r(alternative, pvalue):
    result = wilcoxon_signed_rank(BEFORE, AFTER, method="exact", alternative=alternative)
    assert result.pvalue == pytest.approx(pvalue, rel=1e-12)


def test_counts_zeros_ties_and_pairs():
    result = wilcoxon_signed_rank(A, B)
    differences = np.subtract(A, B)
    sizes = np.abs(differences[differences != 0])
    assert result.zeros == int((differences == 0).sum()) == 6
    assert result.n == sizes.size == 14
    assert result.ties == sum(int((sizes == size).sum() > 1) for size in sizes)
    assert wilcoxon_signed_rank(A, B, zeros="pratt").n == 20


@pytest.mark.parametrize("zeros", ["drop", "pratt"])
@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("correction", [True, False])
def test_normal_form_equals_scipy(zeros, alternative, correction):
    rng = np.random.default_rng(1)
    for n in (12, 40, 300):
        d = rng.integers(-6, 9, n).astype(float)
        peer: Any = stats.wilcoxon(
            d,
            zero_method={"drop": "wilcox", "pratt": "pratt"}[zeros],
            alternative=alternative,
            correction=correction,
            method="approx",
        )
        ours = wilcoxon_signed_rank(
            d, method="normal", zeros=zeros, alternative=alternative, correction=correction
        )
        # scipy sends a two-sided statistic to the nearer side; W+ itself is its `greater` statistic
        assert ours.pvalue == pytest.approx(peer.pvalue, rel=1e-9)


@pytest.mark.parametrize("zeros", ["drop", "pratt"])
def test_exact_form_with_ties_equals_all_sign_patterns(zeros):
    d = np.array([1.0, 1.0, -2.0, 3.0, 3.0, -3.0, 5.0, 0.0, 0.0, -6.0])
    nonzero = d[d != 0]
    ranks = stats.rankdata(np.abs(nonzero)) + (2 if zeros == "pratt" else 0)
    seen = ranks[nonzero > 0].sum()
    law = np.array([np.dot(signs, ranks) for signs in itertools.product([0, 1], repeat=ranks.size)])
    expected = {"greater": (law >= seen).mean(), "less": (law <= seen).mean()}
    expected["two-sided"] = min(1.0, 2 * min(expected.values()))
    for alternative, pvalue in expected.items():
        result = wilcoxon_signed_rank(d, method="exact", zeros=zeros, alternative=alternative)
        assert result.pvalue == pytest.approx(pvalue, rel=1e-12)


def test_permutation_form_approaches_all_sign_patterns():
    d = np.array([0.4, -0.1, 0.3, 0.8, -0.2, 0.5, 0.0, 0.05, 0.31, -0.07])
    moving = d[d != 0]
    law = np.array([np.dot(signs, moving) for signs in itertools.product([-1, 1], repeat=moving.size)])
    for alternative, exact in {
        "two-sided": (np.abs(law) >= abs(moving.sum()) - 1e-12).mean(),
        "greater": (law >= moving.sum() - 1e-12).mean(),
        "less": (law <= moving.sum() + 1e-12).mean(),
    }.items():
        result = wilcoxon_signed_rank(d, method="permutation", alternative=alternative, resamples=40_000)
        assert result.pvalue == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 40_000) + 1e-4)


def test_permutation_never_reports_zero_and_repeats_with_its_seed():
    d = np.linspace(1, 2, 60)
    first = wilcoxon_signed_rank(d, method="permutation", resamples=999, seed=4)
    assert first.pvalue == 1 / 1000
    noisy = np.random.default_rng(0).normal(0.1, 1, 50)
    p = [wilcoxon_signed_rank(noisy, method="permutation", resamples=500, seed=s).pvalue for s in (1, 1, 2)]
    assert p[0] == p[1] != p[2]


@pytest.mark.parametrize("method", ["normal", "exact", "permutation"])
def test_identical_models_give_p_one(method):
    result = wilcoxon_signed_rank(A, A, method=method)
    assert (result.pvalue, result.statistic, result.n, result.zeros) == (1.0, 0.0, 0, 20)


def test_exact_refuses_more_than_200_pairs():
    with pytest.raises(StatsError, match="200"):
        wilcoxon_signed_rank(np.arange(1, 202), method="exact")
    wilcoxon_signed_rank(np.arange(1, 201), method="exact")


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=40))
@settings(max_examples=80, deadline=None)
def test_swapping_the_models_mirrors_everything(values):
    d = np.array(values, dtype=float)
    forward, back = wilcoxon_signed_rank(d), wilcoxon_signed_rank(-d)
    assert forward.pvalue == pytest.approx(back.pvalue, rel=1e-12)
    assert 0 <= forward.pvalue <= 1
    one, other = hodges_lehmann(d), hodges_lehmann(-d)
    assert (one.estimate, one.low, one.high) == (-other.estimate, -other.high, -other.low)


def test_hodges_lehmann_equals_r_without_zeros():
    # R 4.2.2: wilcox.test(x, y, paired = TRUE, exact = TRUE, conf.int = TRUE)$estimate; R's interval is exact
    assert hodges_lehmann(BEFORE, AFTER).estimate == pytest.approx(0.46, rel=1e-12)


def test_hodges_lehmann_keeps_zeros():
    d = [0.0, 0.0, 0.0, 1.0, 2.0]
    walsh = sorted((a + b) / 2 for i, a in enumerate(d) for b in d[i:])
    assert hodges_lehmann(d).estimate == np.median(walsh) == 0.5


@pytest.mark.parametrize("n", [1, 2, 5, 6, 37, 250])
def test_hodges_lehmann_interval_is_the_stated_order_statistics(n):
    d = np.random.default_rng(n).normal(0.2, 1, n).round(2)
    w = np.sort([(d[i] + d[j]) / 2 for i in range(n) for j in range(i, n)])
    m = w.size
    q = max(1, int(np.floor(m / 2 - stats.norm.ppf(0.975) * np.sqrt(n * (n + 1) * (2 * n + 1) / 24))))
    result = hodges_lehmann(d)
    assert (result.low, result.high) == pytest.approx((w[q - 1], w[m - q]), abs=1e-15)
    assert result.estimate == pytest.approx(np.median(w), abs=1e-15)
    assert (result.note == "confidence not reached") == (n < 6)


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=60), st.data())
@settings(max_examples=60, deadline=None)
def test_bisection_finds_the_same_sum_as_sorting(values, data):
    d = np.sort(np.array(values) / 7.0)
    sums = np.sort([d[i] + d[j] for i in range(d.size) for j in range(i, d.size)])
    place = data.draw(st.integers(1, sums.size))
    assert _select_sum(d, place) == pytest.approx(sums[place - 1], abs=1e-15)


def test_many_cases_are_handled_without_the_full_list():
    d = np.sort(np.random.default_rng(3).normal(0.3, 1, 5000))
    everything = d[:, None] + d[None, :]
    sums = np.sort(everything[np.triu_indices(5000)]) / 2
    places = (10, sums.size // 3, (sums.size + 1) // 2, sums.size)
    assert walsh_order_statistics(d, places) == pytest.approx([sums[p - 1] for p in places], rel=1e-14)
    constant = hodges_lehmann(np.full(100_000, 0.25))
    assert (constant.estimate, constant.low, constant.high, constant.note) == (0.25, 0.25, 0.25, "constant")


# A clean sweep of n pairs: 2 / 2^n, as R's wilcox.test(exact = TRUE) and coin give it
@pytest.mark.parametrize(
    ("n", "smallest"), [(2, 0.5), (5, 0.0625), (6, 0.03125), (8, 0.0078125), (10, 0.001953125), (20, 2**-19)]
)
def test_up_to_fifty_pairs_the_default_is_exact(n, smallest):
    result = wilcoxon_signed_rank(np.arange(1.0, n + 1))
    assert (result.method, result.pvalue) == ("exact", pytest.approx(smallest, rel=1e-12))


def test_above_fifty_pairs_that_differ_the_default_is_normal():
    d = np.random.default_rng(0).normal(0.2, 1, 51)
    assert wilcoxon_signed_rank(d).method == "normal"
    exact, normal = (wilcoxon_signed_rank(d, method=method).pvalue for method in ("exact", "normal"))
    assert exact == pytest.approx(normal, abs=0.0033)
    assert wilcoxon_signed_rank(np.append(d[:50], [0.0, 0.0])).method == "exact"


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=10))
@settings(max_examples=60, deadline=None)
def test_the_default_equals_all_sign_patterns(values):
    d = np.array(values, dtype=float)
    nonzero = d[d != 0]
    ranks = stats.rankdata(np.abs(nonzero))
    seen = ranks[nonzero > 0].sum()
    law = np.array([np.dot(signs, ranks) for signs in itertools.product([0, 1], repeat=ranks.size)])
    expected = min(1.0, 2 * min((law >= seen).mean(), (law <= seen).mean()))
    assert wilcoxon_signed_rank(d).pvalue == pytest.approx(expected, rel=1e-9)


def test_rounding_noise_is_neither_a_difference_nor_breaks_a_tie():
    x = np.array([0.1 + 0.2, 0.9, 0.8, 0.7, 0.6])
    y = np.array([0.3, 0.8, 0.7, 0.8, 0.4])
    result = wilcoxon_signed_rank(x, y)  # 0, .1, .1, -.1, .2 in decimals
    assert (result.zeros, result.ties, result.n) == (1, 3, 4)
    assert result.pvalue == wilcoxon_signed_rank([0, 1, 1, -1, 2]).pvalue
