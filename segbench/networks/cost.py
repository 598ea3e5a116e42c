"""The cost of one forward pass by the convention of the model cards: giga multiply-accumulates.

Counted on meta tensors: convolutions, transposed convolutions, matrix products and attention, one
multiply-accumulate each (half of what FlopCounterMode counts). Norms, activations, interpolation and the
selective scan are left out.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["gmacs", "gmacs_at_128"]

COUNTED = ("convolution", "mm", "addmm", "bmm", "baddbmm", "attention")
"""Parts of the names of the operations that count."""


def gmacs(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Giga multiply-accumulates of one forward pass in evaluation mode.

    Args:
        network: On the meta device; its mode is restored.
        shape: (B, C, D, H, W) of the input.
    """
    training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(shape, device="meta"))
    network.train(training)
    flops = counter.get_flop_counts()["Global"]
    return sum(count for op, count in flops.items() if any(part in str(op) for part in COUNTED)) / 2e9


def gmacs_at_128(network: nn.Module) -> float:
    """`gmacs` at 1x4x128x128x128, the size of the table in the model cards."""
    return gmacs(network, (1, 4, 128, 128, 128))
