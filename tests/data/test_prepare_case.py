"""One case through preparation and back: orientation, crop, normalisation, resampling, geometry."""

from __future__ import annotations

import itertools
import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from round_trip import export_case, stored_grid
from scipy import ndimage

from segbench.core.errors import SegbenchError
from segbench.data.prepared.case import nonzero_box, prepared_shape
from segbench.data.prepared.normalisation import (
    channel_statistics,
    foreground_intensities,
    nonzero_mask,
    normalise,
)
from segbench.data.prepared.prepare import prepare_case
from segbench.data.prepared.recipe import PreparationRecipe, target_spacing
from segbench.engine.export import labels_from_logits, to_stored_grid
from segbench.volumes import Volume, read_label_map, to_canonical, write_label_map
from segbench.volumes.geometry import Orientation

ORIENTATIONS = [
    Orientation(axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product([False, True], repeat=3)
]


def affine_of(spacing=(2.0, 1.5, 1.0), origin=(-30.0, 20.0, 5.0)):
    z, y, x = spacing
    affine = np.diag([x, y, z, 1.0])
    affine[:3, 3] = origin
    return affine


def volume(array, spacing=(2.0, 1.5, 1.0)):
    return Volume(np.ascontiguousarray(array), spacing, affine_of(spacing))


def turned(source: Volume, orientation: Orientation) -> Volume:
    """The same scan stored in another order of axes."""
    return Volume(
        orientation.apply(source.array),
        tuple(source.spacing_mm[a] for a in orientation.axes),
        orientation.affine(source.affine, source.shape_zyx),
    )


def phantom(shape=(12, 14, 10), seed=0):
    """A scan with a border of zeros and three labels of which one touches the edge of what is not zero."""
    r = np.random.default_rng(seed)
    image = np.zeros(shape, dtype=np.int16)
    inner = tuple(slice(2, n - 1) for n in shape)
    image[inner] = r.integers(1, 500, size=[n - 3 for n in shape])
    labels = np.zeros(shape, dtype=np.uint8)
    labels[2:5, 3:6, 4:7], labels[6:9, 2:4, 2:9], labels[shape[0] - 2, 5, 5] = 1, 2, 3
    return image, labels


def one_hot(labels, classes=4):
    return np.stack([labels == k for k in range(classes)]).astype(np.float32)


@pytest.mark.ci
@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_every_orientation_is_prepared_alike_and_returns_to_the_voxel(orientation, tmp_path):
    image, labels = phantom()
    scan, reference = turned(volume(image), orientation), turned(volume(labels), orientation)
    plain = prepare_case([volume(image)], volume(labels), spacing_mm="native", normalisation=["none"])
    case = prepare_case([scan], reference, spacing_mm="native", normalisation=["none"])
    np.testing.assert_array_equal(case.image, plain.image)
    np.testing.assert_array_equal(case.labels, plain.labels)
    back = export_case(one_hot(case.labels), case.properties, scan)
    np.testing.assert_array_equal(back, reference.array)
    # ... and through a file, on the grid that the record alone describes
    written = read_label_map(write_label_map(tmp_path / "case.nii.gz", back, stored_grid(case.properties)))
    np.testing.assert_array_equal(written.array, reference.array)
    np.testing.assert_allclose(written.affine, scan.affine, atol=1e-5)


def test_canonical_axes_are_those_of_the_volumes_room():
    image, _ = phantom()
    for orientation in ORIENTATIONS[::7]:
        scan = turned(volume(image), orientation)
        case = prepare_case([scan], spacing_mm="native", normalisation=["none"], crop=False)
        np.testing.assert_array_equal(case.image[0], to_canonical(scan).array)


def test_stored_orientation_leaves_axes_alone():
    image, _ = phantom()
    scan = turned(volume(image), Orientation((2, 0, 1), (True, False, True)))
    case = prepare_case([scan], spacing_mm="native", normalisation=["none"], orientation="stored", crop=False)
    np.testing.assert_array_equal(case.image[0], scan.array)


@pytest.mark.ci
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 3.0, 3.0), (8.0, 1.0, 1.0), (0.4, 1.5, 1.0)])
def test_labels_survive_resampling_and_export_about_where_they_were(spacing):
    shape = (40, 44, 36)
    r = np.random.default_rng(0)
    labels = (
        (ndimage.gaussian_filter(r.normal(size=(3, *shape)), (0, 5, 5, 5))).argmax(axis=0).astype(np.uint8)
    )
    image = (labels + 1).astype(np.int16)
    source = volume(image)
    case = prepare_case([source], volume(labels), spacing_mm=spacing, normalisation=["none"])
    assert case.properties["shape_after"] == list(prepared_shape(shape, source.spacing_mm, spacing))
    back = export_case(one_hot(case.labels, 3), case.properties)
    assert back.shape == shape
    assert (back == labels).mean() > 0.8


def test_properties_are_json_and_enough_for_export():
    image, labels = phantom()
    case = prepare_case([volume(image)], volume(labels), spacing_mm=(1.0, 1.0, 2.0), normalisation=["zscore"])
    properties = json.loads(json.dumps(case.properties, allow_nan=False))
    logits = one_hot(case.labels)
    np.testing.assert_array_equal(export_case(logits, properties), export_case(logits, case.properties))
    assert properties["original_shape"] == [12, 14, 10]
    assert properties["crop_box"] == [[2, 11], [2, 13], [2, 9]]
    assert properties["spacing_in"] == [2.0, 1.5, 1.0]
    assert properties["spacing_out"] == [1.0, 1.0, 2.0]


def test_export_writes_label_values_and_refuses_a_foreign_grid():
    image, labels = phantom()
    case = prepare_case([volume(image)], volume(labels), spacing_mm="native", normalisation=["none"])
    back = export_case(one_hot(case.labels), case.properties, values=(0, 10, 20, 300))
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, np.array([0, 10, 20, 300])[labels])
    with pytest.raises(ValueError, match="prepared on"):
        export_case(np.zeros((4, 3, 3, 3), dtype=np.float32), case.properties)
    with pytest.raises(ValueError, match="prepared from"):
        export_case(one_hot(case.labels), case.properties, volume(np.zeros((3, 3, 3), dtype=np.uint8)))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**16), st.tuples(*[st.integers(1, 9)] * 3), st.integers(0, 6))
def test_box_is_the_smallest_that_holds_every_nonzero_voxel(seed, shape, count):
    r = np.random.default_rng(seed)
    images = [np.zeros(shape, dtype=np.int16) for _ in range(2)]
    for _ in range(count):
        images[r.integers(2)][tuple(r.integers(n) for n in shape)] = r.integers(-3, 4)
    where = np.argwhere((images[0] != 0) | (images[1] != 0))
    if where.size == 0:
        assert nonzero_box(images) is None
    else:
        expected = tuple((int(a), int(b) + 1) for a, b in zip(where.min(0), where.max(0), strict=True))
        assert nonzero_box(images) == expected


def test_an_empty_scan_is_not_cropped_and_says_so():
    empty = volume(np.zeros((5, 6, 7), dtype=np.int16))
    case = prepare_case([empty], spacing_mm="native", normalisation=["zscore"])
    assert case.image.shape == (1, 5, 6, 7)
    assert np.isfinite(case.image).all()
    assert case.properties["warnings"]


STATISTICS = {"p005": -50.0, "p995": 300.0, "mean": 80.0, "std": 60.0}


def test_ct_clips_then_standardises_before_resampling():
    image, _ = phantom()
    case = prepare_case(
        [volume(image)],
        spacing_mm="native",
        normalisation=["ct"],
        normalisation_statistics=[STATISTICS],
        crop=False,
    )
    np.testing.assert_allclose(case.image[0], (np.clip(image, -50, 300) - 80.0) / 60.0, rtol=1e-6, atol=1e-6)
    assert case.raw is not None, "nothing resampled: the integers are enough"
    coarse = prepare_case(
        [volume(image)],
        spacing_mm=(4.0, 3.0, 2.0),
        normalisation=["ct"],
        normalisation_statistics=[STATISTICS],
        crop=False,
    )
    assert coarse.raw is None
    assert coarse.image.min() >= case.image.min(), "clipped to the normalised range: normalised first"


def test_zscore_has_mean_0_and_std_1_over_the_crop():
    image, _ = phantom()
    case = prepare_case([volume(image)], spacing_mm="native", normalisation=["zscore"])
    assert abs(case.image.mean(dtype=np.float64)) < 1e-6
    assert abs(case.image.std(dtype=np.float64) - 1) < 1e-6


def test_zscore_nonzero_counts_holes_as_inside_and_leaves_outside_at_zero():
    r = np.random.default_rng(0)
    image = np.zeros((12, 12, 12), dtype=np.float32)
    image[2:10, 2:10, 2:10] = r.normal(100, 10, size=(8, 8, 8))
    image[5, 5, 5] = 0.0  # a hole: inside
    image[2, 2, 2] = 0.0  # a dent at the rim: outside
    mask = ndimage.binary_fill_holes(image != 0)
    case = prepare_case([volume(image)], spacing_mm="native", normalisation=["zscore-nonzero"], crop=False)
    inside = image[mask].astype(np.float64)
    np.testing.assert_allclose(
        case.image[0][mask], (inside - inside.mean()) / inside.std(), rtol=1e-4, atol=1e-4
    )
    assert (case.image[0][~mask] == 0).all()
    assert not np.signbit(case.image[0][~mask]).any()
    assert case.image[0, 5, 5, 5] != 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.tuples(*[st.integers(1, 8)] * 3), st.floats(0.2, 0.9))
def test_filled_mask_equals_scipys(seed, shape, density):
    r = np.random.default_rng(seed)
    images = [(r.random(shape) < density).astype(np.int16), (r.random(shape) < 0.2).astype(np.int16)]
    expected = ndimage.binary_fill_holes((images[0] != 0) | (images[1] != 0))
    np.testing.assert_array_equal(nonzero_mask(images), expected)


def test_rescale01_constant_channels_and_unknown_names():
    image = np.array([[[2.0, 4.0, 10.0]]], dtype=np.float32)
    np.testing.assert_allclose(normalise(image, "rescale01"), [[[0, 0.25, 1]]])
    for scheme in ("zscore", "rescale01"):
        np.testing.assert_array_equal(normalise(np.full((2, 2, 2), 7.0), scheme), np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="unknown normalisation"):
        normalise(image, "minmax")
    with pytest.raises(ValueError, match="statistics"):
        normalise(image, "ct")


def test_statistics_are_the_foregrounds_and_do_not_depend_on_global_state():
    r = np.random.default_rng(0)
    image = r.normal(50, 20, size=(30, 40, 40)).astype(np.float32)
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[5:25, 5:35, 5:35] = 2
    np.random.seed(1)  # noqa: NPY002 - shows that it is not used
    drawn = foreground_intensities([image, -image], labels, case="a")
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(drawn, foreground_intensities([image, -image], labels, case="a"))
    assert drawn.shape == (10_000, 2)
    assert not np.array_equal(drawn, foreground_intensities([image, -image], labels, case="b"))
    first, second = channel_statistics([drawn, drawn])
    inside = image[labels > 0]
    assert abs(first["mean"] - inside.mean()) < 1.0
    assert abs(first["std"] - inside.std()) < 1.0
    assert abs(first["p005"] - np.percentile(inside, 0.5)) < 3.0
    assert second["p995"] == pytest.approx(-first["p005"])


def test_statistics_of_background_alone_do_not_exist():
    none = foreground_intensities([np.ones((3, 3, 3))], np.zeros((3, 3, 3), np.uint8), case="a")
    with pytest.raises(SegbenchError, match="no training case has a foreground voxel") as caught:
        channel_statistics([none, none])
    assert caught.value.code == "SB318"


def test_a_training_grid_that_memory_cannot_hold_is_refused_before_it_is_made(monkeypatch):
    from segbench.data.prepared import case as case_module

    volume = Volume(np.ones((10, 20, 30), np.uint8), (40.0, 40.0, 40.0), np.diag([40.0, 40.0, 40.0, 1.0]))
    with pytest.raises(SegbenchError) as caught:
        prepare_case([volume], spacing_mm=(0.01, 0.01, 0.01), normalisation=["none"])
    assert caught.value.code == "SB208"
    assert "40000 x 80000 x 120000" in caught.value.found
    monkeypatch.setattr(case_module, "memory_budget", lambda: None)  # nobody knows how much there is
    assert prepare_case([volume], spacing_mm=(40.0, 40.0, 40.0), normalisation=["none"]).image.shape[0] == 1


def test_channels_are_listed_or_stacked():
    image, _ = phantom()
    apart = prepare_case(
        [volume(image), volume(image * 2)], spacing_mm="native", normalisation=["none", "zscore"]
    )
    stacked = Volume(np.stack([image, image * 2]), (2.0, 1.5, 1.0), affine_of())
    together = prepare_case([stacked], spacing_mm="native", normalisation=["none", "zscore"])
    np.testing.assert_array_equal(apart.image, together.image)
    with pytest.raises(ValueError, match="each of 2 channels"):
        prepare_case([stacked], spacing_mm="native", normalisation=["none"])


@pytest.mark.parametrize(
    ("other", "code"),
    [
        (Volume(np.zeros((12, 14, 9), np.uint8), (2.0, 1.5, 1.0), affine_of()), "SB307"),
        (Volume(np.zeros((12, 14, 10), np.uint8), (2.0, 1.5, 1.1), affine_of((2.0, 1.5, 1.1))), "SB308"),
        (Volume(np.zeros((12, 14, 10), np.uint8), (2.0, 1.5, 1.0), affine_of(origin=(-29, 20, 5))), "SB309"),
    ],
)
def test_files_on_different_grids_are_refused(other, code):
    image, _ = phantom()
    with pytest.raises(SegbenchError) as caught:
        prepare_case([volume(image)], other, spacing_mm="native", normalisation=["none"])
    assert caught.value.code == code


def test_new_shape_rounds_halves_to_even_and_never_vanishes():
    assert prepared_shape((5, 7, 3), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)) == (2, 4, 2)
    assert prepared_shape((1, 1, 1), (1.0, 1.0, 1.0), (9.0, 9.0, 9.0)) == (1, 1, 1)


def test_median_spacing_takes_care_of_thick_slices():
    flat = [(10.0, 1.5, 1.5), (5.0, 1.4, 1.4), (10.0, 1.6, 1.6), (10.0, 1.5, 1.5)]
    shapes = [(10, 200, 200)] * 4
    z, y, x = target_spacing(flat, shapes)
    assert (y, x) == (1.5, 1.5)
    assert z == pytest.approx(np.percentile([10, 5, 10, 10], 10))
    # not few slices: the plain median
    assert target_spacing(flat, [(100, 200, 200)] * 4)[0] == 10.0
    # never finer than the other axes
    fine = [(9.0, 2.0, 2.0)] * 5 + [(0.5, 2.0, 2.0)] * 4
    assert target_spacing(fine, [(10, 200, 200)] * 9)[0] == pytest.approx(2.0, abs=1e-4)


def test_recipes_share_a_digest_only_when_the_numbers_agree():
    base = PreparationRecipe(channels=("ct",), normalisation=("zscore",), spacing_mm=(1.0, 1.0, 1.0))
    ct = PreparationRecipe(channels=("ct",), normalisation=("ct",), spacing_mm=(1.0, 1.0, 1.0))
    assert base.digest(["a"]) == base.digest(["b"]), "z-scores do not look at the split"
    assert ct.digest(["a"]) != ct.digest(["b"])
    assert ct.digest(["a", "b"]) == ct.digest(["b", "a"])
    other = PreparationRecipe(channels=("ct",), normalisation=("zscore",), spacing_mm=(1.0, 1.0, 1.5))
    assert base.digest() != other.digest()
    with pytest.raises(ValueError, match="spacing_mm"):
        PreparationRecipe(channels=("ct",), normalisation=("ct",), spacing_mm=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="unknown normalisation"):
        PreparationRecipe(channels=("ct",), normalisation=("hu",), spacing_mm="native")


def test_pasting_outside_the_crop_is_background():
    image, labels = phantom()
    case = prepare_case([volume(image)], volume(labels), spacing_mm="native", normalisation=["none"])
    full = to_stored_grid(np.full(case.labels.shape, 7, dtype=np.uint8), case.properties)
    assert (full != 0).sum() == case.labels.size
    assert full.shape == labels.shape
    assert labels_from_logits(one_hot(case.labels), case.labels.shape).dtype == np.uint8
