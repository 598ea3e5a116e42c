"""Building blocks of the nnU-Net family; names are those of nnU-Net v2 checkpoints.

Source: names and structure after MIC-DKFZ/dynamic-network-architectures (Apache-2.0), own code.
Instance norm here is affine (eps 1e-5), convolutions carry a bias, LeakyReLU has slope 0.01.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from segbench.networks.blocks.inputs import check_arguments
from segbench.networks.blocks.norm_act import norm_act

__all__ = [
    "ConvBlocks",
    "ConvNormAct",
    "Decoder",
    "Encoder",
    "Plan",
    "Triple",
    "as_triple",
    "decode",
    "folded",
    "he_initialise",
    "leave_unused_heads",
    "logits_of",
    "make_plan",
    "per_stage",
    "same_conv",
    "stage_sizes",
]

NEGATIVE_SLOPE = 0.01
Triple = tuple[int, int, int]
StageSize = tuple[int, int, int, Triple, Triple]


@dataclass(frozen=True)
class Plan:
    """Widths, strides and kernels of a U-Net, one entry per stage, finest first."""

    features: tuple[int, ...]
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]

    @property
    def divisor(self) -> int | Triple:
        """What each spatial length must be a multiple of; one number where the axes agree."""
        total = tuple(prod(stride[axis] for stride in self.strides) for axis in range(3))
        return total[0] if len(set(total)) == 1 else (total[0], total[1], total[2])

    @property
    def minimum(self) -> int | Triple:
        """The smallest spatial length: twice the divisor, since instance norm cannot take a single voxel."""
        divisor = self.divisor
        return 2 * divisor if isinstance(divisor, int) else (2 * divisor[0], 2 * divisor[1], 2 * divisor[2])


def stage_sizes(plan: Plan, first: int, counts: Sequence[int]) -> Iterator[StageSize]:
    """(count, channels before, channels, kernel, stride) of every encoder stage.

    Args:
        plan: Widths, strides and kernels.
        first: Channels that the first stage reads.
        counts: Blocks per stage.
    """
    befores = (first, *plan.features[:-1])
    return zip(counts, befores, plan.features, plan.kernels, plan.strides, strict=True)


def make_plan(
    features: Sequence[int],
    strides: Sequence[int | Sequence[int]] | None,
    kernel_sizes: int | Sequence[int | Sequence[int]],
) -> Plan:
    """A plan with one stride and one kernel per stage.

    Args:
        features: Channels of each stage.
        strides: Stride into each stage (an int or three); None for 1 in the first stage and 2 in the others.
        kernel_sizes: One odd kernel for all stages, or one (an int or three) per stage.

    Raises:
        InputError: Where the lengths differ, or there is one stage only.
    """
    stages = len(features)
    strides = (1,) + (2,) * (stages - 1) if strides is None else strides
    kernels = (kernel_sizes,) * stages if isinstance(kernel_sizes, int) else kernel_sizes
    entries = f"{stages} entries, one per stage"
    check_arguments(
        (stages > 1, "features", features, "two numbers at least, one per stage"),
        (len(strides) == stages, "strides", strides, entries),
        (len(kernels) == stages, "kernel_sizes", kernels, entries),
    )
    return Plan(tuple(features), tuple(map(as_triple, strides)), tuple(map(as_triple, kernels)))


def as_triple(value: int | Sequence[int]) -> Triple:
    """Three numbers from one, or from three."""
    if isinstance(value, int):
        return (value, value, value)
    depth, height, width = value
    return (depth, height, width)


def per_stage(value: int | Sequence[int], stages: int, name: str) -> tuple[int, ...]:
    """One number for each of `stages` stages, from one number or from as many.

    Raises:
        InputError: Where the count differs.
    """
    counts = (value,) * stages if isinstance(value, int) else tuple(value)
    check_arguments((len(counts) == stages, name, value, f"{stages} entries, one per stage"))
    return counts


def same_conv(
    in_channels: int,
    out_channels: int,
    kernel: int | Triple,
    *,
    stride: int | Triple = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Conv3d:
    """A convolution with an odd kernel that keeps the size but for its stride."""
    depth, height, width = as_triple(kernel)
    padding = (depth // 2, height // 2, width // 2)
    return nn.Conv3d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=bias)


def folded(x_BCDHW: Tensor, stride: Triple) -> Tensor:
    """Blocks of `stride` voxels as channels: channel c, then the place in depth, height and width."""
    y = x_BCDHW
    for axis, step in zip((2, 4, 6), stride, strict=True):
        y = y.unflatten(axis, (-1, step))
    return y.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def he_initialise(network: nn.Module) -> None:
    """Start every 3D convolution as nnU-Net, U-Mamba and STU-Net do: He normal for slope 0.01, biases zero.

    Source: InitWeights_He of MIC-DKFZ/dynamic-network-architectures initialization/weight_init.py.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def leave_unused_heads(network: nn.Module, heads: str, *, deep_supervision: bool) -> None:
    """Tell DistributedDataParallel not to wait for heads that only deep supervision computes.

    They stay parameters, as in the authors' checkpoints, but without deep supervision get no gradient, and
    DistributedDataParallel would otherwise refuse the second step.

    Args:
        network: The network whose head of full resolution is the last of its list of heads.
        heads: Name of that list.
        deep_supervision: Whether all heads are computed in training.
    """
    if not deep_supervision:
        last = len(network.get_submodule(heads)._modules) - 1
        names = [name for name, _ in network.named_parameters() if name.startswith(f"{heads}.")]
        kept = f"{heads}.{last}."
        network._ddp_params_and_buffers_to_ignore = [n for n in names if not n.startswith(kept)]  # type: ignore[assignment]


class ConvNormAct(nn.Module):
    """Convolution, affine instance norm and, unless switched off, LeakyReLU."""

    before_norm = ("conv",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | Triple,
        *,
        stride: int | Triple = 1,
        bias: bool = True,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = same_conv(in_channels, out_channels, kernel, stride=stride, bias=bias)
        self.norm = nn.InstanceNorm3d(out_channels, eps=1e-5, affine=True)
        self.act = act

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, out, D/stride, H/stride, W/stride)."""
        slope = NEGATIVE_SLOPE if self.act else None
        return norm_act(self.conv(x_BCDHW), self.norm.weight, self.norm.bias, slope=slope)


class ConvBlocks(nn.Module):
    """Several `ConvNormAct`, the first one strided; named as nnU-Net checkpoints name them."""

    def __init__(
        self, count: int, in_channels: int, out_channels: int, kernel: Triple, *, stride: int | Triple = 1
    ) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            ConvNormAct(in_channels, out_channels, kernel, stride=stride),
            *(ConvNormAct(out_channels, out_channels, kernel) for _ in range(count - 1)),
        )

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, out, D/stride, H/stride, W/stride)."""
        return self.convs(x_BCDHW)


class Encoder(nn.Module):
    """Stages one after the other, behind a stem at full size where there is one."""

    def __init__(self, stem: nn.Module | None, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)

    def forward(self, x_BCDHW: Tensor) -> list[Tensor]:
        """Outputs of all stages, finest first."""
        outputs = [x_BCDHW if self.stem is None else self.stem(x_BCDHW)]
        for stage in self.stages:
            outputs.append(stage(outputs[-1]))
        return outputs[1:]


def decode(
    ups: nn.ModuleList,
    stages: nn.ModuleList,
    heads: nn.ModuleList,
    skips: Sequence[Tensor],
    *,
    every_stage: bool,
) -> Tensor | list[Tensor]:
    """Logits from the outputs of an encoder: upsample, the skip beside it, a stage, a head.

    Args:
        ups: Upsampling of every decoder stage, deepest first.
        stages: Decoder stages.
        heads: Their heads.
        skips: Outputs of the encoder's stages, finest first.
        every_stage: Give the logits of all stages, full resolution first; otherwise those of full resolution.
    """
    y, logits = skips[-1], list[Tensor]()
    last = len(stages) - 1
    for s, (up, stage, head) in enumerate(zip(ups, stages, heads, strict=True)):
        y = stage(torch.cat((up(y), skips[-2 - s]), dim=1))
        if every_stage or s == last:
            logits.append(head(y))
    return logits[::-1] if every_stage else logits[-1]


def logits_of(heads: nn.ModuleList, outputs: Sequence[Tensor], *, every_stage: bool) -> Tensor | list[Tensor]:
    """Logits of a decoder's outputs, coarse to fine as its heads; the coarsest may have none.

    Args:
        heads: One head for each of the finest outputs.
        outputs: What the stages gave.
        every_stage: As in `decode`.
    """
    if not every_stage:
        return heads[-1](outputs[-1])
    return [head(y) for head, y in zip(heads, outputs[-len(heads) :], strict=True)][::-1]


class Decoder(nn.Module):
    """The nnU-Net decoder: transposed convolution, skip beside it, convolutions, a head at every stage.

    All heads exist as parameters (and are counted), as in nnU-Net's checkpoints; without deep supervision
    only the last one is computed. Stage 0 is the deepest.
    """

    def __init__(self, plan: Plan, convs: Sequence[int], out_channels: int) -> None:
        super().__init__()
        pairs = list(pairwise(plan.features))[::-1]
        strides, kernels = plan.strides[:0:-1], plan.kernels[-2::-1]
        self.transpconvs = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, stride, stride)
            for (fine, coarse), stride in zip(pairs, strides, strict=True)
        )
        self.stages = nn.ModuleList(
            ConvBlocks(count, 2 * fine, fine, kernel)
            for (fine, _), kernel, count in zip(pairs, kernels, convs, strict=True)
        )
        self.seg_layers = nn.ModuleList(nn.Conv3d(fine, out_channels, 1) for fine, _ in pairs)

    def forward(self, skips: Sequence[Tensor], *, every_stage: bool) -> Tensor | list[Tensor]:
        """Logits from the encoder's stage outputs (finest first), as `decode` says."""
        return decode(self.transpconvs, self.stages, self.seg_layers, skips, every_stage=every_stage)
