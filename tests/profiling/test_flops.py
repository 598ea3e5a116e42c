"""Counted operations: closed forms, the scan's formula, forward and backward, modules, what is left out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from segbench.networks import build_network, network_card
from segbench.networks.blocks.mamba import Mamba
from segbench.networks.registry import build_on_meta
from segbench.profiling.flops import CostCounter, count_cost, count_parameters, kind_of


def on_meta(make) -> nn.Module:
    with torch.device("meta"):
        return make()


@pytest.mark.parametrize(
    ("make", "macs"),
    [
        (lambda: nn.Conv3d(3, 8, 3, padding=1), 16 * 12 * 8 * 8 * 3 * 27),
        (lambda: nn.Conv3d(3, 8, 3, padding=1, bias=False), 16 * 12 * 8 * 8 * 3 * 27),
        (lambda: nn.Conv3d(3, 8, 3, stride=2, padding=1), 8 * 6 * 4 * 8 * 3 * 27),
        (lambda: nn.Conv3d(3, 6, 3, padding=2, dilation=2, groups=3), 16 * 12 * 8 * 6 * 1 * 27),
        (lambda: nn.ConvTranspose3d(3, 5, 2, stride=2), 16 * 12 * 8 * 3 * 5 * 8),
        (lambda: nn.ConvTranspose3d(3, 6, 2, stride=2, groups=3), 16 * 12 * 8 * 3 * 2 * 8),
    ],
)
def test_convolutions_have_their_closed_form(make, macs: int) -> None:
    cost = count_cost(on_meta(make), (2, 3, 16, 12, 8), train=False)
    assert cost.gmacs == pytest.approx(2 * macs / 1e9, rel=1e-12)
    assert cost.gflops == pytest.approx(2 * cost.gmacs)
    assert cost.by_op["conv"] == cost.gflops


class Tokens(nn.Module):
    """Applies a module to the flattened voxels of a volume."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.flatten(2).transpose(1, 2))


def test_linear_layers_and_attention() -> None:
    linear = count_cost(on_meta(lambda: Tokens(nn.Linear(6, 10))), (1, 6, 4, 4, 4), train=False)
    assert linear.by_op["matmul"] == pytest.approx(2 * 64 * 6 * 10 / 1e9)

    class Attention(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    attention = count_cost(Tokens(Attention()), (1, 6, 4, 4, 4), train=False)
    assert attention.gmacs == pytest.approx(2 * 64 * 64 * 6 / 1e9)


def test_the_scan_stands_apart() -> None:
    channels, tokens = 12, 64
    cost = count_cost(on_meta(lambda: Tokens(Mamba(channels))), (1, channels, 4, 4, 4), train=False)
    inner = 2 * channels
    assert cost.by_op["scan"] == pytest.approx(tokens * inner * (9 * 16 + 2 + 2) / 1e9)
    matmul = tokens * (channels * 2 * inner + inner * (1 + 32) + inner * 1 + inner * channels)
    assert cost.gmacs == pytest.approx(matmul / 1e9)
    assert cost.gflops == pytest.approx(2 * cost.gmacs + cost.by_op["scan"])
    both = count_cost(on_meta(lambda: Tokens(Mamba(channels))), (1, channels, 4, 4, 4), train=True)
    assert both.by_op["scan"] == pytest.approx(cost.by_op["scan"] + tokens * inner * 20 * 16 / 1e9)


@pytest.mark.ci
def test_backward_is_counted_not_guessed() -> None:
    """The first convolution needs no gradient of the image: the whole is just below three forwards."""
    network = build_on_meta("segmamba-v2", 4, 4)
    forward = count_cost(network, (1, 4, 64, 64, 64), train=False)
    both = count_cost(network, (1, 4, 64, 64, 64), train=True)
    assert both.gmacs / forward.gmacs == pytest.approx(3.0, abs=0.05)
    assert both.gmacs / forward.gmacs < 3.0


def test_a_frozen_layer_costs_no_weight_gradient() -> None:
    network = on_meta(lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.Conv3d(4, 4, 3)))
    full = count_cost(network, (1, 2, 8, 8, 8), train=True)
    network[0].requires_grad_(False)
    assert count_cost(network, (1, 2, 8, 8, 8), train=True).gmacs < full.gmacs


def test_modules_sum_to_the_whole() -> None:
    network = build_on_meta("segmamba-v2-tiny", 2, 3)
    cost = count_cost(network, (1, 2, 32, 32, 32), train=False)
    top = {name.partition(".")[0] for name in cost.by_module}
    assert {"stem", "head", "refine", "encoder", "decoder", "skips"} == top
    # encoder.0 and the like are members of lists, which are never called themselves
    whole = sum(flops for name, flops in cost.by_module.items() if name in {"stem", "refine", "head"})
    whole += sum(
        flops
        for name, flops in cost.by_module.items()
        if name.split(".")[0] in {"encoder", "decoder", "skips"}
    )
    assert whole == pytest.approx(cost.gflops, rel=1e-9)


def test_backward_goes_to_the_module_it_differentiates() -> None:
    network = on_meta(lambda: nn.Sequential(nn.Conv3d(2, 4, 1), nn.Conv3d(4, 8, 1)))
    cost = count_cost(network, (1, 2, 8, 8, 8), train=True)
    macs = 512 * math.prod((2, 4)), 512 * math.prod((4, 8))
    assert cost.by_module["0"] == pytest.approx(2 * 2 * macs[0] / 1e9)  # no gradient of the image
    assert cost.by_module["1"] == pytest.approx(2 * 3 * macs[1] / 1e9)


def test_what_has_no_formula_is_listed_with_its_calls() -> None:
    network = on_meta(lambda: nn.Sequential(nn.Conv3d(2, 4, 1), nn.GELU(), nn.GELU(), nn.ReLU()))
    listed = count_cost(network, (1, 2, 4, 4, 4), train=False).uncounted_ops
    assert listed == {"aten.gelu": 2, "aten.relu": 1}


def test_counting_leaves_the_network_as_it_was() -> None:
    network = build_on_meta("nnunet-tiny", 1, 2)
    network.train()
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())
    count_cost(network, (1, 1, 32, 32, 32), train=True)
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert hooks == sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_counting_leaves_no_hook_on_the_modules_of_the_process() -> None:
    attention = on_meta(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    with torch.no_grad(), CostCounter() as counter:
        attention(torch.empty(1, 5, 8, device="meta"))
        torch.empty(3, 4, device="meta").matmul(torch.empty(4, 5, device="meta"))  # made of another operation
    assert counter.by_op["matmul"] > 0
    assert not nn.modules.module._global_forward_pre_hooks
    assert not nn.modules.module._global_forward_hooks


def test_counts_real_tensors_as_it_counts_meta_ones() -> None:
    network = build_network("segmamba-v2-tiny", 1, 2).eval()
    with torch.no_grad(), CostCounter() as counter:
        network(torch.zeros(1, 1, 32, 32, 32))
    meta = count_cost(build_on_meta("segmamba-v2-tiny", 1, 2), (1, 1, 32, 32, 32), train=False)
    assert sum(counter.by_op.values()) / 1e9 == pytest.approx(meta.gflops, rel=1e-9)


@pytest.mark.ci
@pytest.mark.parametrize("slug", ["segmamba-v2", "segmamba", "nnunet", "stunet-s", "uxnet"])
def test_the_cards_numbers_are_reproduced(slug: str) -> None:
    network, facts = build_on_meta(slug, 4, 4), network_card(slug).fidelity
    cost = count_cost(network, (1, 4, 128, 128, 128), train=False)
    assert count_parameters(network).total == facts.parameters
    assert cost.gmacs == pytest.approx(facts.gmacs, rel=2e-3)


def test_parameters_trainable_and_buffers_are_told_apart() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2))
    network[0].requires_grad_(False)
    facts = count_parameters(network)
    assert (facts.total, facts.trainable, facts.buffers) == (4 + 4, 4, 5)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::convolution", "conv"),
        ("aten::convolution_backward", "conv"),
        ("aten::addmm", "matmul"),
        ("aten::_scaled_dot_product_flash_attention_backward", "attention"),
        ("segbench::selective_scan_backward", "scan"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert kind_of(name) == kind
