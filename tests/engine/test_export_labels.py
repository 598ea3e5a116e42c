"""Export: every voxel that of dense interpolation + argmax, whatever the sizes, the ties and the pieces."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from segbench.engine.export import PlaneExporter, _decide_on_device, labels_from_logits
from segbench.volumes.linear import AxisTaps
from segbench.volumes.resample import nearest_index

sizes = st.tuples(*[st.integers(1, 14)] * 3)


def smooth(classes, shape, seed=0, noise=0.05):
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, *(max(2, n // 6) for n in shape), generator=draw) * 4
    logits = F.interpolate(coarse, size=shape, mode="trilinear")[0]
    return logits + noise * torch.randn(classes, *shape, generator=draw)


def dense(logits, shape):
    return F.interpolate(logits[None], size=tuple(shape), mode="trilinear", align_corners=False)[0]


def unlike(labels, logits, shape, nearest_axis=None):
    """Voxels that differ from the dense definition, near-ties excepted."""
    if nearest_axis is not None:
        index = torch.from_numpy(nearest_index(logits.shape[nearest_axis + 1], shape[nearest_axis]))
        logits = logits.index_select(nearest_axis + 1, index)
    values = dense(logits, shape)
    top = values.topk(min(2, values.shape[0]), dim=0).values
    near = (
        top[0] - top[-1] < 1e-6 * logits.abs().max()
        if values.shape[0] > 1
        else torch.zeros(shape, dtype=torch.bool)
    )
    return int(((torch.from_numpy(labels.astype(np.int64)) != values.argmax(dim=0)) & ~near).sum())


@pytest.mark.parametrize(
    ("classes", "source", "shape"),
    [
        (3, (30, 40, 50), (61, 33, 97)),
        (14, (31, 60, 60), (75, 128, 128)),
        (5, (40, 41, 42), (20, 20, 21)),
        (2, (7, 9, 11), (7, 9, 11)),
        (4, (1, 20, 1), (9, 35, 4)),
        (6, (97, 13, 64), (131, 29, 128)),
    ],
)
def test_no_voxel_differs_from_dense_interpolation(classes, source, shape):
    logits = smooth(classes, source)
    labels = labels_from_logits(logits, shape)
    assert labels.dtype == np.uint8
    assert labels.shape == shape
    assert len(np.unique(labels)) > 1
    assert unlike(labels, logits, shape) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), sizes, sizes, st.integers(0, 2**16), st.sampled_from([None, 0, 1, 2]))
def test_noise_of_any_size(classes, source, shape, seed, nearest_axis):
    logits = torch.randn(classes, *source, generator=torch.Generator().manual_seed(seed))
    labels = labels_from_logits(logits.numpy(), shape, nearest_axis=nearest_axis)
    assert unlike(labels, logits, shape, nearest_axis) == 0


def test_of_equal_logits_the_lowest_class_wins():
    equal = torch.zeros(4, 3, 3, 3)
    assert (labels_from_logits(equal, (6, 5, 7)) == 0).all()
    equal[1:] = 2.0
    assert (labels_from_logits(equal, (6, 5, 7)) == 1).all()
    # class 2 equals class 1 at one end and loses at the other: still class 1
    equal[2, 0] = 1.0
    assert (labels_from_logits(equal, (6, 5, 7)) == 1).all()


def test_a_class_that_wins_only_between_the_source_voxels_is_found():
    # at the ends 0 and 1 win, half-way the runner-up of both is ahead
    logits = torch.tensor([[3.0, -3.0], [-3.0, 3.0], [2.0, 2.0]]).reshape(3, 1, 1, 2)
    assert labels_from_logits(logits, (1, 1, 8)).ravel().tolist() == [0, 0, 0, 2, 2, 1, 1, 1]


@pytest.mark.ci
@pytest.mark.parametrize("regions", [(1, 2, 3), (2, 1, 3), (7, 7, 300)])
def test_regions_later_over_earlier_where_positive(regions):
    logits = smooth(3, (20, 24, 18)) - 1.0
    shape = (41, 30, 37)
    labels = labels_from_logits(logits, shape, regions=regions)
    expected = np.zeros(shape, dtype=np.uint16)
    values = dense(logits, shape).numpy()
    for region, value in zip(values, regions, strict=True):
        expected[region > 0] = value
    unsure = (np.abs(values) < 1e-6 * np.abs(values).max()).any(axis=0)
    np.testing.assert_array_equal(labels[~unsure], expected[~unsure])
    assert labels.dtype == (np.uint16 if max(regions) > 255 else np.uint8)
    assert (labels == 0).any()


@pytest.mark.parametrize("pieces", [1, 3, 8, 40])
@pytest.mark.parametrize("nearest_axis", [None, 0, 2])
def test_planes_may_come_in_any_pieces(pieces, nearest_axis):
    logits = smooth(4, (23, 20, 22))
    whole = labels_from_logits(logits, (50, 31, 40), nearest_axis=nearest_axis)
    exporter = PlaneExporter(4, (23, 20, 22), (50, 31, 40), nearest_axis=nearest_axis)
    for start in range(0, 23, pieces):
        exporter.push(logits[:, start : start + pieces])
    np.testing.assert_array_equal(exporter.labels, whole)
    with pytest.raises(ValueError, match="pushed"):
        exporter.push(logits[:, :1])


@pytest.mark.ci
def test_more_than_255_classes():
    logits = torch.randn(300, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    labels = labels_from_logits(logits, (11, 7, 15))
    assert labels.dtype == np.uint16
    assert labels.max() > 255
    assert unlike(labels, logits, (11, 7, 15)) == 0


@pytest.mark.parametrize("by_sign", [False, True])
def test_the_accelerators_way_decides_alike(by_sign):
    logits = smooth(5, (18, 20, 22)) - (0.5 if by_sign else 0.0)
    shape = (35, 41, 30)
    taps = tuple(AxisTaps.linear_float32(a, b) for a, b in zip((18, 20, 22), shape, strict=True))
    codes, interpolated = _decide_on_device(logits, taps, by_sign, block=97)
    exporter = PlaneExporter(5, (18, 20, 22), shape, regions=(1, 2, 3, 4, 5) if by_sign else None)
    exporter.push(logits)
    np.testing.assert_array_equal(codes.numpy(), exporter.labels)
    assert interpolated == exporter.interpolated
    assert 0 < interpolated < 0.7 * codes.numel()


@pytest.mark.parametrize(
    "arguments",
    [
        {"logits": np.zeros((3, 4, 4))},
        {"regions": (1,)},
        {"nearest_axis": 3},
        {"shape": (4, 4)},
        {"shape": (4, 0, 4)},
    ],
)
def test_nonsense_is_refused(arguments):
    given_ = {"logits": np.zeros((2, 3, 3, 3), dtype=np.float32), "shape": (4, 4, 4), **arguments}
    with pytest.raises(ValueError):
        labels_from_logits(given_.pop("logits"), given_.pop("shape"), **given_)


@pytest.mark.gpu
def test_cuda_logits():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    logits = smooth(6, (30, 40, 36))
    on_device = labels_from_logits(logits.cuda(), (61, 70, 99))
    assert unlike(on_device, logits, (61, 70, 99)) == 0
