"""The table of empties and failures, cell by cell, and that a failure never pays."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.metrics import evaluate_case, summarise
from segbench.metrics.policies import FAILED, POLICIES, filled_value
from segbench.metrics.registry import METRICS, REGION_METRICS

NAN, INF = math.nan, math.inf
SHAPE, SPACING = (4, 6, 8), (3.0, 2.0, 1.0)
D = math.sqrt(12**2 + 12**2 + 8**2)
OVERLAP = ("dice", "iou", "precision", "recall", "volume_similarity", "nsd", "cldice")
DISTANCE = ("hd", "hd95", "hd95_max", "assd", "masd")

# policy: situation: (overlap, distance)
TABLE = {
    "worst": {"both_empty": (1, 0), "reference_empty": (0, D), "prediction_empty": (0, D), "failed": (0, D)},
    "paper": {
        "both_empty": (0, 50), "reference_empty": (0, 50), "prediction_empty": (0, 50),
        "failed": (0, max(50, D)),
    },
    "brats": {
        "both_empty": (1, 0), "reference_empty": (0, 374), "prediction_empty": (0, 374),
        "failed": (0, max(374, D)),
    },
    "brats2026": {
        "both_empty": (NAN, NAN), "reference_empty": (0, 373), "prediction_empty": (0, 373),
        "failed": (0, max(373, D)),
    },
    "nan": {
        "both_empty": (NAN, NAN), "reference_empty": (0, NAN), "prediction_empty": (0, NAN), "failed": (0, D),
    },
    "inf": {
        "both_empty": (1, 0), "reference_empty": (0, INF), "prediction_empty": (0, INF), "failed": (0, INF),
    },
}  # fmt: skip
MAPS = {"both_empty": (0, 0), "reference_empty": (0, 1), "prediction_empty": (1, 0)}


def maps(situation):
    arrays = []
    for present in MAPS[situation]:
        array = np.zeros(SHAPE, np.uint8)
        array[1, 2:4, 3] = present
        arrays.append(array)
    return arrays


def equal(first, second):
    return (math.isnan(first) and math.isnan(second)) or first == pytest.approx(second, abs=1e-12)


def test_the_table_is_complete():
    assert set(TABLE) == set(POLICIES)
    assert {*OVERLAP, *DISTANCE, "relative_volume_error"} == set(REGION_METRICS)


@pytest.mark.parametrize("policy", TABLE)
@pytest.mark.parametrize("situation", MAPS)
def test_empties(policy, situation):
    score = evaluate_case(
        *maps(situation),
        spacing_mm=SPACING,
        regions={"it": (1,)},
        metrics=REGION_METRICS,
        empty_policy=policy,
    )["it"]
    assert score.status == situation
    overlap, distance = TABLE[policy][situation]
    for name in OVERLAP:
        expected = overlap
        if policy == "nan" and (name, situation) in (
            ("precision", "prediction_empty"),
            ("recall", "reference_empty"),
        ):
            expected = NAN
        assert equal(score[name], expected), name
    for name in DISTANCE:
        assert equal(score[name], distance), name
    volume_error = {
        "both_empty": NAN if policy == "nan" else 0.0,
        "reference_empty": NAN,
        "prediction_empty": -1.0,
    }
    assert equal(score["relative_volume_error"], volume_error[situation])
    assert score.penalised == {*OVERLAP, *DISTANCE}


@pytest.mark.parametrize("policy", TABLE)
@pytest.mark.parametrize("status", sorted(FAILED))
def test_the_failed_column(policy, status):
    overlap, distance = TABLE[policy]["failed"]
    for name in OVERLAP:
        assert filled_value(name, status, policy=policy, diagonal_mm=D) == overlap
    for name in DISTANCE:
        assert filled_value(name, status, policy=policy, diagonal_mm=D) == pytest.approx(distance)
    assert math.isnan(filled_value("relative_volume_error", status, policy=policy, diagonal_mm=D))


def test_the_diagonal_exceeds_every_distance_that_can_occur():
    reference, prediction = np.zeros((2, *SHAPE), np.uint8)
    reference[0, 0, 0] = prediction[-1, -1, -1] = 1
    score = evaluate_case(reference, prediction, spacing_mm=SPACING, regions={"it": (1,)})["it"]
    assert score["hd"] < D


RANKED = [name for name in REGION_METRICS if not METRICS[name].descriptive and name != "cldice"]


def row(case, score, diagonal):
    return {"case": case, "region": "it", "status": score.status, **score}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(POLICIES)), st.integers(1, 6))
def test_a_failure_never_improves_a_mean(seed, policy, count):
    rng = np.random.default_rng(seed)
    rows, failures = [], []
    for index in range(count):
        # Under `nan` an undefined distance stands in no mean, so only grids of one size can be compared.
        spacing = (1.0, 1.0, 1.0) if policy == "nan" else tuple(rng.uniform(0.3, 4.0, 3))
        shape = (5, 5, 5) if policy == "nan" else tuple(rng.integers(1, 7, 3))
        reference, prediction = (
            (rng.random(shape) < rng.choice([0.0, 0.05, 0.5, 1.0])).astype(np.uint8) for _ in range(2)
        )
        score = evaluate_case(
            reference,
            prediction,
            spacing_mm=spacing,
            regions={"it": (1,)},
            metrics=RANKED,
            empty_policy=policy,
        )["it"]
        diagonal = math.sqrt(sum((n * s) ** 2 for n, s in zip(shape, spacing, strict=True)))
        rows.append(row(str(index), score, diagonal))
        values = {name: filled_value(name, "missing", policy=policy, diagonal_mm=diagonal) for name in RANKED}
        failures.append({"case": str(index), "region": "it", "status": "missing", **values})
    lost = rng.random(count) < 0.5
    after = [failures[i] if lost[i] else rows[i] for i in range(count)]
    before = {s.metric: s for s in summarise(rows, RANKED)}
    for summary in summarise(after, RANKED):
        old = before[summary.metric].mean
        assert summary.n_failed == int(lost.sum())
        assert summary.n_expected == count
        if math.isnan(old):
            continue
        if METRICS[summary.metric].direction == "higher":
            assert summary.mean <= old + 1e-12
        else:
            assert summary.mean >= old - 1e-9


@given(st.sampled_from(sorted(POLICIES)), st.sampled_from(sorted(FAILED)), st.sampled_from(DISTANCE))
def test_a_distance_on_an_unknown_grid_is_never_better_than_on_a_known_one(policy, status, metric):
    """Without a grid nobody knows how far a failure could be: NaN, or what the policy says of every grid."""
    unknown = filled_value(metric, status, policy=policy, diagonal_mm=NAN)
    assert math.isnan(unknown) or unknown >= filled_value(metric, status, policy=policy, diagonal_mm=1e4)
