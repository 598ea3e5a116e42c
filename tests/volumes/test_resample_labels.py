"""Label resampling against the float64 one-hot oracle, exact ties included."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage

from segbench.volumes import read_label_map
from segbench.volumes.resample import axis_operator, nearest_index, resample_labels

sizes = st.tuples(*[st.integers(1, 12)] * 3)


def oracle(labels, shape):
    """Dense definition: float64 indicators through the linear axis operators, later labels over earlier."""
    result = np.zeros(shape, dtype=labels.dtype)
    for label in np.unique(labels):
        p = (labels == label).astype(np.float64)
        for axis, (n_in, n_out) in enumerate(zip(labels.shape, shape, strict=True)):
            p = np.moveaxis(np.tensordot(axis_operator(n_in, n_out, 1), p, (1, axis)), 0, axis)
        result[p >= 0.5 - 1e-9] = label
    return result


def organs(shape, count=6, seed=0, dtype=np.uint8):
    r = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(r.normal(size=(count, *shape)), (0, 2, 2, 2))
    return fields.argmax(axis=0).astype(dtype)


@pytest.mark.parametrize("shape", [(40, 60, 48), (20, 30, 24), (31, 17, 45), (10, 15, 12), (80, 30, 5)])
def test_equal_to_the_oracle_in_every_voxel(shape):
    labels = organs((20, 30, 24))
    result = resample_labels(labels, shape)
    assert result.dtype == labels.dtype
    np.testing.assert_array_equal(result, oracle(labels, shape))


def test_integer_factors_make_ties_everywhere_and_the_later_label_wins():
    labels = np.array([[[0, 1, 3, 2]]], dtype=np.uint8)
    assert resample_labels(labels, (1, 1, 2)).ravel().tolist() == [1, 3]  # means of pairs: exact halves
    checkers = (np.indices((8, 8, 8)).sum(axis=0) % 2).astype(np.uint8)
    np.testing.assert_array_equal(resample_labels(checkers, (4, 4, 4)), np.ones((4, 4, 4)))
    np.testing.assert_array_equal(resample_labels(checkers, (16, 16, 16)), oracle(checkers, (16, 16, 16)))


def test_where_no_label_reaches_a_half_it_is_background():
    # a third of each label meets in the middle of a 3 -> 1 corner of three labels
    labels = np.zeros((2, 2, 1), dtype=np.uint8)
    labels[0, 0], labels[0, 1], labels[1, 0], labels[1, 1] = 4, 5, 6, 7
    assert resample_labels(labels, (1, 1, 1)).item() == 0


@settings(max_examples=60, deadline=None)
@given(before=sizes, after=sizes, seed=st.integers(0, 2**16))
def test_any_noise_any_sizes(before, after, seed):
    labels = np.random.default_rng(seed).integers(0, 4, size=before).astype(np.uint8)
    np.testing.assert_array_equal(resample_labels(labels, after), oracle(labels, after))


@pytest.mark.ci
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_types_and_large_values_are_kept(dtype):
    labels = organs((9, 10, 11), dtype=dtype) * 300
    result = resample_labels(labels, (14, 7, 20))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, oracle(labels, (14, 7, 20)))


def test_bool_and_negative_labels():
    mask = organs((9, 10, 11), 2).astype(bool)
    np.testing.assert_array_equal(
        resample_labels(mask, (14, 7, 20)), oracle(mask.astype(np.uint8), (14, 7, 20))
    )
    shifted = organs((9, 10, 11)).astype(np.int16) - 2
    np.testing.assert_array_equal(resample_labels(shifted, (14, 7, 20)), oracle(shifted, (14, 7, 20)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_nearest_axis_decides_per_slice_then_picks(axis):
    labels = np.moveaxis(organs((7, 20, 24)), 0, axis)
    shape = [11, 11, 11]
    slices = np.moveaxis(labels, axis, 0)
    decided = np.stack([oracle(piece[None], (1, 11, 11))[0] for piece in slices])
    expected = np.moveaxis(decided[nearest_index(slices.shape[0], 11)], 0, axis)
    np.testing.assert_array_equal(resample_labels(labels, shape, nearest_axis=axis), expected)


def test_unchanged_grid_is_an_equal_copy():
    labels = organs((5, 6, 7))
    result = resample_labels(labels, labels.shape)
    np.testing.assert_array_equal(result, labels)
    assert not np.shares_memory(result, labels)


def test_floats_and_other_ranks_are_refused():
    with pytest.raises(ValueError, match="integers"):
        resample_labels(np.zeros((3, 3, 3)), (4, 4, 4))
    with pytest.raises(ValueError, match="z, y, x"):
        resample_labels(np.zeros((3, 3), dtype=np.uint8), (4, 4, 4))


@pytest.mark.real_data
def test_real_map_of_117_structures(real_data):
    labels = read_label_map(real_data / "ct_totalseg_fullbody3mm" / "seg117.nii.gz").array
    part = np.where(np.isin(labels, (1, 2, 5, 51, 52, 90)), labels, 0).astype(labels.dtype)
    for shape in ((134, 90, 146), (56, 50, 61)):
        np.testing.assert_array_equal(resample_labels(part, shape), oracle(part, shape))
