"""Backend `triton`: launches the kernels of `triton_kernel` on torch tensors."""

# pyright: reportMissingImports=false, reportIndexIssue=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from segbench.networks.scan import triton_kernel as kernel
from segbench.networks.scan.arguments import CHUNK, as_token_major, chunks, compute_dtype

__all__ = ["backward", "forward"]

TILE = 4096
"""Elements (T, D, N) of a tile: 32 registers of a thread per tensor with four warps."""
GROUP_CHANNELS = 64
"""Channels whose gradients of B and C one program sums."""
WARPS = 4
GRADIENT_WARPS = 8
"""With four, ptxas spills 520 bytes of the gradients' tile on sm_90; with eight none."""


@dataclass(frozen=True)
class _Launch:
    """The inputs as the kernels want them, and the sizes of tiles."""

    u: Tensor  # (b, l, d) views, any batch and step strides
    delta: Tensor
    z: Tensor
    bias: Tensor
    rate: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    constants: dict[str, Any]
    gate: dict[str, bool]
    direct: dict[str, bool]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(length, channels, states, chunks)."""
        return self.u.shape[1], self.u.shape[2], self.rate.shape[1], chunks(self.u.shape[1])

    @property
    def tile_channels(self) -> int:
        """D."""
        return self.constants["D"]

    def grid(self, channels_each: int) -> tuple[int, int]:
        """One program per chunk of each sequence and per so many channels."""
        batch, length, channels = self.u.shape
        return batch * chunks(length), triton.cdiv(channels, channels_each)

    def states(self) -> Tensor:
        """Room for a state per chunk: (b, chunks, n, d)."""
        _, channels, states, count = self.sizes
        return self.rate.new_empty((self.u.shape[0], count, states, channels))

    def sums(self) -> Tensor:
        """Room for a number per chunk and channel."""
        _, channels, _, count = self.sizes
        return self.rate.new_empty((self.u.shape[0], count, channels))


def _adjacent(x_bdl: Tensor) -> Tensor:
    """(b, l, d) with adjacent channels; no copy where they already are."""
    x = x_bdl.transpose(1, 2)
    return x if x.stride(2) == 1 else x.contiguous()


def _launch(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    softplus: bool,
) -> _Launch:
    dtype = compute_dtype(u.dtype)
    states = triton.next_power_of_2(A.shape[1])
    tile_channels = max(1, min(TILE // (CHUNK * states), triton.next_power_of_2(u.shape[1])))
    tokens = _adjacent(u)
    rate = (A.double() * math.log2(math.e)).to(dtype).contiguous()
    return _Launch(
        u=tokens,
        delta=_adjacent(delta),
        z=tokens if z is None else _adjacent(z),
        bias=rate if delta_bias is None else delta_bias.contiguous(),
        rate=rate,
        B=as_token_major(B, B.dtype),
        C=as_token_major(C, C.dtype),
        D=rate if D is None else D.contiguous(),
        constants={
            "SOFTPLUS": softplus,
            "BIAS": delta_bias is not None,
            "KIND": tl.float64 if dtype == torch.float64 else tl.float32,
            "T": CHUNK,
            "D": tile_channels,
            "N": states,
            "num_warps": WARPS,
        },
        gate={"GATE": z is not None},
        direct={"DIRECT": D is not None},
    )


def _strides(x: Tensor) -> tuple[int, int]:
    return x.stride(0), x.stride(1)


def _carry(ends: Tensor, sums: Tensor, run: _Launch, *, reverse: bool) -> Tensor:
    starts = run.states()
    _, channels, states, count = run.sizes
    own = {name: run.constants[name] for name in ("KIND", "D", "N", "num_warps")}
    grid = (ends.shape[0], triton.cdiv(channels, run.tile_channels))
    kernel.carry[grid](ends, sums, run.rate, starts, channels, states, count, REVERSE=reverse, T=CHUNK, **own)
    return starts


def _sums_of_steps(run: _Launch) -> tuple[Tensor, Tensor]:
    """End states of all chunks from zero states, and the sums of their steps."""
    ends, sums = run.states(), run.sums()
    kernel.chunk_ends[run.grid(run.tile_channels)](
        run.u, run.delta, run.bias, run.rate, run.B, ends, sums,
        *run.sizes, *_strides(run.u), *_strides(run.delta), **run.constants,
    )  # fmt: skip
    return ends, sums


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    save_states: bool,
) -> tuple[Tensor, Tensor]:
    """The output (b, d, l) in u's type and the start states (b, chunks, n, d), empty unless saved."""
    run = _launch(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    ends, sums = _sums_of_steps(run)
    starts = _carry(ends, sums, run, reverse=False)
    y = torch.empty(run.u.shape, dtype=u.dtype, device=u.device)
    kernel.outputs[run.grid(run.tile_channels)](
        run.u, run.delta, run.bias, run.rate, run.B, run.C, run.D, run.z, starts, y,
        *run.sizes, *_strides(run.u), *_strides(run.delta), *_strides(run.z),
        **run.constants, **run.gate, **run.direct,
    )  # fmt: skip
    return y.transpose(1, 2), starts if save_states else starts.new_empty(0)


def backward(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    states: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients of (u, delta, A, B, C, D, z, delta_bias), each in its input's type, empty if absent."""
    run = _launch(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    outer = _adjacent(grad)
    ends = run.states()
    kernel.chunk_adjoints[run.grid(run.tile_channels)](
        outer, run.z, run.delta, run.bias, run.rate, run.C, ends,
        *run.sizes, *_strides(outer), *_strides(run.z), *_strides(run.delta),
        **run.constants, **run.gate,
    )  # fmt: skip
    _, sums = _sums_of_steps(run)
    incoming = _carry(ends, sums, run, reverse=True)

    batch, length, channels = run.u.shape
    tiles = max(1, GROUP_CHANNELS // run.tile_channels)
    groups = triton.cdiv(channels, run.tile_channels * tiles)
    g_u, g_delta, g_z = (
        torch.empty(run.u.shape, dtype=like.dtype, device=u.device)
        for like in (u, delta, u if z is None else z)
    )
    constants = {**run.constants, "num_warps": GRADIENT_WARPS}
    g_A, g_D, g_bias = run.states(), run.sums(), run.sums()
    g_B, g_C = (run.rate.new_empty((groups, batch, length, A.shape[1])) for _ in range(2))
    kernel.gradients[run.grid(run.tile_channels * tiles)](
        outer, run.u, run.delta, run.bias, run.rate, run.B, run.C, run.D, run.z, states, incoming,
        g_u, g_delta, g_z, g_A, g_B, g_C, g_D, g_bias,
        *run.sizes, batch, *_strides(outer), *_strides(run.u), *_strides(run.delta), *_strides(run.z),
        **constants, **run.gate, **run.direct, GROUP=tiles,
    )  # fmt: skip
    return (
        g_u.transpose(1, 2),
        g_delta.transpose(1, 2),
        g_A.sum((0, 1)).t().to(A.dtype).contiguous(),
        g_B.sum(0).transpose(1, 2).to(B.dtype).contiguous(),
        g_C.sum(0).transpose(1, 2).to(C.dtype).contiguous(),
        g_u.new_empty(0) if D is None else g_D.sum((0, 1)).to(D.dtype),
        g_u.new_empty(0) if z is None else g_z.transpose(1, 2),
        g_u.new_empty(0) if delta_bias is None else g_bias.sum((0, 1)).to(delta_bias.dtype),
    )
