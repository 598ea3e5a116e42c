"""SegMamba-V2 as released, and its controls.

Source: structure after ge-xing/SegMamba-V2, brats23/models_segmamba/segmambav2.py, from its description only
(the repository carries no licence). What is special: a full-resolution residual stem that everything below
reads; bare strided convolutions between the stages; large-kernel convolutions with squeeze and excitation;
the tri-oriented Mamba layer in the two deep stages; side outputs that go to the skips, not to the next stage.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.inputs import InputError, check_volume
from segbench.networks.blocks.residual import ResBlock, SideOutput, SqueezeExcite, UpBlock, instance_norm
from segbench.networks.blocks.tri_oriented_mamba import DepthwiseLayer, MatchedLayer, TriOrientedMamba

__all__ = ["ConvUnit", "LargeKernelConv", "SegMambaV2", "Stage"]

Mixer = Literal["toom", "bidirectional", "identity", "dwconv", "matched"]
FIRST_MIXED_STAGE = 2
"""Stages from this one on (counted from 0) hold mixer layers."""


class ConvUnit(nn.Module):
    """Dense convolution with bias, instance norm, ReLU.

    The bias stands directly before a norm that removes it; it is kept because released weights carry it.
    """

    def __init__(self, channels: int, kernel: int, *, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv3d(channels, channels, kernel, padding=padding, dilation=dilation)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return functional.relu(instance_norm(self.conv(x_BCDHW)))


class LargeKernelConv(nn.Module):
    """A deep path (5^3, 3^3, dilated 3^3), a short path (3^3, 1^3) and the input, summed, then gated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            ConvUnit(channels, 5), ConvUnit(channels, 3), ConvUnit(channels, 3, dilation=2)
        )
        self.short = nn.Sequential(ConvUnit(channels, 3), ConvUnit(channels, 1))
        self.gate = SqueezeExcite(channels)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return self.gate(self.deep(x_BCDHW) + self.short(x_BCDHW) + x_BCDHW)


def mixer_layer(mixer: Mixer, channels: int, *, backend: str) -> nn.Module:
    """The layer that mixes tokens in a deep stage: ToOM, or what a control puts in its place."""
    if mixer == "dwconv":
        return DepthwiseLayer(channels)
    if mixer == "matched":
        return MatchedLayer(channels)
    return TriOrientedMamba(channels, bidirectional=mixer == "bidirectional", backend=backend)


class Stage(nn.Module):
    """One encoder stage: halve, convolve, mix; gives the next stage's input and the skip's.

    Args:
        in_channels: Channels of the finer stage.
        channels: Channels of this stage.
        depth: Number of large-kernel convolutions, and of mixer layers where there are any.
        mixer: Which mixer layers follow the convolutions; None for none.
        backend: Backend of the selective scan.
    """

    def __init__(
        self, in_channels: int, channels: int, depth: int, *, mixer: Mixer | None, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.down = nn.Conv3d(in_channels, channels, 3, stride=2, padding=1)
        self.local = nn.ModuleList(LargeKernelConv(channels) for _ in range(depth))
        mixed = depth if mixer not in (None, "identity") else 0
        self.toom = nn.ModuleList(
            mixer_layer(mixer or "toom", channels, backend=backend) for _ in range(mixed)
        )
        self.side = SideOutput(channels)

    def forward(self, x_BCDHW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in, D, H, W) -> (stage output, side output), both (B, channels, D/2, H/2, W/2)."""
        y = self.down(x_BCDHW)
        for block in self.local:
            y = block(y)
        for layer in self.toom:
            y = layer(y)
        return y, self.side(y)


class SegMambaV2(nn.Module):
    """SegMamba-V2 as released.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of the four stages.
        depths: Large-kernel convolutions (and mixer layers, from the third stage on) per stage.
        hidden: Channels of the deepest skip.
        mixer: "toom" as released; "identity", "dwconv", "bidirectional", "matched" are the controls.
        backend: Backend of the selective scan.

    Raises:
        InputError: From the constructor for arguments that cannot be; from `forward` for sizes that are not a
            multiple of `divisor`, below `minimum`, or of the wrong number of channels.
    """

    official_layout = "segmamba-v2"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: tuple[int, int, int, int] = (48, 96, 192, 384),
        depths: tuple[int, int, int, int] = (2, 2, 2, 2),
        hidden: int = 768,
        mixer: Mixer = "toom",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_stages(features, depths)
        if mixer not in get_args(Mixer):
            raise InputError("SB104", f"no mixer called '{mixer}'", expected=get_args(Mixer), found=mixer)
        self.in_channels = in_channels
        self.divisor, self.minimum = 16, 32
        first = features[0]
        self.stem = ResBlock(in_channels, first)
        self.encoder = nn.ModuleList(
            Stage(before, channels, depth, mixer=mixer if i >= FIRST_MIXED_STAGE else None, backend=backend)
            for i, (before, channels, depth) in enumerate(
                zip((first, *features[:3]), features, depths, strict=True)
            )
        )
        widths = (*features[1:], hidden)
        self.skips = nn.ModuleList(ResBlock(a, b) for a, b in zip(features, widths, strict=True))
        self.decoder = nn.ModuleList(
            UpBlock(a, b) for a, b in zip(reversed(widths), reversed(features), strict=True)
        )
        self.refine = ResBlock(first, first)
        self.head = nn.Conv3d(first, out_channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> logits (B, out, D, H, W)."""
        check_volume(x_BCDHW, channels=self.in_channels, divisor=self.divisor, minimum=self.minimum)
        stem = self.stem(x_BCDHW)
        y, sides = stem, []
        for stage in self.encoder:
            y, side = stage(y)
            sides.append(side)
        return self.head(self.refine(decode(self.decoder, self.skips, stem, sides)))


def check_stages(features: tuple[int, ...], depths: tuple[int, ...]) -> None:
    """Refuse anything but four widths and four depths, which this family's checkpoints are made of."""
    if len(features) != 4 or len(depths) != 4:
        raise InputError(
            "SB104",
            f"features and depths name four stages each; found {len(features)} and {len(depths)}",
            expected="4 and 4",
            found=f"{len(features)} and {len(depths)}",
        )


def decode(decoder: nn.ModuleList, skips: nn.ModuleList, stem: Tensor, sides: list[Tensor]) -> Tensor:
    """The decoder of the family: the deepest skip upwards, each finer skip beside it, the stem last."""
    kept = [stem, *(skip(side) for skip, side in zip(skips, sides, strict=True))]
    y = kept.pop()
    for block in decoder:
        y = block(y, kept.pop())
    return y
