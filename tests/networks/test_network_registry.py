"""Building networks by name: what is refused, with which code, and what every network promises."""

import pickle
import subprocess
import sys

import pytest
import torch
from meta_networks import meta_network

from segbench.cards import list_model_cards, load_model_card
from segbench.cards.model_card import ModelCard
from segbench.core.errors import BackendUnavailable, SegbenchError
from segbench.networks import allowed_overrides, build_network, build_on_meta, list_networks, network_card
from segbench.networks.registry import resolve_implementation

NEEDS_EINOPS = {"swin-unetr", "swin-unetr-v2", "unetr"}


VARIANTS = {"mednext-b", "mednext-m", "mednext-l", "stunet-b", "stunet-l", "umamba-base", "segresnet-32"}
VARIANTS |= {f"segmamba-v2-{control}" for control in ("nomamba", "dwconv", "bidirectional", "matched")}
VARIANTS |= {f"{slug}-tiny" for slug in ("segmamba", "segmamba-v2-nomamba", "bisegmamba", "uxnet")}
"""Other sizes and arguments of networks that every run tries anyway."""


def case(slug):
    return pytest.param(slug, marks=pytest.mark.slow) if slug in VARIANTS else slug


def available(slug):
    if slug in NEEDS_EINOPS:
        pytest.importorskip("einops", reason="MONAI's transformer networks need einops")
    return slug


def test_unknown_network_names_the_three_nearest():
    with pytest.raises(SegbenchError) as caught:
        build_network("segmamba2", 1, 2)
    assert caught.value.code == "SB101"
    assert caught.value.message == "no model called 'segmamba2'"
    assert len(caught.value.expected) == 3
    assert "segmamba-v2" in caught.value.expected
    assert "segmamba" in caught.value.expected
    assert "segbench list models" in caught.value.mend
    with pytest.raises(SegbenchError) as caught:
        network_card("!?")
    assert "--cards" in caught.value.mend


def test_a_floor_is_no_network():
    assert "mean-atlas" not in list_networks()
    with pytest.raises(SegbenchError, match="'mean-atlas' is a floor"):
        build_network("mean-atlas", 1, 2)


def test_unknown_override_is_a_type_error_that_names_the_allowed_ones():
    with pytest.raises(TypeError, match=r"no override width; allowed: .*depths, features, hidden") as caught:
        build_network("segmamba-v2", 1, 2, width=3)
    assert caught.value.code == "SB104"
    assert caught.value.exit_code == 2


def test_an_unknown_scan_backend_is_refused_when_the_network_is_built():
    with pytest.raises(ValueError, match="no scan backend 'cuda9'; there are auto, reference") as caught:
        build_network("segmamba-v2-tiny", 1, 2, backend="cuda9")
    assert caught.value.code == "SB104"


def test_an_override_must_be_a_plain_value():
    with pytest.raises(TypeError, match="features is not"):
        build_network("nnunet", 1, 2, features=torch.tensor([8, 16]))


def test_overrides_have_the_uniform_names():
    assert set(allowed_overrides("segmamba-v2")) == {"features", "depths", "hidden", "mixer", "backend"}
    assert {"features", "blocks", "strides", "kernel_sizes", "deep_supervision"} == set(
        allowed_overrides("nnunet")
    )
    for slug in ("segmamba", "bisegmamba", "umamba-bot"):
        assert "backend" in allowed_overrides(slug)
    if "unetr" in list_networks() and resolvable("unetr"):
        assert "patch_size" in allowed_overrides("unetr")
        assert "img_size" not in allowed_overrides("unetr")


def resolvable(slug):
    try:
        resolve_implementation(load_model_card(slug))
    except BackendUnavailable:
        return False
    return True


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "4"])
def test_channels_must_be_whole_numbers(count):
    with pytest.raises(ValueError, match="whole number of at least 1"):
        build_network("nnunet-tiny", count, 2)
    with pytest.raises(ValueError, match="whole number of at least 1"):
        build_network("nnunet-tiny", 1, count)


@pytest.mark.ci
@pytest.mark.parametrize("slug", [case(s) for s in list_networks()])
def test_indivisible_small_and_miscounted_input_is_refused_before_any_compute(slug):
    facts = network_card(available(slug)).input
    network = meta_network(slug, 2, 3)

    def refused(shape, message):
        with pytest.raises(ValueError, match=message) as caught:
            network(torch.empty(shape, device="meta"))
        assert caught.value.code == "SB104"

    side = max(2 * facts.minimum, 128)
    if facts.fixed_size:
        refused((1, 2, side, side, side + facts.divisor), f"patches of {side}x{side}x{side}")
    else:
        refused((1, 2, side, side + 1, side), f"multiple of {facts.divisor}")
        too_small = facts.minimum - facts.divisor
        refused((1, 2, side, too_small, side), f"at least {facts.minimum}")
    refused((1, 3, side, side, side), "built for 2 input channels")
    refused((2, side, side, side), "five axes")


@pytest.mark.ci
@pytest.mark.parametrize("slug", [case(s) for s in list_networks()])
def test_logits_have_the_size_of_the_image(slug):
    facts = network_card(available(slug)).input
    network = meta_network(slug, 2, 3).eval()
    size = (128, 128, 128) if facts.fixed_size else (facts.minimum, 2 * facts.minimum, 3 * facts.minimum)
    assert network(torch.empty((2, 2, *size), device="meta")).shape == (2, 3, *size)


SUPERVISED = [s for s in list_networks() if network_card(s).deep_supervision]


@pytest.mark.ci
@pytest.mark.parametrize("slug", [case(s) for s in SUPERVISED])
def test_deep_supervision_is_a_list_in_training_and_one_tensor_otherwise(slug):
    fixed = {"patch_size": (64, 64, 64)} if network_card(slug).input.fixed_size else {}
    network = build_on_meta(slug, 2, 3, deep_supervision=True, **fixed).train()
    x = torch.empty((1, 2, 64, 64, 64), device="meta")
    logits = network(x)
    assert isinstance(logits, list)
    sides = [y.shape[2] for y in logits]
    assert sides == sorted(sides, reverse=True)
    assert sides[0] == 64
    assert all(y.shape[1] == 3 for y in logits)
    assert network.eval()(x).shape == (1, 3, 64, 64, 64)
    assert build_on_meta(slug, 2, 3, **fixed).train()(x).shape == (1, 3, 64, 64, 64)


def test_anisotropic_strides_change_what_a_size_must_be_a_multiple_of():
    network = build_network(
        "nnunet", 1, 2, features=(4, 8, 8), strides=(1, (1, 2, 2), 2), kernel_sizes=(3, (1, 3, 3), 3)
    )
    assert network.divisor == (2, 4, 4)
    assert network(torch.zeros(1, 1, 4, 8, 16)).shape == (1, 2, 4, 8, 16)
    with pytest.raises(ValueError, match="multiple of 2x4x4"):
        network(torch.zeros(1, 1, 4, 8, 10))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"features": (4, 8), "strides": (1, 2, 2)}, "strides must be 2 entries, one per stage"),
        ({"features": (4, 8), "kernel_sizes": 4}, "must be odd"),
        ({"features": (4, 8), "blocks": (1, 2, 3)}, "blocks must be 2 entries"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        build_network("nnunet", 1, 2, **overrides)


def test_family_overrides_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="must be four numbers, one per stage"):
        build_network("segmamba-v2", 1, 2, features=(8, 16, 32))
    with pytest.raises(ValueError, match="features must be at least 8, for squeeze and excitation; found 4"):
        build_network("segmamba-v2", 1, 2, features=(4, 8, 16, 32))
    with pytest.raises(ValueError, match=r"mixer = 'attention' is not valid.*'toom', 'bidirectional'"):
        build_network("segmamba-v2", 1, 2, mixer="attention")
    with pytest.raises(ValueError, match="slices must be four numbers"):
        build_network("segmamba-tiny", 1, 2, slices="auto")


def test_a_missing_package_is_named_with_the_way_to_get_it():
    card = load_model_card("nnunet-tiny")
    foreign = ModelCard.model_validate(
        {**card.model_dump(), "implementation": "no_such_package:Net", "requires": ["no_such_package"]}
    )
    with pytest.raises(BackendUnavailable) as caught:
        resolve_implementation(foreign)
    assert caught.value.code == "SB502"
    assert caught.value.mend == "pip install no_such_package"


def test_a_card_that_names_nothing_is_refused():
    card = load_model_card("nnunet-tiny")
    wrong = ModelCard.model_validate(
        {**card.model_dump(), "implementation": "segbench.networks.nnunet:Absent"}
    )
    with pytest.raises(SegbenchError, match="has no 'Absent'") as caught:
        resolve_implementation(wrong)
    assert caught.value.code == "SB110"


CARD = """
slug = "basic-unet"
title = "BasicUNet of MONAI"
kind = "network"
family = "convolution"
provenance = "library"
implementation = "monai.networks.nets:BasicUNet"
requires = ["monai"]
arguments = { features = [8, 8, 16, 16, 32, 8], upsample = "deconv" }
overrides = { widths = "features" }
input = { divisor = 16, minimum = 32 }
source = { code = "https://github.com/Project-MONAI/MONAI", licence = "Apache-2.0" }
fidelity = { reproduces = "MONAI's BasicUNet" }
"""


def test_a_network_of_an_installed_package_needs_a_card_only(tmp_path, monkeypatch):
    folder = tmp_path / "models" / "basic-unet"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(CARD)
    monkeypatch.setenv("SEGBENCH_CARDS", str(tmp_path))
    assert "basic-unet" in list_networks()
    assert network_card("basic-unet").input.divisor == 16
    network = build_network("basic-unet", 1, 2, widths=[4, 4, 8, 8, 16, 4])
    assert type(network).__module__.startswith("monai.")
    assert network(torch.zeros(1, 1, 32, 48, 32)).shape == (1, 2, 32, 48, 32)
    with pytest.raises(ValueError, match="multiple of 16"):
        network(torch.zeros(1, 1, 32, 40, 32))
    with pytest.raises(TypeError, match=r"takes no override features; allowed: .*widths"):
        build_network("basic-unet", 1, 2, features=[4, 4, 8, 8, 16, 4])


def test_foreign_networks_can_be_pickled_for_workers():
    network = build_network("segresnet-16", 1, 2, init_filters=8)
    again = pickle.loads(pickle.dumps(network))
    with pytest.raises(ValueError, match="multiple of 8"):
        again(torch.zeros(1, 1, 20, 16, 16))


def test_names_and_facts_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from segbench.networks import list_networks, network_card\n"
        "facts = [network_card(s) for s in list_networks()]\n"
        "assert network_card('segmamba-v2').fidelity.parameters == 138776824\n"
        "print(len(facts))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) == len(list_networks())


def test_decay_and_direct_path_are_spared_weight_decay():
    network = build_network("segmamba-v2-tiny", 1, 2)
    spared = {
        name.rsplit(".", 1)[1]
        for name, p in network.named_parameters()
        if getattr(p, "_no_weight_decay", False)
    }
    assert spared == {"A_log", "D"}
    v1 = build_network("segmamba-tiny", 1, 2)
    spared = {
        name.rsplit(".", 1)[1] for name, p in v1.named_parameters() if getattr(p, "_no_weight_decay", False)
    }
    assert spared == {"A_log", "A_b_log", "A_s_log", "D", "D_b", "D_s"}


def test_every_card_has_a_readme_and_its_own_file():
    from segbench.cards import find_card_folder

    networks = list_networks()
    for slug in list_model_cards():
        folder = find_card_folder("models", slug)
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert text.startswith("# "), slug
        assert (folder / "fingerprint.json").is_file() == (slug in networks), slug


def test_every_network_class_has_a_card():
    """A module of segbench.networks whose class takes in_channels and out_channels is named by a card."""
    from pathlib import Path

    import segbench.networks as package

    named = {load_model_card(slug).implementation.partition(":")[0] for slug in list_networks()}
    folder = Path(package.__file__).parent
    modules = {
        f"segbench.networks.{path.stem}"
        for path in folder.glob("*.py")
        if "out_channels: int,\n        *," in path.read_text(encoding="utf-8")
    }
    assert modules
    assert modules <= named


@pytest.mark.parametrize("slug", ["nnunet", "resenc-l", "stunet-b", "umamba-bot"])
def test_nnunet_family_starts_as_its_authors_start_it(slug):
    torch.manual_seed(0)
    build = {"features": (16, 32, 32)} | ({"blocks": (1, 2, 2)} if slug == "resenc-l" else {})
    network = build_network(slug, 2, 3, **build)
    convs = [m for m in network.modules() if isinstance(m, torch.nn.Conv3d | torch.nn.ConvTranspose3d)]
    assert all(m.bias is None or m.bias.abs().max() == 0 for m in convs)
    large = max(convs, key=lambda m: m.weight.numel())
    expected = (2 / (1 + 0.01**2) / large.weight[0].numel()) ** 0.5
    assert large.weight.std().item() == pytest.approx(expected, rel=0.05)
    last_norms = [p for name, p in network.named_parameters() if name.endswith("conv2.norm.weight")]
    if slug == "resenc-l":
        assert all(p.abs().max() == 0 for p in last_norms)
    else:
        assert all(p.min() == 1 for p in last_norms)
    if slug == "umamba-bot":  # He initialisation must leave Mamba's step sizes alone
        steps = torch.nn.functional.softplus(network.mamba_layer.mamba.dt_proj.bias)
        assert 9e-5 < steps.min() < steps.max() < 0.11


@pytest.mark.ci
@pytest.mark.parametrize(
    "slug", [s for s in list_networks() if network_card(s).deep_supervision and "mednext" not in s]
)
def test_heads_without_gradient_are_named_for_data_parallel_training(slug):
    side, unused, small = 8, 1, {"features": (4, 8, 8)}
    if slug == "resenc-l":
        small |= {"blocks": 1}
    elif slug.startswith("medformer"):
        unused = 2
        small |= {"convolutions": (1, 0, 0), "transformers": (0, 1, 1), "head_width": 4, "map_codes": 4}
    elif slug.startswith("unetr-pp"):
        side, unused, small = (
            64,
            2,
            {"features": (8,) * 4, "depths": (1,) * 4, "heads": 2, "projected": (4,) * 4},
        )
        small |= {"patch_size": (side,) * 3}
    network = build_network(slug, 1, 2, **small)
    x = torch.randn(2, 1, side, side, side, generator=torch.Generator().manual_seed(0))
    network(x).mean().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert without == set(network._ddp_params_and_buffers_to_ignore)
    assert len(without) == 2 * unused
    supervised = build_network(slug, 1, 2, deep_supervision=True, **small)
    assert not hasattr(supervised, "_ddp_params_and_buffers_to_ignore")


@pytest.mark.ci
def test_a_network_without_a_scan_does_without_the_compilers_machinery():
    """A second of CPU and 70 MiB that `predict` and every row of `profile` would pay for nothing."""
    code = (
        "import sys, torch\n"
        "from segbench.networks import build_network\n"
        "with torch.inference_mode():\n"
        "    build_network('nnunet-tiny', 1, 2)(torch.zeros(1, 1, 16, 16, 16))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "False", found.stderr
