"""MedFormer: a U-Net whose deeper stages exchange features with a small semantic map, in both directions.

Source: Gao et al., "A Data-scalable Transformer for Medical Image Segmentation", arXiv 2203.00131, and the
configurations in the repository yhygao/CBIM-Medical-Image-Segmentation (Apache-2.0). Own code, from these.
What is special: features attend to a map of 64 codes and the map to the features, so the cost is linear; the
maps of all scales are fused by a transformer before the decoder reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.inputs import check_arguments, check_volume
from segbench.networks.blocks.resample import upsampled
from segbench.networks.blocks.residual import SqueezeExcite, instance_norm
from segbench.networks.blocks.unet import (
    Plan,
    Triple,
    folded,
    leave_unused_heads,
    logits_of,
    make_plan,
    same_conv,
)

__all__ = ["MedFormer"]

EXPANSION, FUSION_DEPTH = 4, 2
EPS = 1e-4
"""Of the norms in front of convolutions; the others have 1e-5."""


class Level(NamedTuple):
    """Blocks of a stage, and the channels of a head."""

    convs: int
    exchanges: int
    head_width: int


def separable(in_channels: int, out_channels: int, kernel: Triple) -> nn.Sequential:
    """A depth-wise convolution, then a pointwise one."""
    return nn.Sequential(
        same_conv(in_channels, in_channels, kernel, groups=in_channels),
        same_conv(in_channels, out_channels, 1),
    )


def norm(x_BCDHW: Tensor) -> Tensor:
    """Instance norm with the epsilon of those in front of convolutions."""
    return functional.instance_norm(x_BCDHW, eps=EPS)


def before_conv(x_BCDHW: Tensor) -> Tensor:
    """What stands in front of a convolution: norm and GELU."""
    return functional.gelu(norm(x_BCDHW))


class ConvBlock(nn.Module):
    """Two convolutions, each behind norm and GELU; plus the input, convolved too where the widths differ."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Triple) -> None:
        super().__init__()
        self.conv1 = same_conv(in_channels, out_channels, kernel)
        self.conv2 = same_conv(out_channels, out_channels, kernel)
        self.shortcut = None if in_channels == out_channels else same_conv(in_channels, out_channels, kernel)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, out, D, H, W)."""
        x = before_conv(x_BCDHW)
        kept = x_BCDHW if self.shortcut is None else self.shortcut(x)
        return kept + self.conv2(before_conv(self.conv1(x)))


class InvertedBlock(nn.Module):
    """x + reduce(gate(depthwise(expand(x)))), each behind a norm, the first two behind GELU too."""

    def __init__(self, channels: int, kernel: Triple) -> None:
        super().__init__()
        wide = EXPANSION * channels
        self.expand = same_conv(channels, wide, (1, 1, 1))
        self.depthwise = same_conv(wide, wide, kernel, groups=wide)
        self.gate = SqueezeExcite(wide, reduction=4)
        self.reduce = same_conv(wide, channels, (1, 1, 1))

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        y = self.gate(self.depthwise(before_conv(self.expand(before_conv(x_BCDHW)))))
        return x_BCDHW + self.reduce(norm(y))


class BothWays(nn.Module):
    """Features attend to the codes of the map, the codes to the features; one matrix of products serves both.

    Args:
        channels: Channels of the features that come in.
        out_channels: Channels of the map and of the features that go out.
        kernel: Kernel of the depth-wise convolutions.
        head_width: Channels of a head.
        map_out: Whether the map goes on; the last block of the network only reads it.
    """

    def __init__(
        self, channels: int, out_channels: int, kernel: Triple, head_width: int, *, map_out: bool = True
    ) -> None:
        super().__init__()
        self.heads = out_channels // head_width
        self.features_in = separable(channels, 2 * out_channels, kernel)
        self.features_out = separable(out_channels, out_channels, kernel)
        self.map_in = nn.Conv1d(out_channels, 2 * out_channels, 1, bias=False)
        self.map_out = nn.Conv1d(out_channels, out_channels, 1, bias=False) if map_out else None
        self.shortcut = same_conv(channels, out_channels, (1, 1, 1)) if channels != out_channels else None
        self.feed = InvertedBlock(out_channels, kernel)

    def forward(self, x_BCDHW: Tensor, map_BCM: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, in, D, H, W) and map (B, out, M) -> features (B, out, D, H, W) and map (B, out, M)."""
        features = self.features_in(instance_norm(x_BCDHW))
        q, v = features.flatten(2).unflatten(1, (2, self.heads, -1)).unbind(1)
        codes = self.map_in(functional.instance_norm(map_BCM))
        map_q, map_v = codes.unflatten(1, (2, self.heads, -1)).unbind(1)
        # (B, heads, L, M): every place against every code.
        products = q.transpose(-2, -1) @ map_q * q.shape[-2] ** -0.5
        y = (map_v @ products.softmax(-1).transpose(-2, -1)).flatten(1, 2)
        kept = x_BCDHW if self.shortcut is None else self.shortcut(before_conv(x_BCDHW))
        y = self.feed(kept + self.features_out(y.unflatten(2, x_BCDHW.shape[2:])))
        if self.map_out is not None:
            map_BCM = map_BCM + self.map_out((v @ products.softmax(-2)).flatten(1, 2))
        return y, map_BCM


class MakeMap(nn.Module):
    """A map from features: every code is a mean of projected features, weighted over space."""

    def __init__(self, channels: int, codes: int, kernel: Triple) -> None:
        super().__init__()
        self.what = same_conv(channels, channels, kernel)
        self.where = same_conv(channels, codes, kernel)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C, codes)."""
        weights_BLM = self.where(x_BCDHW).flatten(2).softmax(-1).transpose(1, 2)
        return self.what(x_BCDHW).flatten(2) @ weights_BLM


class Merge(nn.Module):
    """Blocks of voxels become channels; norm, then a separable convolution to width."""

    def __init__(self, in_channels: int, channels: int, stride: Triple, kernel: Triple) -> None:
        super().__init__()
        self.stride = stride
        self.reduce = separable(prod(stride) * in_channels, channels, kernel)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, channels, D/stride, H/stride, W/stride)."""
        return self.reduce(instance_norm(folded(x_BCDHW, self.stride)))


class Down(nn.Module):
    """The next coarser stage: merge voxels, convolve, make a map, exchange features with it."""

    def __init__(
        self, in_channels: int, channels: int, stride: Triple, kernel: Triple, level: Level, codes: int
    ) -> None:
        super().__init__()
        self.merge = Merge(in_channels, channels, stride, kernel)
        self.convs = nn.Sequential(*(ConvBlock(channels, channels, kernel) for _ in range(level.convs)))
        self.make_map = MakeMap(channels, codes, kernel) if level.exchanges else None
        self.exchange = nn.ModuleList(
            BothWays(channels, channels, kernel, level.head_width) for _ in range(level.exchanges)
        )

    def forward(self, x_BCDHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, in, D, H, W) -> features (B, channels, D/stride, ...) and map (B, channels, codes) or None."""
        y = self.convs(self.merge(x_BCDHW))
        if self.make_map is None:
            return y, None
        return run_exchange(self.exchange, y, self.make_map(y))


class Up(nn.Module):
    """The next finer stage: upsample, the skip beside it, exchange with the joined map, convolve.

    Args:
        in_channels: Channels of the coarse features.
        channels: Channels of the skip and of the output.
        kernel: Kernel of the convolutions.
        level: Blocks of this stage.
        last: Whether no finer stage reads the map.
    """

    def __init__(self, in_channels: int, channels: int, kernel: Triple, level: Level, *, last: bool) -> None:
        super().__init__()
        both, count = in_channels + channels, level.exchanges
        widths = [both, *[channels] * (count + level.convs)]
        self.join_maps = nn.Conv1d(both, channels, 1, bias=False) if count else None
        self.exchange = nn.ModuleList(
            BothWays(widths[i], channels, kernel, level.head_width, map_out=not last or i < count - 1)
            for i in range(count)
        )
        self.convs = nn.Sequential(
            *(ConvBlock(widths[i], channels, kernel) for i in range(count, len(widths) - 1))
        )

    def forward(
        self, x_BCDHW: Tensor, skip_BCDHW: Tensor, map_BCM: Tensor | None, skip_map_BCM: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Coarse features, skip, and their maps -> features of the skip's size, and the map."""
        y = torch.cat((upsampled(x_BCDHW, skip_BCDHW.shape[2:], corners=True), skip_BCDHW), dim=1)
        if self.join_maps is not None and map_BCM is not None and skip_map_BCM is not None:
            joined = self.join_maps(torch.cat((map_BCM, skip_map_BCM), dim=1))
            y, map_BCM = run_exchange(self.exchange, y, joined)
        return self.convs(y), map_BCM


class FusionBlock(nn.Module):
    """Tokens of all maps: x + attention(norm(x)), then x + two linear layers of norm(x)."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.heads = width // head_width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) -> the same shape."""
        q, k, v = self.qkv(self.norm1(x_BLC)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x_BLC + self.out(y)
        return x + self.mlp(self.norm2(x))


class MapFusion(nn.Module):
    """The maps of all scales as tokens of one width, a transformer over all of them, back to their widths."""

    def __init__(self, channels: Sequence[int], head_width: int) -> None:
        super().__init__()
        width = channels[-1]
        self.project = nn.ModuleList(nn.Conv1d(c, width, 1, bias=False) for c in channels)
        self.blocks = nn.Sequential(*(FusionBlock(width, head_width) for _ in range(FUSION_DEPTH)))
        self.restore = nn.ModuleList(nn.Conv1d(width, c, 1, bias=False) for c in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C of their scale, codes) -> the same shapes."""
        tokens = torch.cat([project(m) for project, m in zip(self.project, maps, strict=True)], dim=2)
        parts = self.blocks(tokens.transpose(1, 2)).transpose(1, 2).chunk(len(maps), dim=2)
        return [restore(part) for restore, part in zip(self.restore, parts, strict=True)]


class MedFormer(nn.Module):
    """MedFormer; the defaults are its configuration for KiTS and LiTS.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of each stage, finest first.
        convolutions: Convolution blocks of each stage, in the encoder (behind the first convolution in the
            finest stage, where it is one block) and in the decoder.
        transformers: Blocks that exchange with the map, by stage; none in the finest, some from a stage on.
        strides: Stride into each stage; None for 1, 2, 2, ...
        kernel_sizes: Kernel of each stage, or one for all.
        head_width: Channels of an attention head; divides the features of stages with transformers.
        map_codes: Codes of a semantic map.
        deep_supervision: In training, return the logits of the three finest stages.

    Raises:
        InputError: Sizes that do not go together.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: Sequence[int] = (32, 64, 128, 256, 320),
        convolutions: Sequence[int] = (2, 2, 0, 0, 0),
        transformers: Sequence[int] = (0, 0, 2, 4, 6),
        strides: Sequence[int | Sequence[int]] | None = None,
        kernel_sizes: int | Sequence[int | Sequence[int]] = 3,
        head_width: int = 32,
        map_codes: int = 64,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        plan = make_plan(features, strides, kernel_sizes)
        _check_levels(plan, convolutions, transformers, head_width)
        self.in_channels, self.deep_supervision = in_channels, deep_supervision
        self.divisor, self.minimum = plan.divisor, plan.minimum
        levels = [Level(c, t, head_width) for c, t in zip(convolutions, transformers, strict=True)]
        steps = range(1, len(levels))
        widths, kernels = plan.features, plan.kernels
        first = widths[0]
        self.stem = nn.Sequential(
            same_conv(in_channels, first, kernels[0]), ConvBlock(first, first, kernels[0])
        )
        self.downs = nn.ModuleList(
            Down(widths[i - 1], widths[i], plan.strides[i], kernels[i], levels[i], map_codes) for i in steps
        )
        first_map = next(i for i in steps if transformers[i])
        self.fusion = MapFusion(widths[first_map:], head_width)
        self.ups = nn.ModuleList(
            Up(widths[i], widths[i - 1], kernels[i - 1], levels[i - 1], last=i - 1 == first_map)
            for i in reversed(steps)
        )
        # Coarse to fine, as in nnU-Net: the last head is the one of full resolution.
        self.heads = nn.ModuleList(nn.Conv3d(c, out_channels, 1) for c in widths[2::-1])
        leave_unused_heads(self, "heads", deep_supervision=deep_supervision)

    def forward(self, x_BCDHW: Tensor) -> Tensor | list[Tensor]:
        """(B, in, D, H, W) -> logits (B, out, D, H, W).

        With deep supervision, in training: a list of logits of three stages, full resolution first.
        """
        check_volume(x_BCDHW, channels=self.in_channels, divisor=self.divisor, minimum=self.minimum)
        skips, maps = [self.stem(x_BCDHW)], list[Tensor]()
        for down in self.downs:
            y, made = down(skips[-1])
            skips.append(y)
            maps += [] if made is None else [made]
        fused = self.fusion(maps)
        y, map_BCM, outputs = skips.pop(), fused.pop(), list[Tensor]()
        for up in self.ups:
            y, map_BCM = up(y, skips.pop(), map_BCM, fused.pop() if fused else None)
            outputs.append(y)
        return logits_of(self.heads, outputs, every_stage=self.deep_supervision and self.training)


def run_exchange(blocks: nn.ModuleList, y: Tensor, map_BCM: Tensor) -> tuple[Tensor, Tensor]:
    """Features and map behind all blocks."""
    for block in blocks:
        y, map_BCM = block(y, map_BCM)
    return y, map_BCM


def _check_levels(
    plan: Plan, convolutions: Sequence[int], transformers: Sequence[int], head_width: int
) -> None:
    stages = len(plan.features)
    check_arguments(
        (stages >= 3, "features", plan.features, "three stages at least"),
        (len(convolutions) == stages, "convolutions", convolutions, "one number per stage"),
        (len(transformers) == stages, "transformers", transformers, "one number per stage"),
        (min((*convolutions, *transformers)) >= 0, "blocks", transformers, "at least 0 in each stage"),
    )
    mapped = [count > 0 for count in transformers]
    blocks = [*zip(convolutions, transformers, strict=True)]
    fits = all(width % head_width == 0 for width, there in zip(plan.features, mapped, strict=True) if there)
    sound = mapped == sorted(mapped) and all(mapped[-2:]) and not mapped[0]
    check_arguments(
        (sound, "transformers", transformers, "in the two coarsest stages at least, without a gap"),
        (all(sum(pair) for pair in blocks), "blocks", blocks, "at least one in each stage"),
        (fits, "features", plan.features, f"multiples of {head_width} where there are transformers"),
        (max(max(stride) for stride in plan.strides) <= 2, "strides", plan.strides, "1 or 2"),
    )
