"""Activation checkpointing: the same gradients, less kept between forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segbench.engine.activations import checkpoint_activations
from segbench.networks import build_network

NETWORKS = ("nnunet-tiny", "segmamba-v2-tiny", "segresnet-16")


def network(slug: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(slug, 1, 2).train()


def gradients(net: nn.Module) -> tuple[float, list[torch.Tensor], int]:
    """Loss, gradients and the bytes that the forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = net(x).square().mean()
    held = sum(kept.values())
    loss.backward()
    return float(loss.detach()), [p.grad.clone() for p in net.parameters() if p.grad is not None], held


@pytest.mark.ci
@pytest.mark.parametrize("slug", NETWORKS)
def test_gradients_are_equal_and_less_is_kept(slug: str) -> None:
    plain, saving = network(slug), network(slug)
    names = list(saving.state_dict())
    assert checkpoint_activations(saving) >= 3
    assert list(saving.state_dict()) == names
    loss, wanted, held = gradients(plain)
    again, found, less = gradients(saving)
    assert again == loss
    assert len(found) == len(wanted)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert less < 0.6 * held


def test_dropout_is_drawn_once() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(x)

    torch.manual_seed(0)
    plain = Net()
    saving = Net()
    saving.load_state_dict(plain.state_dict())
    assert checkpoint_activations(saving) == 1
    x = torch.randn(4, 8)
    for net in (plain, saving):
        torch.manual_seed(2)
        net(x).sum().backward()
    pairs = zip(plain.parameters(), saving.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs if a.grad is not None and b.grad is not None)


def test_nothing_is_recomputed_in_evaluation() -> None:
    calls: list[int] = []

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return self.b(self.a(x))

    net = nn.Sequential(Block())
    assert checkpoint_activations(net) == 1
    net.eval()(torch.randn(1, 4, requires_grad=True)).sum().backward()
    assert len(calls) == 1
    net.train()(torch.randn(1, 4, requires_grad=True)).sum().backward()
    assert len(calls) == 3
