"""SegMamba-V2 as released, and its controls.

Source: structure after ge-xing/SegMamba-V2, brats23/models_segmamba/segmambav2.py, from its description only
(the repository carries no licence). What is special: a full-resolution residual stem that everything below
reads; bare strided convolutions between the stages; large-kernel convolutions with squeeze and excitation;
the tri-oriented Mamba layer in the two deep stages; side outputs that go to the skips, not to the next stage.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from segbench.networks.blocks.inputs import InputError
from segbench.networks.blocks.norm_act import norm_act
from segbench.networks.blocks.residual import SideOutput, SqueezeExcite, UShape
from segbench.networks.blocks.tri_oriented_mamba import DepthwiseLayer, MatchedLayer, TriOrientedMamba

__all__ = ["ConvUnit", "LargeKernelConv", "SegMambaV2", "Stage"]

Mixer = Literal["toom", "bidirectional", "identity", "dwconv", "matched"]
FIRST_MIXED_STAGE = 2
"""Stages from this one on (counted from 0) hold mixer layers."""


class ConvUnit(nn.Module):
    """Dense convolution with bias, instance norm, ReLU.

    The bias stands directly before a norm that removes it; it is kept because released weights carry it.
    """

    before_norm = ("conv",)

    def __init__(self, channels: int, kernel: int, *, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv3d(channels, channels, kernel, padding=padding, dilation=dilation)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return norm_act(self.conv(x_BCDHW), slope=0)


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


class SegMambaV2(UShape):
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
        InputError: From the constructor for arguments that are not valid; from `forward` for sizes that are
            not a multiple of `divisor`, below `minimum`, or of the wrong number of channels.
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
        if mixer not in get_args(Mixer):
            raise InputError("SB104", f"no mixer called '{mixer}'", expected=get_args(Mixer), found=mixer)

        def stage(i: int, before: int, channels: int) -> nn.Module:
            own = mixer if i >= FIRST_MIXED_STAGE else None
            return Stage(before, channels, depths[i], mixer=own, backend=backend)

        super().__init__(in_channels, out_channels, features, depths, hidden, stage, reads_stem=True)
