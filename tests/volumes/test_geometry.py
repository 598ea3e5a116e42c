"""Grids: same or not, canonical and back, in all 48 orders of axes."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy.spatial.transform import Rotation

from segbench.volumes import (
    Volume,
    compare_geometry,
    corner_displacement,
    from_canonical,
    reorient_like,
    spacing_of,
    to_canonical,
)
from segbench.volumes.geometry import Orientation, canonical_orientation

SHAPE = (4, 6, 5)
ARRAY = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
ORDERS = [
    Orientation(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)
]


def make(affine: np.ndarray, array: np.ndarray = ARRAY) -> Volume:
    return Volume(array, spacing_of(affine), affine)


def tilted(degrees: float = 12.0, seed: int = 0) -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * np.array([0.6, -0.48, 0.64])).as_matrix()
    affine[:3, :3] = turn * np.array([0.7, 0.9, 3.0])
    affine[:3, 3] = np.random.default_rng(seed).uniform(-100, 100, 3)
    return affine


def stored_as(volume: Volume, order: Orientation) -> Volume:
    affine = order.affine(volume.affine, volume.shape_zyx)
    return Volume(order.apply(volume.array), spacing_of(affine), affine)


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("degrees", [0.0, 12.0, 40.0])
def test_all_48_orders_come_back_exactly(order, degrees):
    canonical = to_canonical(make(tilted(degrees)))
    stored = stored_as(canonical, order)
    again = to_canonical(stored)
    assert np.array_equal(again.array, canonical.array)
    assert np.allclose(again.affine, canonical.affine, atol=1e-9)
    assert again.spacing_mm == pytest.approx(canonical.spacing_mm)
    assert again.array.flags.c_contiguous
    assert np.array_equal(from_canonical(again.array, stored), stored.array)
    assert np.array_equal(from_canonical(again.array, stored.affine), stored.array)


@pytest.mark.parametrize("order", ORDERS[::5], ids=str)
def test_channels_stay_in_front(order):
    stored = stored_as(make(tilted()), order)
    stack = stored.with_array(np.stack([stored.array, stored.array + 1000]))
    canonical = to_canonical(stack)
    assert canonical.array.shape[0] == 2
    assert np.array_equal(canonical.array[1], to_canonical(stored).array + 1000)
    assert np.array_equal(from_canonical(canonical.array, stack), stack.array)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_voxels_stay_where_they_are(order):
    """Each voxel keeps its place in millimetres: the definition of a reordering, checked voxel by voxel."""
    volume = make(tilted(25.0))
    moved = stored_as(volume, order)

    def places(v: Volume) -> dict[int, tuple[float, ...]]:
        k, j, i = np.indices(v.shape_zyx)
        world = v.affine @ np.stack([i.ravel(), j.ravel(), k.ravel(), np.ones(i.size)])
        return dict(zip(v.array.ravel().tolist(), map(tuple, np.round(world[:3].T, 6).tolist()), strict=True))

    assert places(volume) == places(moved)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_same_as_nibabel_when_not_strongly_oblique(order):
    stored = stored_as(make(tilted(15.0)), order)
    theirs = nib.as_closest_canonical(nib.Nifti1Image(stored.array.T, stored.affine))
    ours = to_canonical(stored)
    assert np.array_equal(np.asarray(theirs.dataobj).T, ours.array)
    assert np.allclose(theirs.affine, ours.affine, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(ORDERS))
def test_canonical_does_not_depend_on_the_stored_order(seed, order):
    """Also for grids at any angle, where a greedy choice of axes would."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed % 2**32).as_matrix() * np.array([0.7, 0.9, 3.0])
    volume = make(affine)
    assert np.array_equal(to_canonical(volume).array, to_canonical(stored_as(volume, order)).array)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
@pytest.mark.parametrize("degrees", [45.0, 135.0, -45.0])
@pytest.mark.parametrize("order", ORDERS[::3], ids=str)
def test_ties_at_45_degrees_do_not_depend_on_it_either(axis, degrees, order):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    volume = make(affine)
    assert np.array_equal(to_canonical(volume).array, to_canonical(stored_as(volume, order)).array)


def test_canonical_volume_is_returned_as_it_is():
    volume = make(np.diag([1.0, 2.0, 3.0, 1.0]))
    assert to_canonical(volume) is volume
    assert canonical_orientation(volume.affine).is_identity


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_inverse(order):
    assert np.array_equal(order.inverse.apply(order.apply(ARRAY)), ARRAY)
    assert np.array_equal(order.apply(order.inverse.apply(ARRAY.copy())), ARRAY)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_affine_of_a_reordering_as_nibabel_computes_it(order):
    affine = tilted()
    # nibabel: for each stored axis (i, j, k) the output axis and the direction
    ornt = np.array(
        [
            [2 - order.axes.index(2 - axis), -1 if order.flips[order.axes.index(2 - axis)] else 1]
            for axis in range(3)
        ]
    )
    assert np.array_equal(apply_orientation(ARRAY.T, ornt).T, order.apply(ARRAY))
    expected = affine @ inv_ornt_aff(ornt, ARRAY.T.shape)
    assert np.allclose(order.affine(affine, SHAPE), expected, atol=1e-9)


# ---- comparing grids


@pytest.mark.parametrize("voxels", [0.0, 0.001, 0.009, 0.1, 0.49, 0.6, 1.0, 7.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_displacement_is_in_voxels_of_the_smallest_spacing(voxels, axis):
    first = tilted(30.0)
    second = first.copy()
    second[axis, 3] += voxels * 0.7
    assert corner_displacement(first, second, SHAPE) == pytest.approx(voxels, abs=1e-9)
    assert corner_displacement(second, first, SHAPE) == pytest.approx(voxels, abs=1e-9)
    comparison = compare_geometry(make(first), make(second))
    assert comparison.same_grid == (voxels <= 0.5)
    assert comparison.shifted == (0.01 < voxels <= 0.5)
    assert not comparison.equal_after_reorientation


def test_a_small_turn_moves_the_far_corner():
    first, second = np.eye(4), np.eye(4)
    second[:3, :3] = Rotation.from_euler("z", 0.5, degrees=True).as_matrix()
    near = compare_geometry(make(first, np.zeros((5, 5, 5))), make(second, np.zeros((5, 5, 5))))
    far = compare_geometry(make(first, np.zeros((5, 400, 400))), make(second, np.zeros((5, 400, 400))))
    assert near.same_grid and not far.same_grid


@pytest.mark.parametrize(("ratio", "equal"), [(1.0005, True), (1.002, False), (9.0, False)])
def test_spacing(ratio, equal):
    first, second = np.eye(4), np.diag([ratio, 1.0, 1.0, 1.0])
    comparison = compare_geometry(make(first), make(second))
    assert comparison.spacing_equal == equal
    assert comparison.same_grid == equal


def test_shape():
    comparison = compare_geometry(make(np.eye(4)), make(np.eye(4), ARRAY[:-1]))
    assert not comparison.shape_equal and not comparison.same_grid
    assert comparison.displacement_voxels is None


@pytest.mark.parametrize("order", ORDERS[1:], ids=str)
@pytest.mark.parametrize("array", [ARRAY, np.arange(27).reshape(3, 3, 3)], ids=["box", "cube"])
def test_a_reordered_prediction_is_laid_back_exactly(order, array):
    reference = make(tilted(20.0), array)
    prediction = stored_as(reference, order)
    comparison = compare_geometry(reference, prediction)
    assert comparison.equal_after_reorientation and not comparison.same_grid
    assert comparison.reoriented_displacement_voxels == pytest.approx(0.0, abs=1e-9)
    back = reorient_like(prediction, reference)
    assert back is not None
    assert np.array_equal(back.array, reference.array)
    assert np.allclose(back.affine, reference.affine, atol=1e-9)
    assert back.spacing_mm == pytest.approx(reference.spacing_mm)


def test_flipped_axis_with_equal_data_is_not_the_same_grid():
    """The same array under an affine that runs the other way from the same corner: nothing lays it there."""
    reference = make(np.eye(4))
    other = np.diag([-1.0, 1.0, 1.0, 1.0])
    comparison = compare_geometry(reference, make(other))
    assert not comparison.same_grid and not comparison.equal_after_reorientation
    assert reorient_like(make(other), reference) is None


def test_the_same_grid_is_returned_as_it_is():
    volume = make(tilted())
    assert reorient_like(volume, replace(volume)) is volume


def test_reordered_and_shifted_a_little_is_laid_back_and_told():
    reference = make(tilted())
    prediction = stored_as(reference, ORDERS[20])
    affine = prediction.affine.copy()
    affine[0, 3] += 0.1 * 0.7
    comparison = compare_geometry(reference, replace(prediction, affine=affine))
    assert comparison.equal_after_reorientation and comparison.shifted


def test_another_array_must_fit_the_grid():
    with pytest.raises(ValueError, match="does not lie"):
        make(np.eye(4)).with_array(ARRAY[1:])
