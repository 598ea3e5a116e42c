"""Means that say how many cases they are of, and that no order of files can change."""

import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.metrics import summarise
from segbench.metrics.summary import deviation, json_number, mean, quantile


def rows(values, region="it", status="ok", metric="dice"):
    return [
        {"case": f"c{i}", "region": region, "status": status, metric: value} for i, value in enumerate(values)
    ]


def one(found, region="it"):
    return next(summary for summary in found if summary.region == region)


def test_numbers_of_a_column():
    values = [0.1, 0.5, 0.7, 0.9, 1.0]
    summary = one(summarise(rows(values), ["dice"]))
    assert (summary.n_expected, summary.n_scored, summary.n_failed, summary.n_undefined) == (5, 5, 0, 0)
    assert summary.mean == pytest.approx(np.mean(values), abs=1e-15)
    assert summary.std == pytest.approx(np.std(values, ddof=1), abs=1e-15)
    assert summary.std_population == pytest.approx(np.std(values), abs=1e-15)
    assert (summary.median, summary.q1, summary.q3) == (0.7, 0.5, 0.9)
    assert (summary.minimum, summary.maximum, summary.worst_case) == (0.1, 1.0, "c0")


def test_failed_rows_count_and_undefined_values_are_told():
    lost = {"case": "lost", "region": "it", "status": "missing", "dice": 0.0}
    table = [*rows([0.5, None, "", math.nan]), lost]
    summary = one(summarise(table, ["dice"]))
    assert (summary.n_expected, summary.n_scored, summary.n_failed) == (5, 4, 1)
    assert summary.n_undefined == 3
    assert summary.mean == 0.25
    assert summary.worst_case == "lost"


def test_empties_are_counted_by_kind():
    table = [
        {"case": str(i), "region": "it", "status": status, "dice": 0.0}
        for i, status in enumerate(["ok", "both_empty", "reference_empty", "prediction_empty", "unreadable"])
    ]
    summary = one(summarise(table, ["dice"]))
    assert (summary.n_both_empty, summary.n_reference_empty, summary.n_prediction_empty) == (1, 1, 1)
    assert (summary.n_scored, summary.n_failed) == (4, 1)


def test_expected_cases_without_a_row_score_worst():
    summary = one(summarise(rows([1.0, 1.0]), ["dice"], expected=["c0", "c1", "c9"]))
    assert (summary.n_expected, summary.n_scored, summary.n_failed) == (3, 2, 1)
    assert summary.mean == pytest.approx(2 / 3)
    assert summary.worst_case == "c9"
    distance = one(summarise(rows([1.0, 1.0], metric="hd95"), ["hd95"], expected=3))
    assert distance.mean == math.inf
    assert distance.n_failed == 1


def test_rows_that_are_not_expected_are_refused():
    with pytest.raises(ValueError, match="c1"):
        summarise(rows([1.0, 1.0]), ["dice"], expected=["c0"])
    with pytest.raises(ValueError, match="2 cases"):
        summarise(rows([1.0, 1.0]), ["dice"], expected=1)
    with pytest.raises(ValueError, match="did you mean dice"):
        summarise(rows([1.0]), ["dicee"])


def test_over_regions_it_is_the_mean_of_means():
    table = rows([1.0, 0.0, 0.5, 0.5], "a") + rows([0.1], "b")
    found = summarise(table, ["dice"])
    assert one(found, "mean").mean == pytest.approx((0.5 + 0.1) / 2)
    assert [summary.region for summary in summarise(rows([1.0]), ["dice"])] == ["it"]


def test_inf_stays_visible():
    summary = one(summarise(rows([1.0, 2.0, "inf", 3.0, math.inf], metric="hd95"), ["hd95"]))
    assert summary.mean == math.inf
    assert summary.median == 3.0
    assert summary.q1 == 2.0
    assert summary.q3 == math.inf
    assert math.isnan(summary.std)
    document = json.loads(json.dumps(summary.as_json(), allow_nan=False))
    assert document["mean"] == "inf"
    assert document["std"] is None


def test_descriptive_metrics_have_no_worst_case():
    table = rows([-0.5, 2.0], metric="relative_volume_error")
    assert one(summarise(table, ["relative_volume_error"])).worst_case is None


@pytest.mark.ci
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.randoms())
def test_the_order_of_cases_changes_no_bit(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    assert mean(shuffled) == mean(values)
    assert math.isnan(deviation(values, ddof=1)) or deviation(shuffled, ddof=1) == deviation(values, ddof=1)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=40), st.sampled_from([0.25, 0.5, 0.75]))
def test_quantiles_are_numpys(values, fraction):
    assert quantile(values, fraction) == pytest.approx(np.quantile(values, fraction), rel=1e-12, abs=1e-12)


def test_the_mean_of_equal_values_is_that_value_and_their_deviation_is_zero():
    values = [0.8666666666666667] * 5
    assert math.fsum(values) / 5 != values[0]  # what rounding makes of it
    assert mean(values) == values[0]
    assert deviation(values, ddof=1) == 0.0


def test_nothing_gives_nan():
    assert math.isnan(mean([]))
    assert math.isnan(quantile([], 0.5))
    assert math.isnan(deviation([1.0], ddof=1))
    assert deviation([1.0, 3.0], ddof=1) == pytest.approx(statistics.stdev([1, 3]))
    assert summarise([], ["dice"]) == []


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, None), (math.inf, "inf"), (-math.inf, "-inf"), (1.5, 1.5)]
)
def test_json_numbers(value, text):
    assert json_number(value) == text
