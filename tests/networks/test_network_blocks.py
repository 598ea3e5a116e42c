"""Shared blocks against MONAI's: same weights, same numbers."""

import pytest
import torch
from monai.networks.blocks import UnetrBasicBlock, UnetrUpBlock
from monai.networks.nets import DynUNet

from segbench.networks.bisegmamba import SpaceToChannel
from segbench.networks.blocks.inputs import InputError, check_volume
from segbench.networks.blocks.residual import ResBlock, UpBlock
from segbench.networks.fingerprint import pcg64_input, set_pcg64_weights
from segbench.networks.nnunet import PlainUNet, mean_of_blocks


@pytest.mark.parametrize(("before", "after"), [(3, 8), (8, 8)])
def test_residual_block_equals_monais(before, after):
    ours = ResBlock(before, after).double()
    set_pcg64_weights(ours, 1)
    theirs = UnetrBasicBlock(
        3, before, after, kernel_size=3, stride=1, norm_name="instance", res_block=True
    ).double()
    names = {"conv1": "layer.conv1.conv", "conv2": "layer.conv2.conv", "shortcut": "layer.conv3.conv"}
    state = {f"{names[k.split('.')[0]]}.weight": t for k, t in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=True)
    x = pcg64_input((2, before, 5, 6, 7), 2)
    assert torch.allclose(ours(x), theirs(x), atol=1e-12)


def test_up_block_equals_monais():
    ours = UpBlock(8, 4).double()
    set_pcg64_weights(ours, 1)
    theirs = UnetrUpBlock(
        3, 8, 4, kernel_size=3, upsample_kernel_size=2, norm_name="instance", res_block=True
    ).double()
    names = {
        "conv1": "conv_block.conv1.conv",
        "conv2": "conv_block.conv2.conv",
        "shortcut": "conv_block.conv3.conv",
    }
    state = {"transp_conv.conv.weight": ours.up.weight}
    state |= {
        f"{names[k.split('.')[1]]}.weight": t for k, t in ours.state_dict().items() if k.startswith("block")
    }
    theirs.load_state_dict(state, strict=True)
    x, skip = pcg64_input((1, 8, 3, 4, 5), 2), pcg64_input((1, 4, 6, 8, 10), 3)
    assert torch.allclose(ours(x, skip), theirs(x, skip), atol=1e-12)


def test_plain_unet_equals_monais_dynunet_once_its_inert_biases_are_gone():
    """DynUNet has no biases before its norms (they cancel) and none in its transposed convolutions."""
    features = (4, 8, 16)
    ours = PlainUNet(2, 3, features=features).double().eval()
    set_pcg64_weights(ours, 1)
    with torch.no_grad():
        for up in ours.decoder.transpconvs:
            up.bias.zero_()
    theirs = DynUNet(
        3, 2, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=features, norm_name=("INSTANCE", {"affine": True})
    ).double()
    theirs.eval()
    stages = ["input_block", "downsamples.0", "bottleneck"]
    state = {}
    for s, name in enumerate(stages):
        for k in (0, 1):
            conv, norm = f"encoder.stages.{s}.0.convs.{k}.conv", f"encoder.stages.{s}.0.convs.{k}.norm"
            state |= block(ours, name, k, conv, norm)
    for s in (0, 1):
        state[f"upsamples.{s}.transp_conv.conv.weight"] = ours.decoder.transpconvs[s].weight
        for k in (0, 1):
            conv, norm = f"decoder.stages.{s}.convs.{k}.conv", f"decoder.stages.{s}.convs.{k}.norm"
            state |= block(ours, f"upsamples.{s}.conv_block", k, conv, norm)
    state["output_block.conv.conv.weight"] = ours.decoder.seg_layers[1].weight
    state["output_block.conv.conv.bias"] = ours.decoder.seg_layers[1].bias
    report = theirs.load_state_dict(state, strict=False)
    assert not report.unexpected_keys
    assert all(key.startswith("skip_layers") for key in report.missing_keys)
    x = pcg64_input((1, 2, 8, 12, 8), 2)
    assert torch.allclose(ours(x), theirs(x), atol=1e-10)


def block(ours, name, k, conv, norm):
    own = ours.state_dict()
    return {
        f"{name}.conv{k + 1}.conv.weight": own[f"{conv}.weight"],
        f"{name}.norm{k + 1}.weight": own[f"{norm}.weight"],
        f"{name}.norm{k + 1}.bias": own[f"{norm}.bias"],
    }


def test_space_goes_to_channels_by_depth_height_width_parity():
    fold = SpaceToChannel(2, 16)
    with torch.no_grad():
        fold.reduction.weight.copy_(torch.eye(16).reshape(16, 16, 1, 1, 1))
    seen = []
    fold.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.arange(2 * 4 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4, 4)
    fold(x)
    assert torch.equal(seen[0][0, 1 * 8 + 1 * 4 + 0 * 2 + 1], x[0, 1, 1::2, 0::2, 1::2])


def test_input_check_names_what_is_required():
    check_volume(torch.zeros(1, 2, 32, 48, 32), channels=2, divisor=16, minimum=32)
    with pytest.raises(InputError, match=r"multiple of 16; found 32x40x32") as caught:
        check_volume(torch.zeros(1, 2, 32, 40, 32), channels=2, divisor=16, minimum=32)
    assert isinstance(caught.value, ValueError)
    assert caught.value.found == "32x40x32"
    with pytest.raises(InputError, match="at least 32; found 32x16x32"):
        check_volume(torch.zeros(1, 2, 32, 16, 32), channels=2, divisor=16, minimum=32)


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (1, 1, 4)])
def test_the_mean_of_blocks_is_average_pooling_to_the_bit(stride: tuple[int, int, int]) -> None:
    x = torch.randn(2, 3, 4, 6, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ours, theirs = mean_of_blocks(x, stride), torch.nn.AvgPool3d(stride, stride)(x)
    assert torch.equal(ours, theirs)
    grad = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(*(torch.autograd.grad(y, x, grad)[0] for y in (ours, theirs)))
