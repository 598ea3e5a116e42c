"""WaveFormer: attention over what wavelets leave of a stage; the details they set apart rebuild the volume.

Source: Al Hasan et al., "WaveFormer", arXiv 2503.23764 (MICCAI 2025); the structure and the settings in
mahfuzalhasan/WaveFormer (MIT). Own code. The size is that of its BraTS settings at 128^3.
What is special: the decoder has no chain of transposed convolutions. Each of its levels starts from the
deepest features and inverts the wavelet transforms of one stage, with the details that the encoder kept.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.inputs import check_arguments, check_volume
from segbench.networks.blocks.resample import joined, split, upsampled
from segbench.networks.blocks.residual import (
    ChannelNorm,
    ResBlock,
    SqueezeExcite,
    UpBlock,
    check_stages,
    dropped,
    instance_norm,
)
from segbench.networks.blocks.unet import folded, same_conv

__all__ = ["WaveFormer"]

MERGED = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))
"""Voxels of a 2 x 2 x 2 block as the first MONAI merged them: two of them twice, two not at all."""
EXPANSION = 4
LEVELS = (3, 2, 1, 0)
"""How often wavelets halve each stage: all end at a 16th of the patch."""


class WindowAttention(nn.Module):
    """Attention inside windows, with a learnt bias for the relative place of two voxels.

    As in the release, a step along the first axis is shorter than a plane when places are numbered, so that
    some relative places share a bias; and what several windows give is laid down one window after the other,
    not each at its place. A stage's coarsest low part is a single window in the release.

    Args:
        channels: Channels of the features.
        heads: Heads.
        window: Voxels of a window along each axis.
    """

    places: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, (window, window, window)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 3, heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        steps = torch.cartesian_prod(*[torch.arange(window)] * 3)
        apart = steps[:, None] - steps[None] + window - 1
        places = (apart * torch.tensor((3 * window - 1, 2 * window - 1, 1))).sum(-1)
        self.register_buffer("places", places, persistent=False)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W), a whole number of windows -> the same shape."""
        windows = folded(x_BCDHW, self.window).unflatten(1, (-1, prod(self.window)))
        x_BLC = windows.flatten(3).permute(0, 3, 2, 1).flatten(0, 1)
        q, k, v = self.qkv(x_BLC).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.bias[self.places].permute(2, 0, 1)[None].to(q.dtype)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        y = self.out(y.transpose(1, 2).flatten(2)).reshape(len(x_BCDHW), *x_BCDHW.shape[2:], -1)
        return y.movedim(-1, 1)


class Feed(nn.Module):
    """x + a pointwise, a depth-wise and a pointwise convolution of it, norm and GELU between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = EXPANSION * channels
        self.expand, self.norm1 = nn.Conv3d(channels, wide, 1), ChannelNorm(wide, eps=1e-5)
        self.depthwise = same_conv(wide, wide, 3, groups=wide, bias=True)
        self.norm2, self.reduce = ChannelNorm(wide, eps=1e-5), nn.Conv3d(wide, channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        y = functional.gelu(self.norm1(self.expand(x_BCDHW)))
        return x_BCDHW + self.reduce(functional.gelu(self.norm2(self.depthwise(y))))


class Block(nn.Module):
    """x + the attention over its low parts at every level, enlarged and added; then x + `Feed`.

    Args:
        channels: Channels of the features.
        heads: Heads of the attention, which all levels share.
        window: Voxels of its windows along each axis.
        levels: How often the wavelets halve; without any, attention is over the features themselves.
        drop: Probability with which a sample skips a branch in training.
    """

    def __init__(self, channels: int, heads: int, window: int, levels: int, drop: float) -> None:
        super().__init__()
        self.levels, self.drop = levels, drop
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.attention = WindowAttention(channels, heads, window)
        self.feed = Feed(channels)

    def forward(self, x_BCDHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, D, H, W) -> the same shape, and the details of every level, finest first."""
        low, details, drop = self.norm1(x_BCDHW), list[Tensor](), self.drop if self.training else 0.0
        seen = torch.zeros_like(x_BCDHW) if self.levels else self.attention(low)
        for _ in range(self.levels):
            low, detail = split(low)
            details.append(detail)
            seen = seen + upsampled(self.attention(low), x_BCDHW.shape[2:])
        x = x_BCDHW + dropped(seen, drop)
        return x + dropped(self.feed(self.norm2(x)), drop), details


class Merge(nn.Module):
    """Half the size and twice the channels: voxels of a block beside each other, a norm, a linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(8 * channels)
        self.reduce = nn.Conv3d(8 * channels, 2 * channels, 1, bias=False)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, 2C, D/2, H/2, W/2)."""
        parts = [x_BCDHW[:, :, i::2, j::2, k::2] for i, j, k in MERGED]
        return self.reduce(self.norm(torch.cat(parts, dim=1)))


class Calibrate(nn.Module):
    """The deepest features, refined and gated; plus themselves, projected."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = channels // 4
        self.keep, self.gate = nn.Conv3d(channels, channels, 1), SqueezeExcite(channels, reduction=4)
        self.reduce, self.expand = nn.Conv3d(channels, few, 1), nn.Conv3d(few, channels, 1)
        self.mix = same_conv(few, few, 3, bias=True)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        y = functional.relu(instance_norm(self.reduce(x_BCDHW)))
        y = functional.relu(instance_norm(self.mix(y)))
        return functional.relu(self.gate(instance_norm(self.expand(y))) + self.keep(x_BCDHW))


class Rebuild(nn.Module):
    """A stage's volume from the deepest features as low part and the stage's details; the skip beside it.

    Args:
        deepest: Channels of the deepest features.
        channels: Channels of the stage.
    """

    def __init__(self, deepest: int, channels: int) -> None:
        super().__init__()
        self.low = same_conv(deepest, channels, 3)
        self.block = ResBlock(2 * channels, channels)

    def forward(self, x_BCDHW: Tensor, details: list[Tensor], skip_BCDHW: Tensor) -> Tensor:
        """Deepest features, details finest first, skip -> the shape of the skip."""
        y = self.low(x_BCDHW)
        for detail in reversed(details):
            y = joined(y, detail)
        return self.block(torch.cat((y, skip_BCDHW), dim=1))


class Enlarge(nn.Module):
    """Interpolated to another size, then refined depth-wise and projected; plus the same without refinement.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        slowly: Whether the projection has a layer between.
    """

    def __init__(self, in_channels: int, out_channels: int, *, slowly: bool) -> None:
        super().__init__()
        self.keep = nn.Conv3d(in_channels, out_channels, 1)
        self.depthwise = same_conv(in_channels, in_channels, 3, groups=in_channels, bias=True)
        self.norm = nn.GroupNorm(in_channels, in_channels)
        between = (nn.Conv3d(2 * in_channels, in_channels, 1), nn.GELU()) if slowly else ()
        last = nn.Conv3d(in_channels if slowly else 2 * in_channels, out_channels, 1)
        self.project = nn.Sequential(nn.Conv3d(in_channels, 2 * in_channels, 1), nn.GELU(), *between, last)

    def forward(self, x_BCDHW: Tensor, size: torch.Size) -> Tensor:
        """(B, in, D, H, W) -> (B, out, *size)."""
        y = upsampled(x_BCDHW, size, corners=True)
        return self.project(self.norm(self.depthwise(y))) + self.keep(y)


def start_encoder(part: nn.Module) -> None:
    """Start a part of the encoder as the release does; `reduce` is a linear layer there."""
    for name, module in part.named_modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            fan_out = module.weight[0, 0].numel() * module.weight.shape[0]
            if isinstance(module, nn.Linear) or name.endswith("reduce"):
                nn.init.trunc_normal_(module.weight, std=0.02)
            else:
                nn.init.normal_(module.weight, std=(2 * module.groups / fan_out) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class WaveFormer(nn.Module):
    """WaveFormer; the defaults are the authors' BraTS settings.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of the four stages, at 1/2 to 1/16 of the resolution, each twice the one before.
        depths: Blocks of the four stages.
        heads: Heads of the attention of each stage; each divides its features.
        window: Voxels of an attention window along each axis; a 16th of the patch in the release.
        drop_path: Probability with which a sample skips a branch of the last block in training.

    Raises:
        InputError: Sizes that do not go together.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: tuple[int, int, int, int] = (48, 96, 192, 384),
        depths: tuple[int, int, int, int] = (2, 2, 2, 2),
        heads: tuple[int, int, int, int] = (3, 6, 12, 24),
        window: int = 8,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        check_stages(features, depths)
        doubles = all(b == 2 * a for a, b in pairwise(features))
        divides = all(h and c % h == 0 for c, h in zip(features, heads, strict=False))
        check_arguments(
            (len(heads) == 4 and min(heads) > 0, "heads", heads, "four numbers above 0"),
            (doubles, "features", features, "each twice the one before"),
            (divides, "features", features, f"multiples of the heads {heads}"),
            (window >= 2, "window", window, "at least 2"),
            (0 <= drop_path < 1, "drop_path", drop_path, "at least 0 and below 1"),
        )
        self.in_channels = in_channels
        self.divisor = self.minimum = 16 * window
        first, deepest, last = features[0], features[3], max(1, sum(depths) - 1)
        drops = iter(drop_path * i / last for i in range(sum(depths)))
        self.embed = nn.Conv3d(in_channels, first, 2, 2)
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(c, h, window, levels, next(drops)) for _ in range(depth))
            for c, h, levels, depth in zip(features, heads, LEVELS, depths, strict=True)
        )
        self.merges = nn.ModuleList(Merge(channels) for channels in features[:3])
        self.stem = ResBlock(in_channels, first)
        self.skips = nn.ModuleList(ResBlock(channels, channels) for channels in features[:3])
        self.calibrate = Calibrate(deepest)
        self.rebuilds = nn.ModuleList(Rebuild(deepest, channels) for channels in features[:3])
        self.enlarge = nn.ModuleList(Enlarge(features[i], first, slowly=i == 2) for i in (1, 2))
        self.up = UpBlock(3 * first, first)
        self.head = nn.Conv3d(first, out_channels, 1)
        for part in (self.embed, self.stages, self.merges):
            start_encoder(part)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> logits (B, out, D, H, W)."""
        check_volume(x_BCDHW, channels=self.in_channels, divisor=self.divisor, minimum=self.minimum)
        y, outputs, kept = self.embed(x_BCDHW), list[Tensor](), list[list[Tensor]]()
        for i, stage in enumerate(self.stages):
            y, details = y if i == 0 else self.merges[i - 1](y), list[Tensor]()
            for block in stage.children():
                y, details = block(y)
            outputs.append(functional.layer_norm(y.movedim(1, -1), y.shape[1:2]).movedim(-1, 1))
            kept.append(details)
        deepest = self.calibrate(outputs.pop())
        skips = [skip(y) for skip, y in zip(self.skips, outputs, strict=True)]
        fine, *coarse = [
            rebuild(deepest, details, skip)
            for rebuild, details, skip in zip(self.rebuilds, kept[:3], skips, strict=True)
        ]
        parts = [enlarge(y, fine.shape[2:]) for enlarge, y in zip(self.enlarge, coarse, strict=True)]
        return self.head(self.up(torch.cat((*reversed(parts), fine), dim=1), self.stem(x_BCDHW)))
