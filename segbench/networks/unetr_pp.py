"""UNETR++: tokens mixed over space and over channels with shared queries and keys, then convolved.

Source: Shaker et al., "UNETR++", arXiv 2212.04497 and IEEE TMI 2024; the description in the README of
Amshaker/unetr_plus_plus (Apache-2.0). Own code. The size is that of its BraTS configuration.
What is special: attention over space is linear, because keys and values are projected from all tokens to a
few; so the parameters depend on the patch size.
"""

from __future__ import annotations

from math import gcd, prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.inputs import check_arguments, check_volume
from segbench.networks.blocks.residual import BatchResBlock, ResBlock, check_stages
from segbench.networks.blocks.unet import leave_unused_heads, logits_of

__all__ = ["UNETRPP"]

PATCH = 4
"""Voxels of a token of the first stage along each axis; each further stage halves."""
DECODER_DEPTH = 3


class PairedAttention(nn.Module):
    """Attention between channels and attention over space, with the same queries and keys; their sum.

    Args:
        channels: Channels of the tokens.
        tokens: How many tokens there are.
        projected: How many they are projected to for attention over space.
        heads: Heads of both attentions.
        dropout: Of the attention weights.
    """

    def __init__(self, channels: int, tokens: int, projected: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.channel_temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.spatial_temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkvv = nn.Linear(channels, 4 * channels, bias=False)
        self.project = nn.Linear(tokens, projected, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) -> the same shape."""
        q, k, v_channel, v_space = self.qkvv(x_BLC).unflatten(-1, (4, self.heads, -1)).permute(2, 0, 3, 4, 1)
        few_k, few_v = self.project(k), self.project(v_space)
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        between = (q @ k.transpose(-2, -1) * self.channel_temperature).softmax(-1)
        over = (q.transpose(-2, -1) @ few_k * self.spatial_temperature).softmax(-1)
        y = (self.dropout(between) @ v_channel).flatten(1, 2).transpose(1, 2)
        spread = self.dropout(over) @ few_v.transpose(-2, -1)  # (B, heads, L, C / heads)
        # The release reads this with the channel of a head outermost: kept, its results were made so.
        return y + spread.permute(0, 3, 1, 2).reshape(x_BLC.shape)


class Block(nn.Module):
    """Learnt positions, x + scaled paired attention, x + conv 1^3 of a convolution block."""

    def __init__(self, channels: int, tokens: int, projected: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, tokens, channels))
        self.norm = nn.LayerNorm(channels)
        self.scale = nn.Parameter(torch.full((channels,), 1e-6))
        self.attention = PairedAttention(channels, tokens, projected, heads, dropout)
        self.conv = BatchResBlock(channels, channels)
        self.dropout = nn.Dropout3d(dropout)
        self.reduce = nn.Conv3d(channels, channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        x_BLC = x_BCDHW.flatten(2).transpose(1, 2) + self.positions
        x_BLC = x_BLC + self.scale * self.attention(self.norm(x_BLC))
        x = x_BLC.transpose(1, 2).reshape(x_BCDHW.shape)
        return x + self.reduce(self.dropout(self.conv(x)))


class Up(nn.Module):
    """Larger by a transposed convolution, the skip added, then what `refine` does."""

    def __init__(self, in_channels: int, out_channels: int, factor: int, refine: nn.Module) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(in_channels, out_channels, factor, factor, bias=False)
        self.refine = refine

    def forward(self, x_BCDHW: Tensor, skip_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) and the skip of the finer stage -> the shape of the skip."""
        return self.refine(self.up(x_BCDHW) + skip_BCDHW)


class UNETRPP(nn.Module):
    """UNETR++; the defaults are its BraTS configuration.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        patch_size: (D, H, W) of every input, multiples of 32 of at least 64.
        features: Channels of the four stages; half of the first at full resolution.
        depths: Blocks of the four stages; the decoder has three per stage, fewer where a stage has fewer.
        heads: Heads of every attention; must divide all features.
        projected: Tokens that keys and values are projected to, by stage; in the decoder the first.
        dropout: Of attention weights and of the channels behind a convolution block.
        deep_supervision: In training, return the logits of three resolutions: full, a quarter, an eighth.

    Raises:
        InputError: Sizes that do not go together.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        patch_size: tuple[int, int, int] = (128, 128, 128),
        features: tuple[int, int, int, int] = (32, 64, 128, 256),
        depths: tuple[int, int, int, int] = (3, 3, 3, 3),
        heads: int = 4,
        projected: tuple[int, int, int, int] = (64, 64, 64, 32),
        dropout: float = 0.1,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        check_stages(features, depths)
        self.divisor, self.minimum = 8 * PATCH, 16 * PATCH
        fits = all(n % self.divisor == 0 and n >= self.minimum for n in patch_size)
        shared = all(c % 2 == 0 and c % heads == 0 for c in features)
        check_arguments(
            (fits, "patch_size", patch_size, f"multiples of {self.divisor}, at least {self.minimum}"),
            (shared, "features", features, f"even, and multiples of {heads} heads"),
            (len(projected) == 4, "projected", projected, "four numbers"),
            (0 <= dropout < 1, "dropout", dropout, "at least 0 and below 1"),
        )
        self.in_channels, self.patch_size = in_channels, patch_size
        self.deep_supervision = deep_supervision
        first, befores = features[0] // 2, (in_channels, *features[:3])
        counts = [prod(length // (PATCH << i) for length in patch_size) for i in range(4)]

        def stage(i: int, depth: int, few: int) -> nn.Sequential:
            return nn.Sequential(*(Block(features[i], counts[i], few, heads, dropout) for _ in range(depth)))

        self.downs = nn.ModuleList(
            _down(before, channels, 2 if i else PATCH)
            for i, (before, channels) in enumerate(zip(befores, features, strict=True))
        )
        self.stages = nn.ModuleList(stage(i, depths[i], projected[i]) for i in range(4))
        self.stem = ResBlock(in_channels, first)
        self.ups = nn.ModuleList(
            Up(features[i + 1], features[i], 2, stage(i, min(depths[i], DECODER_DEPTH), projected[0]))
            for i in (2, 1, 0)
        )
        self.last = Up(features[0], first, PATCH, ResBlock(first, first))
        # Coarse to fine, as in nnU-Net: the last head is the one of full resolution.
        self.heads = nn.ModuleList(nn.Conv3d(c, out_channels, 1) for c in (features[1], features[0], first))
        for module in self.modules():
            if isinstance(module, PairedAttention):
                nn.init.trunc_normal_(module.qkvv.weight, std=0.02)
                few = module.project.out_features
                nn.init.uniform_(module.project.weight, -(few**-0.5), few**-0.5)
        leave_unused_heads(self, "heads", deep_supervision=deep_supervision)

    def forward(self, x_BCDHW: Tensor) -> Tensor | list[Tensor]:
        """(B, in, D, H, W) of the patch size -> logits (B, out, D, H, W).

        With deep supervision, in training: a list of logits of three resolutions, full resolution first.
        """
        size, needs = self.patch_size, {"divisor": self.divisor, "minimum": self.minimum}
        check_volume(x_BCDHW, channels=self.in_channels, size=size, **needs)
        y, skips = x_BCDHW, list[Tensor]()
        for down, stage in zip(self.downs, self.stages, strict=True):
            y = stage(down(y))
            skips.append(y)
        outputs = [skips.pop()]
        for up in self.ups:
            outputs.append(up(outputs[-1], skips.pop()))
        outputs.append(self.last(outputs[-1], self.stem(x_BCDHW)))
        return logits_of(self.heads, outputs, every_stage=self.deep_supervision and self.training)


def _down(in_channels: int, channels: int, factor: int) -> nn.Sequential:
    """A strided convolution and a group norm with as many groups as channels came in, where they divide."""
    return nn.Sequential(
        nn.Conv3d(in_channels, channels, factor, factor, bias=False),
        nn.GroupNorm(gcd(in_channels, channels), channels),
    )
