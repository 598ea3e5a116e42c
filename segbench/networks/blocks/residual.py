"""The residual blocks of the UNETR family: what SegMamba, SegMamba-V2, BiSegMamba and 3D UX-Net share.

Instance norm here is free of affine parameters (eps 1e-5); every convolution but the head is free of bias.
Source: Project-MONAI/MONAI monai/networks/blocks/unetr_block.py, dynunet_block.py (residual, instance norm).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.inputs import check_arguments, check_volume
from segbench.networks.blocks.norm_act import norm_act

__all__ = [
    "BatchResBlock",
    "ChannelNorm",
    "ResBlock",
    "SideOutput",
    "SqueezeExcite",
    "Stage",
    "UShape",
    "UpBlock",
    "check_stages",
    "dropped",
    "instance_norm",
    "norm_gelu",
]

NEGATIVE_SLOPE = 0.01


def instance_norm(x_BCDHW: Tensor) -> Tensor:
    """Instance norm without affine parameters, eps 1e-5."""
    return norm_act(x_BCDHW)


def norm_gelu(x_BCDHW: Tensor) -> Tensor:
    """GELU of the instance norm."""
    return functional.gelu(instance_norm(x_BCDHW))


def dropped(y: Tensor, drop: float) -> Tensor:
    """A branch without some of its samples (stochastic depth), the others scaled to the same mean.

    Args:
        y: (B, ...).
        drop: Probability with which a sample skips the branch.
    """
    if drop == 0:
        return y
    keep = 1 - drop
    return y * y.new_empty(len(y), *[1] * (y.ndim - 1)).bernoulli_(keep).div_(keep)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a volume."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


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
        y = self.conv2(norm_act(self.conv1(x_BCDHW), slope=NEGATIVE_SLOPE))
        kept = x_BCDHW if self.shortcut is None else instance_norm(self.shortcut(x_BCDHW))
        return norm_act(y, residual=kept, slope=NEGATIVE_SLOPE)


class BatchResBlock(nn.Module):
    """As `ResBlock`, with batch norm and any odd kernel.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Of the two convolutions, along each axis.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm1 = nn.BatchNorm3d(out_channels)
        self.conv2 = nn.Conv3d(out_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm2 = nn.BatchNorm3d(out_channels)
        self.shortcut = None
        if in_channels != out_channels:
            reduce = nn.Conv3d(in_channels, out_channels, 1, bias=False)
            self.shortcut = nn.Sequential(reduce, nn.BatchNorm3d(out_channels))

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, out, D, H, W)."""
        y = functional.leaky_relu(self.norm1(self.conv1(x_BCDHW)), NEGATIVE_SLOPE)
        kept = x_BCDHW if self.shortcut is None else self.shortcut(x_BCDHW)
        return functional.leaky_relu(self.norm2(self.conv2(y)) + kept, NEGATIVE_SLOPE)


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
        least = f"at least {reduction}, for squeeze and excitation"
        check_arguments((channels >= reduction, "features", channels, least))
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


class Stage(nn.Module):
    """An encoder stage: its parts one after the other; the last turns what they gave into the skip's input.

    Args:
        **parts: The parts in order, by the names they have in the state_dict.
    """

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x_BCDHW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in, D, H, W) -> (stage output, side output), both (B, channels, D/2, H/2, W/2)."""
        *parts, side = self.children()
        y = x_BCDHW
        for part in parts:
            y = part(y)
        return y, side(y)


def check_stages(features: tuple[int, ...], depths: tuple[int, ...]) -> None:
    """Refuse anything but four widths and four depths, which this family's checkpoints are made of."""
    check_arguments(
        (len(features) == 4, "features", features, "four numbers, one per stage"),
        (len(depths) == 4, "depths", depths, "four numbers, one per stage"),
    )


class UShape(nn.Module):
    """The U of the family: a stem at full size, four stages, a skip from each, a decoder, the head.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of the four stages.
        depths: Layers of the four stages, checked here.
        hidden: Channels of the deepest skip.
        stage: Builds stage i from (i, channels before, channels): gives (stage output, side output).
        reads_stem: Whether the first stage reads the stem; otherwise it reads the image.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: tuple[int, int, int, int],
        depths: tuple[int, int, int, int],
        hidden: int,
        stage: Callable[[int, int, int], nn.Module],
        *,
        reads_stem: bool = False,
    ) -> None:
        super().__init__()
        check_stages(features, depths)
        self.in_channels = in_channels
        self.divisor, self.minimum = 16, 32
        self.reads_stem = reads_stem
        first, widths = features[0], (*features[1:], hidden)
        befores = (first if reads_stem else in_channels, *features[:3])
        self.stem = ResBlock(in_channels, first)
        self.encoder = nn.ModuleList(stage(i, befores[i], features[i]) for i in range(4))
        self.skips = nn.ModuleList(ResBlock(a, b) for a, b in zip(features, widths, strict=True))
        self.decoder = nn.ModuleList(
            UpBlock(a, b) for a, b in zip(reversed(widths), reversed(features), strict=True)
        )
        self.refine = ResBlock(first, first)
        self.head = nn.Conv3d(first, out_channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> logits (B, out, D, H, W)."""
        check_volume(x_BCDHW, channels=self.in_channels, divisor=self.divisor, minimum=self.minimum)
        y = stem = self.stem(x_BCDHW)
        if not self.reads_stem:
            y = x_BCDHW
        sides = []
        for stage in self.encoder:
            y, side = stage(y)
            sides.append(side)
        kept = [stem, *(skip(side) for skip, side in zip(self.skips, sides, strict=True))]
        y = kept.pop()
        for block in self.decoder:
            y = block(y, kept.pop())
        return self.head(self.refine(y))
