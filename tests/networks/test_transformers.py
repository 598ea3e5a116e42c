"""MedFormer, UNETR++, PrimusV3, WaveFormer, LHU-Net: published counts, parts against formulas, refusals."""

import math

import pytest
import torch
from torch.nn import functional

from segbench.networks import build_network, build_on_meta, export_official_weights
from segbench.networks.blocks.resample import by_matrices, joined, split
from segbench.networks.fingerprint import gmacs_at_128
from segbench.networks.lhunet import DeformConv, LargeKernel, TokenAttention, read_between
from segbench.networks.medformer import BothWays
from segbench.networks.primus import decoder_widths, places, rotated
from segbench.networks.unetr_pp import PairedAttention
from segbench.networks.waveformer import WindowAttention

ANISOTROPIC = {"strides": (1, (1, 2, 2), (1, 2, 2), 2, 2), "kernel_sizes": ((1, 3, 3), (1, 3, 3), 3, 3, 3)}
SMALL = {
    "unetr-pp-tiny": {"patch_size": (64, 64, 96)},
    "primus-v3-tiny": {"patch_size": (16, 32, 24)},
    "lhunet-tiny": {"patch_size": (64, 64, 96)},
    "waveformer-tiny": {"drop_path": 0.0},
}
SIGNS = torch.tensor([1.0, -1.0])[:, None, None]
"""Of the first detail: a change along the first axis alone."""


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.ci
@pytest.mark.parametrize(
    ("overrides", "millions", "cost"),
    [
        ({}, 38.59, 1131),
        ({"convolutions": (2, 2, 1, 0, 0), "transformers": (0, 0, 1, 4, 6)}, 39.59, 1174),
        ({**ANISOTROPIC, "map_codes": 27}, 36.67, 842),
    ],
)
def test_medformer_has_the_size_of_three_published_configurations(overrides, millions, cost):
    network = build_on_meta("medformer", 4, 4, **overrides)
    assert round(count(network) / 1e6, 2) == millions
    assert gmacs_at_128(network) == pytest.approx(cost, rel=2e-3)


def test_unetr_pp_and_primus_have_their_published_size():
    assert round(count(build_on_meta("unetr-pp", 4, 4)) / 1e6, 2) == 42.65
    # nnU-Net prints 70.6 M, which is its count at 64^3.
    primus = build_on_meta("primus-v3-s", 4, 4, patch_size=(64, 64, 64))
    assert count(primus) == 70_665_767
    assert len(export_official_weights(primus)) == 377


def test_waveformer_and_lhunet_have_their_published_size():
    # As the authors' class builds it when nothing is said: 1 input, 13 classes, 96^3. Printed is 16.97 M.
    assert count(build_on_meta("waveformer", 1, 13, window=6)) == 16_978_843
    assert round(count(build_on_meta("lhunet", 1, 10, patch_size=(96, 96, 96))) / 1e6, 1) == 8.6


def test_weights_start_as_in_the_releases():
    torch.manual_seed(0)
    network = build_network("waveformer-tiny", 2, 3)
    feed = network.stages[0][0].feed
    assert feed.depthwise.weight.std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.1)
    assert feed.reduce.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not feed.depthwise.bias.any()
    assert network.calibrate.gate.reduce.weight.std() > 0.05  # outside of the encoder: torch's own
    network = build_network("lhunet-tiny", 1, 2, patch_size=(64, 64, 64))
    assert network.first[0].weight.abs().max() > 0.1  # the one convolution of LHU-Net that is left alone
    convs = [m for m in network.downs.modules() if isinstance(m, torch.nn.Conv3d)]
    assert all(conv.weight.abs().max() < 0.12 for conv in convs)


@pytest.mark.ci
@pytest.mark.parametrize(
    "slug", ["medformer-tiny", "unetr-pp-tiny", "primus-v3-tiny", "waveformer-tiny", "lhunet-tiny"]
)
def test_every_parameter_learns_from_an_anisotropic_patch(slug):
    torch.manual_seed(0)
    overrides = SMALL.get(slug, {})
    network = build_network(slug, 2, 3, **overrides).train()
    for module in network.modules():
        if getattr(module, "drop", 0):
            module.drop = 0.0
    size = overrides.get("patch_size", (32, 48, 64) if slug == "medformer-tiny" else (32, 32, 64))
    logits = network(torch.randn(2, 2, *size))
    assert logits.shape == (2, 3, *size)
    (logits * torch.randn_like(logits)).mean().backward()
    left = getattr(network, "_ddp_params_and_buffers_to_ignore", ())
    without = [n for n, p in network.named_parameters() if p.grad is None and n not in left]
    assert not without
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_paired_attention_is_its_formula():
    torch.manual_seed(1)
    attention = PairedAttention(8, 10, 4, heads=2, dropout=0.0).double()
    with torch.no_grad():
        for temperature in (attention.channel_temperature, attention.spatial_temperature):
            temperature.copy_(torch.rand_like(temperature) + 0.5)
    x = torch.randn(1, 10, 8, dtype=torch.float64)
    found = attention(x)
    maps = (x @ attention.qkvv.weight.T).reshape(10, 4, 2, 4)
    spread = torch.zeros(4, 2, 10, dtype=torch.float64)  # place in the head, head, token: the release's order
    between = []
    for head in range(2):
        q, k, v_channel, v_space = (maps[:, part, head] for part in range(4))
        few_k, few_v = attention.project.weight @ k, attention.project.weight @ v_space
        q, k = q / q.norm(dim=0), k / k.norm(dim=0)
        between.append(torch.softmax(q.T @ k * attention.channel_temperature[head], dim=1) @ v_channel.T)
        spread[:, head] = (torch.softmax(q @ few_k.T * attention.spatial_temperature[head], dim=1) @ few_v).T
    assert torch.allclose(found[0], torch.cat(between).T + spread.reshape(10, 8))


def test_features_and_codes_attend_to_each_other_by_one_matrix():
    torch.manual_seed(2)
    block = BothWays(4, 4, (1, 1, 1), head_width=2).double()
    x, codes = (torch.randn(*shape, dtype=torch.float64) for shape in ((1, 4, 2, 3, 4), (1, 4, 5)))
    y, written = block(x, codes)
    features = block.features_in(functional.instance_norm(x)).flatten(2)[0]
    small = block.map_in(functional.instance_norm(codes))[0]
    seen, told = [], []
    for head in (slice(0, 2), slice(2, 4)):
        (q, v), (mq, mv) = features.split(4), small.split(4)
        products = q[head].T @ mq[head] / math.sqrt(2)
        seen.append(mv[head] @ torch.softmax(products, dim=1).T)
        told.append(v[head] @ torch.softmax(products, dim=0))
    expected = block.feed(x + block.features_out(torch.cat(seen).reshape(1, 4, 2, 3, 4)))
    assert torch.allclose(y, expected)
    assert torch.allclose(written, codes + block.map_out(torch.cat(told)[None]))


@pytest.mark.parametrize("corners", [False, True])
def test_interpolation_by_matrices_is_torchs(corners):
    x = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64)
    expected = functional.interpolate(x, size=(8, 10, 4), mode="trilinear", align_corners=corners)
    assert torch.allclose(by_matrices(x, (8, 10, 4), corners=corners), expected, atol=1e-12)


def test_wavelets_keep_the_energy_and_have_an_inverse():
    x = torch.randn(2, 3, 4, 2, 6, dtype=torch.float64)
    low, details = split(x)
    assert torch.allclose(joined(low, details), x)
    assert torch.allclose(low.square().sum() + details.square().sum(), x.square().sum())
    assert torch.allclose(low, functional.avg_pool3d(x, 2) * 8**0.5)
    assert torch.allclose(details[:, :, 0, 0, 0, 0], (x[:, :, :2, :2, :2] * SIGNS).sum((2, 3, 4)) / 8**0.5)


def test_a_window_attends_to_itself_alone_and_sees_the_biases_of_places():
    torch.manual_seed(3)
    attention = WindowAttention(4, heads=2, window=2).double()
    x = torch.randn(1, 4, 4, 2, 2, dtype=torch.float64)
    alone = torch.cat((attention(x[:, :, :2]), attention(x[:, :, 2:])), dim=2)
    assert torch.allclose(attention(x), alone)
    tokens = x[0, :, :2].flatten(1).T
    q, k, v = (tokens @ attention.qkv.weight.T + attention.qkv.bias).reshape(8, 3, 2, 2).unbind(1)
    steps = [(i, j, l) for i in range(2) for j in range(2) for l in range(2)]
    seen = []
    for head in range(2):
        scores = q[:, head] @ k[:, head].T / math.sqrt(2)
        for a, here in enumerate(steps):
            for b, there in enumerate(steps):
                z, y, w = (m - n + 1 for m, n in zip(here, there, strict=True))
                scores[a, b] += attention.bias[5 * z + 3 * y + w, head]
        seen.append(torch.softmax(scores, dim=1) @ v[:, head])
    expected = torch.cat(seen, dim=1) @ attention.out.weight.T + attention.out.bias
    assert torch.allclose(attention(x)[0, :, :2].flatten(1).T, expected)


def test_what_windows_give_is_laid_down_one_window_after_the_other():
    torch.manual_seed(3)
    attention = WindowAttention(4, heads=2, window=2).double()
    x = torch.randn(1, 4, 2, 2, 4, dtype=torch.float64)
    laid = torch.cat([attention(part).flatten(2) for part in x.split(2, dim=4)], dim=2)
    assert torch.allclose(attention(x), laid.reshape(x.shape))  # the release's order, not that of the voxels


def test_a_large_kernel_gates_the_square_of_its_projection_or_adds_the_input():
    torch.manual_seed(4)
    block = LargeKernel(4, "square").double()
    x = torch.randn(1, 4, 3, 4, 5, dtype=torch.float64)
    y = functional.gelu(block.before(x))
    assert torch.allclose(block(x), block.behind(y.square() * block.gate(y)))
    other = LargeKernel(4, "residual").double()
    other.load_state_dict(block.state_dict())
    assert torch.allclose(other(x), x + block.behind(y * block.gate(y)))


def test_a_place_that_is_no_number_gives_none_instead_of_stopping():
    places = torch.tensor([[[1.0, math.nan, math.inf]] * 3])
    read = read_between(torch.ones(1, 2, 3, 3, 3), places)
    assert read[0, :, 0].tolist() == [1, 1]
    assert torch.isnan(read[0, :, 1:]).all()


def test_reading_between_voxels_is_grid_sample_with_zeros_outside():
    x = torch.randn(2, 3, 5, 6, 7, dtype=torch.float64)
    places = torch.rand(2, 3, 40, dtype=torch.float64) * 10 - 2
    grid = torch.stack([2 * places[:, axis] / (n - 1) - 1 for axis, n in ((2, 7), (1, 6), (0, 5))], dim=-1)
    expected = functional.grid_sample(x, grid[:, :, None, None], align_corners=True)[..., 0, 0]
    assert torch.allclose(read_between(x, places), expected)
    moved = places[..., :4].clone().requires_grad_()  # the gradient reaches the places
    assert torch.autograd.gradcheck(lambda at: read_between(x, at), moved, atol=1e-4)


def test_a_deformable_convolution_without_offsets_is_a_convolution():
    conv = DeformConv(3).double()
    torch.nn.init.zeros_(conv.offsets.weight)
    torch.nn.init.zeros_(conv.offsets.bias)
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    weight = conv.taps.weight.reshape(3, 3, 3, 3, 3)
    assert torch.allclose(conv(x), functional.conv3d(x, weight, conv.taps.bias, padding=1))


def test_attention_of_lhunet_is_its_formula_over_space_and_between_channels():
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    for projected in (3, 0):
        attention = TokenAttention(4, 6, projected, heads=2).double()
        maps = (x[0] @ attention.qkv.weight.T).reshape(6, 3, 2, 2)
        parts = torch.zeros(2, 2, 6, dtype=torch.float64)
        for head in range(2):
            q, k, v = (maps[:, part, head] for part in range(3))
            q = q / q.norm(dim=0)
            if projected:
                weight, bias = attention.project.weight, attention.project.bias[:, None]
                parts[:, head] = (torch.softmax(q @ (weight @ k + bias).T, dim=1) @ (weight @ v + bias)).T
            else:
                parts[head] = torch.softmax(q.T @ (k / k.norm(dim=0)), dim=1) @ v.T
        laid = parts.reshape(6, 4) if projected else parts.flatten(0, 1).T
        assert torch.allclose(attention(x)[0], attention.out(attention.norm(laid)))


def test_rotations_leave_products_a_function_of_the_distance():
    grid, width = (3, 4, 5), 12
    turns = places(grid, width, torch.zeros(1, dtype=torch.float64))
    q, k = (torch.randn(1, 1, 1, width, dtype=torch.float64).expand(1, 1, 60, width) for _ in range(2))
    products = (rotated(q, turns) @ rotated(k, turns).transpose(-2, -1)).reshape(*grid, *grid)
    assert torch.allclose(products[0, 1, 2, 1, 3, 3], products[1, 0, 1, 2, 2, 2])
    assert not torch.allclose(products[0, 1, 2, 1, 3, 3], products[1, 3, 3, 0, 1, 2])


@pytest.mark.parametrize(
    ("hidden", "classes", "widths"),
    # Of dynamic-network-architectures 0.4.4, run as a black box.
    [(396, 4, (104, 32)), (396, 25, (200, 96)), (24, 105, (48, 104)), (864, 5, (192, 48)), (48, 3, (24, 16))],
)
def test_the_decoder_of_primus_has_the_widths_of_the_release(hidden, classes, widths):
    assert decoder_widths(hidden, classes) == widths


@pytest.mark.parametrize(
    ("slug", "overrides", "message"),
    [
        ("medformer", {"features": (8, 16)}, "three stages at least"),
        ("medformer", {"transformers": (0, 2, 0, 4, 6)}, "without a gap"),
        ("medformer", {"transformers": (0, 0, 0, 0, 6)}, "without a gap"),
        ("medformer", {"convolutions": (2, 0, 0, 0, 0)}, "at least one in each stage"),
        ("medformer", {"convolutions": (2, 2, 0)}, "one number per stage"),
        ("medformer", {"head_width": 24}, "multiples of 24"),
        ("medformer", {"strides": (1, 2, 2, 2, 3)}, "1 or 2"),
        ("unetr-pp", {"patch_size": (64, 64, 80)}, "multiples of 32, at least 64"),
        ("unetr-pp", {"features": (32, 64, 130, 256)}, "multiples of 4 heads"),
        ("unetr-pp", {"dropout": 1.0}, "below 1"),
        ("waveformer", {"features": (48, 96, 192, 256)}, "each twice the one before"),
        ("waveformer", {"heads": (3, 6, 12, 25)}, "multiples of the heads"),
        ("waveformer", {"window": 1}, "at least 2"),
        ("waveformer", {"drop_path": 1.0}, "below 1"),
        ("lhunet", {"patch_size": (64, 64, 80)}, "multiples of 32, at least 64"),
        ("lhunet", {"features": (13, 16, 32, 64, 128)}, "the first even"),
        ("lhunet", {"heads": (8, 8, 24)}, "multiples of the heads"),
        ("lhunet", {"kernels": (5, 5, 5, 5, 1)}, "five numbers above 1"),
        ("primus-v3-s", {"patch_size": (8, 16, 16)}, "at least 16"),
        ("primus-v3-s", {"hidden": 400}, "multiple of 6 x 6 heads"),
        ("primus-v3-s", {"heads": 0}, "at least 1"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(slug, overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_on_meta(slug, 1, 2, **overrides)
    assert caught.value.code == "SB104"


def test_another_patch_than_the_one_built_for_is_refused():
    network = build_network("primus-v3-tiny", 1, 2, patch_size=(16, 16, 24))
    with pytest.raises(ValueError, match="patches of 16x16x24") as caught:
        network(torch.zeros(1, 1, 16, 24, 16))
    assert caught.value.code == "SB104"


def test_three_modalities_get_a_group_norm_that_divides():
    network = build_on_meta("unetr-pp", 3, 2)
    assert [down[1].num_groups for down in network.downs] == [1, 32, 64, 128]
