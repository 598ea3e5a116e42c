"""Instance norm, sum and LeakyReLU of channels-last volumes in one pass over memory each way, in Triton.

A volume lies as (b, voxels, c) with adjacent channels. A program walks PART voxels of one sample for C
channels, R voxels at a time. Sums over voxels are partial ones per program, added by the caller in a fixed
order: results repeat to the bit.
"""

# Triton reads no annotations: arguments that end in _ptr are pointers, capitals are compile-time constants.
# ruff: noqa: ANN001, ANN201, ANN202
# pyright: reportMissingImports=false, reportPossiblyUnboundVariable=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["gradient_sums", "gradients", "moments", "normalise"]


@triton.jit
def _where(voxels, channels, parts, PART: tl.constexpr, C: tl.constexpr):
    """(sample, first voxel, one after the last, channels, which of them exist) of this program."""
    line = tl.program_id(0).to(tl.int64)
    first = line % parts * PART
    c = tl.program_id(1) * C + tl.arange(0, C)
    return line // parts, first, tl.minimum(first + PART, voxels), c, c < channels


@triton.jit
def _values(ptr, sample, channels, c, real):
    """One number per channel of a sample."""
    return tl.load(ptr + sample * channels + c, mask=real, other=0.0)[None, :]


@triton.jit
def moments(
    x_ptr, first_ptr, second_ptr, voxels, channels, parts,
    PART: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Sums of x - x_0 and of its square, x_0 the sample's first voxel: near the mean, so little cancels."""
    sample, begin, end, c, real = _where(voxels, channels, parts, PART, C)
    x_ptr += sample * voxels * channels
    pivot = tl.load(x_ptr + c, mask=real, other=0.0).to(tl.float32)[None, :]
    first, second = tl.zeros((R, C), tl.float32), tl.zeros((R, C), tl.float32)
    for start in range(begin, end, R):
        voxel = start + tl.arange(0, R)
        inside = (voxel < end)[:, None] & real[None, :]
        x = tl.load(x_ptr + voxel[:, None] * channels + c[None, :], mask=inside, other=0.0).to(tl.float32)
        x = tl.where(inside, x - pivot, 0.0)
        first += x
        second += x * x
    place = tl.program_id(0).to(tl.int64) * channels + c
    tl.store(first_ptr + place, tl.sum(first, 0), mask=real)
    tl.store(second_ptr + place, tl.sum(second, 0), mask=real)


@triton.jit
def normalise(
    x_ptr, scale_ptr, shift_ptr, residual_ptr, y_ptr, voxels, channels, parts, slope,
    ADD: tl.constexpr, ACT: tl.constexpr, PART: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """act(x * scale + shift + residual), scale and shift one for each sample and channel."""
    sample, begin, end, c, real = _where(voxels, channels, parts, PART, C)
    scale = _values(scale_ptr, sample, channels, c, real)
    shift = _values(shift_ptr, sample, channels, c, real)
    base = sample * voxels * channels
    for start in range(begin, end, R):
        voxel = start + tl.arange(0, R)
        inside = (voxel < end)[:, None] & real[None, :]
        place = base + voxel[:, None] * channels + c[None, :]
        y = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32) * scale + shift
        if ADD:
            y += tl.load(residual_ptr + place, mask=inside, other=0.0).to(tl.float32)
        if ACT:
            y = tl.where(y > 0, y, y * slope)
        tl.store(y_ptr + place, y, mask=inside)


@triton.jit
def _incoming(grad_ptr, y_ptr, place, inside, slope, ACT: tl.constexpr):
    """The gradient before the activation, which kept the sign of what it was given."""
    grad = tl.load(grad_ptr + place, mask=inside, other=0.0).to(tl.float32)
    if ACT:
        grad = tl.where(tl.load(y_ptr + place, mask=inside, other=0.0) > 0, grad, grad * slope)
    return grad


@triton.jit
def gradient_sums(
    grad_ptr, x_ptr, y_ptr, mean_ptr, rstd_ptr, first_ptr, second_ptr, voxels, channels, parts, slope,
    ACT: tl.constexpr, PART: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Sums of the gradient before the activation, and of it times the normalised x."""
    sample, begin, end, c, real = _where(voxels, channels, parts, PART, C)
    mean = _values(mean_ptr, sample, channels, c, real)
    rstd = _values(rstd_ptr, sample, channels, c, real)
    base = sample * voxels * channels
    first, second = tl.zeros((R, C), tl.float32), tl.zeros((R, C), tl.float32)
    for start in range(begin, end, R):
        voxel = start + tl.arange(0, R)
        inside = (voxel < end)[:, None] & real[None, :]
        place = base + voxel[:, None] * channels + c[None, :]
        grad = _incoming(grad_ptr, y_ptr, place, inside, slope, ACT)
        x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
        first += grad
        second += grad * (x - mean) * rstd
    place = tl.program_id(0).to(tl.int64) * channels + c
    tl.store(first_ptr + place, tl.sum(first, 0), mask=real)
    tl.store(second_ptr + place, tl.sum(second, 0), mask=real)


@triton.jit
def gradients(
    grad_ptr, x_ptr, y_ptr, mean_ptr, rstd_ptr, gain_ptr, first_ptr, second_ptr, g_x_ptr, g_residual_ptr,
    voxels, channels, parts, slope,
    ADD: tl.constexpr, ACT: tl.constexpr, PART: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Gain * (g - mean of g - xhat * mean of g xhat) for x, and g itself for what was added."""
    sample, begin, end, c, real = _where(voxels, channels, parts, PART, C)
    mean = _values(mean_ptr, sample, channels, c, real)
    rstd = _values(rstd_ptr, sample, channels, c, real)
    gain = _values(gain_ptr, sample, channels, c, real)
    first = _values(first_ptr, sample, channels, c, real) / voxels
    second = _values(second_ptr, sample, channels, c, real) / voxels
    base = sample * voxels * channels
    for start in range(begin, end, R):
        voxel = start + tl.arange(0, R)
        inside = (voxel < end)[:, None] & real[None, :]
        place = base + voxel[:, None] * channels + c[None, :]
        grad = _incoming(grad_ptr, y_ptr, place, inside, slope, ACT)
        x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
        if ADD:
            tl.store(g_residual_ptr + place, grad, mask=inside)
        tl.store(g_x_ptr + place, gain * (grad - first - (x - mean) * rstd * second), mask=inside)
