"""Instance norm, then a sum, then LeakyReLU: one call, so that a GPU can do it in one pass over memory.

Without the option, and on everything but channels-last volumes on CUDA, it is the composition of torch's own
operations, number for number. With `SEGBENCH_FAST=fused-norm` networks are built channels-last and the Triton
kernels of `norm_kernel` take over where they can. Results then differ by rounding: sums of float32 instead of
what the library does (1e-5 relative in float32; in 16 bits what rounding the output gives).
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from segbench.networks.blocks.fast import fast_ways

__all__ = ["norm_act"]

EPS = 1e-5
KERNELS = "segbench.networks.blocks.norm_kernel"
"""Imported where they are launched: they need triton, which only a machine with a GPU has."""
PART, ROWS, COLUMNS = 1024, 32, 64
"""Voxels of a program, and the tile that it holds."""
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def norm_act(
    x_BCDHW: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    slope: float | None = None,
) -> Tensor:
    """leaky_relu(instance_norm(x) * weight + bias + residual), eps 1e-5.

    Args:
        x_BCDHW: (B, C, D, H, W).
        weight: (C), or None.
        bias: (C), or None.
        residual: Added before the activation; the shape of x.
        slope: Of the activation below 0; 0 is ReLU, None leaves it out.
    """
    if not torch.compiler.is_compiling() and x_BCDHW.is_cuda and _can_be_fused(x_BCDHW, residual):
        return fused(x_BCDHW, weight, bias, residual, slope)
    y = functional.instance_norm(x_BCDHW, weight=weight, bias=bias, eps=EPS)
    if residual is not None:
        y = y + residual
    if slope is None:
        return y
    return functional.leaky_relu(y, slope) if slope else functional.relu(y)


@cache
def _triton_is_there() -> bool:
    return find_spec("triton") is not None


def _can_be_fused(x: Tensor, residual: Tensor | None) -> bool:
    """Wanted, and volumes on CUDA, channels-last (the residual too, of the same type), of several voxels."""
    volumes = [x] if residual is None else [x, residual]
    return (
        "fused-norm" in fast_ways()
        and all(v.is_cuda and v.shape == x.shape and v.dtype == x.dtype for v in volumes)
        and x.dtype in _TYPES
        and x[0, 0].numel() > 1
        and all(v.is_contiguous(memory_format=torch.channels_last_3d) for v in volumes)
        and _triton_is_there()
    )


def fused(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, slope: float | None
) -> Tensor:
    """`norm_act` by the kernels, on channels-last volumes."""
    return _NormAct.apply(x, weight, bias, residual, slope)


class _NormAct(torch.autograd.Function):
    """The kernels, and what they keep for the backward: x, y and two numbers for each sample and channel."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        slope: float | None,
    ) -> Tensor:
        kernel: Any = import_module(KERNELS)

        with torch.cuda.device_of(x):
            grid, sizes, tile = _launch(x)
            first, second = _partial(x), _partial(x)
            kernel.moments[grid](x, first, second, *sizes, **tile)
            # Few numbers, so in double precision: one mean and variance for each sample and channel.
            shifted = first.sum(1, dtype=torch.float64) / sizes[0]
            variance = (second.sum(1, dtype=torch.float64) / sizes[0] - shifted.square()).clamp_(min=0)
            mean = (shifted + x[:, :, 0, 0, 0]).float()
            rstd = (variance + EPS).rsqrt().float()
            gain = rstd if weight is None else rstd * weight.float()
            shift = -mean * gain if bias is None else bias.float() - mean * gain
            y = torch.empty_like(x)
            kernel.normalise[grid](
                x, gain, shift, x if residual is None else residual, y, *sizes, slope or 0.0,
                ADD=residual is not None, ACT=slope is not None, **tile,
            )  # fmt: skip
        ctx.save_for_backward(x, y, mean, rstd, gain, weight)
        ctx.slope, ctx.added = slope, residual is not None
        ctx.bias_type = None if bias is None else bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        kernel: Any = import_module(KERNELS)

        x, y, mean, rstd, gain, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last_3d)
        slope, act = ctx.slope or 0.0, ctx.slope is not None
        with torch.cuda.device_of(x):
            grid, sizes, tile = _launch(x)
            first, second = _partial(x), _partial(x)
            kernel.gradient_sums[grid](grad, x, y, mean, rstd, first, second, *sizes, slope, ACT=act, **tile)
            first, second = first.sum(1), second.sum(1)
            g_x = torch.empty_like(x)
            g_residual = torch.empty_like(x) if ctx.added else g_x
            kernel.gradients[grid](
                grad, x, y, mean, rstd, gain, first, second, g_x, g_residual, *sizes, slope,
                ADD=ctx.added, ACT=act, **tile,
            )  # fmt: skip
        return (
            g_x,
            None if weight is None else second.sum(0).to(weight.dtype),
            None if ctx.bias_type is None else first.sum(0).to(ctx.bias_type),
            g_residual if ctx.added else None,
            None,
        )


def _launch(x: Tensor) -> tuple[tuple[int, int], tuple[int, int, int], dict[str, int]]:
    """Grid, (voxels, channels, parts) and tile."""
    voxels, channels = x[0, 0].numel(), x.shape[1]
    parts = -(-voxels // PART)
    tile = {"PART": PART, "R": ROWS, "C": COLUMNS}
    return (x.shape[0] * parts, -(-channels // COLUMNS)), (voxels, channels, parts), tile


def _partial(x: Tensor) -> Tensor:
    """Room for a number per part of the voxels and channel: (b, parts, c)."""
    _, channels, parts = _launch(x)[1]
    return x.new_empty((x.shape[0], parts, channels), dtype=torch.float32)
