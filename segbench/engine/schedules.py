"""Learning-rate schedules as pure functions of the fraction of the budget that has been seen."""

from __future__ import annotations

import math

from segbench.cards.protocol import BudgetSection, ScheduleSection


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
