"""Every network of ours against an independent literal computation on the official names of its weights."""

import network_formulas as formulas
import pytest
import torch

from segbench.networks import build_network, export_official_weights, load_official_weights
from segbench.networks.fingerprint import pcg64_input, set_pcg64_weights

SMALL = {"features": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "hidden": 16}
TWICE = {**SMALL, "depths": (1, 1, 2, 2)}
UNET = {"features": (4, 6, 8, 8)}

# Sizes are below the networks' minimum (their bottom has a few voxels, enough for the norm) and
# anisotropic: a wrong permutation of axes is invisible on a cube.
CASES = {
    "segmamba-v2": (TWICE, (16, 32, 48), lambda w, x: formulas.segmamba_v2(w, x, (1, 1, 2, 2))),
    "segmamba-v2-bidirectional": (
        SMALL,
        (16, 32, 48),
        lambda w, x: formulas.segmamba_v2(w, x, (1, 1, 1, 1), formulas.toom_bidirectional),
    ),
    "segmamba-v2-nomamba": (
        SMALL,
        (16, 32, 16),
        lambda w, x: formulas.segmamba_v2(w, x, (1, 1, 1, 1), lambda w, p, y: y),
    ),
    "segmamba": (
        {**SMALL, "slices": (8, 4, 2, 2)},
        (16, 32, 16),
        lambda w, x: formulas.segmamba_v1(w, x, (1, 1, 1, 1), (8, 4, 2, 2)),
    ),
    "uxnet": (TWICE, (16, 32, 16), lambda w, x: formulas.uxnet(w, x, (1, 1, 2, 2))),
    "bisegmamba": (SMALL, (32, 64, 32), lambda w, x: formulas.bisegmamba(w, x, (1, 1, 1, 1))),
    "nnunet": (UNET, (16, 24, 16), lambda w, x: formulas.nnunet(w, x, 4)),
    "resenc-l": (
        {**UNET, "blocks": (1, 2, 1, 2)},
        (16, 24, 16),
        lambda w, x: formulas.resenc(w, x, (1, 2, 1, 2)),
    ),
    "stunet-l": ({"features": (4, 6, 8, 8)}, (16, 24, 16), lambda w, x: formulas.stunet(w, x, 4, 2)),
    "umamba-bot": (UNET, (16, 24, 16), lambda w, x: formulas.umamba(w, x, (2, 2, 1, 1), (2, 2, 1))),
    "umamba-base": (UNET, (16, 24, 16), lambda w, x: formulas.umamba(w, x, (2, 2, 1, 1), (2, 2, 1))),
}


def built(slug, overrides, **more):
    network = build_network(slug, 2, 3, **overrides, **more).double().eval()
    set_pcg64_weights(network, 7)
    return network


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)).item()


SLOW = {"segmamba-v2-bidirectional", "bisegmamba"}


@pytest.mark.ci
@pytest.mark.parametrize("slug", [pytest.param(s, marks=pytest.mark.slow) if s in SLOW else s for s in CASES])
def test_outputs_and_gradients_equal_the_literal_formula(slug):
    overrides, size, formula = CASES[slug]
    network = built(slug, overrides)
    network.minimum = network.divisor
    x = pcg64_input((1, 2, *size), 3).requires_grad_()
    weights = {k: t.clone().requires_grad_() for k, t in export_official_weights(network).items()}
    aliases = {k for k in weights if "all_modules" in k or k.startswith("decoder.encoder.")}
    for alias in aliases:
        del weights[alias]
    theirs = formula(weights, x)
    theirs = theirs[0] if isinstance(theirs, list) else theirs
    loss_weights = pcg64_input(theirs.shape, 11)
    (theirs * loss_weights).mean().backward()
    expected_input_gradient, x.grad = x.grad.clone(), None
    ours = network(x)
    (ours * loss_weights).mean().backward()

    assert relative(ours, theirs) < 1e-11
    assert relative(x.grad, expected_input_gradient) < 1e-9
    gradients = {id(p): p.grad for p in network.parameters()}
    by_official_name = export_official_weights(network)
    own = dict(network.named_parameters())
    data = {t.data_ptr(): own[k] for k, t in network.state_dict().items()}
    largest = max(g.abs().max() for g in gradients.values() if g is not None)
    for name, weight in weights.items():
        parameter = data[by_official_name[name].data_ptr()]
        if weight.grad is None:  # heads that deep supervision alone uses
            assert parameter.grad is None
            continue
        difference = (parameter.grad - weight.grad).abs().max()
        # A bias directly before an affine-free norm has exactly no gradient: hence the absolute floor.
        assert difference <= 1e-8 * max(weight.grad.abs().max(), 1e-3 * largest), name


@pytest.mark.parametrize("slug", ["nnunet", "resenc-l", "stunet-l", "umamba-bot"])
def test_deep_supervision_gives_every_stage_full_resolution_first(slug):
    overrides, size, formula = CASES[slug]
    network = built(slug, overrides, deep_supervision=True)
    x = pcg64_input((1, 2, *size), 3)
    network.train()
    ours, theirs = network(x), formula(export_official_weights(network), x)
    assert isinstance(ours, list)
    assert [y.shape[2] for y in ours] == [16, 8, 4]
    for mine, literal in zip(ours, theirs, strict=True):
        assert relative(mine, literal) < 1e-11
    assert isinstance(network.eval()(x), torch.Tensor)


def test_float32_stays_within_the_released_networks_own_float32_error():
    network = built("segmamba-v2", SMALL)
    x = pcg64_input((1, 2, 32, 32, 32), 3)
    exact = network(x)
    single = network.float()(x.float())
    assert (single - exact).abs().max() < 5 * 2e-4


@pytest.mark.parametrize("slug", ["segmamba-v2", "segmamba", "uxnet", "bisegmamba", "umamba-bot", "resenc-l"])
def test_official_checkpoint_goes_in_and_comes_out_unchanged(slug):
    overrides = CASES[slug][0]
    source, target = built(slug, overrides), build_network(slug, 2, 3, **overrides).double()
    official = {k: t.clone() for k, t in export_official_weights(source).items()}
    report = load_official_weights(target, official)
    assert not report.missing
    assert not report.unexpected
    exported = export_official_weights(target)
    assert exported.keys() == official.keys()
    assert all(torch.equal(exported[k], official[k]) for k in official)
