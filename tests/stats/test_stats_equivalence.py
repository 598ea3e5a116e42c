"""The four verdicts: statsmodels and R as oracles, and what each word means."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.weightstats import ttost_paired

from segbench.stats import StatsError, equivalence_test, verdict_from_estimate

BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def test_tost_equals_r():
    # R 4.2.2: t.test(x, y, paired = TRUE, mu = -1, alternative = "greater")$p.value and with mu = 1, "less";
    # t.test(x, y, paired = TRUE, conf.level = 0.90)
    result = equivalence_test(BEFORE, AFTER, margin=1.0)
    assert result.pvalue == pytest.approx(max(4.048059474725817e-06, 0.0019949390892794318), rel=1e-10)
    assert result.difference == pytest.approx(0.43188888888888888, rel=1e-12)
    assert (result.low, result.high) == pytest.approx((0.16730279135896456, 0.69647498641881322), rel=1e-10)
    assert result.pvalue_difference == pytest.approx(0.016176627434908095, rel=1e-10)
    assert (result.verdict, result.significant) == ("equivalent", True)


@given(st.integers(0, 1000), st.integers(2, 60), st.floats(0.02, 1.0))
@settings(max_examples=40, deadline=None)
def test_tost_equals_statsmodels(seed, n, margin):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.1, 0.4, n)
    y = rng.normal(0, 0.4, n)
    result = equivalence_test(x, y, margin=margin)
    assert result.pvalue == pytest.approx(ttost_paired(x, y, -margin, margin)[0], rel=1e-8, abs=1e-14)
    # the interval lies inside the margin exactly when the test says so
    assert (result.pvalue < 0.05) == (-margin < result.low and result.high < margin)


@pytest.mark.parametrize(
    ("difference", "error", "verdict", "significant"),
    [
        (0.0, 0.001, "equivalent", False),
        (0.004, 0.001, "equivalent", True),  # different, but within the margin
        (0.03, 0.005, "better", True),
        (-0.03, 0.005, "worse", True),
        (0.01, 0.02, "undecided", False),
        (0.0, 0.0, "equivalent", False),
        (0.02, 0.0, "better", True),
    ],
)
def test_each_verdict_has_its_meaning(difference, error, verdict, significant):
    result = verdict_from_estimate(difference, error, 50, n=51, margin=0.01)
    assert (result.verdict, result.significant) == (verdict, significant)
    other = {"better": "worse", "worse": "better"}.get(verdict, verdict)
    assert verdict_from_estimate(-difference, error, 50, n=51, margin=0.01).verdict == other
    assert (
        verdict_from_estimate(difference, error, 50, n=51, margin=0.01, higher_is_better=False).verdict
        == other
    )


def test_identical_models_are_equivalent_with_p_one():
    result = equivalence_test(BEFORE, BEFORE, margin=0.01)
    assert (result.verdict, result.pvalue_difference, result.pvalue) == ("equivalent", 1.0, 0.0)
    assert (result.low, result.high) == (0.0, 0.0)


def test_constant_difference_is_known_exactly_despite_float_noise():
    x, y = np.array([0.3, 0.5, 0.9, 0.11]), np.array([0.2, 0.4, 0.8, 0.01])
    result = equivalence_test(x, y, margin=0.05)
    assert (result.verdict, result.pvalue_difference, result.pvalue) == ("better", 0.0, 1.0)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_a_margin_is_a_positive_number(margin):
    with pytest.raises(StatsError, match="margin"):
        equivalence_test(BEFORE, AFTER, margin=margin)


def test_one_pair_is_not_enough():
    with pytest.raises(StatsError, match="at least 2 pairs"):
        equivalence_test([0.3], [0.2], margin=0.1)
