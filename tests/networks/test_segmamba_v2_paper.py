"""The reconstruction of SegMamba-V2's figure: each block literally, each open choice buildable and felt."""

import network_formulas as formulas
import pytest
import torch
from torch.nn import functional as F

from segbench.networks import build_network, build_on_meta
from segbench.networks.fingerprint import pcg64_input, set_pcg64_weights
from segbench.networks.segmamba_v2_paper import (
    DepthwiseBlock,
    GatedConv,
    ParallelDown,
    TriOriented,
    TSMambaBlock,
    uncertainty,
)

C = 8
X = pcg64_input((2, C, 6, 4, 8), 5)


def made(layer):
    set_pcg64_weights(layer.double(), 3)
    return layer, dict(layer.state_dict())


def conv(w, p, x, **how):
    return F.conv3d(x, w[f"{p}.weight"], w[f"{p}.bias"], **how)


def linear(w, p, x):
    return x @ w[f"{p}.weight"].T + w[f"{p}.bias"]


@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_three_convolutions_halve_the_same_input(fusion):
    layer, w = made(ParallelDown(C, 6, fusion=fusion))
    five = conv(w, "convs.0", X, stride=2, padding=2)
    three = conv(w, "convs.1", X, stride=2, padding=1)
    two = conv(w, "convs.2", X, stride=2)
    joined = five + three + two if fusion == "sum" else conv(w, "fuse", torch.cat([five, three, two], 1))
    assert layer(X).shape == (2, 6, 3, 2, 4)
    assert torch.allclose(layer(X), joined, atol=1e-12)


@pytest.mark.parametrize("norm", ["instance", "layer"])
def test_depthwise_block(norm):
    layer, w = made(DepthwiseBlock(C, kernel=5, norm=norm))
    y = conv(w, "depthwise", X, padding=2, groups=C)
    if norm == "instance":
        y = formulas.inorm(y)
    else:
        y = formulas.layer_norm_last(y.movedim(1, -1), w["norm.weight"], w["norm.bias"], 1e-5).movedim(-1, 1)
    assert torch.allclose(layer(X), X + conv(w, "reduce", formulas.gelu(conv(w, "expand", y))), atol=1e-12)


@pytest.mark.parametrize("gate", ["mul", "add"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("first", [True, False])
def test_gated_convolution(gate, kernel, first):
    layer, w = made(GatedConv(C, gate=gate, last_kernel=kernel, norm_first=first))

    def unit(p, x, padding):
        if first:
            return torch.relu(conv(w, p, formulas.inorm(x), padding=padding))
        return torch.relu(formulas.inorm(conv(w, p, x, padding=padding)))

    a, b = unit("deep2", unit("deep1", X, 1), 1), unit("beside", X, 0)
    expected = X + unit("last", a * b if gate == "mul" else a + b, kernel // 2)
    assert torch.allclose(layer(X), expected, atol=1e-12)


def mamba_of(w, k):
    prefix = f"mambas.{k}."
    return {f"m.{name.removeprefix(prefix)}": t for name, t in w.items() if name.startswith(prefix)}


@pytest.mark.parametrize("weights", ["shared", "separate"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("merge", ["sum", "mean"])
def test_tri_oriented_scan(weights, directions, merge):
    layer, w = made(TriOriented(C, weights=weights, directions=directions, merge=merge))
    total = 0
    for k, order in enumerate((1, 2, 3)):
        m = mamba_of(w, 0 if weights == "shared" else k)
        tokens, flat = formulas.walked(X, order)
        s = formulas.mamba(m, "m", tokens)
        if directions == 2:
            s = (s + formulas.mamba(m, "m", tokens.flip(1)).flip(1)) / 2
        total = total + formulas.unwalked(s, flat, X.shape[2:])
    expected = total / 3 if merge == "mean" else total
    assert torch.allclose(layer(X.movedim(1, -1)).movedim(-1, 1), expected, atol=1e-12)


def test_block_is_gsc_then_toom_then_mlp_with_two_residuals():
    block, w = made(TSMambaBlock(C, GatedConv(C), TriOriented(C), mlp_expansion=2))
    y = block.gsc(X).movedim(1, -1)
    y = y + block.toom(formulas.layer_norm_last(y, w["norm1.weight"], w["norm1.bias"], 1e-5))
    z = formulas.layer_norm_last(y, w["norm2.weight"], w["norm2.bias"], 1e-5)
    y = y + linear(w, "reduce", formulas.gelu(linear(w, "expand", z)))
    assert torch.allclose(block(X), y.movedim(-1, 1), atol=1e-12)


def test_uncertainty_is_minus_s_log_s_of_the_channel_mean():
    s = 1 / (1 + torch.exp(-X.mean(1, keepdim=True)))
    u = -s * torch.log(s)
    assert torch.allclose(uncertainty(X, "residual"), X + X * (1 - u), atol=1e-12)
    assert torch.allclose(uncertainty(X, "scale"), X * (1 - u), atol=1e-12)
    assert torch.equal(uncertainty(X, "none"), X)
    extreme = torch.tensor([-500.0, 0.0, 500.0], dtype=torch.float64).reshape(1, 1, 1, 1, 3)
    assert torch.isfinite(uncertainty(extreme, "residual")).all()


CHOICES = {
    "downsampling": "conv",
    "fusion": "sum",
    "dw_kernel": 5,
    "dw_norm": "layer",
    "toom_weights": "separate",
    "toom_directions": 2,
    "toom_merge": "mean",
    "gsc_gate": "add",
    "gsc_last_kernel": 1,
    "gsc_norm_first": False,
    "mlp_expansion": 4,
    "fue": "scale",
    "full_resolution_stem": False,
}


@pytest.mark.ci
@pytest.mark.parametrize("name", CHOICES)
def test_every_open_choice_builds_and_takes_the_same_sizes(name):
    network = build_on_meta("segmamba-v2-paper", 4, 3, **{name: CHOICES[name]}).eval()
    assert network(torch.empty((1, 4, 32, 48, 64), device="meta")).shape == (1, 3, 32, 48, 64)


def test_an_open_choice_outside_its_values_is_refused():
    for name in set(CHOICES) - {"dw_kernel", "gsc_norm_first", "mlp_expansion", "full_resolution_stem"}:
        with pytest.raises(ValueError, match=f"{name} = 'other' is not valid"):
            build_network("segmamba-v2-paper", 1, 2, **{name: "other"})
    with pytest.raises(ValueError, match="dw_kernel must be odd"):
        build_network("segmamba-v2-paper", 1, 2, dw_kernel=4)


def test_skips_carry_the_uncertainty_of_the_stage_outputs():
    network = build_network("segmamba-v2-paper", 1, 2, features=(8, 8, 8, 8), depths=(1, 1, 1, 1), hidden=8)
    stages, skips = [], []
    for stage, skip in zip(network.encoder, network.skips, strict=True):
        stage.register_forward_hook(lambda module, inputs, output: stages.append(output))
        skip.register_forward_hook(lambda module, inputs, output: skips.append(inputs[0]))
    network(torch.randn(1, 1, 32, 32, 48, generator=torch.Generator().manual_seed(0)))
    assert len(stages) == len(skips) == 4
    for output, entered in zip(stages, skips, strict=True):
        assert torch.equal(entered, uncertainty(output, "residual"))
