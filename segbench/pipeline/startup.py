"""One forward and backward pass before anything is prepared: what cannot train is known in seconds."""

from __future__ import annotations

from segbench.pipeline.context import Context

__all__ = ["try_one_step"]


def try_one_step(context: Context) -> None:
    """Run one pass at the cell's patch and batch on zeros; nothing is kept, no number depends on it.

    Raises:
        SegbenchError: SB504 when it does not fit the device's memory.
    """
    import torch

    from segbench.engine.activations import checkpoint_activations
    from segbench.engine.losses import SegmentationLoss
    from segbench.engine.memory import out_of_memory
    from segbench.engine.precision import autocast, usable_precision
    from segbench.pipeline.training import build_seeded, choose_device, set_determinism

    protocol = context.protocol
    device = choose_device(context.execution.device)
    set_determinism(protocol.determinism.level, device)
    parts = protocol.train.accumulate * context.execution.gpus_per_cell
    batch = max(1, protocol.sampling.batch_size // parts)
    loss = SegmentationLoss(regions=context.classes.region_classes, ignore_class=context.classes.ignore_class)
    try:
        with torch.random.fork_rng(devices=[]):
            network = build_seeded(context).to(device).train()
            if protocol.train.checkpointing:
                checkpoint_activations(network)
            image = torch.zeros(
                (batch, len(context.card.channels.order), *protocol.patch.size), device=device
            )
            labels = torch.zeros((batch, *protocol.patch.size), dtype=torch.long, device=device)
            with autocast(usable_precision(protocol.train.precision, device), device)():
                outputs = network(image)
            loss(outputs, labels).backward()
    except torch.OutOfMemoryError as error:
        raise out_of_memory(device) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error).lower():
            raise out_of_memory(device) from error
        raise
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
