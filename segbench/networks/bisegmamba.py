"""BiSegMamba: an encoder that starts at a quarter of the size, and fused tri-oriented Mamba layers.

Source: structure after bakhtzadaabshare/BiSegMamba (brats2023 variant), from its description only (the
repository carries no licence). Instance norm is free of affine parameters unless stated.
Legend: B batch, C channels, D H W space, L tokens, K = 3 orientations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.inputs import check_volume
from segbench.networks.blocks.mamba import Mamba
from segbench.networks.blocks.norm_act import norm_act
from segbench.networks.blocks.residual import (
    ResBlock,
    SideOutput,
    SqueezeExcite,
    Stage,
    UpBlock,
    check_stages,
    norm_gelu,
)
from segbench.networks.blocks.tri_oriented_mamba import ORIENTATIONS, both_ways, walked
from segbench.networks.blocks.unet import folded, same_conv

__all__ = ["BiSegMamba", "Fusion", "OrientedLayer", "SpatialMixer"]

SMALL = 1e-6
"""Start of every learned residual scale."""
BIDIRECTIONAL_STAGE = 2
FORWARD_STAGE = 3


def _norm_relu(x_BCDHW: Tensor) -> Tensor:
    return norm_act(x_BCDHW, slope=0)


class Stem(nn.Module):
    """Two convolutions at full size (the finest skip), then two halvings with a refinement between."""

    def __init__(self, in_channels: int, width: int, channels: int) -> None:
        super().__init__()
        self.conv1 = same_conv(in_channels, width, 5)
        self.conv2 = same_conv(width, width, 3)
        self.down1 = same_conv(width, width, 3, stride=2)
        self.refine = same_conv(width, width, 3, groups=width)
        self.down2 = same_conv(width, channels, 3, stride=2)

    def forward(self, x_BCDHW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in, D, H, W) -> (B, channels, D/4, H/4, W/4) and the skip (B, width, D, H, W)."""
        skip = _norm_relu(self.conv2(_norm_relu(self.conv1(x_BCDHW))))
        y = _norm_relu(self.down1(skip))
        y = y + norm_gelu(self.refine(y))
        return _norm_relu(self.down2(y)), skip


class SpaceToChannel(nn.Module):
    """Fold 2^3 voxels into channels (channel c, then depth, height, width parity), reduce, norm, GELU."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Conv3d(8 * in_channels, channels, 1, bias=False)
        self.norm = nn.InstanceNorm3d(channels, eps=1e-5, affine=True)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, channels, D/2, H/2, W/2)."""
        return functional.gelu(self.norm(self.reduction(folded(x_BCDHW, (2, 2, 2)))))


class SpatialMixer(nn.Module):
    """Depth-wise convolutions of several shapes, summed, refined, gated; a learned share of it is added.

    Args:
        channels: Channels of input and output.
        in_plane: Whether a (1, 5, 5) convolution takes part (in the first stage only).
    """

    def __init__(self, channels: int, *, in_plane: bool) -> None:
        super().__init__()
        self.dw3 = same_conv(channels, channels, 3, groups=channels)
        self.dw5 = same_conv(channels, channels, 5, groups=channels)
        self.dwd = nn.Conv3d(channels, channels, 3, padding=2, dilation=2, groups=channels, bias=False)
        self.dwa = (
            nn.Conv3d(channels, channels, (1, 5, 5), padding=(0, 2, 2), groups=channels, bias=False)
            if in_plane
            else None
        )
        self.refine = same_conv(channels, channels, 3, groups=channels)
        self.gate = SqueezeExcite(channels)
        self.gamma = nn.Parameter(torch.full((channels, 1, 1, 1), SMALL))

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        convs = (self.dw3, self.dw5, self.dwd, self.dwa)
        y = sum(norm_gelu(conv(x_BCDHW)) for conv in convs if conv is not None)
        return x_BCDHW + self.gamma * self.gate(norm_gelu(self.refine(y)))


class DirectionGate(nn.Module):
    """Weights of the three orientations per channel, from the global mean; they sum to one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 4, 8)
        self.reduce = nn.Conv3d(3 * channels, hidden, 1)
        self.expand = nn.Conv3d(hidden, 3 * channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, 3C, D, H, W) -> weights (B, 3C, 1, 1, 1)."""
        y = self.expand(functional.gelu(self.reduce(x_BCDHW.mean(dim=(2, 3, 4), keepdim=True))))
        weights_BKC = y.reshape(y.shape[0], len(ORIENTATIONS), -1).softmax(dim=1)
        return weights_BKC.reshape(y.shape)


class Fusion(nn.Module):
    """The three scans weighted, concatenated, mixed, gated; scaled by a small learned factor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = DirectionGate(channels)
        self.mix = nn.Conv3d(3 * channels, channels, 1, bias=False)
        self.scale = SqueezeExcite(channels)
        self.gamma = nn.Parameter(torch.full((1, channels, 1, 1, 1), SMALL))

    def forward(self, scans: list[Tensor]) -> Tensor:
        """Three times (B, C, D, H, W) -> (B, C, D, H, W)."""
        together = torch.cat(scans, dim=1)
        return self.gamma * self.scale(norm_gelu(self.mix(together * self.gate(together))))


class OrientedLayer(nn.Module):
    """x + Fusion of three oriented scans through one shared norm and Mamba, in one batched call.

    Args:
        channels: C of input and output.
        bidirectional: Also walk each orientation backwards; a learned softmax per orientation and channel
            weighs the two.
        backend: Backend of the selective scan.
    """

    def __init__(self, channels: int, *, bidirectional: bool, backend: str = "auto") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        self.mamba = Mamba(channels, backend=backend)
        self.direction_logits = nn.Parameter(torch.zeros(3, 2, channels)) if bidirectional else None
        self.fusion = Fusion(channels)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        placed = walked(self.norm(x_BCDHW.movedim(1, -1)), self._scan)
        return x_BCDHW + self.fusion([part.movedim(-1, 1) for part in placed])

    def _scan(self, tokens_KLC: Tensor) -> Tensor:
        if self.direction_logits is None:
            return self.mamba(tokens_KLC)
        weights = self.direction_logits.softmax(dim=1)
        ways = [way.chunk(len(weights)) for way in both_ways(self.mamba, tokens_KLC)]
        return torch.cat([a * w[0] + b * w[1] for a, b, w in zip(*ways, weights, strict=True)])


def make_stage(in_channels: int, channels: int, depth: int, index: int, *, backend: str) -> Stage:
    """One encoder stage: halve (but the first), convolve (but the third), mix (the last two)."""
    both_ways_here = index == BIDIRECTIONAL_STAGE
    down = {"down": SpaceToChannel(in_channels, channels)} if index else {}
    mixers = (SpatialMixer(channels, in_plane=index == 0) for _ in range(0 if both_ways_here else depth))
    layers = (
        OrientedLayer(channels, bidirectional=both_ways_here, backend=backend)
        for _ in range(depth if index in (BIDIRECTIONAL_STAGE, FORWARD_STAGE) else 0)
    )
    local, layered = nn.Sequential(*mixers), nn.Sequential(*layers)
    return Stage(**down, local=local, layers=layered, side=SideOutput(channels))


class Refine(nn.Module):
    """x + pointwise(depthwise(GELU(norm(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = same_conv(channels, channels, 3, groups=channels)
        self.pointwise = same_conv(channels, channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        return x_BCDHW + self.pointwise(self.depthwise(norm_gelu(x_BCDHW)))


class Rise(nn.Module):
    """From a quarter of the size to the full one: two doublings with refinements, then the stem's skip."""

    def __init__(self, in_channels: int, channels: int, skip_channels: int) -> None:
        super().__init__()
        self.up1 = nn.ConvTranspose3d(in_channels, channels, 2, stride=2, bias=False)
        self.refine1 = Refine(channels)
        self.up2 = nn.ConvTranspose3d(channels, channels, 2, stride=2, bias=False)
        self.refine2 = Refine(channels)
        self.fuse = same_conv(channels + skip_channels, channels, 1)
        self.last = same_conv(channels, channels, 3)

    def forward(self, x_BCDHW: Tensor, skip_BCDHW: Tensor) -> Tensor:
        """(B, in, D/4, ...) and skip (B, S, D, H, W) -> (B, channels, D, H, W)."""
        y = self.refine1(_norm_relu(self.up1(x_BCDHW)))
        y = self.refine2(_norm_relu(self.up2(y)))
        y = _norm_relu(self.fuse(torch.cat((y, skip_BCDHW), dim=1)))
        return _norm_relu(self.last(y))


class BiSegMamba(nn.Module):
    """BiSegMamba, the variant for BraTS 2023.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of the four stages.
        depths: Mixers and layers per stage.
        hidden: Channels of the deepest skip.
        backend: Backend of the selective scan.
    """

    official_layout = "bisegmamba"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: tuple[int, int, int, int] = (48, 96, 192, 384),
        depths: tuple[int, int, int, int] = (2, 2, 2, 2),
        hidden: int = 768,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_stages(features, depths)
        self.in_channels = in_channels
        self.divisor, self.minimum = 32, 64
        first = features[0]
        width = max(first // 2, 48)
        self.stem = Stem(in_channels, width, first)
        self.encoder = nn.ModuleList(
            make_stage(before, channels, depth, i, backend=backend)
            for i, (before, channels, depth) in enumerate(
                zip((first, *features[:3]), features, depths, strict=True)
            )
        )
        widths = (*features[1:], hidden)
        self.skips = nn.ModuleList(ResBlock(a, b) for a, b in zip(features, widths, strict=True))
        self.decoder = nn.ModuleList(
            UpBlock(a, b) for a, b in zip(widths[:0:-1], features[:0:-1], strict=True)
        )
        self.rise = Rise(features[1], first, width)
        self.head = nn.Conv3d(first, out_channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> logits (B, out, D, H, W)."""
        check_volume(x_BCDHW, channels=self.in_channels, divisor=self.divisor, minimum=self.minimum)
        y, stem = self.stem(x_BCDHW)
        kept: list[Tensor] = []
        for stage, skip in zip(self.encoder, self.skips, strict=True):
            y, side = stage(y)
            kept.append(skip(side))
        y = kept.pop()
        for block in self.decoder:
            y = block(y, kept.pop())
        return self.head(self.rise(y, stem))
