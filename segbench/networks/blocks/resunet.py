"""The residual block and the upsampling that U-Mamba and STU-Net share; names are those of their checkpoints.

Source: structure after bowang-lab/U-Mamba umamba/nnunetv2/nets/UMambaBot_3d.py and uni-medical/STU-Net
nnUNet-1.7.1/nnunet/network_architecture/STUNet.py (both Apache-2.0). Own code.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from segbench.networks.blocks.norm_act import norm_act
from segbench.networks.blocks.unet import NEGATIVE_SLOPE, Triple

__all__ = ["BasicBlock", "NearestUp", "projected_stage"]


class BasicBlock(nn.Module):
    """conv (strided), norm, LeakyReLU, conv, norm; plus the input or a bare 1^3 conv of it; LeakyReLU.

    Unlike in nnU-Net's residual block, the shortcut convolution has a bias and no norm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Kernel of both convolutions.
        stride: Stride of the first convolution and of the shortcut.
        project: Whether the shortcut is a convolution; without it the widths must agree.
    """

    before_norm = ("conv1", "conv2")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        *,
        stride: Triple = (1, 1, 1),
        project: bool = False,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv1 = nn.Conv3d(in_channels, out_channels, kernel, stride, padding)
        self.norm1 = nn.InstanceNorm3d(out_channels, eps=1e-5, affine=True)
        self.conv2 = nn.Conv3d(out_channels, out_channels, kernel, padding=padding)
        self.norm2 = nn.InstanceNorm3d(out_channels, eps=1e-5, affine=True)
        self.conv3 = nn.Conv3d(in_channels, out_channels, 1, stride) if project else None

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, out, D/stride, H/stride, W/stride)."""
        y = norm_act(self.conv1(x_BCDHW), self.norm1.weight, self.norm1.bias, slope=NEGATIVE_SLOPE)
        y = self.conv2(y)
        kept = x_BCDHW if self.conv3 is None else self.conv3(x_BCDHW)
        return norm_act(y, self.norm2.weight, self.norm2.bias, residual=kept, slope=NEGATIVE_SLOPE)


def projected_stage(
    rest: Callable[[int, int, Triple], nn.Module],
    count: int,
    in_channels: int,
    out_channels: int,
    kernel: Triple,
    stride: Triple,
) -> nn.Sequential:
    """A strided `BasicBlock` that projects its shortcut, then `count` - 1 blocks of the kind `rest`."""
    first = BasicBlock(in_channels, out_channels, kernel, stride=stride, project=True)
    return nn.Sequential(first, *(rest(out_channels, out_channels, kernel) for _ in range(count - 1)))


class NearestUp(nn.Module):
    """Repeat each voxel `stride` times, then a 1^3 convolution with bias."""

    def __init__(self, in_channels: int, out_channels: int, stride: Triple) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 1)
        self.stride = tuple(float(step) for step in stride)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, out, D*stride, H*stride, W*stride)."""
        return self.conv(functional.interpolate(x_BCDHW, scale_factor=self.stride, mode="nearest"))
