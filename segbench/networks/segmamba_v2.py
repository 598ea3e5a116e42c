"""SegMamba-V2 as released, and its controls.

Source: structure after ge-xing/SegMamba-V2, brats23/models_segmamba/segmambav2.py, from its description only
(the repository carries no licence). What is special: a full-resolution residual stem that everything below
reads; bare strided convolutions between the stages; large-kernel convolutions with squeeze and excitation;
the tri-oriented Mamba layer in the two deep stages; side outputs that go to the skips, not to the next stage.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from segbench.networks.blocks.inputs import check_arguments
from segbench.networks.blocks.norm_act import norm_act
from segbench.networks.blocks.residual import SideOutput, SqueezeExcite, Stage, UShape
from segbench.networks.blocks.tri_oriented_mamba import DepthwiseLayer, MatchedLayer, TriOrientedMamba

__all__ = ["ConvUnit", "LargeKernelConv", "SegMambaV2"]

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
        check_arguments((mixer in get_args(Mixer), "mixer", mixer, f"one of {', '.join(get_args(Mixer))}"))

        def stage(i: int, before: int, channels: int) -> nn.Module:
            mixed = depths[i] if i >= FIRST_MIXED_STAGE and mixer != "identity" else 0
            return Stage(
                down=nn.Conv3d(before, channels, 3, stride=2, padding=1),
                local=nn.Sequential(*(LargeKernelConv(channels) for _ in range(depths[i]))),
                toom=nn.Sequential(*(mixer_layer(mixer, channels, backend=backend) for _ in range(mixed))),
                side=SideOutput(channels),
            )

        super().__init__(in_channels, out_channels, features, depths, hidden, stage, reads_stem=True)
