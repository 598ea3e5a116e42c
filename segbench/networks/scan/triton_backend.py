"""Backend `triton`: launches the kernels of `triton_kernel` on torch tensors."""

# pyright: reportMissingImports=false

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from segbench.networks.scan import triton_kernel
from segbench.networks.scan.arguments import CHUNK, ScanInputs, as_token_major, chunks, compute_dtype

__all__ = ["backward", "forward"]

kernel: Any = triton_kernel
"""Kernels are Triton's own language: how they are launched means nothing to a type checker."""

WARPS = 1
"""A warp alone: its tiles of (states, channels) then hold all states of a channel in one thread."""
TILE_CHANNELS, GRADIENT_CHANNELS = 64, 32
"""Channels of a program: two for each thread; one in the gradients' pass, which holds more of them."""
CARRIED, CARRY_WARPS = 128, 4
REGISTERS = 168
"""Of a thread in the gradients' pass: twelve warps a multiprocessor, where the compiler alone takes eight."""
STRIDE = math.isqrt(CHUNK)
"""Steps between the states that the gradients' pass leaves on its way."""
PROGRAMS = 2048
"""Programs of the gradients' pass at most: each has scratch of its own."""


class _Launch:
    """The inputs as the kernels want them, and the sizes of tiles."""

    def __init__(self, inputs: ScanInputs) -> None:
        u, delta, A, B, C, D, z, delta_bias, softplus = inputs
        dtype = compute_dtype(u.dtype)
        self.u = _adjacent(u)
        self.delta = _adjacent(delta)
        self.z = self.u if z is None else _adjacent(z)
        self.rate = (A.double() * math.log2(math.e)).to(dtype).t().contiguous()
        self.bias = self.rate if delta_bias is None else delta_bias.contiguous()
        self.D = self.rate if D is None else D.contiguous()
        # Every thread reads every value of B and C: they are few, and converted once.
        self.B, self.C = as_token_major(B, dtype), as_token_major(C, dtype)
        states, channels = self.rate.shape
        self.sizes = (u.shape[2], channels, states, chunks(u.shape[2]))
        self.lines = u.shape[0] * chunks(u.shape[2])
        self.grid = (self.lines, triton.cdiv(channels, TILE_CHANNELS))
        self.gate, self.direct = {"GATE": z is not None}, {"DIRECT": D is not None}
        self.constants: dict[str, Any] = {
            "SOFTPLUS": softplus,
            "BIAS": delta_bias is not None,
            "KIND": tl.float64 if dtype == torch.float64 else tl.float32,
            "T": CHUNK,
            "D": TILE_CHANNELS,
            "N": triton.next_power_of_2(states),
            "num_warps": WARPS,
        }

    def states(self) -> Tensor:
        """Room for a state per chunk: (b, chunks, n, d)."""
        _, channels, states, count = self.sizes
        return self.rate.new_empty((self.u.shape[0], count, states, channels))

    def sums(self) -> Tensor:
        """Room for a number per chunk and channel."""
        _, channels, _, count = self.sizes
        return self.rate.new_empty((self.u.shape[0], count, channels))

    def carried(self, ends: Tensor, sums: Tensor, *, reverse: bool) -> Tensor:
        """What every chunk starts with, from the ends of the others."""
        starts = self.states()
        _, channels, states, count = self.sizes
        grid = (self.u.shape[0], triton.cdiv(states * channels, CARRIED))
        kernel.carry[grid](
            ends, sums, self.rate, starts, channels, states * channels, count,
            REVERSE=reverse, KIND=self.constants["KIND"], E=CARRIED, num_warps=CARRY_WARPS,
        )  # fmt: skip
        return starts


def _adjacent(x_bdl: Tensor) -> Tensor:
    """(b, l, d) with adjacent channels; no copy where they already are."""
    x = x_bdl.transpose(1, 2)
    return x if x.stride(2) == 1 else x.contiguous()


def _strides(x: Tensor) -> tuple[int, int]:
    return x.stride(0), x.stride(1)


def forward(inputs: ScanInputs, save_states: bool) -> tuple[Tensor, Tensor]:
    """Output and states at the starts of chunks, as `ScanInputs` says."""
    with torch.cuda.device_of(inputs.u):
        run = _Launch(inputs)
        ends, sums = run.states(), run.sums()
        kernel.chunk_ends[run.grid](
            run.u, run.delta, run.bias, run.rate, run.B, ends, sums,
            *run.sizes, *_strides(run.u), *_strides(run.delta), **run.constants,
        )  # fmt: skip
        starts = run.carried(ends, sums, reverse=False)
        y = torch.empty(run.u.shape, dtype=run.u.dtype, device=run.u.device)
        kernel.outputs[run.grid](
            run.u, run.delta, run.bias, run.rate, run.B, run.C, run.D, run.z, starts, y,
            *run.sizes, *_strides(run.u), *_strides(run.delta), *_strides(run.z),
            **run.constants, **run.gate, **run.direct,
        )  # fmt: skip
    return y.transpose(1, 2), starts if save_states else starts.new_empty(0)


def backward(grad: Tensor, inputs: ScanInputs, states: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the eight tensors, as `ScanInputs` says."""
    u, delta, A, B, C, D, z, delta_bias, _ = inputs
    with torch.cuda.device_of(u):
        run = _Launch(inputs)
        outer = _adjacent(grad)
        ends, sums = run.states(), run.sums()
        kernel.chunk_adjoints[run.grid](
            outer, run.z, run.delta, run.bias, run.rate, run.C, ends, sums,
            *run.sizes, *_strides(outer), *_strides(run.z), *_strides(run.delta),
            **run.constants, **run.gate,
        )  # fmt: skip
        incoming = run.carried(ends, sums, reverse=True)
        g_u, g_delta, g_z = (
            torch.empty(run.u.shape, dtype=like.dtype, device=u.device)
            for like in (u, delta, u if z is None else z)
        )
        g_A, g_D, g_bias = run.states(), run.sums(), run.sums()
        tiles = math.ceil(run.u.shape[2] / GRADIENT_CHANNELS)
        g_B, g_C = (run.rate.new_empty((tiles, *run.B.shape)) for _ in range(2))
        programs = min(PROGRAMS, run.lines * tiles)
        scratch = run.rate.new_empty(
            (programs, CHUNK // STRIDE + STRIDE, run.constants["N"], GRADIENT_CHANNELS)
        )
        rows = run.rate.new_empty((programs, CHUNK, 6, GRADIENT_CHANNELS))
        constants = {**run.constants, **run.gate, **run.direct, "D": GRADIENT_CHANNELS, "S": STRIDE}
        if run.rate.dtype != torch.float64:
            constants["maxnreg"] = REGISTERS
        kernel.gradients[(programs,)](
            outer, run.u, run.delta, run.bias, run.rate.t().contiguous(), run.B, run.C, run.D, run.z,
            states, incoming,
            scratch, rows, g_u, g_delta, g_z, g_A, g_B, g_C, g_D, g_bias,
            *run.sizes, run.lines, tiles,
            *_strides(outer), *_strides(run.u), *_strides(run.delta), *_strides(run.z), **constants,
        )  # fmt: skip
    return (
        g_u.transpose(1, 2),
        g_delta.transpose(1, 2),
        g_A.sum((0, 1)).t().to(A.dtype).contiguous(),
        g_B.sum(0).transpose(1, 2).to(B.dtype).contiguous(),
        g_C.sum(0).transpose(1, 2).to(C.dtype).contiguous(),
        g_D.new_empty(0) if D is None else g_D.sum((0, 1)).to(D.dtype),
        g_D.new_empty(0) if z is None else g_z.transpose(1, 2),
        g_D.new_empty(0) if delta_bias is None else g_bias.sum((0, 1)).to(delta_bias.dtype),
    )
