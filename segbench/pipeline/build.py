"""What the stages share of a cell's network: its first and last weights, one step, its augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segbench.pipeline.code import check_code
from segbench.pipeline.context import Context

if TYPE_CHECKING:
    from torch import nn

    from segbench.data.patches.augment import AugmentationSettings

__all__ = ["FINAL_WEIGHTS", "augmentation_of", "build_seeded", "try_one_step"]

FINAL_WEIGHTS = Path("checkpoints") / "final.safetensors"


def build_seeded(context: Context) -> nn.Module:
    """The network with the initial weights that the seed gives, the same every time."""
    import torch

    from segbench.data.random import counter_seed
    from segbench.networks import build_network

    if not context.code_loaded:
        check_code(context.model, context.code, context.folder)
        context.code_loaded = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(counter_seed(context.seed, "init", context.model.slug))
        return build_network(context.model.slug, **context.cell.network_arguments)


def augmentation_of(context: Context) -> AugmentationSettings:
    """The random transforms of the protocol; where it leaves the axes to the card, those that it allows."""
    from segbench.data.patches.augment import AugmentationSettings

    section = context.protocol.augment
    axes = context.card.geometry.mirror_axes if section.mirror_axes == "card" else section.mirror_axes
    return AugmentationSettings(
        name=section.name,
        mirror_axes=tuple(axes),
        overrides=dict(section.overrides),
    )


def try_one_step(context: Context) -> None:
    """Make one training step on zeros, at the cell's patch and batch; nothing is kept of it.

    Raises:
        SegbenchError: SB504 when it does not fit the device's memory.
    """
    import torch

    from segbench.engine.activations import checkpoint_activations
    from segbench.engine.device import choose_device, prepare_device
    from segbench.engine.losses import SegmentationLoss
    from segbench.engine.memory import want_of_memory_is_a_result
    from segbench.engine.optimiser import build_optimiser
    from segbench.engine.precision import autocast, usable_precision

    protocol = context.protocol
    device = choose_device(context.execution.device)
    prepare_device(device, level=protocol.determinism.level, tf32=protocol.train.tf32)
    parts = protocol.train.accumulate * context.execution.gpus_per_cell
    batch = max(1, protocol.sampling.batch_size // parts)
    loss = SegmentationLoss(
        regions=context.cell.classes.region_classes, ignore_class=context.cell.classes.ignore_class
    )
    try:
        with want_of_memory_is_a_result(device), torch.random.fork_rng(devices=[]):
            network = build_seeded(context).to(device).train()
            if protocol.train.checkpointing:
                checkpoint_activations(network)
            optimiser = build_optimiser(network, protocol.optimiser)  # its state takes memory too
            image = torch.zeros(
                (batch, len(context.card.channels.order), *protocol.patch.size), device=device
            )
            labels = torch.zeros((batch, *protocol.patch.size), dtype=torch.long, device=device)
            with autocast(usable_precision(protocol.train.precision, device), device)():
                outputs = network(image)
            loss(outputs, labels).backward()
            optimiser.step()
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
