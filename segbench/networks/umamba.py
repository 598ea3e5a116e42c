"""U-Mamba Bot and the same network without its Mamba; names are those of its checkpoints.

Source: structure after bowang-lab/U-Mamba, umamba/nnunetv2/nets/UMambaBot_3d.py (Apache-2.0). Own code.
What is special: the one Mamba layer, at the bottleneck, has no residual and always runs in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from math import ceil
from typing import Literal

import torch
from torch import Tensor, nn

from segbench.networks.blocks.inputs import check_volume
from segbench.networks.blocks.mamba import Mamba
from segbench.networks.blocks.resunet import NearestUp, projected_stage
from segbench.networks.blocks.unet import (
    Encoder,
    Plan,
    decode,
    he_initialise,
    leave_unused_heads,
    make_plan,
    per_stage,
    stage_sizes,
)
from segbench.networks.nnunet import FEATURES, ResidualBlock

__all__ = ["MambaLayer", "UMamba"]


class MambaLayer(nn.Module):
    """Mamba of the normalised tokens in D, H, W order; no residual; float32 whatever surrounds it."""

    def __init__(self, channels: int, *, backend: str = "auto") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        self.mamba = Mamba(channels, backend=backend)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same shape."""
        kind = x_BCDHW.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            x = x_BCDHW.float() if x_BCDHW.dtype in (torch.float16, torch.bfloat16) else x_BCDHW
            tokens_BLC = self.mamba(self.norm(x.flatten(2).transpose(1, 2)))
            return tokens_BLC.transpose(1, 2).reshape(x.shape)


class UMamba(nn.Module):
    """U-Mamba Bot, or its no-Mamba base.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of each stage.
        blocks: Blocks per encoder stage (and in the stem, as in stage 0); None for two in the finer half of
            the stages and one in the others, as released.
        strides: Stride into each stage; None for 1, 2, 2, ...
        kernel_sizes: Kernel of each stage, or one for all.
        bottleneck: "mamba" as released, "none" for the control without it.
        deep_supervision: In training, return the logits of every decoder stage.
        backend: Backend of the selective scan.
    """

    official_layout = "nnunet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: Sequence[int] = FEATURES,
        blocks: int | Sequence[int] | None = None,
        strides: Sequence[int | Sequence[int]] | None = None,
        kernel_sizes: int | Sequence[int | Sequence[int]] = 3,
        bottleneck: Literal["mamba", "none"] = "mamba",
        deep_supervision: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        plan = make_plan(features, strides, kernel_sizes)
        stages = len(plan.features)
        finer = ceil(stages / 2)
        counts = (2,) * finer + (1,) * (stages - finer)
        counts = counts if blocks is None else per_stage(blocks, stages, "blocks")
        self.in_channels = in_channels
        self.divisor, self.minimum = plan.divisor, plan.minimum
        self.deep_supervision = deep_supervision
        first = plan.features[0]
        self.encoder = Encoder(
            projected_stage(ResidualBlock, counts[0], in_channels, first, plan.kernels[0], (1, 1, 1)),
            (projected_stage(ResidualBlock, *size) for size in stage_sizes(plan, first, counts)),
        )
        self.mamba_layer = MambaLayer(plan.features[-1], backend=backend) if bottleneck == "mamba" else None
        self.decoder = Decoder(plan, out_channels)
        he_initialise(self)
        leave_unused_heads(self, "decoder.seg_layers", deep_supervision=deep_supervision)

    def forward(self, x_BCDHW: Tensor) -> Tensor | list[Tensor]:
        """(B, in, D, H, W) -> logits (B, out, D, H, W).

        With deep supervision, in training: a list of logits of all decoder stages, full resolution first.
        """
        check_volume(x_BCDHW, channels=self.in_channels, divisor=self.divisor, minimum=self.minimum)
        skips = self.encoder(x_BCDHW)
        if self.mamba_layer is not None:
            skips[-1] = self.mamba_layer(skips[-1])
        return self.decoder(skips, every_stage=self.deep_supervision and self.training)


class Decoder(nn.Module):
    """Nearest upsampling, skip beside it, residual blocks, a head at every stage; stage 0 is the deepest."""

    def __init__(self, plan: Plan, out_channels: int) -> None:
        super().__init__()
        pairs = list(pairwise(plan.features))[::-1]
        deeper = ceil(len(pairs) / 2 + 0.5)
        counts = [2] * deeper + [1] * (len(pairs) - deeper)
        self.stages = nn.ModuleList(
            projected_stage(ResidualBlock, count, 2 * fine, fine, kernel, (1, 1, 1))
            for (fine, _), count, kernel in zip(pairs, counts, plan.kernels[-2::-1], strict=True)
        )
        self.upsample_layers = nn.ModuleList(
            NearestUp(coarse, fine, stride)
            for (fine, coarse), stride in zip(pairs, plan.strides[:0:-1], strict=True)
        )
        self.seg_layers = nn.ModuleList(nn.Conv3d(fine, out_channels, 1) for fine, _ in pairs)

    def forward(self, skips: Sequence[Tensor], *, every_stage: bool) -> Tensor | list[Tensor]:
        """Logits at full resolution, or with `every_stage` those of all stages, full resolution first."""
        return decode(self.upsample_layers, self.stages, self.seg_layers, skips, every_stage=every_stage)
