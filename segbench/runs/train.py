"""Training a cell: its network, data, loss and protocol wired into the training loop."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core import console
from segbench.core.hashing import sha256_file
from segbench.core.text import bytes_words
from segbench.runs.active import ActiveCell
from segbench.runs.build import FINAL_WEIGHTS, augmentation_of, build_at_start
from segbench.runs.code import structure_of
from segbench.runs.forecast import known_probe
from segbench.runs.prepare import recipe_of
from segbench.runs.start import cases_of, write_card

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
    cell: ActiveCell, cache: Cache | None, *, ranks: Ranks | None = None
) -> Generator[TrainingJob]:
    """Data, network, loss and protocol of a cell, wired for the training loop, with its progress shown.

    Args:
        cell: The cell.
        cache: Its prepared cases; None for a probe, which brings its own batches.
        ranks: This process's place among those that train together; None: alone.
    """
    from segbench.engine.device import choose_device, prepare_device
    from segbench.engine.losses import SegmentationLoss
    from segbench.engine.ranks import ALONE
    from segbench.engine.tracking import tensorboard_view
    from segbench.engine.trainer import TrainingJob

    ranks = ranks or ALONE
    device = choose_device(cell.execution.device)
    protocol, classes = cell.protocol, cell.classes
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
    with console.progress(f"train {cell.run_id}", total, unit="samples") as bar:
        yield TrainingJob(
            build=lambda: build_at_start(cell),
            batches=lambda first, last: _batches(cell, cache, first, last, ranks),
            transform=_transform(cell, device, repeatable=level == "bitwise"),
            loss=loss,
            protocol=protocol,
            folder=cell.folder,
            device=device,
            stop=cell.stop,
            on_step=lambda at, loss, rate: bar.advance(batch, at=at, note=_news(loss, rate, device)),
            warn=cell.warn,
            validate=_validator(cell, cache, device),
            metadata=weights_metadata(cell, cache).as_strings(),
            channels=classes.channels,
            checkpoint_minutes=cell.execution.checkpoint_minutes,
            check=cell.check_lease,
            ranks=ranks,
            step_timeout=cell.execution.step_timeout,
            hung=cell.give_up,
            view=tensorboard_view(cell.folder) if ranks.writes else None,
            inputs_digest=cell.inputs_digest,
            determinism=level,
        )


def train_here(cell: ActiveCell, cache: Cache, *, ranks: Ranks | None = None) -> dict[str, Any]:
    """Train in this process, alone or as one of several ranks, and keep the weights; gives what to record."""
    import torch

    from segbench.data.random import counter_seed
    from segbench.engine.device import determinism_level
    from segbench.engine.precision import precision_note, usable_precision
    from segbench.engine.ranks import ALONE
    from segbench.engine.trainer import train
    from segbench.networks.blocks.fast import named_ways
    from segbench.networks.scan import named_scans

    ranks = ranks or ALONE
    # For networks that draw in training (dropout): from the cell's seed, whatever ran in this process before.
    place = (ranks.rank,) if ranks.rank else ()  # each rank drops out other voxels
    torch.manual_seed(counter_seed(cell.seed, "train", cell.model.slug, *place))
    with training_job(cell, cache, ranks=ranks) as job:
        if (note := precision_note(cell.protocol.train.precision, job.device)) is not None:
            cell.warn(note)
        result = train(job)
    if not ranks.writes:
        return {}
    if ranks.world == 1:
        _compare_with_forecast(cell, result.step_seconds)
    device = job.device
    final = keep_final(cell, result.network, result.checkpoint, job.metadata)
    before = () if cell.init is None else cell.init.trained_on
    if before is not None:  # of weights from nobody knows what, nothing can be said
        own = cases_of(cell.data, sorted({*cell.split.train, *cell.split.validation}))
        write_card(final, [*own, *before])
    facts: dict[str, Any] = {
        "samples_seen": result.samples_seen,
        "degraded": result.degraded,
        "peak_memory_bytes": result.peak_memory_bytes,
        "determinism": determinism_level(cell.protocol.determinism.level, device),
        "precision": usable_precision(cell.protocol.train.precision, device),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "world_size": ranks.world,
        "scan_backend": named_scans(result.scans),
        "weights_sha256": sha256_file(final),
        "structure": structure_of(result.network),
    }
    if (fast := named_ways()) is not None:
        facts["fast"] = fast
    if device.type == "cuda":
        facts["accelerator"] = {
            "gpu": torch.cuda.get_device_name(device),
            "gpu_memory_bytes": torch.cuda.get_device_properties(device).total_memory,
            "cuda": torch.version.cuda,
        }
    return facts


def _compare_with_forecast(cell: ActiveCell, step_s: float | None) -> None:
    """Log it when steps took a quarter more or less than the probe that the forecast came from."""
    known = known_probe(cell, cell.execution)
    if known is None or known.step_s is None or step_s is None:
        return
    drift = step_s / known.step_s - 1
    if abs(drift) > MOST_DRIFT:
        cell.log(f"forecast: {step_s:.3g} s a step, {known.step_s:.3g} s were probed ({drift:+.0%})")


def _news(loss: float, rate: float, device: torch.device) -> str:
    """The state of training for its progress line."""
    from segbench.engine.memory import peak_memory

    return f"loss {loss:.3f}, lr {rate:.2g}, peak {bytes_words(peak_memory(device))}"


def weights_metadata(cell: ActiveCell, cache: Cache | None = None) -> WeightsMetadata:
    """What the header of a weights file says: enough to predict with it, by name."""
    from segbench.networks.weights import WeightsMetadata

    arguments = dict(cell.network_arguments)
    card, classes, protocol = cell.dataset, cell.classes, cell.protocol
    statistics = None if cache is None else cache.fingerprint.get("normalisation_statistics")
    spacing = protocol.data.spacing if cache is None else cache.fingerprint.get("spacing_mm")
    return WeightsMetadata(
        model=cell.model.slug,
        in_channels=arguments.pop("in_channels"),
        out_channels=arguments.pop("out_channels"),
        arguments=arguments,
        channels=tuple(card.channels.order),
        labels=tuple(card.labels[value] for value in classes.values),
        extra={
            "run": cell.run_id,
            "dataset": card.slug,
            "label_values": list(classes.values),
            "outputs": cell.output_names,
            "regions": classes.regions,
            "region_labels": classes.region_labels,
            "normalisation": list(recipe_of(cell).normalisation),
            "normalisation_statistics": statistics,
            "spacing_mm": spacing,
            "orientation": card.geometry.orientation,
            "patch": list(protocol.patch.size),
            "inference": protocol.inference.model_dump(mode="json"),
            "precision": protocol.train.precision,
            **({} if protocol.data.cache_dtype == "float16" else {"cache_dtype": protocol.data.cache_dtype}),
        },
    )


def keep_final(cell: ActiveCell, network: nn.Module, checkpoint: Path, metadata: dict[str, str]) -> Path:
    """The selected weights under their own name; a link to the last checkpoint where bytes are equal."""
    from segbench.core.atomic import atomic_write, temporary_name
    from segbench.networks.tensor_bytes import tensor_bytes

    final = cell.folder / FINAL_WEIGHTS
    last = checkpoint / "weights.safetensors"
    if cell.protocol.validation.selection == "last" and last.is_file():
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


def _batches(cell: ActiveCell, cache: Cache | None, first: int, last: int, ranks: Ranks) -> Iterable[Any]:
    from segbench.data.patches.sampling import PatchLoader

    assert cache is not None  # only a probe has none, and its own batches
    sampling = cell.protocol.sampling
    return PatchLoader(
        cache,
        cell.split.train,
        patch=cell.protocol.patch.size,
        batch_size=sampling.batch_size,
        seed=cell.seed,
        foreground_fraction=sampling.foreground_fraction,
        workers=cell.execution.workers,
        start_step=first,
        stop_step=last,
        augmentation=augmentation_of(cell),
        regions=cell.classes.regions or (),
        ignore_label=cell.classes.ignore_label,
        order=sampling.order,
        rank=ranks.rank,
        world=ranks.world,
    )


def class_table(cell: ActiveCell) -> Tensor:
    """Label value to class index; the ignore label to the index after the last class."""
    import torch

    classes = cell.classes
    table = torch.zeros(max(*classes.values, classes.ignore_label or 0) + 1, dtype=torch.long)
    for index, value in enumerate(classes.values):
        table[value] = index
    if classes.ignore_label is not None and classes.ignore_class is not None:
        table[classes.ignore_label] = classes.ignore_class
    return table


def _transform(cell: ActiveCell, device: torch.device, *, repeatable: bool) -> Any:
    from segbench.data.patches.augment import augment

    settings, patch = augmentation_of(cell), cell.protocol.patch.size
    ignore = cell.classes.ignore_label
    table = class_table(cell).to(device)

    def transform(images: Any, maps: Any, plans: Any) -> tuple[Tensor, Tensor]:
        image, labels = augment(
            images, maps, plans, settings=settings, patch=patch, ignore_label=ignore, noise_on_cpu=repeatable
        )
        return image, table[labels.long()]

    return transform


def _validator(cell: ActiveCell, cache: Cache | None, device: torch.device) -> Any:
    """Dice per region over whole validation cases; None when the protocol asks for none."""
    cases = cell.split.validation
    if cache is None or cell.protocol.validation.cases == "none" or not cases:
        return None

    def validate(network: nn.Module) -> dict[str, float]:
        totals = dict.fromkeys(cell.dataset.regions, 0.0)
        for case in cases:
            for region, dice in dice_of_case(cell, cache, case, network, device).items():
                totals[region] += dice
            cell.stop.check()
        return {region: total / len(cases) for region, total in totals.items()}

    return validate


def dice_of_case(
    cell: ActiveCell, cache: Cache, case: str, network: nn.Module, device: torch.device
) -> dict[str, float]:
    """Dice per region of the network's prediction of a prepared case, on the prepared grid."""
    from segbench.metrics import evaluate_case
    from segbench.predict import predict_case, settings_of

    settings = settings_of(weights_metadata(cell, cache), cell.folder / FINAL_WEIGHTS)
    prediction = predict_case([network], [cache.image(case)], settings, device, between=cell.stop.check)
    scores = evaluate_case(
        cache.labels(case),
        prediction,
        spacing_mm=cache.properties(case)["spacing_out"],
        regions=cell.dataset.regions,
        metrics=["dice"],
    )
    return {region: score["dice"] for region, score in scores.items()}
