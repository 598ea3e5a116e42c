"""How weights are updated: optimisers of the protocol, and learning rates by the share of the budget seen."""

from __future__ import annotations

import math

import torch
from torch import nn

from segbench.cards.protocol import BudgetSection, OptimiserSection, ScheduleSection


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


def learning_rate(base: float, schedule: ScheduleSection, fraction: float) -> float:
    """The learning rate at `fraction` of the budget.

    Args:
        base: Learning rate of the optimiser section.
        schedule: poly: base (1 - f)^power; cosine: linear warm-up, then half a cosine; constant.
        fraction: Samples seen / budget, in [0, 1].

    Returns:
        A rate in [min_lr, base].
    """
    f = min(max(fraction, 0.0), 1.0)
    warm = schedule.warmup_fraction
    if warm > 0 and f < warm:
        return schedule.min_lr + (base - schedule.min_lr) * f / warm
    g = (f - warm) / (1 - warm) if warm < 1 else 1.0
    if schedule.name == "poly":
        return schedule.min_lr + (base - schedule.min_lr) * (1 - g) ** schedule.power
    if schedule.name == "cosine":
        return schedule.min_lr + (base - schedule.min_lr) * 0.5 * (1 + math.cos(math.pi * g))
    return base


def with_warmup(schedule: ScheduleSection, budget: BudgetSection) -> ScheduleSection:
    """The schedule with a warm-up that the budget gives in samples, as a share of the whole."""
    if budget.warmup_samples == 0:
        return schedule
    share = min(1.0, budget.warmup_samples / budget.samples)
    return schedule.model_copy(update={"warmup_fraction": share})
