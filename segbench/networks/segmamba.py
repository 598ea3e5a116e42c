"""SegMamba (V1) as released.

Source: structure after ge-xing/SegMamba, model_segmamba/segmamba.py, from its description only (the
repository carries no licence). What is special, against V2: the encoder reads the image, not the stem; the
stem convolution is 7^3; every stage has a gated convolution and three-branch Mamba layers.
"""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from segbench.networks.blocks.inputs import check_arguments, check_volume
from segbench.networks.blocks.mamba3 import Mamba3, check_slices
from segbench.networks.blocks.norm_act import norm_act
from segbench.networks.blocks.residual import SideOutput, Stage, UShape, instance_norm

__all__ = ["GatedConv", "MambaLayer", "SegMamba"]

RELEASED_SLICES = (64, 32, 16, 8)
"""Chunks of the third branch per stage: constants in the release, right for patches of 128^3 only."""


class GatedConv(nn.Module):
    """GSC: two 3^3 convolutions and one 1^3 beside them, summed, a 1^3 over the sum, and the input.

    Every convolution carries a bias and is followed by instance norm and ReLU.
    """

    before_norm = ("proj", "proj2", "proj3", "proj4")

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, channels, 3, padding=1)
        self.proj2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.proj3 = nn.Conv3d(channels, channels, 1)
        self.proj4 = nn.Conv3d(channels, channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        deep = _norm_relu(self.proj2(_norm_relu(self.proj(x_BCDHW))))
        beside = _norm_relu(self.proj3(x_BCDHW))
        return x_BCDHW + _norm_relu(self.proj4(deep + beside))


def _norm_relu(x_BCDHW: Tensor) -> Tensor:
    return norm_act(x_BCDHW, slope=0)


class MambaLayer(nn.Module):
    """x + Mamba3(LN x), tokens in D, H, W order.

    Args:
        channels: C of input and output.
        slices: Chunks of the third branch; "geometry" for the first spatial length.
        backend: Backend of the selective scan.
    """

    def __init__(self, channels: int, *, slices: int | str, backend: str = "auto") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        self.mamba = Mamba3(channels, backend=backend)
        self.slices = slices

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        tokens_BLC = self.norm(x_BCDHW.flatten(2).transpose(1, 2))
        slices = x_BCDHW.shape[2] if isinstance(self.slices, str) else self.slices
        y_BLC = self.mamba(tokens_BLC, slices=slices)
        return x_BCDHW + y_BLC.transpose(1, 2).reshape(x_BCDHW.shape)


class Down(nn.Module):
    """Halve: conv 7^3 on the image in the first stage, norm and conv 2^3 in the others."""

    def __init__(self, in_channels: int, channels: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        kernel, padding = (7, 3) if first else (2, 0)
        self.conv = nn.Conv3d(in_channels, channels, kernel, stride=2, padding=padding)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, channels, D/2, H/2, W/2)."""
        return self.conv(x_BCDHW if self.first else instance_norm(x_BCDHW))


class SegMamba(UShape):
    """SegMamba (V1) as released.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of the four stages.
        depths: Mamba layers per stage.
        hidden: Channels of the deepest skip.
        slices: Chunks of the third branch, one number per stage; "geometry" for the first spatial length of
            each stage, which is the same at 128^3.
        backend: Backend of the selective scan.
    """

    official_layout = "segmamba"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: tuple[int, int, int, int] = (48, 96, 192, 384),
        depths: tuple[int, int, int, int] = (2, 2, 2, 2),
        hidden: int = 768,
        slices: tuple[int, int, int, int] | str = RELEASED_SLICES,
        backend: str = "auto",
    ) -> None:
        per_stage = _slices_per_stage(slices)

        def stage(i: int, before: int, channels: int) -> nn.Module:
            mixers = (MambaLayer(channels, slices=per_stage[i], backend=backend) for _ in range(depths[i]))
            return Stage(
                down=Down(before, channels, first=i == 0),
                local=GatedConv(channels),
                layers=nn.Sequential(*mixers),
                side=SideOutput(channels),
            )

        super().__init__(in_channels, out_channels, features, depths, hidden, stage)
        self.slices = per_stage

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> logits (B, out, D, H, W)."""
        check_volume(x_BCDHW, channels=self.in_channels, divisor=self.divisor, minimum=self.minimum)
        for i, slices in enumerate(self.slices):
            if not isinstance(slices, str):
                check_slices(prod(length // 2 ** (i + 1) for length in x_BCDHW.shape[2:]), slices)
        return super().forward(x_BCDHW)


def _slices_per_stage(slices: tuple[int, ...] | str) -> tuple[int | str, ...]:
    if slices == "geometry":
        return ("geometry",) * 4
    four = not isinstance(slices, str) and len(slices) == 4
    wanted = f'four numbers, one per stage (released: {RELEASED_SLICES}), or "geometry"'
    check_arguments((four, "slices", slices, wanted))
    return tuple(slices)
