"""Activation checkpointing for any network: blocks forget what they computed and compute it again.

Between blocks activations are kept; inside a block they are thrown away in the forward pass and recomputed in
the backward pass. The numbers are the same: the same operations run on the same values (dropout included, its
random state is put back). Nothing is wrapped, so the names of the weights stay.

Source: T. Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016 (arXiv:1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["checkpoint_activations"]

LAYERS_OF_A_BLOCK = 8
"""A module with two to this many layers that hold weights is a block; a larger one is looked into."""


def checkpoint_activations(network: nn.Module) -> int:
    """Make every block of the network recompute its activations in training; gives the number of blocks."""
    blocks = list(_blocks(network))
    for block in blocks:
        block.forward = _recomputed(block, block.forward)  # type: ignore[method-assign]
    return len(blocks)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The largest modules that are blocks; their insides are theirs."""
    for child in module.children():
        layers = sum(1 for part in child.modules() if _has_own_weights(part))
        own_forward = type(child).forward is not nn.Module.forward and not isinstance(
            child, nn.ModuleList | nn.ModuleDict
        )
        if own_forward and 2 <= layers <= LAYERS_OF_A_BLOCK:
            yield child
        elif layers >= 2:
            yield from _blocks(child)


def _has_own_weights(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _recomputed(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        if block.training and torch.is_grad_enabled():
            return checkpoint(forward, *arguments, use_reentrant=False, **named)
        return forward(*arguments, **named)

    return run
