"""Sliding windows: the same numbers as full accumulation, in memory that does not grow with the scan."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import blosc2
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from predicted_logits import predict_case, predict_logits
from torch import nn

from segbench.engine.export import labels_from_logits
from segbench.engine.predictor import predict_planes
from segbench.engine.probabilities import ProbabilityWriter
from segbench.engine.windows import importance_map, window_starts

PATCH = (16, 16, 16)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 6, 3, padding=1), nn.Tanh(), nn.Conv3d(6, 4, 3, padding=1)).eval()


def scan(*shape, channels=2, seed=0):
    return torch.randn(channels, *shape, generator=torch.Generator().manual_seed(seed))


def full_accumulation(network, image, patch, overlap, flips=((),)):
    """The definition, with class-sized tensors."""
    starts = [window_starts(n, p, overlap) for n, p in zip(image.shape[1:], patch, strict=True)]
    weight = importance_map(patch)
    total, coverage = None, torch.zeros(image.shape[1:])
    with torch.no_grad():
        for z in starts[0]:
            for y in starts[1]:
                for x in starts[2]:
                    cut = (
                        slice(None),
                        slice(z, z + patch[0]),
                        slice(y, y + patch[1]),
                        slice(x, x + patch[2]),
                    )
                    window = image[cut]
                    views = [
                        network(window.flip(f)[None])[0].flip(f) if f else network(window[None])[0]
                        for f in flips
                    ]
                    logits = torch.stack(views).mean(dim=0)
                    total = torch.zeros(logits.shape[0], *image.shape[1:]) if total is None else total
                    total[cut] += logits * weight
                    coverage[cut[1:]] += weight
    return total / coverage


@pytest.mark.ci
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("planes", [1, 5, 64])
def test_the_ring_gives_what_full_accumulation_gives(network, overlap, planes):
    image = scan(53, 20, 31)
    result = predict_logits(
        network, image, patch=PATCH, num_outputs=4, overlap=overlap, planes_at_once=planes
    )
    expected = full_accumulation(network, image, PATCH, overlap)
    torch.testing.assert_close(result, expected, atol=2e-6, rtol=0)
    labels = predict_case(network, image, patch=PATCH, num_outputs=4, overlap=overlap)
    np.testing.assert_array_equal(labels, labels_from_logits(result, image.shape[1:]))


def test_monais_numbers_to_1e_5(network):
    image = scan(48, 40, 32)
    with torch.no_grad():
        expected = sliding_window_inference(image[None], PATCH, 2, network, overlap=0.5, mode="gaussian")[0]
    result = predict_logits(network, image, patch=PATCH, num_outputs=4, overlap=0.5)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [(16, 16, 16), (9, 33, 12), (1, 5, 64)])
def test_importance_is_proportional_to_monais_and_at_most_one(window):
    ours = importance_map(window)
    theirs = compute_importance_map(window, mode="gaussian", sigma_scale=0.125, dtype=torch.float32)
    torch.testing.assert_close(ours * theirs.max(), theirs, atol=1e-6, rtol=1e-5)
    assert ours.max() == 1.0
    assert ours.min() >= 1e-3


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 64), st.integers(0, 300), st.floats(0, 0.9))
def test_windows_cover_the_axis_from_end_to_end(window, more, overlap):
    length = window + more
    starts = window_starts(length, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == length - window
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= max(1, round(window * (1 - overlap)) + 1)).all()
    assert steps.size == 0 or steps.max() - steps.min() <= 1, "equally spaced"


def test_a_constant_network_stays_constant_and_a_pointwise_one_is_exact():
    constant = nn.Conv3d(1, 3, 1)
    nn.init.zeros_(constant.weight)
    result = predict_logits(constant, scan(40, 30, 50, channels=1), patch=PATCH, num_outputs=3, overlap=0.7)
    torch.testing.assert_close(
        result, constant.bias.detach().reshape(3, 1, 1, 1).expand_as(result), atol=1e-6, rtol=0
    )
    torch.manual_seed(0)
    pointwise = nn.Conv3d(2, 3, 1)
    image = scan(20, 33, 18)
    result = predict_logits(pointwise, image, patch=PATCH, num_outputs=3)
    torch.testing.assert_close(result, pointwise(image[None])[0].detach(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("shape", [(7, 40, 16), (5, 6, 7), (16, 16, 16), (1, 1, 1)])
def test_volumes_smaller_than_the_window_are_padded_symmetrically(shape):
    torch.manual_seed(0)
    pointwise = nn.Conv3d(2, 3, 1)
    image = scan(*shape)
    result = predict_logits(pointwise, image, patch=PATCH, num_outputs=3)
    torch.testing.assert_close(result, pointwise(image[None])[0].detach(), atol=2e-6, rtol=0)
    # what the network sees is centred
    seen = []
    probe = nn.Identity()
    probe.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    predict_logits(probe, torch.ones(2, 5, 16, 16), patch=PATCH, num_outputs=2)
    assert seen[0][0, 0].amax(dim=(1, 2)).tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 6


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_mirrored_views_are_averaged_inside_the_window(network, batch):
    image = scan(20, 18, 24)
    flips = [(), (1,), (3,), (1, 3)]
    result = predict_logits(
        network, image, patch=PATCH, num_outputs=4, mirror_axes=("x", "z"), window_batch=batch
    )
    torch.testing.assert_close(
        result, full_accumulation(network, image, PATCH, 0.5, flips), atol=2e-6, rtol=0
    )


def test_an_even_network_is_unchanged_by_mirroring():
    pointwise = nn.Conv3d(2, 3, 1)
    image = scan(20, 18, 24)
    plain = predict_logits(pointwise, image, patch=PATCH, num_outputs=3)
    mirrored = predict_logits(pointwise, image, patch=PATCH, num_outputs=3, mirror_axes=("z", "y", "x"))
    torch.testing.assert_close(mirrored, plain, atol=1e-6, rtol=0)


def test_ensembles_average_probabilities(network):
    torch.manual_seed(1)
    other = nn.Conv3d(2, 4, 3, padding=1).eval()
    image = scan(30, 18, 20)
    one, two = (predict_logits(member, image, patch=PATCH, num_outputs=4) for member in (network, other))
    both = predict_logits([network, other], image, patch=PATCH, num_outputs=4)
    torch.testing.assert_close(both, (one.softmax(0) + two.softmax(0)) / 2, atol=1e-6, rtol=0)
    signs = predict_logits([network, other], image, patch=PATCH, num_outputs=4, by_sign=True)
    torch.testing.assert_close(signs + 0.5, (one.sigmoid() + two.sigmoid()) / 2, atol=1e-6, rtol=0)
    labels = predict_case([network, other], image, patch=PATCH, num_outputs=4, regions=(1, 2, 3, 9))
    np.testing.assert_array_equal(labels, labels_from_logits(signs, image.shape[1:], regions=(1, 2, 3, 9)))


def test_prediction_lands_on_the_stored_grid_in_one_pass(network):
    image = scan(25, 18, 20)
    logits = predict_logits(network, image, patch=PATCH, num_outputs=4)
    labels = predict_case(network, image, patch=PATCH, num_outputs=4, shape=(61, 30, 27), nearest_axis=0)
    np.testing.assert_array_equal(labels, labels_from_logits(logits, (61, 30, 27), nearest_axis=0))


def test_planes_arrive_in_order_and_none_is_missing(network):
    image = scan(45, 16, 16)
    parts = list(predict_planes(network, image, patch=PATCH, num_outputs=4, planes_at_once=3))
    assert sum(part.shape[1] for part in parts) == 45
    assert max(part.shape[1] for part in parts) <= 3


def test_a_request_to_stop_need_not_wait_for_the_case(network):
    calls = []

    def at_the_third():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    arguments = {"patch": PATCH, "num_outputs": 4, "overlap": 0.5}
    with pytest.raises(KeyboardInterrupt):
        predict_case(network, scan(40, 20, 24), between=at_the_third, **arguments)
    calls.clear()
    predict_case(network, scan(40, 20, 24), between=lambda: calls.append(1), **arguments)
    windows = [len(window_starts(n, 16, 0.5)) for n in (40, 20, 24)]
    assert len(calls) == np.prod(windows)


def test_networks_that_give_lists_and_wrong_shapes(network):
    class Deep(nn.Module):
        def forward(self, x):
            full = network(x)
            return [full, full[..., ::2, ::2, ::2]]

    image = scan(16, 16, 20)
    torch.testing.assert_close(
        predict_logits(Deep(), image, patch=PATCH, num_outputs=4),
        predict_logits(network, image, patch=PATCH, num_outputs=4),
    )
    with pytest.raises(ValueError, match="the network gave"):
        predict_logits(network, image, patch=PATCH, num_outputs=5)
    with pytest.raises(ValueError, match="expected"):
        predict_logits(network, image[0], patch=PATCH, num_outputs=4)


def test_lower_precision_is_close_and_comes_back_as_float32(network):
    image = scan(20, 18, 24)
    plain = predict_logits(network, image, patch=PATCH, num_outputs=4)
    half = predict_logits(network, image, patch=PATCH, num_outputs=4, precision="bf16")
    assert half.dtype == torch.float32
    assert 0 < float((half - plain).abs().max()) < 0.05


@pytest.mark.parametrize("by_sign", [False, True])
@pytest.mark.parametrize("members", [1, 2])
def test_probabilities_are_streamed_to_a_file(network, tmp_path, by_sign, members):
    image = scan(37, 18, 20)
    networks = [network] * members
    options = {"patch": PATCH, "num_outputs": 4, "regions": (1, 2, 3, 4) if by_sign else None}
    path = tmp_path / "probabilities" / "case.b2nd"
    writer = ProbabilityWriter(
        path,
        4,
        image.shape[1:],
        by_sign=by_sign,
        averaged=members > 1,
        names=list("abcd"),
        properties={"x": 1},
    )
    with writer:
        predict_case(networks, image, **options, observe=writer.push)
    logits = predict_logits(network, image, patch=PATCH, num_outputs=4)
    expected = logits.sigmoid() if by_sign else logits.softmax(dim=0)
    stored = blosc2.open(str(path), mode="r")
    assert stored.dtype == np.float16
    np.testing.assert_allclose(stored[:], expected.numpy(), atol=1e-3)
    notes = json.loads(path.with_suffix(".json").read_text())
    assert notes["outputs"] == ["a", "b", "c", "d"]
    assert notes["independent"] is by_sign
    assert sorted(p.name for p in path.parent.iterdir()) == ["case.b2nd", "case.json"]


def test_half_a_file_of_probabilities_is_no_file(network, tmp_path):
    writer = ProbabilityWriter(tmp_path / "case.b2nd", 4, (20, 16, 16), by_sign=False)
    with pytest.raises(RuntimeError), writer:
        writer.push(torch.zeros(4, 8, 16, 16))
        raise RuntimeError("the power fails")
    with (
        pytest.raises(ValueError, match="expected"),
        ProbabilityWriter(tmp_path / "case.b2nd", 4, (20, 16, 16), by_sign=False) as short,
    ):
        short.push(torch.zeros(4, 8, 16, 16))
    assert list(tmp_path.iterdir()) == []


MEMORY = """
import json, sys, numpy as np, torch
torch.set_num_threads(1)
from segbench.engine.probabilities import ProbabilityWriter
from predicted_logits import predict_case
network = torch.nn.Conv3d(1, 6, 1).eval()
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
def run(slices):
    image = np.random.default_rng(0).normal(size=(1, slices, 64, 64)).astype(np.float32)
    return predict_case(network, image, patch=(16, 32, 32), num_outputs=6, shape=(slices, 128, 128))
run(20)
image_kib = int(sys.argv[1]) * 64 * 64 * 8 // 1024  # float64 while it is made
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
labels = run(int(sys.argv[1]))
print(json.dumps({"growth": status("VmHWM") - before, "labels": labels.nbytes // 1024, "image": image_kib}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_grows_by_the_scan_and_the_label_map_only():
    growth = {}
    for slices in (64, 512):
        command, here = [sys.executable, "-c", MEMORY, str(slices)], Path(__file__).parent
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=here)
        growth[slices] = json.loads(done.stdout)
    more = growth[512]["growth"] - growth[64]["growth"]
    inputs = 1.5 * (growth[512]["image"] - growth[64]["image"])
    labels = growth[512]["labels"] - growth[64]["labels"]
    # six float32 outputs on the source grid would be 43 MiB more, on the target grid 172 MiB more
    assert more <= inputs + labels + 4096
