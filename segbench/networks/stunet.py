"""STU-Net: a U-Net of residual blocks that scales by width and depth; names are those of its checkpoints.

Source: structure after uni-medical/STU-Net, nnUNet-1.7.1/nnunet/network_architecture/STUNet.py (Apache-2.0).
Own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from segbench.networks.blocks.inputs import check_volume
from segbench.networks.blocks.resunet import BasicBlock, NearestUp, projected_stage
from segbench.networks.blocks.unet import (
    decode,
    he_initialise,
    leave_unused_heads,
    make_plan,
    per_stage,
    stage_sizes,
)

__all__ = ["STUNet"]


class STUNet(nn.Module):
    """STU-Net; the defaults are size B.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of each stage.
        blocks: Residual blocks per stage, in the encoder and in the decoder.
        strides: Stride into each stage; None for 1, 2, 2, ...
        kernel_sizes: Kernel of each stage, or one for all.
        deep_supervision: In training, return the logits of every decoder stage.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: Sequence[int] = (32, 64, 128, 256, 512, 512),
        blocks: int | Sequence[int] = 1,
        strides: Sequence[int | Sequence[int]] | None = None,
        kernel_sizes: int | Sequence[int | Sequence[int]] = 3,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        plan = make_plan(features, strides, kernel_sizes)
        counts = per_stage(blocks, len(plan.features), "blocks")
        self.in_channels = in_channels
        self.divisor, self.minimum = plan.divisor, plan.minimum
        self.deep_supervision = deep_supervision
        self.conv_blocks_context = nn.ModuleList(
            projected_stage(BasicBlock, *size) for size in stage_sizes(plan, in_channels, counts)
        )
        pairs = list(pairwise(plan.features))[::-1]
        self.upsample_layers = nn.ModuleList(
            NearestUp(coarse, fine, stride)
            for (fine, coarse), stride in zip(pairs, plan.strides[:0:-1], strict=True)
        )
        self.conv_blocks_localization = nn.ModuleList(
            projected_stage(BasicBlock, count, 2 * fine, fine, kernel, (1, 1, 1))
            for (fine, _), count, kernel in zip(pairs, counts[-2::-1], plan.kernels[-2::-1], strict=True)
        )
        self.seg_outputs = nn.ModuleList(nn.Conv3d(fine, out_channels, 1) for fine, _ in pairs)
        he_initialise(self)
        leave_unused_heads(self, "seg_outputs", deep_supervision=deep_supervision)

    def forward(self, x_BCDHW: Tensor) -> Tensor | list[Tensor]:
        """(B, in, D, H, W) -> logits (B, out, D, H, W).

        With deep supervision, in training: a list of logits of all decoder stages, full resolution first.
        """
        check_volume(x_BCDHW, channels=self.in_channels, divisor=self.divisor, minimum=self.minimum)
        skips = [x_BCDHW]
        for stage in self.conv_blocks_context:
            skips.append(stage(skips[-1]))
        parts = self.upsample_layers, self.conv_blocks_localization, self.seg_outputs
        return decode(*parts, skips[1:], every_stage=self.deep_supervision and self.training)
