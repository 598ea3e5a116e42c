"""PrimusV3: a convolutional patch embedding, a transformer with rotary positions, a light decoder.

Source: described in MIC-DKFZ/nnUNet documentation/primus.md and in Wald et al., "Primus" (arXiv 2503.01835);
parameter names and shapes are those of dynamic-network-architectures 0.4.4 (Apache-2.0). Own code, compared
with that package as a black box.
What is special: tokens of 8^3 voxels are the sum of four embeddings, one for each resolution of the stem.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.inputs import check_arguments, check_volume
from segbench.networks.blocks.residual import ChannelNorm, dropped
from segbench.networks.blocks.unet import he_initialise
from segbench.networks.nnunet import ResidualStage

__all__ = ["PrimusV3"]

TOKEN = 8
"""Voxels of a token along each axis."""
SKIP_SCALE, LAYER_SCALE, LINEAR_STD = 1e-5, 0.1, 0.02
"""What the scales start at, and the deviation of the linear layers."""


class PatchEmbedding(nn.Module):
    """Residual stages down to an eighth; each resolution is added to the tokens by a learnt scale."""

    def __init__(self, in_channels: int, features: Sequence[int], hidden: int) -> None:
        super().__init__()
        kernel, once, twice = (3, 3, 3), (1, 1, 1), (2, 2, 2)
        self.stem = ResidualStage(1, in_channels, features[0], kernel, once)
        self.stages = nn.ModuleList(
            ResidualStage(1, before, channels, kernel, twice, bias=False)
            for before, channels in pairwise(features)
        )
        self.final_proj = nn.Conv3d(features[-1], hidden, 1)
        self.proj_to_tokens = nn.ModuleList(
            nn.Conv3d(channels, hidden, TOKEN >> i, TOKEN >> i) for i, channels in enumerate(features[:-1])
        )
        self.scale_proj_to_tokens = nn.ParameterList(
            nn.Parameter(torch.tensor(SKIP_SCALE)) for _ in features[1:]
        )

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, hidden, D/8, H/8, W/8)."""
        outputs = [self.stem(x_BCDHW)]
        for stage in self.stages:
            outputs.append(stage(outputs[-1]))
        tokens = self.final_proj(outputs.pop())
        for y, project, scale in zip(outputs, self.proj_to_tokens, self.scale_proj_to_tokens, strict=True):
            tokens = tokens + scale * project(y)
        return tokens


class Attention(nn.Module):
    """Attention over all tokens; queries and keys are rotated by the place of their token."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden, bias=False)
        self.v_proj = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.proj = nn.Linear(hidden, hidden)

    def forward(self, x_BLC: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """(B, L, C) and the sines and cosines of the places (L, C/heads) -> (B, L, C)."""
        q, k, v = (
            project(x_BLC).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = functional.scaled_dot_product_attention(rotated(q, turns), rotated(k, turns), v)
        return self.proj(self.norm(y.transpose(1, 2).flatten(2)))


class GatedLinear(nn.Module):
    """SwiGLU: silu(gate) * value, a norm, back to width."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        inner = hidden * 8 // 3
        self.fc1_g = nn.Linear(hidden, inner)
        self.fc1_x = nn.Linear(hidden, inner)
        self.norm = nn.LayerNorm(inner)
        self.fc2 = nn.Linear(inner, hidden)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) -> the same shape."""
        return self.fc2(self.norm(functional.silu(self.fc1_g(x_BLC)) * self.fc1_x(x_BLC)))


class Block(nn.Module):
    """x + scaled attention, then x + scaled gated linear layers; in training whole branches are dropped.

    Args:
        hidden: Channels of the tokens.
        heads: Heads of the attention.
        drop: Probability with which a sample skips a branch in training.
    """

    def __init__(self, hidden: int, heads: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.gamma_1 = nn.Parameter(torch.full((hidden,), LAYER_SCALE))
        self.gamma_2 = nn.Parameter(torch.full((hidden,), LAYER_SCALE))
        self.norm1 = nn.LayerNorm(hidden)
        self.attn = Attention(hidden, heads)
        self.norm2 = nn.LayerNorm(hidden)
        self.mlp = GatedLinear(hidden)

    def forward(self, x_BLC: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """(B, L, C) -> the same shape."""
        drop = self.drop if self.training else 0.0
        x = x_BLC + dropped(self.gamma_1 * self.attn(self.norm1(x_BLC), turns), drop)
        return x + dropped(self.gamma_2 * self.mlp(self.norm2(x)), drop)


class Transformer(nn.Module):
    """A learnt position for every token, the blocks, a norm."""

    def __init__(self, tokens: int, hidden: int, blocks: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, hidden))
        nn.init.trunc_normal_(self.pos_embed, std=LINEAR_STD)
        deepest = max(blocks - 1, 1)
        layers = [Block(hidden, heads, drop_path * i / deepest) for i in range(blocks)]
        self.blocks = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(hidden)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=LINEAR_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Deeper blocks add less, so that the sum does not grow with depth.
        with torch.no_grad():
            for depth, block in enumerate(layers, start=1):
                block.attn.proj.weight.div_(sqrt(2 * depth))
                block.mlp.fc2.weight.div_(sqrt(2 * depth))

    def forward(self, x_BLC: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """(B, L, C) -> the same shape."""
        x = x_BLC + self.pos_embed
        for block in self.blocks:
            x = block(x, turns)
        return self.norm(x)


class Decode(nn.Module):
    """Three transposed convolutions 2^3 back to full size, norm and GELU between them."""

    def __init__(self, hidden: int, out_channels: int) -> None:
        super().__init__()
        first, second = decoder_widths(hidden, out_channels)
        self.decode = nn.Sequential(
            nn.Sequential(nn.ConvTranspose3d(hidden, first, 2, 2), ChannelNorm(first), nn.GELU()),
            nn.Sequential(nn.ConvTranspose3d(first, second, 2, 2), ChannelNorm(second), nn.GELU()),
            nn.ConvTranspose3d(second, out_channels, 2, 2),
        )

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, hidden, D, H, W) -> (B, out, 8D, 8H, 8W)."""
        return self.decode(x_BCDHW)


class PrimusV3(nn.Module):
    """PrimusV3; the defaults are size S at 128^3.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        patch_size: (D, H, W) of every input, multiples of 8: there is a learnt position for each token.
        features: Channels of the stem and of its three halvings.
        hidden: Channels of the tokens.
        blocks: Transformer blocks.
        heads: Attention heads; hidden must be a multiple of 6 heads, for rotations along three axes.
        drop_path: Probability with which the last block is skipped in training; it grows linearly from 0.

    Raises:
        InputError: Sizes that do not go together.
    """

    official_layout = "nnunet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        patch_size: tuple[int, int, int] = (128, 128, 128),
        features: tuple[int, int, int, int] = (32, 64, 256, 1024),
        hidden: int = 396,
        blocks: int = 12,
        heads: int = 6,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        fits = all(length % TOKEN == 0 and length >= 2 * TOKEN for length in patch_size)
        check_arguments(
            (fits, "patch_size", patch_size, "multiples of 8, at least 16"),
            (len(features) == 4, "features", features, "four widths"),
            (hidden % (6 * heads) == 0, "hidden", hidden, f"a multiple of 6 x {heads} heads"),
            (0 <= drop_path < 1, "drop_path", drop_path, "at least 0 and below 1"),
        )
        self.in_channels = in_channels
        self.divisor, self.minimum = TOKEN, 2 * TOKEN
        self.patch_size = patch_size
        self.grid = (patch_size[0] // TOKEN, patch_size[1] // TOKEN, patch_size[2] // TOKEN)
        self.head_width = hidden // heads
        self.down_projection = PatchEmbedding(in_channels, features, hidden)
        self.up_projection = Decode(hidden, out_channels)
        he_initialise(self)
        self.eva = Transformer(self.grid[0] * self.grid[1] * self.grid[2], hidden, blocks, heads, drop_path)
        # Of masked pretraining; part of checkpoints.
        self.register_buffer("mask_token", torch.zeros(1, 1, hidden))

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) of the patch size -> logits (B, out, D, H, W)."""
        size, needs = self.patch_size, {"divisor": self.divisor, "minimum": self.minimum}
        check_volume(x_BCDHW, channels=self.in_channels, size=size, **needs)
        tokens = self.down_projection(x_BCDHW)
        turns = places(self.grid, self.head_width, tokens)
        y_BLC = self.eva(tokens.flatten(2).transpose(1, 2), turns)
        return self.up_projection(y_BLC.transpose(1, 2).unflatten(2, self.grid))


def places(grid: tuple[int, int, int], width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Sines and cosines (L, width) of the places of all tokens, an equal share of the channels for each axis.

    Args:
        grid: Tokens along D, H, W.
        width: Channels of a head, a multiple of 6.
        like: Gives device and type.
    """
    bands = width // 6
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    frequencies = 10_000.0 ** (-torch.arange(bands, device=like.device, dtype=kind) / bands)
    axes = [torch.arange(length, device=like.device, dtype=kind) for length in grid]
    places_LA = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    angles = (places_LA[:, :, None] * frequencies).flatten(1).repeat_interleave(2, dim=1)
    return angles.sin().to(like.dtype), angles.cos().to(like.dtype)


def rotated(x_BHLC: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Every pair of neighbouring channels turned by the angle of its token."""
    sines, cosines = (turn.to(x_BHLC.dtype) for turn in turns)
    turned = torch.stack((-x_BHLC[..., 1::2], x_BHLC[..., ::2]), dim=-1).flatten(-2)
    return x_BHLC * cosines + turned * sines


def decoder_widths(hidden: int, out_channels: int) -> tuple[int, int]:
    """Channels between the transposed convolutions: equal ratios to twice the classes, multiples of 8."""
    ratio = (hidden / (2 * out_channels)) ** (1 / 3)
    first, second = (8 * max(round(hidden / ratio**step / 8), 1) for step in (1, 2))
    return first, second
