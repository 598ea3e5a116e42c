"""SegMamba-V2 as its figure draws it: a reconstruction, not the released network.

Source: the overview figure of ge-xing/SegMamba-V2 (images/overview.png). What the figure leaves open is an
argument here, and the card's README lists each. Against the release: parallel strided convolutions of three
sizes halve the volume; the two fine stages are depth-wise; the deep ones are TSMamba blocks (gated
convolution, tri-oriented Mamba, MLP); the skips pass a feature-level uncertainty.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.inputs import check_volume
from segbench.networks.blocks.mamba import Mamba
from segbench.networks.blocks.residual import ChannelNorm, ResBlock, UpBlock, check_stages, instance_norm
from segbench.networks.blocks.tri_oriented_mamba import ORIENTATIONS, mean_of_both_ways, walked
from segbench.networks.segmamba_v2 import FIRST_MIXED_STAGE

__all__ = ["DepthwiseBlock", "GatedConv", "ParallelDown", "SegMambaV2Paper", "TriOriented", "uncertainty"]

Fusion = Literal["concat", "sum"]
Norm = Literal["instance", "layer"]
Weights = Literal["shared", "separate"]
Merge = Literal["sum", "mean"]
Gate = Literal["mul", "add"]
Uncertainty = Literal["residual", "scale", "none"]
Downsampling = Literal["parallel", "conv"]


class ParallelDown(nn.Module):
    """Halve by convolutions 5^3, 3^3 and 2^3 of stride 2 on the same input, joined.

    Args:
        in_channels: Channels of the input.
        channels: Channels of each convolution and of the output.
        fusion: "concat" for a 1^3 convolution over the three, "sum" for their sum.
    """

    def __init__(self, in_channels: int, channels: int, *, fusion: Fusion = "concat") -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv3d(in_channels, channels, kernel, stride=2, padding=padding)
            for kernel, padding in ((5, 2), (3, 1), (2, 0))
        )
        self.fuse = nn.Conv3d(3 * channels, channels, 1) if fusion == "concat" else None

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, channels, D/2, H/2, W/2)."""
        large, middle, small = (conv(x_BCDHW) for conv in self.convs)
        if self.fuse is None:
            return large + middle + small
        return self.fuse(torch.cat((large, middle, small), dim=1))


class DepthwiseBlock(nn.Module):
    """x + pointwise(GELU(pointwise(norm(depthwise(x))))), expansion 4."""

    def __init__(self, channels: int, *, kernel: int = 7, norm: Norm = "instance") -> None:
        super().__init__()
        self.depthwise = nn.Conv3d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = ChannelNorm(channels, eps=1e-5) if norm == "layer" else None
        self.before_norm = ("depthwise",) if norm == "instance" else ()
        self.expand = nn.Conv3d(channels, 4 * channels, 1)
        self.reduce = nn.Conv3d(4 * channels, channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        y = self.depthwise(x_BCDHW)
        y = instance_norm(y) if self.norm is None else self.norm(y)
        return x_BCDHW + self.reduce(functional.gelu(self.expand(y)))


class GatedConv(nn.Module):
    """GSC: two 3^3 convolutions gated by a 1^3 one, a last convolution over the result, and the input.

    Args:
        channels: Channels of input and output.
        gate: "mul" multiplies the two paths (figure), "add" sums them (code of V1).
        last_kernel: 3 (figure) or 1 (code of V1).
        norm_first: Norm before each convolution (figure) or after it (code of V1).
    """

    def __init__(
        self, channels: int, *, gate: Gate = "mul", last_kernel: int = 3, norm_first: bool = True
    ) -> None:
        super().__init__()
        self.deep1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.deep2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.beside = nn.Conv3d(channels, channels, 1)
        self.last = nn.Conv3d(channels, channels, last_kernel, padding=last_kernel // 2)
        self.gate, self.norm_first = gate, norm_first
        self.before_norm = () if norm_first else ("deep1", "deep2", "beside", "last")

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        deep = self._unit(self.deep2, self._unit(self.deep1, x_BCDHW))
        beside = self._unit(self.beside, x_BCDHW)
        joined = deep * beside if self.gate == "mul" else deep + beside
        return x_BCDHW + self._unit(self.last, joined)

    def _unit(self, conv: nn.Module, x: Tensor) -> Tensor:
        return functional.relu(conv(instance_norm(x)) if self.norm_first else instance_norm(conv(x)))


class TriOriented(nn.Module):
    """The tri-oriented Mamba of normalised tokens, without residual.

    Args:
        channels: C of input and output.
        weights: One Mamba "shared" by the three orientations, or three "separate" ones.
        directions: 1 walks forwards only; 2 also backwards with the same weights, mean of the two.
        merge: "sum" or "mean" of the three orientations.
        backend: Backend of the selective scan.
    """

    def __init__(
        self,
        channels: int,
        *,
        weights: Weights = "shared",
        directions: int = 1,
        merge: Merge = "sum",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        count = 1 if weights == "shared" else len(ORIENTATIONS)
        self.mambas = nn.ModuleList(Mamba(channels, backend=backend) for _ in range(count))
        self.directions, self.merge = directions, merge

    def forward(self, x_BDHWC: Tensor) -> Tensor:
        """(B, D, H, W, C), channels last -> the same shape."""
        first, second, third = walked(x_BDHWC, self._scan)
        total = first + second + third
        return total / len(ORIENTATIONS) if self.merge == "mean" else total

    def _scan(self, tokens_KLC: Tensor) -> Tensor:
        pairs = zip(self.mambas, tokens_KLC.chunk(len(self.mambas)), strict=True)
        if self.directions == 1:
            return torch.cat([mamba(tokens) for mamba, tokens in pairs])
        return torch.cat([mean_of_both_ways(mamba, tokens) for mamba, tokens in pairs])


class TSMambaBlock(nn.Module):
    """GSC, then x + ToOM(LN x), then x + MLP(LN x)."""

    def __init__(self, channels: int, gsc: GatedConv, toom: TriOriented, *, mlp_expansion: int) -> None:
        super().__init__()
        self.gsc = gsc
        self.norm1 = nn.LayerNorm(channels, eps=1e-5)
        self.toom = toom
        self.norm2 = nn.LayerNorm(channels, eps=1e-5)
        self.expand = nn.Linear(channels, mlp_expansion * channels)
        self.reduce = nn.Linear(mlp_expansion * channels, channels)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        y_BDHWC = self.gsc(x_BCDHW).movedim(1, -1)
        y_BDHWC = y_BDHWC + self.toom(self.norm1(y_BDHWC))
        y_BDHWC = y_BDHWC + self.reduce(functional.gelu(self.expand(self.norm2(y_BDHWC))))
        return y_BDHWC.movedim(-1, 1).contiguous()


def uncertainty(z_BCDHW: Tensor, form: Uncertainty) -> Tensor:
    """FUE: features weighted by how certain their mean is.

    m = mean over channels, s = sigmoid(m), u = -s log s; "residual" gives z + z (1 - u), "scale" z (1 - u),
    "none" z.
    """
    if form == "none":
        return z_BCDHW
    m = z_BCDHW.mean(dim=1, keepdim=True)
    u = -torch.sigmoid(m) * functional.logsigmoid(m)
    weighted = z_BCDHW * (1 - u)
    return weighted + z_BCDHW if form == "residual" else weighted


def rise_alone(channels: int) -> nn.Module:
    """Twice the size with no skip beside it: the last step where there is no full-resolution stem."""
    return nn.Sequential(OrderedDict(up=nn.ConvTranspose3d(channels, channels, 2, stride=2, bias=False)))


class SegMambaV2Paper(nn.Module):
    """SegMamba-V2 reconstructed from its figure; each open choice is an argument.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of the four stages.
        depths: Blocks per stage.
        hidden: Channels of the deepest skip.
        downsampling: "parallel" (figure), or "conv" for the single convolution of the release.
        fusion: How the parallel convolutions are joined.
        dw_kernel: Kernel of the depth-wise convolutions; odd.
        dw_norm: Norm of the depth-wise blocks.
        toom_weights: One Mamba for the three orientations or three.
        toom_directions: 1 or 2.
        toom_merge: Sum or mean of the three orientations.
        gsc_gate: How the two paths of GSC are joined.
        gsc_last_kernel: Kernel of its last convolution, 1 or 3.
        gsc_norm_first: Norm before or after its convolutions.
        mlp_expansion: Width of the MLP over its channels.
        fue: Form of the feature-level uncertainty on the skips.
        full_resolution_stem: A residual block on the image, read by the encoder and by the last decoder step;
            without it the encoder reads the image and the last step has no skip.
        backend: Backend of the selective scan.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: tuple[int, int, int, int] = (48, 96, 192, 384),
        depths: tuple[int, int, int, int] = (2, 2, 2, 2),
        hidden: int = 768,
        downsampling: Downsampling = "parallel",
        fusion: Fusion = "concat",
        dw_kernel: int = 7,
        dw_norm: Norm = "instance",
        toom_weights: Weights = "shared",
        toom_directions: Literal[1, 2] = 1,
        toom_merge: Merge = "sum",
        gsc_gate: Gate = "mul",
        gsc_last_kernel: Literal[1, 3] = 3,
        gsc_norm_first: bool = True,
        mlp_expansion: int = 2,
        fue: Uncertainty = "residual",
        full_resolution_stem: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_stages(features, depths)
        self.in_channels = in_channels
        self.divisor, self.minimum = 16, 32
        self.fue: Uncertainty = fue

        def down(before: int, channels: int) -> nn.Module:
            if downsampling == "conv":
                return nn.Conv3d(before, channels, 3, stride=2, padding=1)
            return ParallelDown(before, channels, fusion=fusion)

        def block(index: int, channels: int) -> nn.Module:
            if index < FIRST_MIXED_STAGE:
                return DepthwiseBlock(channels, kernel=dw_kernel, norm=dw_norm)
            gsc = GatedConv(channels, gate=gsc_gate, last_kernel=gsc_last_kernel, norm_first=gsc_norm_first)
            toom = TriOriented(
                channels, weights=toom_weights, directions=toom_directions, merge=toom_merge, backend=backend
            )
            return TSMambaBlock(channels, gsc, toom, mlp_expansion=mlp_expansion)

        first = features[0]
        self.stem = ResBlock(in_channels, first) if full_resolution_stem else None
        befores = (first if full_resolution_stem else in_channels, *features[:3])
        self.encoder = nn.ModuleList(
            nn.Sequential(down(before, channels), *(block(i, channels) for _ in range(depth)))
            for i, (before, channels, depth) in enumerate(zip(befores, features, depths, strict=True))
        )
        widths = (*features[1:], hidden)
        self.skips = nn.ModuleList(ResBlock(a, b) for a, b in zip(features, widths, strict=True))
        self.decoder = nn.ModuleList(
            UpBlock(a, b) for a, b in zip(widths[:0:-1], features[:0:-1], strict=True)
        )
        self.rise = UpBlock(widths[0], first) if full_resolution_stem else rise_alone(widths[0])
        self.refine = ResBlock(first if full_resolution_stem else widths[0], first)
        self.head = nn.Conv3d(first, out_channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> logits (B, out, D, H, W)."""
        check_volume(x_BCDHW, channels=self.in_channels, divisor=self.divisor, minimum=self.minimum)
        stem = None if self.stem is None else self.stem(x_BCDHW)
        y = x_BCDHW if stem is None else stem
        kept: list[Tensor] = []
        for stage, skip in zip(self.encoder, self.skips, strict=True):
            y = stage(y)
            kept.append(skip(uncertainty(y, self.fue)))
        y = kept.pop()
        for block in self.decoder:
            y = block(y, kept.pop())
        y = self.rise(y) if stem is None else self.rise(y, stem)
        return self.head(self.refine(y))
