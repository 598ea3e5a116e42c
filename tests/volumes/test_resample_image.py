"""Image resampling against the float64 reference it promises to equal."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage
from skimage.transform import resize

from segbench.volumes import read_volume
from segbench.volumes.resample import axis_operator, low_resolution_axis, nearest_index, resample_image

sizes = st.tuples(*[st.integers(1, 24)] * 3)


def reference(image, shape):
    """The reference framework's call, in float64."""
    return resize(
        image.astype(np.float64),
        shape,
        order=3,
        mode="edge",
        anti_aliasing=False,
        clip=True,
        preserve_range=True,
    )


def hounsfield(shape, seed=0):
    """A scan-like image: smooth organs, hard edges, noise, the range of a CT."""
    r = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(r.normal(size=shape), 2.0, mode="nearest")
    smooth /= np.abs(smooth).max()
    image = np.where(smooth > 0.15, 900.0, -1000.0) + 300 * smooth + r.normal(0, 60, size=shape)
    return np.clip(image, -1024, 3071).astype(np.float32)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize(("n_in", "n_out"), [(7, 19), (40, 13), (5, 5), (1, 6), (6, 1), (30, 31)])
def test_operator_is_what_zoom_does_to_each_voxel(n_in, n_out, order):
    operator = axis_operator(n_in, n_out, order)
    assert operator.shape == (n_out, n_in)
    assert operator.dtype == np.float64
    line = np.random.default_rng(1).normal(size=n_in)
    expected = ndimage.zoom(line, n_out / n_in, order=order, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(operator @ line, expected, atol=1e-12)
    np.testing.assert_allclose(operator.sum(axis=1), 1.0, atol=1e-12)


def test_linear_operator_has_the_half_pixel_weights():
    np.testing.assert_allclose(
        axis_operator(2, 4, 1), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], atol=1e-15
    )


def test_nearest_halves_go_up():
    assert nearest_index(4, 2).tolist() == [1, 3]  # centres 0.5 and 2.5
    assert nearest_index(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert axis_operator(4, 2, 0).argmax(axis=1).tolist() == [1, 3]


def test_operator_cannot_be_changed_by_a_caller_and_refuses_nonsense():
    with pytest.raises(ValueError):
        axis_operator(5, 7, 3)[0, 0] = 2.0
    with pytest.raises(ValueError, match="at least 1"):
        axis_operator(0, 5, 3)
    with pytest.raises(ValueError, match="order"):
        axis_operator(4, 5, 6)


@pytest.mark.parametrize(
    "shape", [(45, 61, 50), (20, 21, 23), (45, 21, 77), (30, 40, 36), (1, 90, 36), (31, 1, 1), (30, 40, 35)]
)
def test_within_a_hundredth_of_a_hounsfield_unit_of_the_reference(shape):
    image = hounsfield((30, 40, 36))
    assert np.abs(resample_image(image, shape) - reference(image, shape)).max() <= 1e-2


@settings(max_examples=40, deadline=None)
@given(before=sizes, after=sizes, seed=st.integers(0, 2**16), scale=st.floats(1e-3, 1e4))
def test_within_1e_5_of_the_range_for_any_sizes(before, after, seed, scale):
    image = (np.random.default_rng(seed).uniform(-1, 1, size=before) * scale).astype(np.float32)
    difference = np.abs(resample_image(image, after) - reference(image, after)).max()
    assert difference <= 1e-5 * max(float(np.ptp(image)), 1e-30)


def test_an_image_far_from_zero_keeps_its_digits():
    image = np.float32(1e4) + np.random.default_rng(0).uniform(0, 100, size=(20, 22, 24)).astype(np.float32)
    difference = np.abs(resample_image(image, (31, 17, 40)) - reference(image, (31, 17, 40))).max()
    assert difference <= 1e-5 * 100


def test_overshoot_is_clipped_to_each_channels_own_range():
    step = np.zeros((2, 16, 16, 16), dtype=np.float32)
    step[0, 8:], step[1, 8:] = 1.0, 50.0
    result = resample_image(step, (40, 16, 16))
    assert result.shape == (2, 40, 16, 16)
    for channel, top in zip(result, (1.0, 50.0), strict=True):
        assert channel.min() == 0.0
        assert channel.max() == top


def test_an_unchanged_grid_is_bit_identical_and_a_copy():
    image = hounsfield((9, 8, 7))
    result = resample_image(image, image.shape)
    np.testing.assert_array_equal(result, image)
    result[:] = 0
    assert image.any()


def test_an_axis_that_keeps_its_size_mixes_nothing_across_it():
    image = hounsfield((6, 20, 22))
    whole = resample_image(image, (6, 33, 15))
    for z in range(6):
        alone = resample_image(image[z : z + 1], (1, 33, 15))
        # the clip is to the whole image's range, which a slice does not know
        np.testing.assert_array_equal(np.clip(whole[z], image[z].min(), image[z].max()), alone[0])


def test_integers_and_strided_views_are_taken_as_they_are():
    image = hounsfield((20, 18, 16)).astype(np.int16)
    view = image[::-1, :, ::2]
    np.testing.assert_array_equal(
        resample_image(view, (13, 30, 9)),
        resample_image(np.ascontiguousarray(view).astype(np.float32), (13, 30, 9)),
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_nearest_axis_works_slice_by_slice(axis):
    image = hounsfield((9, 24, 20)) if axis == 0 else np.moveaxis(hounsfield((9, 24, 20)), 0, axis)
    shape = [13, 31, 17]
    slices = np.moveaxis(image, axis, 0)
    plane = [n for a, n in enumerate(shape) if a != axis]
    resized = np.stack([reference(piece, plane) for piece in slices])
    expected = np.moveaxis(resized[nearest_index(slices.shape[0], shape[axis])], 0, axis)
    result = resample_image(image, shape, nearest_axis=axis)
    assert np.abs(result - expected).max() <= 1e-2


def test_low_resolution_axis_follows_source_then_target():
    assert low_resolution_axis((6.5, 0.8, 0.8), (1, 1, 1)) == 0
    assert low_resolution_axis((1, 1, 1), (1, 1, 5)) == 2
    assert low_resolution_axis((3.0, 1, 1), (1, 1, 1)) is None  # exactly three times is not more
    assert low_resolution_axis((5, 5, 1), (5, 1, 1)) is None  # two thick axes: all alike, whatever the target


@pytest.mark.parametrize("arguments", [{"shape": (3, 3)}, {"shape": (3, 0, 3)}, {"nearest_axis": 3}])
def test_nonsense_is_refused(arguments):
    with pytest.raises(ValueError):
        resample_image(np.zeros((4, 4, 4)), **{"shape": (3, 3, 3), **arguments})
    with pytest.raises(ValueError):
        resample_image(np.zeros((4, 4)), (3, 3, 3))


@pytest.mark.real_data
def test_real_ct_up_and_down(real_data):
    image = read_volume(real_data / "ct_totalseg_fullbody3mm" / "ct.nii.gz").array
    for shape in ((134, 90, 146), (74, 101, 61)):
        assert np.abs(resample_image(image, shape) - reference(image, shape)).max() <= 1e-2


@pytest.mark.real_data
def test_real_thick_slices(real_data):
    volume = read_volume(real_data / "nrrd_pyradiomics" / "brain1_image.nrrd")
    spacing = (3.0, 1.0, 1.0)
    axis = low_resolution_axis(volume.spacing_mm, spacing)
    assert axis == 0, "6.5 mm slices"
    shape = [round(s / t * n) for s, t, n in zip(volume.spacing_mm, spacing, volume.array.shape, strict=True)]
    result = resample_image(volume.array, shape, nearest_axis=axis)
    planes = [reference(volume.array[z], shape[1:]) for z in nearest_index(volume.array.shape[0], shape[0])]
    assert np.abs(result - np.stack(planes)).max() <= 1e-5 * float(np.ptp(volume.array))
