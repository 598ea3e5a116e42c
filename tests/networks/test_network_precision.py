"""Networks under 16-bit autocast, other memory formats, other scan backends and torch.compile."""

import pytest
import torch
from torch import nn

from segbench.networks import build_network
from segbench.networks.blocks.mamba import Mamba
from segbench.networks.fingerprint import pcg64_input, set_pcg64_weights

SMALL = {"features": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "hidden": 16}
BUILDS = {
    "segmamba-v2": (SMALL, (32, 48, 32)),
    "segmamba": ({**SMALL, "slices": "geometry"}, (32, 48, 32)),
    "segmamba-v2-paper": (SMALL, (32, 48, 32)),
    "umamba-bot": ({"features": (4, 8, 8)}, (8, 12, 8)),
}


def built(slug, **more):
    overrides, size = BUILDS[slug]
    network = build_network(slug, 2, 3, **overrides, **more)
    set_pcg64_weights(network, 7)
    return network, pcg64_input((1, 2, *size), 3).float()


@pytest.mark.ci
@pytest.mark.parametrize(
    "slug",
    [pytest.param(s, marks=pytest.mark.slow) if s.startswith("segmamba-v2-") else s for s in BUILDS],
)
def test_autocast_to_bfloat16_stays_near_float32_with_finite_gradients(slug):
    network, x = built(slug)
    exact = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = network(x)
    difference = (y.float() - exact).abs().mean() / exact.abs().mean()
    assert difference < 0.1
    y.float().square().mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(gradients) > 40
    assert all(torch.isfinite(g).all() for g in gradients)


def test_umamba_runs_its_mamba_in_float32_under_autocast():
    network, x = built("umamba-bot")
    seen = []
    for module in network.modules():
        if isinstance(module, Mamba | nn.LayerNorm):
            module.register_forward_hook(
                lambda m, inputs, output: seen.append((inputs[0].dtype, output.dtype))
            )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(x)
    assert seen == [(torch.float32, torch.float32)] * 2


@pytest.mark.ci
@pytest.mark.parametrize(
    "slug", ["segmamba-v2", pytest.param("segmamba", marks=pytest.mark.slow), "umamba-bot"]
)
def test_scan_backends_agree_inside_the_whole_network(slug):
    """Any backend the CPU has must give the reference's logits and gradients."""
    from segbench.networks.scan import scan_backends_report

    expected, x = built(slug, backend="reference")
    expected, x = expected.double(), x.double()
    if slug != "umamba-bot":
        expected.minimum, x = 16, x[:, :, :16, :32, :16]
    y = expected(x)
    y.square().mean().backward()
    backends = [report.backend for report in scan_backends_report("cpu") if report.probe]
    assert {"reference", "torch"} <= set(backends)
    for backend in set(backends) - {"reference"}:
        network, _ = built(slug, backend=backend)
        network.minimum = expected.minimum
        z = network.double()(x)
        z.square().mean().backward()
        assert torch.allclose(z, y, rtol=0, atol=1e-10), backend
        for (name, p), q in zip(network.named_parameters(), expected.parameters(), strict=True):
            if q.grad is not None:
                assert torch.allclose(p.grad, q.grad, rtol=1e-8, atol=1e-10), (backend, name)


@pytest.mark.parametrize("slug", ["segmamba-v2", "umamba-bot"])
def test_memory_format_of_the_image_does_not_matter(slug):
    network, x = built(slug)
    last = network.to(memory_format=torch.channels_last_3d)(
        x.contiguous(memory_format=torch.channels_last_3d)
    )
    network, _ = built(slug)
    assert torch.allclose(last, network(x), atol=2e-4)


@pytest.mark.slow
def test_segmamba_v2_traces_as_one_graph():
    network, x = built("segmamba-v2")
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), network(x), atol=1e-4)
