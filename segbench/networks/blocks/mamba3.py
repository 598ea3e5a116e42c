"""The three-branch Mamba of SegMamba (V1): forwards, backwards and between slices, one projection in and out.

Source: structure after ge-xing/SegMamba, mamba/mamba_ssm/modules/mamba_simple.py, from its description only.
The fork's scans are permutations of the tokens around a stock scan, so no patched package is needed.
Legend: B batch, L tokens, C channels, E = 2C inner channels.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from segbench.networks.blocks.inputs import InputError
from segbench.networks.blocks.mamba import (
    StateSpaceModule,
    initial_decay_log,
    initial_direct,
    initialise_delta,
    scan_branch,
)

__all__ = ["BRANCHES", "Mamba3", "from_slices", "to_slices"]

BRANCHES = ("", "_b", "_s")
"""Suffixes of the parameter sets: forwards, backwards, between slices."""
STATES = 16
CONV_WIDTH = 4


def to_slices(tokens_BLE: Tensor, slices: int) -> Tensor:
    """Tokens reordered to walk through the slices first: token j of slice s goes to place j * slices + s."""
    batch, length, channels = tokens_BLE.shape
    return (
        tokens_BLE.reshape(batch, slices, length // slices, channels)
        .transpose(1, 2)
        .reshape(tokens_BLE.shape)
    )


def from_slices(tokens_BLE: Tensor, slices: int) -> Tensor:
    """The inverse of `to_slices`."""
    return to_slices(tokens_BLE, tokens_BLE.shape[1] // slices)


class Mamba3(StateSpaceModule):
    """Three directed passes over the same projected tokens, summed before the projection out.

    Args:
        channels: C of input and output.
        backend: Backend of the selective scan.
    """

    def __init__(self, channels: int, *, backend: str = "auto") -> None:
        super().__init__()
        inner, rank = 2 * channels, math.ceil(channels / 16)
        self.backend = backend
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        for suffix in BRANCHES:
            conv = nn.Conv1d(inner, inner, CONV_WIDTH, groups=inner)
            dt_proj = nn.Linear(rank, inner)
            initialise_delta(dt_proj)
            self.add_module(f"conv1d{suffix}", conv)
            self.add_module(f"x_proj{suffix}", nn.Linear(inner, rank + 2 * STATES, bias=False))
            self.add_module(f"dt_proj{suffix}", dt_proj)
            # The released names put the suffix inside this one name: A_log, A_b_log, A_s_log.
            self.register_parameter(f"A{suffix}_log", initial_decay_log(inner, STATES))
            self.register_parameter(f"D{suffix}", initial_direct(inner))

    def forward(self, x_BLC: Tensor, *, slices: int) -> Tensor:
        """(B, L, C) -> (B, L, C).

        Args:
            x_BLC: Tokens.
            slices: Number of equal consecutive chunks that the third branch walks between.

        Raises:
            InputError: Where L is not a multiple of `slices` (a ValueError).
        """
        check_slices(x_BLC.shape[1], slices)
        x_BLE, z_BLE = self.in_proj(x_BLC).chunk(2, dim=-1)
        forward = self._branch("", x_BLE, z_BLE)
        backward = self._branch("_b", x_BLE.flip(1), z_BLE.flip(1)).flip(1)
        sliced = self._branch("_s", to_slices(x_BLE, slices), to_slices(z_BLE, slices))
        return self.out_proj(forward + backward + from_slices(sliced, slices))

    def _branch(self, suffix: str, x_BLE: Tensor, z_BLE: Tensor) -> Tensor:
        conv, x_proj, dt_proj = (
            self.get_submodule(f"{name}{suffix}") for name in ("conv1d", "x_proj", "dt_proj")
        )
        assert (
            isinstance(conv, nn.Conv1d) and isinstance(x_proj, nn.Linear) and isinstance(dt_proj, nn.Linear)
        )
        A_log, D = self.get_parameter(f"A{suffix}_log"), self.get_parameter(f"D{suffix}")
        return scan_branch(x_BLE, z_BLE, conv, x_proj, dt_proj, A_log, D, backend=self.backend)


def check_slices(length: int, slices: int) -> None:
    """Refuse a number of slices that does not divide the tokens."""
    if slices < 1 or length % slices:
        raise InputError(
            "SB104",
            f"{length} tokens cannot be cut into {slices} equal slices",
            expected=f"a multiple of {slices} tokens",
            found=length,
            mend='use sizes whose number of tokens is a multiple of slices, or slices="geometry"',
        )
