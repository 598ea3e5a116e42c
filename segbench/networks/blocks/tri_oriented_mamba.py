"""The tri-oriented Mamba layer (ToOM) of SegMamba-V2, and the layers that stand in for it in the controls.

Source: structure after ge-xing/SegMamba-V2, brats23/models_segmamba/segmambav2.py. The controls are ours.
Legend: B batch, C channels, D H W space, L = D*H*W tokens, K orientations (or directions).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.mamba import Mamba

__all__ = [
    "ORIENTATIONS",
    "DepthwiseLayer",
    "MatchedLayer",
    "TriOrientedMamba",
    "both_ways",
    "from_tokens",
    "matched_width",
    "mean_of_both_ways",
    "to_tokens",
    "walked",
]

ORIENTATIONS: tuple[tuple[int, int, int], ...] = ((0, 1, 2), (1, 0, 2), (2, 1, 0))
"""Order in which scan k walks the axes (D, H, W), slowest first.

Scan 2 swaps the first two axes, scan 3 the first and the last. H is never the fastest axis, so the layer is
not symmetric in the axes; that is the released behaviour and is kept.
"""


def to_tokens(x_BDHWC: Tensor, order: tuple[int, int, int]) -> Tensor:
    """Tokens (B, L, C) of a channels-last volume, walked in the given order of axes (slowest first)."""
    permuted = x_BDHWC.permute(0, *(1 + axis for axis in order), 4)
    return permuted.reshape(x_BDHWC.shape[0], -1, x_BDHWC.shape[4])


def from_tokens(
    tokens_BLC: Tensor, size: torch.Size | tuple[int, ...], order: tuple[int, int, int]
) -> Tensor:
    """The channels-last volume (B, D, H, W, C) whose walk in the given order gives these tokens.

    Args:
        tokens_BLC: The tokens.
        size: (D, H, W) of the volume.
        order: The order of axes that `to_tokens` was given.
    """
    batch, _, channels = tokens_BLC.shape
    walked = tokens_BLC.reshape(batch, *(size[axis] for axis in order), channels)
    return walked.permute(0, *(1 + order.index(axis) for axis in range(3)), 4)


def walked(x_BDHWC: Tensor, scan: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The three orientations of a channels-last volume, scanned and put back: three times (B, D, H, W, C).

    Args:
        x_BDHWC: The volume.
        scan: Tokens to tokens of the same shape (3B, L, C): the sequences have equal length whatever the
            volume's shape, so one call serves all three, which follow each other on the batch axis.
    """
    scanned_KLC = scan(torch.cat([to_tokens(x_BDHWC, order) for order in ORIENTATIONS]))
    parts = zip(scanned_KLC.chunk(len(ORIENTATIONS)), ORIENTATIONS, strict=True)
    return [from_tokens(part, x_BDHWC.shape[1:4], order) for part, order in parts]


def both_ways(mamba: nn.Module, tokens_KLC: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens scanned forwards, and backwards with the same weights."""
    forward, backward = mamba(torch.cat((tokens_KLC, tokens_KLC.flip(1)))).chunk(2)
    return forward, backward.flip(1)


def mean_of_both_ways(mamba: nn.Module, tokens_KLC: Tensor) -> Tensor:
    """The mean of the two."""
    forward, backward = both_ways(mamba, tokens_KLC)
    return (forward + backward) / 2


class TriOrientedMamba(nn.Module):
    """x plus three scans of its normalised tokens, by one norm and one Mamba shared by all orientations.

    Args:
        channels: C of input and output.
        bidirectional: Walk each orientation also backwards with the same weights and take the mean of the two
            (the control `segmamba-v2-bidirectional`).
        backend: Backend of the selective scan.
    """

    def __init__(self, channels: int, *, bidirectional: bool = False, backend: str = "auto") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        self.mamba = Mamba(channels, backend=backend)
        self.bidirectional = bidirectional

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        # The norm acts on single tokens, so it is taken once, before the three walks.
        scan = partial(mean_of_both_ways, self.mamba) if self.bidirectional else self.mamba
        y_BDHWC = x_BCDHW.movedim(1, -1)
        for placed in walked(self.norm(y_BDHWC), scan):
            y_BDHWC = y_BDHWC + placed
        return y_BDHWC.movedim(-1, 1).contiguous()


class DepthwiseLayer(nn.Module):
    """The Mamba layer without its state space: a depth-wise convolution 7^3 in the place of conv1d and scan.

    (x', z) = in_proj(LN x); x + out_proj(silu(conv(x')) * silu(z)).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 2 * channels
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = nn.Conv3d(inner, inner, 7, padding=3, groups=inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        inner, gate = self.in_proj(self.norm(x_BCDHW.movedim(1, -1))).chunk(2, dim=-1)
        mixed = self.conv(inner.movedim(-1, 1)).movedim(1, -1)
        y_BDHWC = self.out_proj(functional.silu(mixed) * functional.silu(gate))
        return x_BCDHW + y_BDHWC.movedim(-1, 1)


def matched_width(channels: int) -> int:
    """Hidden width at which `MatchedLayer` has as many parameters as the Mamba layer of that width."""
    inner, rank = 2 * channels, -(-channels // 16)
    mamba = (
        inner * 16  # A_log
        + inner  # D
        + 2 * inner * channels  # in_proj
        + inner * 4  # conv1d weight
        + inner  # conv1d bias
        + (rank + 32) * inner  # x_proj
        + inner * rank  # dt_proj weight
        + inner  # dt_proj bias
        + channels * inner  # out_proj
    )
    # LN stands on both sides; 28C is the depth-wise 3^3 with bias, C the bias of the second pointwise layer.
    return round((mamba - 28 * channels - channels) / (2 * channels + 1))


class MatchedLayer(nn.Module):
    """A pure convolution layer with the parameter count of the Mamba layer it replaces.

    x + pw2(GELU(pw1(dw3(LN x)))).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = matched_width(channels)
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        self.conv = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        self.expand = nn.Linear(channels, hidden)
        self.reduce = nn.Linear(hidden, channels)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        y = self.conv(self.norm(x_BCDHW.movedim(1, -1)).movedim(-1, 1)).movedim(1, -1)
        return x_BCDHW + self.reduce(functional.gelu(self.expand(y))).movedim(-1, 1)
