"""The train stage: wire data, network, loss and protocol into the training loop."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core import console
from segbench.core.environment import thread_count
from segbench.core.errors import BackendUnavailable
from segbench.core.hashing import sha256_file
from segbench.pipeline.cell import network_arguments
from segbench.pipeline.code import check_code, structure_of
from segbench.pipeline.context import Context
from segbench.pipeline.preparing import open_prepared, recipe_of
from segbench.pipeline.stages import StageResult

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from segbench.data.patches.augment import AugmentationSettings
    from segbench.data.prepared.cache import Cache
    from segbench.engine.ranks import Ranks
    from segbench.engine.trainer import TrainingJob

MOST_DRIFT = 0.25
FINAL_WEIGHTS = Path("checkpoints") / "final.safetensors"


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
    from segbench.engine.losses import SegmentationLoss
    from segbench.engine.ranks import ALONE
    from segbench.engine.tracking import tensorboard_view
    from segbench.engine.trainer import TrainingJob

    ranks = ranks or ALONE

    device = choose_device(context.execution.device)
    protocol, classes = context.protocol, context.classes
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
            metadata=weights_metadata(context, cache),
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


def train_stage(context: Context) -> StageResult:
    """Train the network to the end of its budget, resuming from the last checkpoint."""
    if context.execution.gpus_per_cell > 1:
        from segbench.pipeline.rank import train_on_ranks

        facts = train_on_ranks(context)
    else:
        facts = train_here(context, open_prepared(context))
    return StageResult(
        artefact=facts["weights_sha256"], outputs=[context.folder / FINAL_WEIGHTS], facts=facts
    )


def train_here(context: Context, cache: Cache, *, ranks: Ranks | None = None) -> dict[str, Any]:
    """Train in this process, alone or as one of several ranks, and keep the weights; gives what to record."""
    import torch

    from segbench.data.random import counter_seed
    from segbench.engine.precision import usable_precision
    from segbench.engine.ranks import ALONE
    from segbench.engine.trainer import train

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
    from segbench.pipeline.probe import known_probe

    known = known_probe(context, context.execution)
    if known is None or known.step_s is None or step_s is None:
        return
    drift = step_s / known.step_s - 1
    if abs(drift) > MOST_DRIFT:
        context.log(f"forecast: {step_s:.3g} s a step, {known.step_s:.3g} s were probed ({drift:+.0%})")


def _news(loss: float, rate: float, device: torch.device) -> str:
    """The state of training for its progress line."""
    from segbench.engine.memory import peak_memory

    return f"loss {loss:.3f}, lr {rate:.2g}, peak {peak_memory(device) / 2**30:.1f} GiB"


def choose_device(name: str) -> torch.device:
    """The device for a flag: "auto" takes CUDA where there is one.

    Raises:
        BackendUnavailable: SB502 when CUDA is asked for and not there.
    """
    import torch

    if name not in {"auto", "cpu", "cuda"}:
        raise BackendUnavailable(f"device '{name}' is not known", mend="use --device auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("no CUDA device can be used here", mend="use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def prepare_device(device: torch.device, *, level: str, tf32: bool) -> str:
    """Put a protocol's arithmetic in force, for training and prediction alike; the determinism level."""
    from segbench.engine.precision import allow_tf32

    allow_tf32(tf32)
    return set_determinism(level, device)


def set_determinism(level: str, device: torch.device) -> str:
    """Put the determinism level in force and say which one it is; a CPU is always bitwise."""
    import torch

    torch.set_num_threads(thread_count())
    level = determinism_level(level, device)
    if level == "bitwise":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=False)
        torch.backends.cudnn.benchmark = False
    elif level == "none":
        torch.backends.cudnn.benchmark = True
    return level


def determinism_level(level: str, device: torch.device) -> str:
    """The level in force on a device: a CPU is always bitwise."""
    return "bitwise" if device.type == "cpu" else level


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


def weights_metadata(context: Context, cache: Cache | None = None) -> dict[str, str]:
    """What the header of a weights file says: enough to predict with it, by name."""
    from segbench.networks.weights import WeightsMetadata
    from segbench.pipeline.predicting import output_names

    arguments = network_arguments(context.model, context.card, context.protocol)
    card, classes, protocol = context.card, context.classes, context.protocol
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
            "outputs": output_names(card, classes),
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
    ).as_strings()


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


def named_scans(used: Set[str]) -> str | None:
    """The scan backends that ran, as one word for the record; None for a network without a scan."""
    return "+".join(sorted(used)) or None


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
        regions=context.classes.regions or (),
        ignore_label=context.classes.ignore_label,
        order=sampling.order,
        rank=ranks.rank,
        world=ranks.world,
    )


def class_table(context: Context) -> Tensor:
    """Label value to class index; the ignore label to the index after the last class."""
    import torch

    classes = context.classes
    table = torch.zeros(max(*classes.values, classes.ignore_label or 0) + 1, dtype=torch.long)
    for index, value in enumerate(classes.values):
        table[value] = index
    if classes.ignore_label is not None and classes.ignore_class is not None:
        table[classes.ignore_label] = classes.ignore_class
    return table


def _transform(context: Context, device: torch.device, *, repeatable: bool) -> Any:
    from segbench.data.patches.augment import augment

    settings, patch = augmentation_of(context), context.protocol.patch.size
    ignore = context.classes.ignore_label
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
    from segbench.pipeline.predicting import predict_prepared

    def validate(network: nn.Module) -> dict[str, float]:
        from segbench.metrics import evaluate_case

        totals = dict.fromkeys(context.card.regions, 0.0)
        for case in context.split.validation:
            labels = cache.labels(case)
            prediction = predict_prepared(context, [network], cache, case, device, grid="prepared")
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
