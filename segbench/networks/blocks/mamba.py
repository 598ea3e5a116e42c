"""The Mamba-1 block on tokens, parameter names and initialisation as mamba-ssm's `Mamba`.

Source: Gu and Dao, Mamba; names after state-spaces/mamba mamba_ssm/modules/mamba_simple.py.
Legend: B batch, L tokens, C channels of the block, E = expand * C inner channels, N states, R rank of delta.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.scan import selective_scan

__all__ = [
    "Mamba",
    "StateSpaceModule",
    "causal_conv",
    "initial_decay_log",
    "initial_direct",
    "initialise_delta",
    "scan_branch",
]

_DELTA_RANGE = (1e-3, 1e-1)
_DELTA_FLOOR = 1e-4


def initial_decay_log(inner: int, states: int) -> nn.Parameter:
    """A_log (E, N) = log(1..N) in every channel, so that A = -1, ..., -N; float32, without weight decay."""
    A_log = torch.arange(1, states + 1, dtype=torch.float32).log().repeat(inner, 1)
    return _protected(nn.Parameter(A_log))


def initial_direct(inner: int) -> nn.Parameter:
    """D (E) = 1; float32, without weight decay."""
    return _protected(nn.Parameter(torch.ones(inner)))


def _protected(parameter: nn.Parameter) -> nn.Parameter:
    parameter._no_weight_decay = True  # type: ignore[attr-defined]
    parameter._no_reinit = True  # type: ignore[attr-defined]
    return parameter


def initialise_delta(dt_proj: nn.Linear) -> None:
    """Give the delta projection its start: weight U(-R^-1/2, R^-1/2), bias by step sizes.

    The bias is the inverse softplus of step sizes that are log-uniform on [1e-3, 1e-1], not below 1e-4.
    """
    bound = dt_proj.in_features**-0.5
    low, high = (math.log(end) for end in _DELTA_RANGE)
    with torch.no_grad():
        dt_proj.weight.uniform_(-bound, bound)
        steps = torch.exp(torch.rand_like(dt_proj.bias) * (high - low) + low).clamp_(min=_DELTA_FLOOR)
        dt_proj.bias.copy_(steps + torch.log(-torch.expm1(-steps)))
    dt_proj.bias._no_reinit = True  # type: ignore[attr-defined]


def causal_conv(x_BLE: Tensor, conv: nn.Conv1d) -> Tensor:
    """Depth-wise convolution over tokens that sees no later token: (B, L, E) -> the same shape.

    The same as padding on the left and `conv`, as one product per tap: channels stay the fastest axis, so no
    transposed copy is made. Computed in the type of `x`, as autocast does with a convolution: products of
    16-bit tokens and float32 weights would make everything after it float32.
    """
    width, length = conv.kernel_size[0], x_BLE.shape[1]
    padded = functional.pad(x_BLE, (0, 0, width - 1, 0))
    weight_KE = conv.weight[:, 0].t().to(x_BLE.dtype)
    y = padded[:, :length] * weight_KE[0]
    if conv.bias is not None:
        y = y + conv.bias.to(x_BLE.dtype)
    for tap in range(1, width):
        y = torch.addcmul(y, padded[:, tap : tap + length], weight_KE[tap])
    return y


def scan_branch(
    x_BLE: Tensor,
    z_BLE: Tensor,
    conv: nn.Conv1d,
    x_proj: nn.Linear,
    dt_proj: nn.Linear,
    A_log: Tensor,
    D: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """One directed pass, (B, L, E), from the halves of `in_proj` to what `out_proj` reads: conv, scan, gate.

    Args:
        x_BLE: The half that is convolved and scanned.
        z_BLE: The gate.
        conv: The causal depth-wise convolution.
        x_proj: Projects to delta (R), B (N), C (N), in this order.
        dt_proj: Expands delta from R to E; its bias is added inside the softplus.
        A_log: (E, N).
        D: (E).
        backend: Backend of the selective scan.
    """
    states = A_log.shape[1]
    x_BLE = functional.silu(causal_conv(x_BLE, conv))
    delta_BLR, B_BLN, C_BLN = x_proj(x_BLE).split([dt_proj.in_features, states, states], dim=-1)
    delta_BLE = functional.linear(delta_BLR, dt_proj.weight)
    y_BEL = selective_scan(
        x_BLE.transpose(1, 2),
        delta_BLE.transpose(1, 2),
        -torch.exp(A_log.float() if A_log.dtype != torch.float64 else A_log),
        B_BLN.transpose(1, 2),
        C_BLN.transpose(1, 2),
        D,
        z_BLE.transpose(1, 2),
        dt_proj.bias,
        True,
        backend=backend,
    )
    return y_BEL.transpose(1, 2)


class StateSpaceModule(nn.Module):
    """A module whose `A_log` and `D` survive casts to 16 bits (as float32) and a generic `apply(init)`."""

    def _guarded(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.named_parameters() if getattr(p, "_no_reinit", False)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = {name: p.data for name, p in self._parameters.items() if p is not None}
        super()._apply(fn, recurse)
        for name, original in before.items():
            parameter = self._parameters[name]
            guarded = parameter is not None and getattr(parameter, "_no_weight_decay", False)
            if parameter is not None and guarded and parameter.dtype in {torch.float16, torch.bfloat16}:
                parameter.data = original.to(parameter.device)
        return self

    def apply(self, fn: Callable[[nn.Module], Any]) -> Self:
        """Apply `fn` to every sub-module and put A_log, D and the delta bias back as they were."""
        before = {name: p.detach().clone() for name, p in self._guarded().items()}
        super().apply(fn)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name in before:
                    parameter.copy_(before[name])
        return self


class Mamba(StateSpaceModule):
    """The Mamba-1 block: gated, convolved, selectively scanned tokens.

    Args:
        channels: C of input and output.
        state: N, states per inner channel.
        conv_width: Taps of the causal convolution.
        expand: E / C.
        backend: Backend of the selective scan.
    """

    def __init__(
        self, channels: int, *, state: int = 16, conv_width: int = 4, expand: int = 2, backend: str = "auto"
    ) -> None:
        super().__init__()
        inner, rank = expand * channels, math.ceil(channels / 16)
        self.backend = backend
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, conv_width, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = initial_decay_log(inner, state)
        self.D = initial_direct(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        initialise_delta(self.dt_proj)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C); no token sees a later one."""
        x_BLE, z_BLE = self.in_proj(x_BLC).chunk(2, dim=-1)
        y_BLE = scan_branch(
            x_BLE, z_BLE, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D, backend=self.backend
        )
        return self.out_proj(y_BLE)
