"""LHU-Net: a small U-Net whose deeper stages are scaled by attention over tokens and by a large kernel.

Source: Sadegheih et al., "LHU-Net", arXiv 2404.05102 (MICCAI 2025), and the settings for AbdomenAtlas in
xmindflow/LHUNet (Apache-2.0), which Touchstone ran. Own code.
What is special: the large kernel ends in a deformable convolution; attention over space in the finer stages
projects keys and values to a few tokens, so the parameters depend on the patch size; in the deepest it is
between channels.
"""

from __future__ import annotations

from itertools import pairwise, product
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.inputs import check_arguments, check_volume
from segbench.networks.blocks.residual import BatchResBlock
from segbench.networks.blocks.unet import Triple, same_conv

__all__ = ["LHUNet"]

Gate = Literal["square", "residual"]
HYBRID = 2
"""Stages without attention, before those with it."""


class DeformConv(nn.Module):
    """A convolution 3^3 whose taps read, by linear interpolation, where another convolution tells them to.

    Outside the volume lie zeros. Source: Dai et al., "Deformable Convolutional Networks", arXiv 1703.06211.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offsets = same_conv(channels, 3 * 27, 3, bias=True)
        self.taps = nn.Conv1d(27 * channels, channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        size = x_BCDHW.shape[2:]
        offsets = self.offsets(x_BCDHW).unflatten(1, (27, 3))  # (B, tap, axis, D, H, W)
        axes = [torch.arange(n, device=offsets.device) for n in size]
        home = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        near = torch.tensor(list(product((-1, 0, 1), repeat=3)), device=offsets.device)
        places = offsets + home + near[None, :, :, None, None, None]
        read = read_between(x_BCDHW, places.transpose(1, 2).flatten(2))  # (B, C, taps x voxels)
        return self.taps(read.unflatten(2, (27, -1)).flatten(1, 2)).unflatten(2, size)


def read_between(x_BCDHW: Tensor, places_B3L: Tensor) -> Tensor:
    """(B, C, L) of what stands at places (z, y, x) in voxels, by linear interpolation, zero outside.

    By gathering eight neighbours, whose backward pass is deterministic, unlike that of torch's grid_sample.
    """
    size = x_BCDHW.shape[2:]
    x_BCV, low = x_BCDHW.flatten(2), places_B3L.detach().floor()
    total = torch.zeros((), dtype=x_BCDHW.dtype, device=x_BCDHW.device)
    for corner in product((0, 1), repeat=3):
        index, weight = torch.zeros((), dtype=torch.long, device=low.device), torch.ones_like(low[:, 0])
        for axis, step in enumerate(corner):
            at = low[:, axis] + step
            inside = (at >= 0) & (at < size[axis])
            weight = weight * (1 - (places_B3L[:, axis] - at).abs()) * inside
            index = (
                index * size[axis] + torch.where(inside, at, 0).long()
            )  # of NaN too: it stays in the weight
        read = x_BCV.gather(2, index[:, None].expand(-1, x_BCV.shape[1], -1))
        total = total + read * weight[:, None].to(read.dtype)
    return total


class LargeKernel(nn.Module):
    """A projection times its gate: two depth-wise convolutions, one dilated, then a deformable one.

    Args:
        channels: Channels; more of them get smaller kernels, as the authors set them.
        gate: "square" for project(y * y * gate(y)), "residual" for x + project(y * gate(y)).
    """

    def __init__(self, channels: int, gate: Gate) -> None:
        super().__init__()
        self.squared = gate == "square"
        near, far, apart = (5, 7, 3) if channels <= 32 else (5, 5, 3) if channels <= 64 else (3, 3, 2)
        reach = far // 2 * apart
        self.before, self.behind = nn.Conv3d(channels, channels, 1), nn.Conv3d(channels, channels, 1)
        self.gate = nn.Sequential(
            same_conv(channels, channels, near, groups=channels, bias=True),
            nn.Conv3d(channels, channels, far, padding=reach, dilation=apart, groups=channels),
            DeformConv(channels),
            nn.Conv3d(channels, channels, 1),
        )

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        y = functional.gelu(self.before(x_BCDHW))
        gated = y * self.gate(y)
        return self.behind(y * gated) if self.squared else x_BCDHW + self.behind(gated)


class TokenAttention(nn.Module):
    """Attention over space with keys and values projected to a few tokens, or between channels.

    Args:
        channels: Channels of the tokens.
        tokens: How many tokens there are.
        projected: How many they are projected to; none for attention between channels.
        heads: Heads.
    """

    def __init__(self, channels: int, tokens: int, projected: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.project = nn.Linear(tokens, projected) if projected else None
        self.norm, self.out = nn.LayerNorm(channels), nn.Linear(channels, channels)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """(B, L, C) -> the same shape."""
        q, k, v = self.qkv(x_BLC).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 4, 1)
        q = functional.normalize(q, dim=-1)
        if self.project is None:
            weights = (q @ functional.normalize(k, dim=-1).transpose(-2, -1) * self.temperature).softmax(-1)
            y = (weights @ v).flatten(1, 2).transpose(1, 2)
        else:
            weights = (q.transpose(-2, -1) @ self.project(k) * self.temperature).softmax(-1)
            y = weights @ self.project(v).transpose(-2, -1)  # (B, heads, L, C / heads)
            y = y.permute(0, 3, 1, 2).reshape(x_BLC.shape)  # as the release lays it, and UNETR++ before it
        return self.out(self.norm(y))


class HybridBlock(nn.Module):
    """x times one plus both attentions, batch norm, then x + conv 1^3 of a residual block."""

    def __init__(
        self, channels: int, tokens: int, projected: int, heads: int, gate: Gate, dropout: float
    ) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.full((1, tokens, channels), 1e-6))
        self.token_scale, self.kernel_scale = (nn.Parameter(torch.ones(channels, 1, 1, 1)) for _ in range(2))
        self.norm = nn.LayerNorm(channels)
        self.attention = TokenAttention(channels, tokens, projected, heads)
        self.kernel = LargeKernel(channels, gate)
        self.joint_norm = nn.BatchNorm3d(channels)
        self.conv = BatchResBlock(channels, channels)
        self.dropout, self.reduce = nn.Dropout3d(dropout), nn.Conv3d(channels, channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        tokens = self.attention(self.norm(x_BCDHW.flatten(2).transpose(1, 2) + self.positions))
        y = self.token_scale * tokens.transpose(1, 2).reshape(x_BCDHW.shape)
        x = self.joint_norm(x_BCDHW * (1 + y + self.kernel_scale * self.kernel(x_BCDHW)))
        return x + self.reduce(self.dropout(self.conv(x)))


class Down(nn.Module):
    """A residual block, the largest of each 2 x 2 x 2 voxels; then attention, added, and one more block.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        attend: The hybrid block; None in the finer stages.
    """

    def __init__(self, in_channels: int, channels: int, attend: nn.Module | None) -> None:
        super().__init__()
        self.block, self.attend = BatchResBlock(in_channels, channels), attend
        self.behind = None if attend is None else BatchResBlock(channels, channels)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, channels, D/2, H/2, W/2)."""
        y = self.block(x_BCDHW)
        for axis in (2, 3, 4):
            y = y.unflatten(axis, (-1, 2)).amax(axis + 1)
        return y if self.attend is None or self.behind is None else self.behind(y + self.attend(y))


class Up(nn.Module):
    """A transposed convolution, the skip beside it, a residual block; then attention, added."""

    def __init__(self, in_channels: int, channels: int, kernel: int, attend: nn.Module | None) -> None:
        super().__init__()
        padding, more = (kernel - 1) // 2, 2 * ((kernel - 1) // 2) + 2 - kernel
        self.up = nn.ConvTranspose3d(in_channels, channels, kernel, 2, padding, more, bias=False)
        self.block, self.attend = BatchResBlock(2 * channels, channels), attend

    def forward(self, x_BCDHW: Tensor, skip_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) and the skip of the finer stage -> the shape of the skip."""
        y = self.block(torch.cat((self.up(x_BCDHW), skip_BCDHW), dim=1))
        return y if self.attend is None else y + self.attend(y)


class LHUNet(nn.Module):
    """LHU-Net; the defaults are its AbdomenAtlas configuration, whose patches have 96 voxels along each axis.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        patch_size: (D, H, W) of every input, multiples of 32 of at least 64.
        features: Channels of the five stages; half of the first at full resolution.
        heads: Heads of the attention of the three deeper stages; each divides its features.
        projected: Tokens that keys and values of the two stages with attention over space are projected to.
        kernels: Of the transposed convolutions, deepest first, along each axis.
        gate: How the large kernel joins: "square" as in the code for AbdomenAtlas, "residual" as in that for
            BraTS, LA and Pancreas.
        dropout: Of the channels behind the convolutions of a block with attention.

    Raises:
        InputError: Sizes that do not go together.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        patch_size: Triple = (128, 128, 128),
        features: tuple[int, int, int, int, int] = (12, 16, 32, 64, 128),
        heads: tuple[int, int, int] = (8, 8, 16),
        projected: tuple[int, int] = (64, 32),
        kernels: tuple[int, int, int, int, int] = (5, 5, 5, 5, 7),
        gate: Gate = "square",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.divisor, self.minimum = 32, 64
        fits = all(n % self.divisor == 0 and n >= self.minimum for n in patch_size)
        five = len(features) == 5 and features[0] % 2 == 0
        # The decoder's blocks have the heads of the stage below them.
        split = zip((*features[2:], *features[1:4]), (*heads, *heads), strict=False)
        check_arguments(
            (fits, "patch_size", patch_size, f"multiples of {self.divisor}, at least {self.minimum}"),
            (five, "features", features, "five numbers, the first even"),
            (len(heads) == 3 and min(heads) > 0, "heads", heads, "three numbers above 0"),
            (all(c % h == 0 for c, h in split), "features", features, f"multiples of the heads {heads}"),
            (len(projected) == 2, "projected", projected, "two numbers"),
            (len(kernels) == 5 and all(k > 1 for k in kernels), "kernels", kernels, "five numbers above 1"),
            (0 <= dropout < 1, "dropout", dropout, "at least 0 and below 1"),
        )
        self.in_channels, self.patch_size = in_channels, patch_size
        few = (*projected, 0)

        def attend(stage: int, shrunk: int, channels: int) -> nn.Module | None:
            tokens, i = prod(n >> shrunk for n in patch_size), stage - HYBRID
            return HybridBlock(channels, tokens, few[i], heads[i], gate, dropout) if i >= 0 else None

        widths = (features[0] // 2, *features)
        self.first = nn.Sequential(
            nn.Conv3d(in_channels, widths[0], 1), nn.PReLU(), nn.BatchNorm3d(widths[0])
        )
        self.downs = nn.ModuleList(
            Down(before, channels, attend(i, i + 1, channels))
            for i, (before, channels) in enumerate(pairwise(widths))
        )
        self.ups = nn.ModuleList(
            Up(widths[i + 1], widths[i], kernel, attend(i, i, widths[i]))
            for i, kernel in zip(reversed(range(5)), kernels, strict=True)
        )
        self.stem = BatchResBlock(in_channels, widths[0], 5)
        self.last = BatchResBlock(2 * widths[0], widths[0], 5)
        self.head = nn.Conv3d(widths[0], out_channels, 1)
        for module in self.modules():  # as in the release, all but the first convolution
            if isinstance(module, nn.Conv3d | nn.Linear) and module is not self.first[0]:
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) of the patch size -> logits (B, out, D, H, W)."""
        size, needs = self.patch_size, {"divisor": self.divisor, "minimum": self.minimum}
        check_volume(x_BCDHW, channels=self.in_channels, size=size, **needs)
        skips = [self.first(x_BCDHW)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        y = skips.pop()
        for up in self.ups:
            y = up(y, skips.pop())
        return self.head(self.last(torch.cat((y, self.stem(x_BCDHW)), dim=1)))
