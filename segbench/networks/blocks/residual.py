"""The residual blocks of the UNETR family: what SegMamba, SegMamba-V2, BiSegMamba and 3D UX-Net share.

Instance norm here is free of affine parameters (eps 1e-5); every convolution but the head is free of bias.
Source: Project-MONAI/MONAI monai/networks/blocks/unetr_block.py, dynunet_block.py (residual, instance norm).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.inputs import InputError

__all__ = ["ResBlock", "SideOutput", "SqueezeExcite", "UpBlock", "instance_norm"]

NEGATIVE_SLOPE = 0.01


def instance_norm(x_BCDHW: Tensor) -> Tensor:
    """Instance norm without affine parameters, eps 1e-5."""
    return functional.instance_norm(x_BCDHW, eps=1e-5)


class ResBlock(nn.Module):
    """conv 3^3, norm, LeakyReLU, conv 3^3, norm; plus the input (conv 1^3, norm if widths differ); LeakyReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = (
            None if in_channels == out_channels else nn.Conv3d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, out, D, H, W)."""
        y = functional.leaky_relu(instance_norm(self.conv1(x_BCDHW)), NEGATIVE_SLOPE)
        y = instance_norm(self.conv2(y))
        kept = x_BCDHW if self.shortcut is None else instance_norm(self.shortcut(x_BCDHW))
        return functional.leaky_relu(y + kept, NEGATIVE_SLOPE)


class UpBlock(nn.Module):
    """Twice the size by a transposed convolution, the skip beside it, a residual block over both.

    Args:
        in_channels: Channels of the coarse input.
        out_channels: Channels of the skip and of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(in_channels, out_channels, 2, stride=2, bias=False)
        self.block = ResBlock(2 * out_channels, out_channels)

    def forward(self, x_BCDHW: Tensor, skip_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) and skip (B, out, 2D, 2H, 2W) -> (B, out, 2D, 2H, 2W)."""
        return self.block(torch.cat((self.up(x_BCDHW), skip_BCDHW), dim=1))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the mean over space; no residual around it.

    Args:
        channels: Channels of input and output.
        reduction: Width of the hidden layer is channels // reduction.

    Raises:
        InputError: Fewer channels than `reduction`.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        if channels < reduction:
            raise InputError(
                "SB104",
                f"squeeze and excitation needs at least {reduction} channels; found {channels}",
                expected=f"at least {reduction}",
                found=channels,
                mend=f"choose features of at least {reduction}",
            )
        self.reduce = nn.Linear(channels, channels // reduction)
        self.expand = nn.Linear(channels // reduction, channels)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        gate_BC = self.expand(functional.relu(self.reduce(x_BCDHW.mean(dim=(2, 3, 4)))))
        return x_BCDHW * torch.sigmoid(gate_BC)[:, :, None, None, None]


class SideOutput(nn.Module):
    """What a stage hands to its skip: norm, conv 1^3 C->2C, GELU, conv 1^3 2C->C; no residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv3d(channels, 2 * channels, 1)
        self.reduce = nn.Conv3d(2 * channels, channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return self.reduce(functional.gelu(self.expand(instance_norm(x_BCDHW))))
