"""Norm, sum and activation in one: the composition by default, the kernels against it in the interpreter."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch
from torch.nn import functional

from segbench.networks import build_network
from segbench.networks.blocks import norm_act as module
from segbench.networks.blocks.norm_act import norm_act

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None
interpreted = pytest.mark.skipif(not INTERPRETED, reason="TRITON_INTERPRET=1 and triton are needed")


def leaves(
    shape: tuple[int, ...] = (2, 5, 3, 4, 5), *, affine: bool = True, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=draw, dtype=torch.float64)

    x, residual = (3 + 2 * normal(*shape)).to(dtype), normal(*shape).to(dtype)
    x, residual = (v.to(memory_format=torch.channels_last_3d).requires_grad_() for v in (x, residual))
    weight, bias = (normal(shape[1]).float().requires_grad_() for _ in range(2)) if affine else (None, None)
    return x, weight, bias, residual


def composition(x, weight, bias, residual, slope):
    y = functional.instance_norm(x, weight=weight, bias=bias, eps=1e-5)
    y = y if residual is None else y + residual
    return y if slope is None else functional.leaky_relu(y, slope)


@pytest.mark.parametrize("slope", [None, 0, 0.01])
@pytest.mark.parametrize("added", [False, True])
def test_without_the_option_it_is_the_composition_number_for_number(slope, added, monkeypatch) -> None:
    monkeypatch.delenv("SEGBENCH_FAST", raising=False)
    x, weight, bias, residual = leaves(dtype=torch.float32)
    kept = residual if added else None
    found = norm_act(x, weight, bias, residual=kept, slope=slope)
    exact = composition(x, weight, bias, kept, slope)
    assert torch.equal(found, exact)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (found, exact)))


def test_with_the_option_a_cpu_computes_the_composition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGBENCH_FAST", "fused-norm")
    x, weight, bias, residual = leaves(dtype=torch.float32)
    found = norm_act(x, weight, bias, residual=residual, slope=0.01)
    assert torch.equal(found, composition(x, weight, bias, residual, 0.01))


def test_the_option_builds_networks_channels_last_with_the_same_weights(monkeypatch) -> None:
    monkeypatch.delenv("SEGBENCH_FAST", raising=False)
    torch.manual_seed(0)
    plain = build_network("segmamba-v2-nomamba-tiny", 1, 2).eval()
    monkeypatch.setenv("SEGBENCH_FAST", "fused-norm")
    torch.manual_seed(0)
    last = build_network("segmamba-v2-nomamba-tiny", 1, 2).eval()
    for (name, a), (other, b) in zip(plain.state_dict().items(), last.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    assert last.encoder[0].down.weight.is_contiguous(memory_format=torch.channels_last_3d)
    x = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(plain(x), last(x), rtol=1e-4, atol=1e-4)


@interpreted
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("added", "slope"), [(False, None), (True, 0.01), (False, 0), (True, None)])
def test_the_kernels_give_what_the_composition_gives(affine, added, slope, monkeypatch) -> None:
    for name, value in (
        ("PART", 16),
        ("ROWS", 8),
        ("COLUMNS", 4),
    ):  # several parts, ragged ones, tiles of channels
        monkeypatch.setattr(module, name, value)
    x, weight, bias, residual = leaves(affine=affine, dtype=torch.float32)
    kept = residual if added else None
    wanted = [v for v in (x, weight, bias, kept) if v is not None]
    found = module.fused(x, weight, bias, kept, slope)
    exact = composition(*(None if v is None else v.double() for v in (x, weight, bias, kept)), slope)
    draw = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-5)
    pairs = zip(
        torch.autograd.grad((found * draw).sum(), wanted),
        torch.autograd.grad((exact * draw).sum(), wanted),
        strict=True,
    )
    for ours, theirs in pairs:
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=2e-5)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_volumes_of_sixteen_bits_keep_their_type(dtype: torch.dtype, monkeypatch) -> None:
    monkeypatch.setattr(module, "COLUMNS", 4)
    x, weight, bias, residual = leaves((1, 3, 2, 3, 2), dtype=dtype)
    found = module.fused(x, weight, bias, residual, 0.01)
    exact = composition(x.double(), weight.double(), bias.double(), residual.double(), 0.01)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert float((found.double() - exact).abs().max()) <= 2 * torch.finfo(dtype).eps * float(
        exact.abs().max()
    )


@interpreted
def test_a_far_mean_loses_nothing_and_results_repeat() -> None:
    x = (1000 + torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))).contiguous(
        memory_format=torch.channels_last_3d
    )
    first, second = (module.fused(x, None, None, None, None) for _ in range(2))
    assert torch.equal(first, second)
    exact = composition(x.double(), None, None, None, None)
    assert torch.allclose(first.double(), exact, atol=2e-4)
