"""Official checkpoints: names both ways, wrappers, aliases, complete faults, nothing loaded by halves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from meta_networks import meta_network

from segbench.core.errors import SegbenchError
from segbench.networks import (
    build_network,
    build_on_meta,
    export_official_weights,
    list_networks,
    load_official_weights,
)
from segbench.networks.fingerprint import set_pcg64_weights
from segbench.networks.released.layouts import LAYOUTS, layout_of

SMALL = {"features": (8, 8, 16, 16), "depths": (1, 1, 2, 1), "hidden": 16}
FAMILY = (
    "segmamba-v2",
    "segmamba-v2-tiny",
    "segmamba-v2-bidirectional",
    "segmamba",
    "segmamba-tiny",
    "uxnet",
    "bisegmamba",
)


def v2(seed=1, **overrides):
    network = build_network("segmamba-v2", 2, 3, **{**SMALL, **overrides})
    set_pcg64_weights(network, seed)
    return network


@pytest.mark.parametrize("slug", FAMILY)
def test_names_are_translated_one_to_one_both_ways(slug):
    network = meta_network(slug, 4, 4)
    layout, names = layout_of(network), list(network.state_dict())
    official = [layout.to_official(name) for name in names]
    assert None not in official
    assert len(set(official)) == len(names)
    assert [layout.to_ours(name) for name in official] == names
    for name in names:
        assert sum(rule.to_official(name) is not None for rule in layout.rules) == 1
    for name in official:
        assert sum(rule.to_ours(name) is not None for rule in layout.rules) == 1


@pytest.mark.ci
@settings(max_examples=8, deadline=None)
@given(
    slug=st.sampled_from(["segmamba-v2", "segmamba", "uxnet", "bisegmamba"]),
    depths=st.tuples(*[st.integers(1, 3)] * 4),
    width=st.sampled_from([8, 16]),
    inputs=st.integers(1, 17),
)
def test_names_are_translated_one_to_one_for_any_depth_and_width(slug, depths, width, inputs):
    overrides = {"depths": depths, "features": (width, 16, 24, 32), "hidden": 40}
    network = build_on_meta(slug, inputs, 2, **overrides)
    layout, names = layout_of(network), list(network.state_dict())
    official = [layout.to_official(name) for name in names]
    assert len({*official}) == len(names)
    assert [layout.to_ours(name) for name in official] == names


def test_every_layout_belongs_to_a_network():
    used = {layout_of(meta_network(slug, 4, 4)) for slug in (*FAMILY, "nnunet")}
    assert used == set(LAYOUTS.values())


EXPECTED = {
    "segmamba-v2": {
        "encoder1.layer.conv3.conv.weight": (48, 4, 1, 1, 1),
        "vit.downsample_layers.2.0.bias": (192,),
        "vit.gscs.3.1.deep_path.2.block.0.weight": (384, 384, 3, 3, 3),
        "vit.gscs.0.0.deep_path.0.block.0.weight": (48, 48, 5, 5, 5),
        "vit.gscs.1.0.shortcut_path.1.block.0.weight": (96, 96, 1, 1, 1),
        "vit.gscs.0.1.se.fc.0.weight": (6, 48),
        "vit.stages.3.1.mamba.x_proj.weight": (24 + 32, 768),
        "vit.stages.2.0.mamba.A_log": (384, 16),
        "vit.mlps.1.fc1.weight": (192, 96, 1, 1, 1),
        "encoder5.layer.conv1.conv.weight": (768, 384, 3, 3, 3),
        "decoder5.transp_conv.conv.weight": (768, 384, 2, 2, 2),
        "decoder2.conv_block.conv1.conv.weight": (48, 96, 3, 3, 3),
        "decoder1.layer.conv2.conv.weight": (48, 48, 3, 3, 3),
        "out.conv.conv.bias": (4,),
    },
    "segmamba": {
        "vit.downsample_layers.0.0.weight": (48, 4, 7, 7, 7),
        "vit.downsample_layers.3.1.weight": (384, 192, 2, 2, 2),
        "vit.gscs.0.proj4.weight": (48, 48, 1, 1, 1),
        "vit.stages.0.1.mamba.A_s_log": (96, 16),
        "vit.stages.3.0.mamba.dt_proj_b.weight": (768, 24),
        "vit.stages.1.0.mamba.conv1d_s.weight": (192, 1, 4),
        "vit.stages.1.0.mamba.D_b": (192,),
        "encoder1.layer.conv1.conv.weight": (48, 4, 3, 3, 3),
    },
    "uxnet": {
        "uxnet_3d.downsample_layers.0.0.weight": (48, 4, 7, 7, 7),
        "uxnet_3d.downsample_layers.0.1.weight": (48,),
        "uxnet_3d.downsample_layers.2.0.weight": (96,),
        "uxnet_3d.downsample_layers.2.1.weight": (192, 96, 2, 2, 2),
        "uxnet_3d.stages.1.0.pwconv1.weight": (384, 1, 1, 1, 1),
        "uxnet_3d.stages.1.0.pwconv2.weight": (96, 4, 1, 1, 1),
        "uxnet_3d.stages.3.1.gamma": (384,),
        "uxnet_3d.norm0.bias": (48,),
    },
    "bisegmamba": {
        "stem_patch.conv1.conv.weight": (48, 4, 5, 5, 5),
        "stem_patch.refine.0.weight": (48, 1, 3, 3, 3),
        "vit.downsample_layers.1.reduction.weight": (96, 384, 1, 1, 1),
        "vit.gscs.0.0.dwa.weight": (48, 1, 1, 5, 5),
        "vit.gscs.3.1.gamma": (384, 1, 1, 1),
        "vit.stages.2.0.fb_logits": (3, 2, 192),
        "vit.stages.2.0.fusion.gate.3.weight": (576, 48, 1, 1, 1),
        "vit.stages.3.0.fusion.gamma": (1, 384, 1, 1, 1),
        "final_up.up1.0.weight": (96, 48, 2, 2, 2),
        "final_up.fuse.0.weight": (48, 96, 1, 1, 1),
    },
    "nnunet": {
        "encoder.stages.0.0.convs.0.conv.weight": (32, 4, 3, 3, 3),
        "encoder.stages.5.0.convs.1.all_modules.1.weight": (320,),
        "decoder.encoder.stages.3.0.convs.0.norm.bias": (256,),
        "decoder.transpconvs.0.bias": (320,),
        "decoder.stages.4.convs.0.conv.weight": (32, 64, 3, 3, 3),
        "decoder.seg_layers.0.weight": (4, 320, 1, 1, 1),
    },
    "resenc-l": {
        "encoder.stem.convs.0.conv.weight": (32, 4, 3, 3, 3),
        "encoder.stages.1.blocks.0.skip.1.conv.weight": (64, 32, 1, 1, 1),
        "encoder.stages.1.blocks.0.skip.1.norm.weight": (64,),
        "encoder.stages.5.blocks.5.conv2.conv.bias": (320,),
    },
    "umamba-bot": {
        "encoder.stem.0.conv3.weight": (32, 4, 1, 1, 1),
        "encoder.stages.1.1.conv2.norm.weight": (64,),
        "mamba_layer.mamba.in_proj.weight": (1280, 320),
        "decoder.upsample_layers.0.conv.bias": (320,),
    },
    "stunet-b": {
        "conv_blocks_context.5.0.conv3.weight": (512, 512, 1, 1, 1),
        "conv_blocks_localization.0.0.conv1.weight": (512, 1024, 3, 3, 3),
        "upsample_layers.4.conv.weight": (32, 64, 1, 1, 1),
        "seg_outputs.4.weight": (4, 32, 1, 1, 1),
    },
}


@pytest.mark.parametrize("slug", EXPECTED)
def test_official_names_and_shapes_are_those_of_the_checkpoints(slug):
    shapes = {name: tuple(t.shape) for name, t in export_official_weights(meta_network(slug, 4, 4)).items()}
    assert {name: shapes.get(name) for name in EXPECTED[slug]} == EXPECTED[slug]
    if slug == "resenc-l":
        assert not any(
            name.endswith("skip.1.conv.bias") or ".stages.5.blocks.0.skip" in name for name in shapes
        )


@pytest.mark.ci
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"network_weights": w},
        lambda w: {"module": {f"module.{k}": t for k, t in w.items()}},
        lambda w: {f"module._orig_mod.{k}": t for k, t in w.items()},
    ],
)
@pytest.mark.parametrize("layout", ["official", "ours"])
def test_wrappers_and_prefixes_are_taken_off_both_layouts(wrapped, layout):
    source, target = v2(1), v2(2)
    weights = export_official_weights(source) if layout == "official" else source.state_dict()
    report = load_official_weights(target, wrapped(dict(weights)))
    assert len(report.loaded) == len(source.state_dict())
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)


def test_all_faults_are_listed_at_once_and_nothing_is_half_loaded():
    source, target = v2(1), v2(2)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    weights = dict(export_official_weights(source))
    del weights["out.conv.conv.bias"]
    weights["extra.weight"] = torch.zeros(3)
    weights["encoder1.layer.conv1.conv.weight"] = torch.zeros(8, 4, 3, 3, 3)
    with pytest.raises(SegbenchError) as caught:
        load_official_weights(target, weights)
    assert caught.value.code == "SB406"
    assert caught.value.exit_code == 4
    assert sorted(caught.value.details) == [
        "missing: head.bias (3,)",
        "unexpected: extra.weight (3,)",
        "wrong shape: encoder1.layer.conv1.conv.weight (8, 4, 3, 3, 3), expected (8, 2, 3, 3, 3)",
    ]
    assert all(torch.equal(target.state_dict()[name], tensor) for name, tensor in before.items())
    report = load_official_weights(target, weights, strict=False)
    assert report.missing == ("stem.conv1.weight", "head.bias")
    assert set(report.unexpected) == {"extra.weight", "encoder1.layer.conv1.conv.weight"}
    assert torch.equal(target.state_dict()["refine.conv1.weight"], source.state_dict()["refine.conv1.weight"])


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda t: t.to(torch.complex64), "kind of numbers: stem.conv2.weight is torch.complex64"),
        (lambda t: t.to(torch.int32), "kind of numbers: stem.conv2.weight is torch.int32"),
        (lambda t: t * float("nan"), "values: stem.conv2.weight holds NaN or infinity"),
    ],
)
def test_values_that_would_be_lost_or_poison_the_network_are_refused(spoil, fault):
    weights = dict(export_official_weights(v2(1)))
    weights["encoder1.layer.conv2.conv.weight"] = spoil(weights["encoder1.layer.conv2.conv.weight"])
    for strict in (True, False):
        with pytest.raises(SegbenchError, match="nothing was loaded") as caught:
            load_official_weights(v2(2), weights, strict=strict)
        assert caught.value.details[0].startswith(fault)


@pytest.mark.parametrize("slug", ["nnunet", "resenc-l", "umamba-bot"])
def test_aliases_are_checked_and_ignored(slug):
    build = {"features": (4, 8, 8)} | ({"blocks": (1, 1, 1)} if slug == "resenc-l" else {})
    source, target = (build_network(slug, 1, 2, **build) for _ in range(2))
    official = {name: tensor.clone() for name, tensor in export_official_weights(source).items()}
    report = load_official_weights(target, official)
    assert len(report.loaded) == len(source.state_dict())
    assert len(report.loaded) + len(report.ignored_aliases) == len(official)
    alias = report.ignored_aliases[0]
    official[alias] += 1
    with pytest.raises(SegbenchError, match="do not fit") as caught:
        load_official_weights(target, official)
    assert caught.value.details[0].startswith(f"alias differs: {alias} repeats ")


def test_official_v2_weights_fill_what_a_control_shares():
    source = v2(1)
    for mixer, absent in (("identity", 0), ("dwconv", 4), ("matched", 6)):
        control = v2(2, mixer=mixer)
        with pytest.raises(SegbenchError):
            load_official_weights(control, export_official_weights(source))
        report = load_official_weights(control, export_official_weights(source), strict=False)
        shared = set(source.state_dict()) & set(control.state_dict())
        assert set(report.loaded) == shared
        assert len(report.missing) == absent * 3
        assert len([name for name in report.unexpected if ".mamba." in name]) == 9 * 3
        for name in shared:
            assert torch.equal(control.state_dict()[name], source.state_dict()[name])


@pytest.mark.parametrize("weights", [{}, {"a": 1}, {"state_dict": {}}, {3: torch.zeros(1)}])
def test_what_is_no_state_dict_is_refused(weights):
    with pytest.raises(SegbenchError) as caught:
        load_official_weights(v2(), weights)
    assert caught.value.code == "SB406"


def test_networks_without_official_layout_keep_their_names():
    network = build_network("segresnet-16", 1, 2, init_filters=8)
    assert export_official_weights(network).keys() == network.state_dict().keys()
    assert load_official_weights(network, network.state_dict()).missing == ()


@pytest.mark.ci
def test_every_slug_exports_each_tensor_under_one_canonical_name():
    for slug in list_networks():
        if slug.startswith(("swin", "unetr")):
            continue
        network = meta_network(slug, 4, 4)
        layout = layout_of(network)
        exported = export_official_weights(network)
        canonical = {layout.canonical(name) for name in exported}
        assert len(canonical) == len(network.state_dict()), slug
