"""How large a difference the grid alone makes: thick slices make one, fine ones do not, nothing is random."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.metrics.grid_floor import METRICS, grid_floor

STEP = st.floats(0.7, 6.5)


def test_thick_slices_make_a_difference_of_their_own() -> None:
    thick, fine = grid_floor((3.75, 0.79, 0.79)), grid_floor((1.0, 1.0, 1.0))
    assert set(thick) == set(METRICS)
    assert 1.5 < thick["hd95"] < 2.0
    assert 0.4 < thick["assd"] < 0.8
    assert fine["hd95"] < 0.4
    assert fine["assd"] < 0.1


@settings(max_examples=15, deadline=None)
@given(st.tuples(STEP, STEP, STEP))
def test_the_floor_lies_between_nothing_and_the_largest_step(spacing: tuple[float, float, float]) -> None:
    floor = grid_floor(spacing)
    assert grid_floor(spacing) == floor
    assert all(0 < value < max(spacing) for value in floor.values())
    turned = grid_floor((spacing[1], spacing[2], spacing[0]))
    assert turned == pytest.approx(floor, abs=1e-9)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, float("nan"))])
def test_a_grid_that_is_none(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing_mm"):
        grid_floor(spacing)
