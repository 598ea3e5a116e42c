"""Values of overrides that cannot be: refused by name and code, before a layer trips over them."""

import inspect

import pytest
import torch

from segbench.cards import load_model_card
from segbench.core.errors import BackendUnavailable
from segbench.networks import allowed_overrides, build_on_meta, list_networks
from segbench.networks.registry import check_overrides, resolve_implementation


@pytest.mark.parametrize(
    ("slug", "overrides", "message"),
    [
        ("nnunet-tiny", {"features": 5}, "features = 5 is not valid"),
        ("nnunet-tiny", {"features": "abc"}, "features = 'abc' is not valid"),
        ("nnunet-tiny", {"features": None}, "features = None is not valid"),
        ("nnunet-tiny", {"features": (8, 16.5, 32, 64)}, "is not valid"),
        ("nnunet-tiny", {"features": (8, 16, 24, 0)}, "features must be at least 1"),
        ("nnunet-tiny", {"features": (8, 16, -24, 8)}, "features must be at least 1"),
        ("nnunet-tiny", {"features": (8,)}, "features must be two numbers at least"),
        ("nnunet-tiny", {"blocks": 0}, "blocks must be at least 1; found 0"),
        ("nnunet-tiny", {"strides": (1, 2, 2, 0)}, "strides must be at least 1"),
        ("nnunet-tiny", {"kernel_sizes": -3}, "kernel_sizes must be at least 1"),
        ("nnunet-tiny", {"deep_supervision": "no"}, "deep_supervision = 'no' is not valid"),
        ("stunet-s", {"deep_supervision": 1}, "deep_supervision = 1 is not valid"),
        ("mednext-s", {"deep_supervision": "no"}, "deep_supervision = 'no' is not valid"),
        ("mednext-s", {"kernel_size": 4}, "kernel_size must be odd; found 4"),
        ("mednext-s", {"init_filters": -8}, "cannot be built with init_filters = -8"),
        ("segresnet-16", {"act": "no-such"}, "cannot be built with act = 'no-such'"),
        ("umamba-bot", {"bottleneck": "attention"}, "bottleneck = 'attention' is not valid"),
        ("segmamba-v2-tiny", {"depths": 2}, "depths = 2 is not valid"),
        ("segmamba-v2-tiny", {"depths": (1, 1, 1, 0)}, "depths must be at least 1"),
        ("segmamba-v2-tiny", {"hidden": 48.0}, "hidden = 48.0 is not valid"),
        ("segmamba-v2-tiny", {"hidden": True}, "hidden = True is not valid"),
        ("segmamba-tiny", {"slices": (0, 1, 1, 1)}, "slices must be at least 1"),
        ("segmamba-v2-paper", {"mlp_expansion": 0}, "mlp_expansion must be at least 1"),
        ("segmamba-v2-paper", {"gsc_norm_first": "no"}, "gsc_norm_first = 'no' is not valid"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(slug, overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_on_meta(slug, 2, 3, **overrides)
    assert caught.value.code == "SB104"
    assert caught.value.exit_code == 2
    assert caught.value.mend


@pytest.mark.parametrize("slug", list_networks())
def test_the_arguments_of_every_card_are_values_that_can_be(slug):
    """What a card says its own network is built with is what a user may say again."""
    card = load_model_card(slug)
    try:
        constructor = resolve_implementation(card)
    except BackendUnavailable as missing:
        pytest.skip(missing.message)
    spoken = {argument: name for name, argument in card.overrides.items()}
    again = {spoken.get(name, name): value for name, value in card.arguments.items()}
    check_overrides(card, constructor, {k: v for k, v in again.items() if k in allowed_overrides(slug)})
    check_overrides(card, constructor, dict(card.fingerprint))


def test_lists_and_tuples_are_the_same_value():
    one = build_on_meta("nnunet-tiny", 1, 2, features=[4, 8], strides=[1, [1, 2, 2]])
    other = build_on_meta("nnunet-tiny", 1, 2, features=(4, 8), strides=(1, (1, 2, 2)))
    assert one.divisor == other.divisor == (1, 2, 2)


@pytest.mark.ci
def test_a_patch_size_of_one_number_is_a_cube():
    pytest.importorskip("einops", reason="MONAI's UNETR needs einops")
    small = {"feature_size": 8, "hidden_size": 48, "mlp_dim": 96, "num_heads": 4}
    network = build_on_meta("unetr", 1, 2, patch_size=32, **small)
    assert network(torch.empty(1, 1, 32, 32, 32, device="meta")).shape == (1, 2, 32, 32, 32)
    with pytest.raises(ValueError, match="patches of 32x32x32"):
        network(torch.empty(1, 1, 32, 32, 48, device="meta"))


def test_want_of_memory_is_no_fault_of_the_arguments(monkeypatch):
    from segbench.networks import nnunet, registry

    def starved(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    assert inspect.isclass(nnunet.PlainUNet)
    monkeypatch.setattr(registry, "_construct", starved)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        registry.build_network("nnunet-tiny", 1, 2, features=(4, 8))
