"""Inputs and comparisons that the tests of the scan share."""

from __future__ import annotations

import torch
from torch import Tensor

from segbench.networks.scan import selective_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def scan_inputs(
    batch: int, channels: int, states: int, length: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """The eight tensors, token-major as a Mamba block has them, with step sizes that Mamba starts from."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    A = -torch.arange(1, states + 1, dtype=torch.float64).repeat(channels, 1) * torch.exp(
        0.1 * normal(channels, states)
    )
    tensors = [
        normal(batch, length, channels).transpose(1, 2),
        (normal(batch, length, channels) * 0.8 - 3.5).transpose(1, 2),
        A,
        normal(batch, length, states).transpose(1, 2),
        normal(batch, length, states).transpose(1, 2),
        normal(channels),
        normal(batch, length, channels).transpose(1, 2),
        normal(channels) * 0.5,
    ]
    return [tensor.to(dtype) for tensor in tensors]


def run_scan(
    tensors: list[Tensor], *, backend: str, dtype: torch.dtype = torch.float64, present: str = "Dz+s"
) -> list[Tensor]:
    """The output and the gradients of a fixed weighted sum of it, all as float64.

    `present` names what is there: D, z, + for the bias, s for the softplus.
    """
    keep = {"D": "D", "z": "z", "delta_bias": "+"}
    leaves = [t.detach().to(dtype).requires_grad_() for t in tensors]
    arguments = [
        t if name not in keep or keep[name] in present else None
        for name, t in zip(NAMES, leaves, strict=True)
    ]
    if "s" not in present:
        arguments[1] = torch.nn.functional.softplus(leaves[1])
    y = selective_scan(*arguments, "s" in present, backend=backend)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = weights.to(y.device, dtype)
    used = [t for t, a in zip(leaves, arguments, strict=True) if a is not None]
    gradients = torch.autograd.grad((y * weights).sum(), used)
    return [y.detach().double(), *(g.double() for g in gradients)]


def relative_errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Largest error of each tensor relative to the largest value of the exact one."""
    scales = [float(e.abs().max()) for e in exact]
    errors = [float((f - e).abs().max()) for f, e in zip(found, exact, strict=True)]
    return [error / scale if scale else error for error, scale in zip(errors, scales, strict=True)]
