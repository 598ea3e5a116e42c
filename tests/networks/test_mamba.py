"""The Mamba block: names, start values, formula, causality, what casts and re-initialisation leave alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from segbench.networks.blocks import mamba
from segbench.networks.blocks.mamba import Mamba, causal_conv


@pytest.fixture
def block() -> Mamba:
    torch.manual_seed(0)
    return Mamba(24)


def test_names_and_shapes_are_those_of_mamba_ssm(block: Mamba) -> None:
    assert {name: tuple(t.shape) for name, t in block.state_dict().items()} == {
        "A_log": (48, 16),
        "D": (48,),
        "in_proj.weight": (96, 24),
        "conv1d.weight": (48, 1, 4),
        "conv1d.bias": (48,),
        "x_proj.weight": (2 + 32, 48),
        "dt_proj.weight": (48, 2),
        "dt_proj.bias": (48,),
        "out_proj.weight": (24, 48),
    }


def test_start_values() -> None:
    torch.manual_seed(0)
    block = Mamba(256)
    torch.testing.assert_close(block.A_log.exp(), torch.arange(1.0, 17).expand(512, 16))
    assert (block.D == 1).all()
    steps = functional.softplus(block.dt_proj.bias)
    assert steps.min() >= 1e-3 * 0.999
    assert steps.max() <= 1e-1 * 1.001
    halves = (steps.log() < math.log(1e-2)).float().mean()
    assert 0.4 < halves < 0.6  # log-uniform: half of them below the geometric middle
    assert block.dt_proj.weight.abs().max() <= 16**-0.5
    assert block.dt_proj.weight.abs().max() > 0.95 * 16**-0.5


def literal(block: Mamba, h: torch.Tensor) -> torch.Tensor:
    """The block written out from its definition, one token after the other."""
    p = {name: t.detach() for name, t in block.state_dict().items()}
    inner, rank = 48, 2
    x, z = (h @ p["in_proj.weight"].T).split(inner, -1)
    padded = functional.pad(x, (0, 0, 3, 0))
    taps = [padded[:, k : k + h.shape[1]] * p["conv1d.weight"][:, 0, k] for k in range(4)]
    x = functional.silu(sum(taps) + p["conv1d.bias"])
    dt, B, C = (x @ p["x_proj.weight"].T).split([rank, 16, 16], -1)
    delta = functional.softplus(dt @ p["dt_proj.weight"].T + p["dt_proj.bias"])
    A = -p["A_log"].exp()
    state, outputs = torch.zeros(h.shape[0], inner, 16, dtype=h.dtype), []
    for t in range(h.shape[1]):
        step = delta[:, t, :, None]
        state = (step * A).exp() * state + step * x[:, t, :, None] * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :]).sum(-1) + p["D"] * x[:, t])
    return (torch.stack(outputs, 1) * functional.silu(z)) @ p["out_proj.weight"].T


@pytest.mark.parametrize("backend", ["reference", "torch", "numba"])
def test_equals_the_definition(block: Mamba, backend: str) -> None:
    block = block.double()
    block.backend = backend
    h = torch.randn(2, 75, 24, dtype=torch.float64)
    torch.testing.assert_close(block(h), literal(block, h), rtol=1e-11, atol=1e-12)


@pytest.mark.ci
def test_gradients_equal_over_the_backends(block: Mamba) -> None:
    block = block.double()
    h = torch.randn(1, 70, 24, dtype=torch.float64, requires_grad=True)
    found = []
    for backend in ("reference", "torch", "numba"):
        block.backend = backend
        found.append(torch.autograd.grad(block(h).square().sum(), [h, *block.parameters()]))
    for gradients in found[1:]:
        for one, other in zip(gradients, found[0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_no_token_sees_a_later_one(block: Mamba) -> None:
    h = torch.randn(1, 90, 24)
    changed = h.clone()
    changed[:, 40] += 1
    first, second = block(h), block(changed)
    assert torch.equal(first[:, :40], second[:, :40])
    assert (first[:, 40:] != second[:, 40:]).any(-1).all()


def test_causal_convolution_equals_a_padded_one() -> None:
    conv = nn.Conv1d(10, 10, 4, groups=10)
    x = torch.randn(2, 30, 10)
    exact = functional.conv1d(
        functional.pad(x.transpose(1, 2), (3, 0)), conv.weight, conv.bias, groups=10
    ).transpose(1, 2)
    torch.testing.assert_close(causal_conv(x, conv), exact)
    torch.testing.assert_close(causal_conv(x[:, :2], conv), exact[:, :2])


@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16])
def test_casts_to_sixteen_bits_spare_rates_and_direct_path(block: Mamba, cast: torch.dtype) -> None:
    before = block.A_log.detach().clone()
    moved = nn.Sequential(block).to(cast)
    assert block.A_log.dtype == block.D.dtype == torch.float32
    assert torch.equal(block.A_log, before)
    assert block.in_proj.weight.dtype == cast
    assert moved(torch.randn(1, 20, 24, dtype=cast)).dtype == cast
    assert block.double().A_log.dtype == torch.float64


def test_runs_under_autocast_with_gradients(block: Mamba) -> None:
    h = torch.randn(2, 40, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = block(h)
        y.float().square().mean().backward()
    exact = block(h)
    assert y.dtype == torch.bfloat16
    assert (y.float() - exact).abs().max() < 0.03 * exact.abs().max()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_convolution_and_scan_compute_in_its_type(
    block: Mamba, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []
    real = mamba.selective_scan

    def watched(*tensors: torch.Tensor, **others: object) -> torch.Tensor:
        y = real(*tensors, **others)
        seen.extend(t.dtype for t in (*tensors[:2], *tensors[3:5], tensors[6], y))  # u, delta, B, C, z
        return y

    monkeypatch.setattr(mamba, "selective_scan", watched)
    h = torch.randn(2, 40, 24)
    with torch.autocast("cpu", dtype=dtype):
        narrow = causal_conv(block.in_proj(h)[..., :48], block.conv1d)
        block(h)
    exact = causal_conv(block.in_proj(h)[..., :48], block.conv1d)
    assert narrow.dtype == dtype
    assert (narrow.float() - exact).abs().max() < 4 * torch.finfo(dtype).eps * exact.abs().max()
    assert seen == [dtype] * 6


def test_a_generic_start_does_not_touch_what_carries_the_time_scale(block: Mamba) -> None:
    kept = {name: block.get_parameter(name).detach().clone() for name in ("A_log", "D", "dt_proj.bias")}

    def zero(module: nn.Module) -> None:
        for parameter in module.parameters(recurse=False):
            nn.init.constant_(parameter, 7.0)

    nn.Sequential(nn.Linear(3, 3), block).apply(zero)
    for name, value in kept.items():
        assert torch.equal(block.get_parameter(name), value)
    assert (block.in_proj.weight == 7).all()
    assert (block.dt_proj.weight == 7).all()


def test_rates_and_direct_path_are_marked_for_no_weight_decay(block: Mamba) -> None:
    marked = {name for name, p in block.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert marked == {"A_log", "D"}


@pytest.mark.ci
def test_compiles_into_one_graph(block: Mamba) -> None:
    h = torch.randn(1, 70, 24)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(h), block(h))


def test_builds_and_runs_on_meta() -> None:
    with torch.device("meta"):
        block = Mamba(32)
    assert block(torch.empty(3, 50, 32, device="meta")).shape == (3, 50, 32)
