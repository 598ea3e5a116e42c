"""What must hold for any pair of maps: both engines agree to the bit, and nothing but the content moves a
number.
"""

import itertools
import os
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.metrics import evaluate_case
from segbench.metrics.engine import _native, _plain
from segbench.metrics.registry import DEFAULT_METRICS
from segbench.metrics.surface import boundary

DISTANCES = ("hd", "hd95", "hd95_max", "assd", "masd")
SYMMETRIC = ("dice", "iou", "volume_similarity", "hd", "hd95_max", "masd", "nsd")
GRIDS = [1.0, 0.5, 0.1, 0.3, 0.79, 3.75, 0.7001, 5.0]


@st.composite
def pairs(draw, largest=14, labels=3):
    """Two label maps with blobs, holes and lone voxels, and a spacing that may or may not round."""
    shape = tuple(draw(st.integers(1, largest)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def one():
        kind = draw(st.sampled_from(["noise", "boxes", "lone", "empty", "full"]))
        if kind == "noise":
            return rng.choice(labels + 1, size=shape, p=[0.7] + [0.3 / labels] * labels).astype(np.uint8)
        array = np.full(shape, labels if kind == "full" else 0, np.uint8)
        if kind == "lone":
            array[tuple(rng.integers(0, n) for n in shape)] = rng.integers(1, labels + 1)
        if kind == "boxes":
            for _ in range(3):
                corner = [rng.integers(0, n) for n in shape]
                box = tuple(slice(c, c + rng.integers(1, n + 1)) for c, n in zip(corner, shape, strict=True))
                array[box] = rng.integers(0, labels + 1)
        return array

    spacing = draw(
        st.one_of(
            st.tuples(*[st.sampled_from(GRIDS)] * 3),
            st.tuples(*[st.floats(0.1, 8.0)] * 3),
        )
    )
    return one(), one(), tuple(float(value) for value in spacing)


REGIONS = {"all": (1, 2, 3), "some": (1, 3), "one": (2,)}


def native(reference, prediction, spacing, regions=REGIONS):
    return _native.measure(reference, prediction, spacing_mm=spacing, regions=regions, distances=True)


def plain(reference, prediction, spacing, regions=REGIONS):
    return _plain.measure(reference, prediction, spacing_mm=spacing, regions=regions, distances=True)


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].counts == second[name].counts
        for mine, other in ((first[name].d1, second[name].d1), (first[name].d2, second[name].d2)):
            assert (mine is None) == (other is None)
            if mine is not None:
                np.testing.assert_array_equal(mine, other)


def scores(reference, prediction, spacing, regions=REGIONS, **options):
    found = evaluate_case(reference, prediction, spacing_mm=spacing, regions=regions, **options)
    return {name: dict(score) | {"status": score.status} for name, score in found.items()}


@settings(max_examples=150, deadline=None)
@given(pairs())
def test_both_engines_give_the_same_bits(pair):
    assert_same(native(*pair), plain(*pair))


@settings(max_examples=60, deadline=None)
@given(pairs(largest=7))
def test_distances_are_those_of_brute_force(pair):
    reference, prediction, spacing = pair
    found = native(reference, prediction, spacing, {"all": (1, 2, 3)})["all"]
    r, p = (np.argwhere(boundary(labels > 0)) for labels in (reference, prediction))
    if not len(r) or not len(p):
        assert found.d1 is None
        return
    steps = (p[:, None] - r[None]) * np.asarray(spacing)
    squares = (steps[..., 0] ** 2 + steps[..., 1] ** 2) + steps[..., 2] ** 2
    np.testing.assert_array_equal(found.d1, np.sqrt(squares.min(axis=1)))
    np.testing.assert_array_equal(found.d2, np.sqrt(squares.min(axis=0)))


@settings(max_examples=40, deadline=None)
@given(pairs())
def test_symmetric_metrics_are_symmetric(pair):
    reference, prediction, spacing = pair
    there, back = scores(reference, prediction, spacing), scores(prediction, reference, spacing)
    for name, metric in itertools.product(REGIONS, SYMMETRIC):
        assert there[name][metric] == pytest.approx(back[name][metric], rel=1e-12)
        assert there[name]["precision"] == back[name]["recall"]


@settings(max_examples=40, deadline=None)
@given(pairs(), st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_turning_the_axes_changes_nothing(pair, axes, flips):
    reference, prediction, spacing = pair
    index = tuple(slice(None, None, -1 if flip else None) for flip in flips)
    turned = [array.transpose(axes)[index] for array in (reference, prediction)]
    before = scores(reference, prediction, spacing)
    after = scores(*turned, tuple(spacing[axis] for axis in axes))
    for name, metric in itertools.product(REGIONS, DEFAULT_METRICS):
        assert after[name][metric] == pytest.approx(before[name][metric], rel=1e-12, abs=1e-12, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(pairs(), st.permutations([1, 2, 3]))
def test_renaming_labels_changes_nothing(pair, names):
    reference, prediction, spacing = pair
    table = np.array([0, *names], np.uint8)
    renamed = {name: tuple(int(table[label]) for label in labels) for name, labels in REGIONS.items()}
    assert scores(table[reference], table[prediction], spacing, renamed) == scores(
        reference, prediction, spacing
    )


@settings(max_examples=30, deadline=None)
@given(pairs())
def test_regions_one_by_one_equal_all_at_once(pair):
    together = scores(*pair)
    for name, labels in REGIONS.items():
        assert scores(*pair, {name: labels})[name] == together[name]


@settings(max_examples=30, deadline=None)
@given(pairs(), st.tuples(*[st.tuples(st.integers(0, 5), st.integers(0, 70))] * 3))
def test_padding_with_background_changes_nothing_but_the_diagonal(pair, widths):
    reference, prediction, spacing = pair
    padded = [np.pad(array, widths) for array in (reference, prediction)]
    before, after = scores(reference, prediction, spacing), scores(*padded, spacing)
    for name in REGIONS:
        if before[name]["status"] in ("ok", "both_empty"):
            assert after[name] == before[name]


@settings(max_examples=30, deadline=None)
@given(pairs(), st.sampled_from([2.0, 0.25, 1024.0]))
def test_distances_scale_with_the_spacing(pair, factor):
    reference, prediction, spacing = pair
    before = scores(reference, prediction, spacing)
    after = scores(reference, prediction, tuple(factor * value for value in spacing))
    for name, metric in itertools.product(REGIONS, DISTANCES):
        assert after[name][metric] == pytest.approx(factor * before[name][metric], rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(pairs(), st.lists(st.floats(0, 40), min_size=2, max_size=4))
def test_nsd_rises_with_the_tolerance(pair, tolerances):
    values = [
        scores(*pair, metrics=["nsd"], nsd_tolerance_mm=value)["all"]["nsd"] for value in sorted(tolerances)
    ]
    assert values == sorted(values)


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_inequalities(pair):
    reference, prediction, spacing = pair
    for name, score in scores(reference, prediction, spacing).items():
        if score["status"] != "ok":
            continue
        assert score["hd95"] <= score["hd"]
        assert score["hd95_max"] <= score["hd"]
        assert score["assd"] <= score["hd"]
        assert 0 <= score["iou"] <= score["dice"] <= 1
        edges = [boundary(np.isin(labels, REGIONS[name])) for labels in (reference, prediction)]
        assert (score["hd"] == 0) == np.array_equal(*edges)


TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i2", ">u4", "f4", "f8"]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("other", ["u1", "same"])
def test_type_strides_and_order_change_no_bit(kind, other):
    rng = np.random.default_rng(1)
    shape = (9, 13, 21)
    reference, prediction = (rng.integers(0, 4, shape).astype(np.uint8) for _ in range(2))
    before = scores(reference, prediction, (2.0, 0.7, 0.7))
    changed = reference.astype(kind)
    second = prediction.astype(kind if other == "same" else other)
    frozen = changed.copy()
    frozen.flags.writeable = False
    wide = np.zeros((9, 13, 42), dtype=kind)
    wide[:, :, ::2] = changed
    for version in (changed, frozen, np.asfortranarray(changed), wide[:, :, ::2], changed[::-1][::-1]):
        copy = version.copy()
        assert scores(version, second, (2.0, 0.7, 0.7)) == before
        np.testing.assert_array_equal(version, copy)


def test_labels_beyond_16_bits_and_negative_ones():
    rng = np.random.default_rng(2)
    small = rng.integers(0, 4, (2, 8, 9, 10)).astype(np.uint8)
    table = np.array([0, 70_000, -5, 2**40])
    regions = {"all": (70_000, -5, 2**40), "some": (70_000, 2**40), "one": (-5,)}
    big = table[small]
    assert scores(big[0], big[1], (1, 2, 3), regions) == scores(small[0], small[1], (1, 2, 3))


def test_bool_maps():
    rng = np.random.default_rng(3)
    maps = rng.random((2, 6, 7, 8)) < 0.4
    as_bool = scores(maps[0], maps[1], (1, 1, 2), {"it": (1,)})
    assert as_bool == scores(*maps.astype(np.uint8), (1, 1, 2), {"it": (1,)})


@pytest.mark.parametrize("count", [1, 8, 9, 33, 40, 64, 65, 130])
def test_any_number_of_regions(count):
    rng = np.random.default_rng(count)
    reference, prediction = rng.integers(0, 12, (2, 7, 9, 30)).astype(np.uint8)
    regions = {
        f"r{index}": tuple(int(label) for label in rng.choice(np.arange(1, 12), 1 + index % 4, replace=False))
        for index in range(count)
    }
    assert_same(
        native(reference, prediction, (1.0, 0.5, 0.3), regions),
        plain(reference, prediction, (1.0, 0.5, 0.3), regions),
    )


def test_more_labels_than_a_byte_can_class():
    rng = np.random.default_rng(4)
    reference, prediction = rng.integers(0, 600, (2, 6, 20, 30)).astype(np.uint16)
    # 64 regions that share labels in all combinations: more than 255 classes, so the sweep is split.
    regions = {
        f"r{k}": tuple(label for label in range(1, 600) if (label * 7919 >> k % 9) & 1) for k in range(20)
    }
    assert_same(
        native(reference, prediction, (1.0, 1.0, 1.0), regions),
        plain(reference, prediction, (1.0, 1.0, 1.0), regions),
    )


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 200])
def test_rows_of_any_length(width):
    rng = np.random.default_rng(width)
    reference, prediction = rng.integers(0, 4, (2, 3, 4, width)).astype(np.uint8)
    assert_same(native(reference, prediction, (1.0, 1.0, 1.0)), plain(reference, prediction, (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.75, 0.79, 0.79), (0.3, 0.3, 6.0), (8.0, 0.2, 0.2)])
def test_islands_far_away(spacing):
    rng = np.random.default_rng(6)
    reference, prediction = np.zeros((2, 40, 60, 400), np.uint8)
    reference[5:12, 5:20, 10:40] = 1
    prediction[6:12, 5:22, 12:40] = 1
    for _ in range(6):
        z, y, x = (int(rng.integers(0, n - 8)) for n in reference.shape)
        prediction[z : z + 5, y : y + 7, x : x + 8] = 2
    pair = reference, prediction, spacing
    assert_same(native(*pair, {"it": (1, 2)}), plain(*pair, {"it": (1, 2)}))


@pytest.mark.parametrize("spacing", [(1.0, 1e-9, 1.0), (1e-12, 1.0, 1.0), (1e-50, 1.0, 1e50)])
def test_spacings_of_any_ratio(spacing):
    # A disc of rows that is round in mm would hold a million times more rows along the fine axis.
    assert len(_native.disc_rows(spacing)[1]) < 5000
    reference = np.zeros((30, 40, 50), np.uint8)
    reference[3:12, 4:20, 5:25] = 1
    prediction = np.roll(reference, (5, 3, 9), (0, 1, 2))
    prediction[28, 38, 48] = 2
    assert_same(native(reference, prediction, spacing), plain(reference, prediction, spacing))


@pytest.mark.parametrize("threads", ["2", "5"])
def test_threads_change_no_bit(threads):
    rng = np.random.default_rng(7)
    reference, prediction = np.zeros((2, 90, 120, 500), np.uint8)
    for array, shift in ((reference, 0), (prediction, 2)):
        array[10:80, 10:100, 20 + shift : 300] = 1
        array[20:60, 30:70, 100 : 250 + shift] = 2
    prediction[rng.random(prediction.shape) < 1e-4] = 3
    pair = reference, prediction, (2.0, 0.7, 0.7)
    with mock.patch.dict(os.environ, {"SEGBENCH_THREADS": "1"}):
        alone = native(*pair)
    with mock.patch.dict(os.environ, {"SEGBENCH_THREADS": threads}):
        assert_same(native(*pair), alone)


def test_maps_are_never_written_to():
    rng = np.random.default_rng(8)
    reference, prediction = rng.integers(0, 4, (2, 8, 9, 10)).astype(np.uint8)
    copies = reference.copy(), prediction.copy()
    scores(reference, prediction, (1, 1, 1))
    np.testing.assert_array_equal(reference, copies[0])
    np.testing.assert_array_equal(prediction, copies[1])


def test_scores_hold_python_floats_and_cannot_be_changed():
    reference = np.ones((2, 2, 2), np.uint8)
    score = evaluate_case(reference, reference, spacing_mm=(1, 1, 1), regions={"a": (1,)})["a"]
    assert all(type(value) is float for value in score.values())
    assert list(score) == list(DEFAULT_METRICS)
    with pytest.raises(TypeError):
        score["dice"] = 2.0
    with pytest.raises(AttributeError):
        score.status = "missing"
