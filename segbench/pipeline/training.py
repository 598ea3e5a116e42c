"""The train stage: wire data, network, loss and protocol into the training loop."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core import console
from segbench.core.hashing import sha256_file
from segbench.pipeline.build import FINAL_WEIGHTS, augmentation_of, build_seeded
from segbench.pipeline.code import structure_of
from segbench.pipeline.context import Context
from segbench.pipeline.preparing import recipe_of
from segbench.pipeline.probes import known_probe

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from segbench.data.prepared.cache import Cache
    from segbench.engine.ranks import Ranks
    from segbench.engine.trainer import TrainingJob
    from segbench.networks.weights import WeightsMetadata

MOST_DRIFT = 0.25


@contextmanager
def training_job(
    context: Context, cache: Cache | None, *, ranks: Ranks | None = None
) -> Generator[TrainingJob]:
    """Data, network, loss and protocol of a cell, wired for the training loop, with its progress shown.

    Args:
        context: The cell.
        cache: Its prepared cases; None for a probe, which brings its own batches.
        ranks: This process's place among those that train together; None: alone.
    """
    from segbench.engine.device import choose_device, prepare_device
    from segbench.engine.losses import SegmentationLoss
    from segbench.engine.ranks import ALONE
    from segbench.engine.tracking import tensorboard_view
    from segbench.engine.trainer import TrainingJob

    ranks = ranks or ALONE

    device = choose_device(context.execution.device)
    protocol, classes = context.protocol, context.cell.classes
    level = prepare_device(device, level=protocol.determinism.level, tf32=protocol.train.tf32)
    loss = SegmentationLoss(
        terms={str(name): weight for name, weight in protocol.loss.terms.items()},
        smooth=protocol.loss.dice_smooth,
        batch_dice=protocol.loss.dice_batch,
        regions=classes.region_classes,
        ignore_class=classes.ignore_class,
    )
    batch = protocol.sampling.batch_size
    total = -(-protocol.budget.samples // batch) * batch
    with console.progress(f"train {context.run_id}", total, unit="samples") as bar:
        yield TrainingJob(
            build=lambda: build_seeded(context),
            batches=lambda first, last: _batches(context, cache, first, last, ranks),
            transform=_transform(context, device, repeatable=level == "bitwise"),
            loss=loss,
            protocol=protocol,
            folder=context.folder,
            device=device,
            stop=context.stop,
            on_step=lambda samples, loss, rate: bar.advance(batch, note=_news(loss, rate, device)),
            warn=context.warn,
            validate=_validator(context, cache, device),
            metadata=weights_metadata(context, cache).as_strings(),
            channels=classes.channels,
            checkpoint_minutes=context.execution.checkpoint_minutes,
            check=context.check_lease,
            ranks=ranks,
            step_timeout=context.execution.step_timeout,
            hung=context.give_up,
            view=tensorboard_view(context.folder) if ranks.writes else None,
            inputs_digest=context.inputs_digest,
            determinism=level,
        )


def train_here(context: Context, cache: Cache, *, ranks: Ranks | None = None) -> dict[str, Any]:
    """Train in this process, alone or as one of several ranks, and keep the weights; gives what to record."""
    import torch

    from segbench.data.random import counter_seed
    from segbench.engine.device import determinism_level
    from segbench.engine.precision import usable_precision
    from segbench.engine.ranks import ALONE
    from segbench.engine.trainer import train
    from segbench.networks.scan import named_scans

    ranks = ranks or ALONE
    # For networks that draw in training (dropout): from the cell's seed, whatever ran in this process before.
    torch.manual_seed(counter_seed(context.seed, "train", context.model.slug))
    with training_job(context, cache, ranks=ranks) as job:
        result = train(job)
    if not ranks.writes:
        return {}
    if ranks.world == 1:
        _compare_with_forecast(context, result.step_seconds)
    device = job.device
    final = keep_final(context, result.network, result.checkpoint, job.metadata)
    facts: dict[str, Any] = {
        "samples_seen": result.samples_seen,
        "degraded": result.degraded,
        "peak_memory_bytes": result.peak_memory_bytes,
        "determinism": determinism_level(context.protocol.determinism.level, device),
        "precision": usable_precision(context.protocol.train.precision, device),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "world_size": ranks.world,
        "scan_backend": named_scans(result.scans),
        "weights_sha256": sha256_file(final),
        "structure": structure_of(result.network),
    }
    if device.type == "cuda":
        facts["accelerator"] = {
            "gpu": torch.cuda.get_device_name(device),
            "gpu_memory_bytes": torch.cuda.get_device_properties(device).total_memory,
            "cuda": torch.version.cuda,
        }
    return facts


def _compare_with_forecast(context: Context, step_s: float | None) -> None:
    """Log it when steps took a quarter more or less than the probe that the forecast came from."""
    known = known_probe(context.cell, context.execution)
    if known is None or known.step_s is None or step_s is None:
        return
    drift = step_s / known.step_s - 1
    if abs(drift) > MOST_DRIFT:
        context.log(f"forecast: {step_s:.3g} s a step, {known.step_s:.3g} s were probed ({drift:+.0%})")


def _news(loss: float, rate: float, device: torch.device) -> str:
    """The state of training for its progress line."""
    from segbench.engine.memory import peak_memory

    return f"loss {loss:.3f}, lr {rate:.2g}, peak {peak_memory(device) / 2**30:.1f} GiB"


def weights_metadata(context: Context, cache: Cache | None = None) -> WeightsMetadata:
    """What the header of a weights file says: enough to predict with it, by name."""
    from segbench.networks.weights import WeightsMetadata

    arguments = dict(context.cell.network_arguments)
    card, classes, protocol = context.card, context.cell.classes, context.protocol
    statistics = None if cache is None else cache.fingerprint.get("normalisation_statistics")
    spacing = protocol.data.spacing if cache is None else cache.fingerprint.get("spacing_mm")
    return WeightsMetadata(
        model=context.model.slug,
        in_channels=arguments.pop("in_channels"),
        out_channels=arguments.pop("out_channels"),
        arguments=arguments,
        channels=tuple(card.channels.order),
        labels=tuple(card.labels[value] for value in classes.values),
        extra={
            "run": context.run_id,
            "dataset": card.slug,
            "label_values": list(classes.values),
            "outputs": context.cell.output_names,
            "regions": classes.regions,
            "region_labels": classes.region_labels,
            "normalisation": list(recipe_of(context).normalisation),
            "normalisation_statistics": statistics,
            "spacing_mm": spacing,
            "orientation": card.geometry.orientation,
            "patch": list(protocol.patch.size),
            "inference": protocol.inference.model_dump(mode="json"),
            "precision": protocol.train.precision,
            **({} if protocol.data.cache_dtype == "float16" else {"cache_dtype": protocol.data.cache_dtype}),
        },
    )


def keep_final(context: Context, network: nn.Module, checkpoint: Path, metadata: dict[str, str]) -> Path:
    """The selected weights under their own name; a link to the last checkpoint where bytes are equal."""
    from segbench.core.atomic import atomic_write, temporary_name
    from segbench.networks.tensor_bytes import tensor_bytes

    final = context.folder / FINAL_WEIGHTS
    last = checkpoint / "weights.safetensors"
    if context.protocol.validation.selection == "last" and last.is_file():
        beside = temporary_name(final)
        try:
            os.link(last, beside)
            beside.replace(final)
            return final
        except OSError:
            pass
        finally:  # a rename onto a link to the same file does nothing, and leaves both names
            beside.unlink(missing_ok=True)
    return atomic_write(final, tensor_bytes(network.state_dict(), metadata))


def _batches(context: Context, cache: Cache | None, first: int, last: int, ranks: Ranks) -> Iterable[Any]:
    from segbench.data.patches.sampling import PatchLoader

    assert cache is not None  # only a probe has none, and its own batches
    sampling = context.protocol.sampling
    return PatchLoader(
        cache,
        context.split.train,
        patch=context.protocol.patch.size,
        batch_size=sampling.batch_size,
        seed=context.seed,
        foreground_fraction=sampling.foreground_fraction,
        workers=context.execution.workers,
        start_step=first,
        stop_step=last,
        augmentation=augmentation_of(context),
        regions=context.cell.classes.regions or (),
        ignore_label=context.cell.classes.ignore_label,
        order=sampling.order,
        rank=ranks.rank,
        world=ranks.world,
    )


def class_table(context: Context) -> Tensor:
    """Label value to class index; the ignore label to the index after the last class."""
    import torch

    classes = context.cell.classes
    table = torch.zeros(max(*classes.values, classes.ignore_label or 0) + 1, dtype=torch.long)
    for index, value in enumerate(classes.values):
        table[value] = index
    if classes.ignore_label is not None and classes.ignore_class is not None:
        table[classes.ignore_label] = classes.ignore_class
    return table


def _transform(context: Context, device: torch.device, *, repeatable: bool) -> Any:
    from segbench.data.patches.augment import augment

    settings, patch = augmentation_of(context), context.protocol.patch.size
    ignore = context.cell.classes.ignore_label
    table = class_table(context).to(device)

    def transform(image: Tensor, labels: Tensor, plans: Any) -> tuple[Tensor, Tensor]:
        image, labels = augment(
            image, labels, plans, settings=settings, patch=patch, ignore_label=ignore, noise_on_cpu=repeatable
        )
        return image, table[labels.long()]

    return transform


def _validator(context: Context, cache: Cache | None, device: torch.device) -> Any:
    """Dice per region over whole validation cases; None when the protocol asks for none."""
    if cache is None or context.protocol.validation.cases == "none" or not context.split.validation:
        return None
    from segbench.predict import predict_case, settings_of

    settings = settings_of(weights_metadata(context, cache), context.folder / FINAL_WEIGHTS)

    def validate(network: nn.Module) -> dict[str, float]:
        from segbench.metrics import evaluate_case

        totals = dict.fromkeys(context.card.regions, 0.0)
        for case in context.split.validation:
            labels = cache.labels(case)
            prediction = predict_case(
                [network], [cache.image(case)], settings, device, between=context.stop.check
            )
            scores = evaluate_case(
                labels,
                prediction,
                spacing_mm=cache.properties(case)["spacing_out"],
                regions=context.card.regions,
                metrics=["dice"],
            )
            for region, score in scores.items():
                totals[region] += score["dice"]
            context.stop.check()
        return {region: total / len(context.split.validation) for region, total in totals.items()}

    return validate
