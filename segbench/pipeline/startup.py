"""One training step before anything is prepared: what cannot train is known in seconds."""

from __future__ import annotations

import time

from segbench.core.atomic import atomic_write_json
from segbench.core.foreign import parse_json
from segbench.core.hashing import digest_json
from segbench.pipeline.cell import network_arguments
from segbench.pipeline.context import Context

__all__ = ["STARTUP_FILE", "first_step", "try_one_step"]

STARTUP_FILE = "startup.json"


def first_step(context: Context) -> None:
    """Make one step unless this cell has shown that it can, and note that in `startup.json`.

    Raises:
        SegbenchError: SB504 when it does not fit the device's memory.
    """
    from segbench.engine.device import choose_device

    device = choose_device(context.execution.device)
    tried = {
        "implementation": context.model.implementation,
        "arguments": network_arguments(context.model, context.card, context.protocol),
        "protocol": context.protocol.digest(),
        "device": str(device),
        "gpus_per_cell": context.execution.gpus_per_cell,
    }
    target, digest = context.folder / STARTUP_FILE, digest_json(tried)
    try:
        if parse_json(target.read_text(encoding="utf-8"))["inputs_digest"] == digest:
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass
    began = time.monotonic()
    try_one_step(context)
    seconds = round(time.monotonic() - began, 3)
    context.check_lease()
    atomic_write_json(target, {"schema_version": 1, "inputs_digest": digest, "seconds": seconds, **tried})
    context.log(f"one step on zeros at the cell's patch and batch: done in {seconds:.1f} s")


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
    from segbench.pipeline.build import build_seeded

    protocol = context.protocol
    device = choose_device(context.execution.device)
    prepare_device(device, level=protocol.determinism.level, tf32=protocol.train.tf32)
    parts = protocol.train.accumulate * context.execution.gpus_per_cell
    batch = max(1, protocol.sampling.batch_size // parts)
    loss = SegmentationLoss(regions=context.classes.region_classes, ignore_class=context.classes.ignore_class)
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
