"""Interaction with subgroups, and whether a dataset can rank methods."""

import itertools

import numpy as np
import pytest

from segbench.stats import StatsError, discrimination, mean_interval, subgroup_interaction


def between(values, bins):
    values, bins = np.asarray(values), np.asarray(bins)
    return sum(
        (bins == b).sum() * (values[bins == b].mean() - values.mean()) ** 2 for b in np.unique(bins)
    ) / len(values)


def test_statistic_means_and_intervals_per_bin():
    rng = np.random.default_rng(0)
    d, bins = rng.normal(size=60), np.array(["large", "small", "empty"] * 20)
    result = subgroup_interaction(d, bins, resamples=500)
    assert result.labels == ("empty", "large", "small")
    assert list(result.n) == [20, 20, 20]
    assert result.statistic == pytest.approx(between(d, bins))
    for i, label in enumerate(result.labels):
        interval = mean_interval(d[bins == label], resamples=500)
        assert (result.means[i], result.low[i], result.high[i]) == (
            interval.estimate,
            interval.low,
            interval.high,
        )


def test_pvalue_approaches_all_permutations():
    d, bins = np.array([0.1, 0.4, -0.2, 0.9, 0.3, 0.8, 0.55]), np.array([0, 0, 0, 0, 1, 1, 1])
    seen = between(d, bins)
    law = [between(d[list(order)], bins) for order in itertools.permutations(range(7))]
    exact = np.mean(np.array(law) >= seen - 1e-12)
    result = subgroup_interaction(d, bins, resamples=20_000)
    assert result.pvalue == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))


def test_numbers_are_sorted_by_value_and_a_real_interaction_is_found():
    rng = np.random.default_rng(1)
    bins = np.repeat([2, 10, 1], 30)
    d = rng.normal(0, 0.1, 90) + (bins == 10) * 0.3
    result = subgroup_interaction(d, bins, resamples=999)
    assert result.labels == ("1", "2", "10")
    assert result.pvalue == 1 / 1000


def test_size_of_the_interaction_test():
    rng = np.random.default_rng(2)
    bins = np.repeat([0, 1, 2], [10, 20, 30])
    p = [subgroup_interaction(rng.laplace(size=60), bins, resamples=199, seed=i).pvalue for i in range(300)]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.09


def test_constant_differences_show_no_interaction():
    assert subgroup_interaction(np.full(12, 0.1), [0, 1] * 6, resamples=100).pvalue == 1.0


def test_faults_of_bins_are_named():
    with pytest.raises(StatsError, match="at least 2 bins"):
        subgroup_interaction([0.1, 0.2], ["a", "a"])
    with pytest.raises(StatsError, match="one label per difference"):
        subgroup_interaction([0.1, 0.2], ["a"])
    with pytest.raises(StatsError, match="NaN"):
        subgroup_interaction([0.1, 0.2], [1.0, np.nan])


def test_discrimination_by_hand_with_seeds():
    a, b, c = (
        np.array([[0.8, 0.9], [0.82, 0.92]]),
        np.array([[0.7, 0.8], [0.72, 0.8]]),
        np.array([[0.5, 0.6]]),
    )
    result = discrimination([a, b, c])
    assert result.sd_between == pytest.approx(np.std([0.86, 0.755, 0.55], ddof=1))
    # per-seed means .85, .87 and .75, .76; the third model has one seed and says nothing
    assert result.sd_within == pytest.approx(np.sqrt((0.02**2 / 2 + 0.01**2 / 2) / 2))
    assert result.ratio == pytest.approx(result.sd_between / result.sd_within)
    assert (result.within, result.cannot_rank) == ("seeds", False)


def test_folds_are_recognised_and_named():
    nan = np.nan
    a = np.array([[0.8, 0.9, nan, nan], [nan, nan, 0.5, 0.7]])
    b = a - 0.01
    result = discrimination([a, b])
    assert result.within == "folds"
    assert result.sd_between == pytest.approx(0.01 / np.sqrt(2))
    assert result.sd_within == pytest.approx(0.25 / np.sqrt(2))
    assert result.cannot_rank


def test_seeds_are_preferred_to_folds():
    nan = np.nan
    seeds = np.array([[0.8, 0.9], [0.81, 0.91]])
    folds = np.array([[0.5, nan], [nan, 0.9]])
    assert discrimination([seeds, folds]).sd_within == pytest.approx(0.01 / np.sqrt(2))


def test_unknown_noise_is_said_not_guessed():
    result = discrimination([[[0.8, 0.9]], [[0.7, 0.8]]])
    assert (result.sd_within, result.ratio, result.within, result.cannot_rank) == (None, None, "", False)


def test_equal_methods_cannot_be_ranked_even_without_noise():
    same = np.full((2, 3), 0.7)
    assert discrimination([same, same]).cannot_rank
    assert discrimination([same, same + 0.1]).ratio == np.inf


def test_faults_of_discrimination_are_named():
    with pytest.raises(StatsError, match="at least 2 models"):
        discrimination([[[0.5]]])
    with pytest.raises(StatsError, match=r"values\[1\]"):
        discrimination([[[0.5]], [0.5]])
    with pytest.raises(StatsError, match="row 1 holds no value"):
        discrimination([[[0.5], [0.6]], [[0.5], [np.nan]]])
    with pytest.raises(StatsError, match="inf"):
        discrimination([[[0.5], [0.6]], [[0.5], [np.inf]]])


@pytest.mark.filterwarnings("error")
def test_a_case_without_a_value_in_any_row_is_left_out_of_discrimination():
    whole, holed = [[0.8, 0.9], [0.7, 0.8]], [[0.8, 0.9, np.nan], [0.7, 0.8, np.nan]]
    assert discrimination([whole, [[0.1, 0.2], [0.3, 0.2]]]) == discrimination(
        [holed, [[0.1, 0.2], [0.3, 0.2]]]
    )
