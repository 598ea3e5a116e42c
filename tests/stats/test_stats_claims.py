"""The chance that the order of two published means is wrong, against simulation and at its ends."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.stats import Reported, StatsError, false_order

POSITIVE = st.floats(1e-3, 1e3)


def test_it_is_the_formula() -> None:
    a, b = Reported(91.37, 9.0, 250, 0.3, 1), Reported(91.32, 10.0, 250, 0.3, 2)
    error = np.sqrt((81 + 100 - 2 * 0.8 * 90) / 250 + 0.09 / 1 + 0.09 / 2)
    normal = 0.5 * (1 + math.erf(-0.05 / error / math.sqrt(2)))
    assert false_order(a, b, congruence=0.8) == pytest.approx(normal, rel=1e-12)


def test_a_simulated_reader_is_wrong_as_often_as_it_says() -> None:
    """True differences drawn flat around zero: given a printed one, the order is wrong with this chance."""
    rng = np.random.default_rng(0)
    n, tables, sd, r, seed_sd = 50, 200_000, 8.0, 0.8, 0.4
    truth = rng.uniform(-8, 8, tables)
    error = np.sqrt(2 * sd**2 * (1 - r) / n + 2 * seed_sd**2)
    printed = truth + rng.normal(0, error, tables)
    for low, high in ((0.2, 0.4), (1.0, 1.2), (2.0, 2.2)):
        seen = (np.abs(printed) > low) & (np.abs(printed) < high)
        wrong = np.mean(np.sign(truth[seen]) != np.sign(printed[seen]))
        sides = [Reported(mean, sd, n, seed_sd) for mean in ((low + high) / 2, 0.0)]
        expected = false_order(*sides, congruence=r)
        assert abs(wrong - expected) < 4 * np.sqrt(expected * (1 - expected) / seen.sum()) + 0.005


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE, st.integers(1, 10_000), st.integers(1, 9), st.floats(-1, 1))
def test_it_is_symmetric_at_most_a_half_and_falls_with_the_difference(
    x: float, y: float, sd: float, seed_sd: float, n: int, seeds: int, r: float
) -> None:
    a, b = Reported(x, sd, n, seed_sd, seeds), Reported(y, sd, n, seed_sd, seeds)
    chance = false_order(a, b, congruence=r)
    assert 0 <= chance <= 0.5
    assert chance == pytest.approx(false_order(b, a, congruence=r))
    further = replace(a, mean=x + (1 if x >= y else -1) * sd)
    assert false_order(further, b, congruence=r) <= chance
    assert false_order(replace(a, seed_sd=2 * seed_sd), b, congruence=r) >= chance
    assert false_order(replace(a, mean=y), b, congruence=r) == 0.5


def test_no_number_of_cases_takes_the_spread_of_retraining_away() -> None:
    few, many = ([Reported(mean, 5.0, n, 0.3) for mean in (80.3, 80.0)] for n in (10, 10**9))
    assert false_order(*few, congruence=0.8) > false_order(*many, congruence=0.8) > 0.2
    certain = [replace(side, seed_sd=0.0) for side in many]
    assert false_order(*certain, congruence=0.8) < 1e-6


@pytest.mark.parametrize(
    "change",
    [{"mean": float("nan")}, {"sd": -1.0}, {"sd": float("inf")}, {"n": 0}, {"seeds": 0}, {"seed_sd": -0.1}],
)
def test_numbers_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    good = Reported(80.0, 5.0, 40, 0.3)
    with pytest.raises(StatsError):
        false_order(replace(good, **change), good, congruence=0.8)
    with pytest.raises(StatsError, match="congruence"):
        false_order(good, good, congruence=1.5)
