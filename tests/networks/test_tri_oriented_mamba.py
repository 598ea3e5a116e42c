"""The tri-oriented layer and its stand-ins: token order, one batched call, literal formulas, causality."""

import network_formulas as formulas
import pytest
import torch
from torch.nn import functional as F

from segbench.networks.bisegmamba import OrientedLayer
from segbench.networks.blocks.mamba3 import Mamba3, from_slices, to_slices
from segbench.networks.blocks.tri_oriented_mamba import (
    ORIENTATIONS,
    DepthwiseLayer,
    MatchedLayer,
    TriOrientedMamba,
    from_tokens,
    matched_width,
    to_tokens,
)
from segbench.networks.fingerprint import pcg64_input, set_pcg64_weights
from segbench.networks.segmamba import MambaLayer

CHANNELS = 16
SIZE = (5, 6, 7)


def features(batch=2):
    return pcg64_input((batch, CHANNELS, *SIZE), 5)


def layer_of(kind, *args, **kwargs):
    layer = kind(CHANNELS, *args, **kwargs).double()
    set_pcg64_weights(layer, 3)
    return layer


def named(layer, prefix="p"):
    return {f"{prefix}.{name}": tensor for name, tensor in layer.state_dict().items()}


def test_tokens_are_walked_in_the_order_of_the_three_scans():
    index = torch.arange(5 * 6 * 7).reshape(1, *SIZE, 1)
    for number, order in enumerate(ORIENTATIONS, start=1):
        visited = to_tokens(index, order).flatten()
        expected = [(i * 6 + j) * 7 + k for i, j, k in formulas.ORDERS[number](*SIZE)]
        assert visited.tolist() == expected
        assert torch.equal(from_tokens(to_tokens(index, order), SIZE, order), index)
    fastest = [torch.unravel_index(to_tokens(index, order)[0, 1, 0], SIZE) for order in ORIENTATIONS]
    assert [[int(axis) for axis in step] for step in fastest] == [[0, 0, 1], [0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_one_batched_call_equals_three_calls_through_the_same_mamba(dtype, bound):
    layer, x = layer_of(TriOrientedMamba).to(dtype), features().to(dtype)
    calls = []
    layer.mamba.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape))
    batched = layer(x)
    assert calls == [(6, 210, CHANNELS)]
    y = x.movedim(1, -1)
    for order in ORIENTATIONS:
        tokens = layer.norm(to_tokens(x.movedim(1, -1), order))
        y = y + from_tokens(layer.mamba(tokens), SIZE, order)
    assert (batched - y.movedim(-1, 1)).abs().max() <= bound * batched.abs().max()


def test_toom_equals_its_literal_formula():
    layer = layer_of(TriOrientedMamba)
    assert torch.allclose(layer(features()), formulas.toom(named(layer), "p", features()), atol=1e-12)


def test_bidirectional_layer_equals_its_literal_formula():
    layer = layer_of(TriOrientedMamba, bidirectional=True)
    expected = formulas.toom_bidirectional(named(layer), "p", features())
    assert torch.allclose(layer(features()), expected, atol=1e-12)


def test_layer_is_not_symmetric_in_the_axes():
    layer = layer_of(TriOrientedMamba)
    x = pcg64_input((1, CHANNELS, 4, 4, 4), 5)
    swapped = layer(x.transpose(3, 4)).transpose(3, 4)
    assert (swapped - layer(x)).abs().max() > 1e-2


def test_depthwise_layer_equals_its_literal_formula():
    layer, x = layer_of(DepthwiseLayer), features()
    w = layer.state_dict()
    t = formulas.layer_norm_last(x.movedim(1, -1), w["norm.weight"], w["norm.bias"], 1e-5)
    both = t @ w["in_proj.weight"].T
    inner, z = both[..., : 2 * CHANNELS], both[..., 2 * CHANNELS :]
    mixed = F.conv3d(
        inner.movedim(-1, 1), w["conv.weight"], w["conv.bias"], padding=3, groups=2 * CHANNELS
    ).movedim(1, -1)
    y = (formulas.silu(mixed) * formulas.silu(z)) @ w["out_proj.weight"].T
    assert torch.allclose(layer(x), x + y.movedim(-1, 1), atol=1e-12)


def test_matched_layer_equals_its_literal_formula():
    layer, x = layer_of(MatchedLayer), features()
    w = layer.state_dict()
    t = formulas.layer_norm_last(x.movedim(1, -1), w["norm.weight"], w["norm.bias"], 1e-5).movedim(-1, 1)
    t = F.conv3d(t, w["conv.weight"], w["conv.bias"], padding=1, groups=CHANNELS).movedim(1, -1)
    t = formulas.gelu(t @ w["expand.weight"].T + w["expand.bias"]) @ w["reduce.weight"].T + w["reduce.bias"]
    assert torch.allclose(layer(x), x + t.movedim(-1, 1), atol=1e-12)


@pytest.mark.parametrize(("channels", "width"), [(192, 639), (384, 1239)])
def test_matched_width_gives_the_parameters_of_the_mamba_layer(channels, width):
    assert matched_width(channels) == width
    with torch.device("meta"):
        layers = MatchedLayer(channels), TriOrientedMamba(channels)
        counts = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    assert abs(counts[0] - counts[1]) <= channels + 1  # half a unit of width


@pytest.mark.parametrize("bidirectional", [False, True])
def test_fused_layer_of_bisegmamba_equals_its_literal_formula(bidirectional):
    layer = layer_of(OrientedLayer, bidirectional=bidirectional)
    w = {
        name.replace("direction_logits", "fb_logits")
        .replace("fusion.gate.reduce", "fusion.gate.1")
        .replace("fusion.gate.expand", "fusion.gate.3")
        .replace("fusion.mix", "fusion.mix.0")
        .replace("fusion.scale.reduce", "fusion.se.fc.0")
        .replace("fusion.scale.expand", "fusion.se.fc.2"): tensor
        for name, tensor in named(layer).items()
    }
    assert torch.allclose(layer(features()), formulas.bi_layer(w, "p", features()), atol=1e-12)


def test_first_orientation_sees_no_later_token():
    layer = layer_of(TriOrientedMamba)
    tokens = pcg64_input((1, 20, CHANNELS), 5)
    changed = tokens.clone()
    changed[:, 12] += 1
    difference = (layer.mamba(tokens) - layer.mamba(changed)).abs().sum(-1)[0]
    assert difference[:12].max() == 0
    assert difference[12:].min() > 0


# ---------------------------------------------------------------- SegMamba V1


def test_slice_order_takes_token_j_of_slice_s_to_place_j_n_plus_s():
    tokens = torch.arange(24).reshape(1, 24, 1)
    ordered = to_slices(tokens, 4).flatten().tolist()
    assert [ordered[j * 4 + s] for s in range(4) for j in range(6)] == list(range(24))
    assert torch.equal(from_slices(to_slices(tokens, 4), 4), tokens)


def test_three_branches_equal_their_literal_formula():
    mamba = layer_of(Mamba3)
    tokens = pcg64_input((2, 30, CHANNELS), 5)
    expected = formulas.mamba_v1(named(mamba), "p", tokens, 5)
    assert torch.allclose(mamba(tokens, slices=5), expected, atol=1e-12)


@pytest.mark.parametrize("suffix", ["", "_b", "_s"])
def test_each_of_the_three_branches_counts(suffix):
    mamba = layer_of(Mamba3)
    tokens = pcg64_input((1, 30, CHANNELS), 5)
    before = mamba(tokens, slices=5)
    with torch.no_grad():
        mamba.get_parameter(f"D{suffix}").zero_()
        mamba.get_parameter(f"x_proj{suffix}.weight").zero_()
    assert (mamba(tokens, slices=5) - before).abs().max() > 1e-3


def test_slices_by_geometry_are_the_first_length_and_other_counts_must_divide():
    x = pcg64_input((1, CHANNELS, 4, 3, 5), 5)
    by_geometry, by_number = (layer_of(MambaLayer, slices=n) for n in ("geometry", 4))
    assert torch.equal(by_geometry(x), by_number(x))
    with pytest.raises(ValueError, match="60 tokens cannot be cut into 7 equal slices"):
        layer_of(MambaLayer, slices=7)(x)
