"""The U-Nets of nnU-Net v2: the plain one and ResEnc-L; parameter names are those of its checkpoints.

Source: structure after MIC-DKFZ/dynamic-network-architectures (Apache-2.0), unet.py, plain_conv_encoder.py,
residual_encoders.py; plans of nnU-Net v2 at 128^3. Own code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segbench.networks.blocks.inputs import check_volume
from segbench.networks.blocks.norm_act import norm_act
from segbench.networks.blocks.unet import (
    NEGATIVE_SLOPE,
    ConvBlocks,
    ConvNormAct,
    Decoder,
    Encoder,
    Plan,
    Triple,
    as_triple,
    he_initialise,
    leave_unused_heads,
    make_plan,
    per_stage,
    stage_sizes,
)

__all__ = ["PlainUNet", "ResidualBlock", "ResidualStage", "ResidualUNet"]

FEATURES = (32, 64, 128, 256, 320, 320)


class UNet(nn.Module):
    """What the two U-Nets share: the input check, the decoder, deep supervision.

    Args:
        in_channels: Channels of the image.
        plan: Widths, strides and kernels.
        encoder: Gives the outputs of all stages, finest first.
        decoder: Turns them into logits.
        deep_supervision: In training, return the logits of every decoder stage.
    """

    official_layout = "nnunet"

    def __init__(
        self, in_channels: int, plan: Plan, encoder: nn.Module, decoder: Decoder, *, deep_supervision: bool
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.divisor, self.minimum = plan.divisor, plan.minimum
        self.deep_supervision = deep_supervision
        self.encoder = encoder
        self.decoder = decoder
        he_initialise(self)
        leave_unused_heads(self, "decoder.seg_layers", deep_supervision=deep_supervision)

    def forward(self, x_BCDHW: Tensor) -> Tensor | list[Tensor]:
        """(B, in, D, H, W) -> logits (B, out, D, H, W).

        With deep supervision, in training: a list of logits of all decoder stages, full resolution first.
        """
        check_volume(x_BCDHW, channels=self.in_channels, divisor=self.divisor, minimum=self.minimum)
        return self.decoder(self.encoder(x_BCDHW), every_stage=self.deep_supervision and self.training)


class PlainUNet(UNet):
    """nnU-Net's plain U-Net.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of each stage; their number is the number of stages.
        blocks: Convolutions per encoder stage; the decoder has two per stage.
        strides: Stride into each stage; None for 1, 2, 2, ...
        kernel_sizes: Kernel of each stage, or one for all.
        deep_supervision: In training, return the logits of every decoder stage.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: Sequence[int] = FEATURES,
        blocks: int | Sequence[int] = 2,
        strides: Sequence[int | Sequence[int]] | None = None,
        kernel_sizes: int | Sequence[int | Sequence[int]] = 3,
        deep_supervision: bool = False,
    ) -> None:
        plan = make_plan(features, strides, kernel_sizes)
        counts = per_stage(blocks, len(plan.features), "blocks")
        # The inner Sequential of one keeps the ".0." of nnU-Net's names.
        encoder = Encoder(
            None,
            (
                nn.Sequential(ConvBlocks(count, a, b, kernel, stride=stride))
                for count, a, b, kernel, stride in stage_sizes(plan, in_channels, counts)
            ),
        )
        decoder = Decoder(plan, (2,) * (len(plan.features) - 1), out_channels)
        super().__init__(in_channels, plan, encoder, decoder, deep_supervision=deep_supervision)


class MeanPool(nn.AvgPool3d):
    """The mean over blocks of voxels; on CUDA AvgPool3d has no deterministic backward, and this has one."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, C, D/stride, H/stride, W/stride)."""
        if input.is_cuda and torch.are_deterministic_algorithms_enabled():
            return mean_of_blocks(input, as_triple(self.stride))
        return super().forward(input)


def mean_of_blocks(x_BCDHW: Tensor, stride: Triple) -> Tensor:
    """The mean of every block of `stride` voxels, added in the order of AvgPool3d; sizes are multiples."""
    depth, height, width = stride
    parts = [
        x_BCDHW[:, :, d::depth, h::height, w::width]
        for d in range(depth)
        for h in range(height)
        for w in range(width)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / len(parts)


class ResidualBlock(nn.Module):
    """conv (strided), norm, act, conv, norm; plus the skip; act.

    The skip is the input, averaged over the stride, brought to width by a 1^3 convolution without bias and a
    norm. The convolution's place in `skip` (0, or 1 behind the pool) is part of nnU-Net's parameter names.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        *,
        stride: Triple = (1, 1, 1),
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, out_channels, kernel, stride=stride, bias=bias)
        self.conv2 = ConvNormAct(out_channels, out_channels, kernel, bias=bias, act=False)
        skip: list[nn.Module] = []
        if stride != (1, 1, 1):
            skip.append(MeanPool(stride, stride))
        if in_channels != out_channels:
            skip.append(ConvNormAct(in_channels, out_channels, 1, bias=False, act=False))
        self.skip = nn.Sequential(*skip)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, out, D/stride, H/stride, W/stride)."""
        y, norm = self.conv2.conv(self.conv1(x_BCDHW)), self.conv2.norm
        return norm_act(y, norm.weight, norm.bias, residual=self.skip(x_BCDHW), slope=NEGATIVE_SLOPE)


class ResidualStage(nn.Module):
    """Residual blocks, the first one strided."""

    def __init__(
        self,
        count: int,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        stride: Triple,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            ResidualBlock(in_channels, out_channels, kernel, stride=stride, bias=bias),
            *(ResidualBlock(out_channels, out_channels, kernel, bias=bias) for _ in range(count - 1)),
        )

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, out, D/stride, H/stride, W/stride)."""
        return self.blocks(x_BCDHW)


class ResidualUNet(UNet):
    """nnU-Net's residual-encoder U-Net; the defaults are the preset L at 128^3.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the logits.
        features: Channels of each stage; their number is the number of stages.
        blocks: Residual blocks per encoder stage; the decoder has one convolution per stage.
        strides: Stride into each stage; None for 1, 2, 2, ...
        kernel_sizes: Kernel of each stage, or one for all.
        deep_supervision: In training, return the logits of every decoder stage.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: Sequence[int] = FEATURES,
        blocks: int | Sequence[int] = (1, 3, 4, 6, 6, 6),
        strides: Sequence[int | Sequence[int]] | None = None,
        kernel_sizes: int | Sequence[int | Sequence[int]] = 3,
        deep_supervision: bool = False,
    ) -> None:
        plan = make_plan(features, strides, kernel_sizes)
        first, counts = plan.features[0], per_stage(blocks, len(plan.features), "blocks")
        encoder = Encoder(
            ConvBlocks(1, in_channels, first, plan.kernels[0]),
            (ResidualStage(*size) for size in stage_sizes(plan, first, counts)),
        )
        decoder = Decoder(plan, (1,) * (len(plan.features) - 1), out_channels)
        super().__init__(in_channels, plan, encoder, decoder, deep_supervision=deep_supervision)
        # As in nnU-Net, each block begins as its skip: the last norm before the sum starts at zero.
        for module in self.encoder.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.conv2.norm.weight)
                nn.init.zeros_(module.conv2.norm.bias)
