"""nnU-Net's own network code, where it is installed: loads our export strictly, gives the same numbers."""

import pytest
import torch
from torch import nn

from segbench.networks import build_network, export_official_weights, load_official_weights
from segbench.networks.fingerprint import pcg64_input, set_pcg64_weights

unet = pytest.importorskip(
    "dynamic_network_architectures.architectures.unet", reason="nnU-Net's own networks are not installed"
)

FEATURES = (4, 6, 8, 8)
COMMON = {
    "input_channels": 2,
    "n_stages": 4,
    "features_per_stage": FEATURES,
    "conv_op": nn.Conv3d,
    "kernel_sizes": 3,
    "strides": (1, 2, 2, 2),
    "num_classes": 3,
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
}


def theirs_of(slug, *, deep_supervision):
    if slug == "nnunet":
        return unet.PlainConvUNet(
            **COMMON, n_conv_per_stage=2, n_conv_per_stage_decoder=2, deep_supervision=deep_supervision
        )
    return unet.ResidualEncoderUNet(
        **COMMON,
        n_blocks_per_stage=(1, 2, 1, 2),
        n_conv_per_stage_decoder=1,
        deep_supervision=deep_supervision,
    )


@pytest.mark.parametrize("slug", ["nnunet", "resenc-l"])
def test_their_code_loads_our_export_and_agrees(slug):
    build = {"features": FEATURES} | ({"blocks": (1, 2, 1, 2)} if slug == "resenc-l" else {})
    ours = build_network(slug, 2, 3, **build, deep_supervision=True).double()
    set_pcg64_weights(ours, 7)
    theirs = theirs_of(slug, deep_supervision=True).double()
    theirs.load_state_dict(export_official_weights(ours), strict=True)
    x = pcg64_input((1, 2, 16, 24, 16), 3).requires_grad_()
    y, z = ours.train()(x), theirs.train()(x)
    assert len(y) == len(z) == 3
    for mine, other in zip(y, z, strict=True):
        assert torch.allclose(mine, other, rtol=0, atol=1e-11)
    (mine_grad,) = torch.autograd.grad(sum(t.square().mean() for t in y), x)
    (other_grad,) = torch.autograd.grad(sum(t.square().mean() for t in z), x)
    assert torch.allclose(mine_grad, other_grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("slug", ["nnunet", "resenc-l"])
def test_our_code_loads_their_checkpoint(slug):
    build = {"features": FEATURES} | ({"blocks": (1, 2, 1, 2)} if slug == "resenc-l" else {})
    theirs = theirs_of(slug, deep_supervision=False).double().eval()
    ours = build_network(slug, 2, 3, **build).double().eval()
    report = load_official_weights(ours, {"network_weights": theirs.state_dict()})
    assert len(report.loaded) + len(report.ignored_aliases) == len(theirs.state_dict())
    x = pcg64_input((1, 2, 16, 24, 16), 3)
    assert torch.allclose(ours(x), theirs(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("slug", "entries"), [("nnunet", 292), ("resenc-l", 956)])
def test_full_size_networks_have_the_same_names_and_shapes(slug, entries):
    full = {
        **COMMON,
        "input_channels": 4,
        "num_classes": 4,
        "n_stages": 6,
        "features_per_stage": (32, 64, 128, 256, 320, 320),
        "strides": (1, 2, 2, 2, 2, 2),
    }
    with torch.device("meta"):
        ours = build_network(slug, 4, 4)
        if slug == "nnunet":
            theirs = unet.PlainConvUNet(**full, n_conv_per_stage=2, n_conv_per_stage_decoder=2)
        else:
            theirs = unet.ResidualEncoderUNet(
                **full, n_blocks_per_stage=(1, 3, 4, 6, 6, 6), n_conv_per_stage_decoder=1
            )
    shapes = {name: tuple(t.shape) for name, t in export_official_weights(ours).items()}
    assert shapes == {name: tuple(t.shape) for name, t in theirs.state_dict().items()}
    assert len(shapes) == entries


@pytest.mark.parametrize("slug", ["nnunet", "resenc-l"])
def test_their_start_and_ours_have_the_same_spread(slug):
    build = {"features": (16, 32, 64, 64)} | ({"blocks": (1, 2, 1, 2)} if slug == "resenc-l" else {})
    wide = {**COMMON, "features_per_stage": (16, 32, 64, 64)}
    torch.manual_seed(0)
    if slug == "nnunet":
        theirs = unet.PlainConvUNet(**wide, n_conv_per_stage=2, n_conv_per_stage_decoder=2)
    else:
        theirs = unet.ResidualEncoderUNet(**wide, n_blocks_per_stage=(1, 2, 1, 2), n_conv_per_stage_decoder=1)
    theirs.apply(theirs.initialize)
    ours = export_official_weights(build_network(slug, 2, 3, **build))
    for name, tensor in theirs.state_dict().items():
        if tensor.numel() > 3000:
            assert ours[name].std().item() == pytest.approx(tensor.std().item(), rel=0.1), name
        elif tensor.ndim == 1:
            assert torch.equal(ours[name], tensor), name
