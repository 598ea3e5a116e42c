"""Optimisers from the protocol; parameters that must not decay are left alone."""

from __future__ import annotations

import torch
from torch import nn

from segbench.cards.protocol import OptimiserSection


def build_optimiser(network: nn.Module, settings: OptimiserSection) -> torch.optim.Optimizer:
    """SGD or AdamW over the network's parameters.

    Parameters marked `_no_weight_decay` (A_log and D of a Mamba block) are never decayed: decay would pull
    the state's time constants towards one value. On CUDA one kernel updates all parameters.
    """
    decayed, kept = [], []
    for parameter in network.parameters():
        if parameter.requires_grad:
            (kept if getattr(parameter, "_no_weight_decay", False) else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}]
    if kept:
        groups.append({"params": kept, "weight_decay": 0.0})
    fused = all(parameter.device.type == "cuda" for parameter in (*decayed, *kept))
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov, fused=fused
        )
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=fused)


def optimiser_names(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[int, str]:
    """Parameter identity to name, for checkpoints that name their tensors."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {id(p): names[id(p)] for group in optimiser.param_groups for p in group["params"]}
