"""What the stages share of a cell's network: its weights before training and after, and its augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segbench.pipeline.cell import network_arguments
from segbench.pipeline.code import check_code
from segbench.pipeline.context import Context

if TYPE_CHECKING:
    from torch import nn

    from segbench.data.augment import AugmentationSettings

__all__ = ["FINAL_WEIGHTS", "augmentation_of", "build_seeded"]

FINAL_WEIGHTS = Path("checkpoints") / "final.safetensors"


def build_seeded(context: Context) -> nn.Module:
    """The network with the initial weights that the seed gives, the same every time."""
    import torch

    from segbench.data.random import counter_seed
    from segbench.networks import build_network

    if not context.code_loaded:
        check_code(context.model, context.code, context.folder)
        context.code_loaded = True
    arguments = network_arguments(context.model, context.card, context.protocol)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(counter_seed(context.seed, "init", context.model.slug))
        return build_network(context.model.slug, **arguments)


def augmentation_of(context: Context) -> AugmentationSettings:
    """The random transforms of the protocol; where it leaves the axes to the card, those that it allows."""
    from segbench.data.augment import AugmentationSettings

    section = context.protocol.augment
    axes = context.card.geometry.mirror_axes if section.mirror_axes == "card" else section.mirror_axes
    return AugmentationSettings(
        name=section.name,
        mirror_axes=tuple(axes),
        overrides=dict(section.overrides),
    )
