"""Adjusted p-values against R, statsmodels, scipy, a published table and the definitions by brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from segbench.stats import StatsError, holm, shaffer
from segbench.stats.multiple import true_hypothesis_counts

P = [0.01, 0.04, 0.03, 0.005, 0.5, 0.04, 0.9, 1e-9]
# R 4.2.2: p.adjust(P, "holm")
R_HOLM = [0.06, 0.16, 0.15, 0.035, 1, 0.16, 1, 8.0000000000000005e-09]

# Raw p-values as printed by scmamp's friedmanPost for the data of Garcia and Herrera 2008
GH_NAMES = ("C4.5", "1-NN", "NaiveBayes", "Kernel", "CN2")
GH_RAW = {
    ("C4.5", "Kernel"): 4.486991e-08,
    ("NaiveBayes", "Kernel"): 1.736118e-07,
    ("Kernel", "CN2"): 0.002880485,
    ("C4.5", "1-NN"): 0.004848763,
    ("1-NN", "Kernel"): 0.007963489,
    ("1-NN", "NaiveBayes"): 0.010112334,
    ("C4.5", "CN2"): 0.012763008,
    ("NaiveBayes", "CN2"): 0.024744672,
    ("1-NN", "CN2"): 0.743971478,
    ("C4.5", "NaiveBayes"): 0.8064959,
}
# Adjusted p-values printed there (Garcia and Herrera 2008, section 3), in the order above, four digits
GH_SHAFFER = [4.487e-7, 1.042e-6, 0.0173, 0.0291, 0.0478, 0.0478, 0.0510, 0.0742, 1, 1]


def matrix(k, upper):
    result = np.ones((k, k))
    rows, columns = np.triu_indices(k, 1)
    result[rows, columns] = result[columns, rows] = upper
    return result


@pytest.fixture
def garcia_herrera():
    result = np.full((5, 5), np.nan)  # the diagonal is not looked at
    for (a, b), p in GH_RAW.items():
        i, j = GH_NAMES.index(a), GH_NAMES.index(b)
        result[i, j] = result[j, i] = p
    return result


def test_holm_equals_r():
    assert holm(P) == pytest.approx(R_HOLM, rel=1e-12)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@given(st.lists(st.floats(0, 1), max_size=30))
@settings(max_examples=12, deadline=None)
def test_holm_equals_statsmodels(values):
    ours = holm(values)
    if values:
        assert ours == pytest.approx(multipletests(values, method="holm")[1], rel=1e-12, abs=1e-300)
    assert ours.shape == (len(values),)


def test_published_adjustments_are_reproduced(garcia_herrera):
    adjusted = shaffer(garcia_herrera)
    ours = [adjusted[GH_NAMES.index(a), GH_NAMES.index(b)] for a, b in GH_RAW]
    assert ours == pytest.approx(GH_SHAFFER, rel=1e-3, abs=6e-5)
    assert (np.diag(adjusted) == 1).all()


@pytest.mark.parametrize("k", range(2, 7))
def test_possible_numbers_of_true_hypotheses_by_enumeration(k):
    seen = set()
    for groups in itertools.product(range(k), repeat=k):
        sizes = np.bincount(groups)
        seen.add(int((sizes * (sizes - 1) // 2).sum()))
    assert true_hypothesis_counts(k) == seen


@given(st.integers(2, 7), st.data())
@settings(max_examples=40, deadline=None)
def test_each_step_is_at_most_as_strict_as_the_one_before(k, data):
    size = k * (k - 1) // 2
    p = np.array(data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size)))
    upper = np.triu_indices(k, 1)
    strict, mild = holm(p), shaffer(matrix(k, p))[upper]
    assert (mild <= strict + 1e-12).all()
    assert (p <= mild + 1e-12).all()


def test_limits_and_faults_are_named():
    lopsided = matrix(3, [0.1, 0.2, 0.3])
    lopsided[0, 1] = 0.11
    with pytest.raises(StatsError, match="symmetric"):
        shaffer(lopsided)
    with pytest.raises(StatsError, match=r"\[0, 1\]"):
        holm([0.5, 1.2])
    with pytest.raises(StatsError, match="NaN or inf at 1"):
        holm([0.5, float("nan")])
    with pytest.raises(StatsError, match=r"\(0, 1\)"):
        shaffer(matrix(3, [np.nan, 0.2, 0.3]))
