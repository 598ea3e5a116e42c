"""3D UX-Net: depth-wise 7^3 convolutions with grouped pointwise layers in a UNETR-shaped decoder.

Source: structure after MASILab/3DUX-Net, networks/UXNet_3D, from its description only (the repository carries
no licence). What is special: the pointwise layers are grouped, so no block mixes channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.residual import ChannelNorm, Stage, UShape

__all__ = ["UXNet", "UXNetBlock"]


class UXNetBlock(nn.Module):
    """x + scale * reduce(GELU(expand(norm(depthwise(x))))), every convolution grouped by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv3d(channels, channels, 7, padding=3, groups=channels)
        self.norm = ChannelNorm(channels)
        self.expand = nn.Conv3d(channels, 4 * channels, 1, groups=channels)
        self.reduce = nn.Conv3d(4 * channels, channels, 1, groups=channels)
        self.scale = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        y = self.reduce(functional.gelu(self.expand(self.norm(self.depthwise(x_BCDHW)))))
        return x_BCDHW + self.scale[:, None, None, None] * y


class Down(nn.Module):
    """Halve: conv 7^3 then norm in the first stage, norm then conv 2^3 in the others."""

    def __init__(self, in_channels: int, channels: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        kernel, padding = (7, 3) if first else (2, 0)
        self.conv = nn.Conv3d(in_channels, channels, kernel, stride=2, padding=padding)
        self.norm = ChannelNorm(channels if first else in_channels)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, channels, D/2, H/2, W/2)."""
        return self.norm(self.conv(x_BCDHW)) if self.first else self.conv(self.norm(x_BCDHW))


class UXNet(UShape):
    """3D UX-Net.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of the four stages.
        depths: Blocks per stage.
        hidden: Channels of the deepest skip.
    """

    official_layout = "uxnet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: tuple[int, int, int, int] = (48, 96, 192, 384),
        depths: tuple[int, int, int, int] = (2, 2, 2, 2),
        hidden: int = 768,
    ) -> None:
        def stage(i: int, before: int, channels: int) -> nn.Module:
            return Stage(
                down=Down(before, channels, first=i == 0),
                blocks=nn.Sequential(*(UXNetBlock(channels) for _ in range(depths[i]))),
                norm=ChannelNorm(channels),  # of the skip alone: the next stage reads the blocks
            )

        super().__init__(in_channels, out_channels, features, depths, hidden, stage)
