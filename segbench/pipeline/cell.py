"""One cell: a model, a dataset, a protocol as it applies to both, a fold and a seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segbench.cards import DatasetCard, ModelCard, Protocol
from segbench.core.errors import SegbenchError
from segbench.core.hashing import digest_json
from segbench.data.patches.augment_parameters import AugmentationSettings
from segbench.metrics.profiles import load_profile
from segbench.records.identity import run_id
from segbench.records.schema import SCHEMA_VERSION, CodeRecord

if TYPE_CHECKING:
    from segbench.data.splits import Split

CellState = Literal["planned", "resumable", "running", "done", "failed", "blocked"]


@dataclass(frozen=True, slots=True)
class Classes:
    """How label values, class indices and output channels of a network hang together.

    Attributes:
        values: Label value of each class index, background first, ascending; the ignore label is not a class.
        regions: Region output: label values of each output channel, larger regions first; else None.
        region_labels: Region output: the value written where a channel is positive, later over earlier.
        ignore_label: Never trained on, never scored; or None.
    """

    values: tuple[int, ...]
    regions: tuple[tuple[int, ...], ...] | None
    region_labels: tuple[int, ...] | None
    ignore_label: int | None

    @property
    def channels(self) -> int:
        """Output channels of the network."""
        return len(self.values) if self.regions is None else len(self.regions)

    @property
    def ignore_class(self) -> int | None:
        """The class index that stands for the ignore label in training patches, or None."""
        return None if self.ignore_label is None else len(self.values)

    @property
    def region_classes(self) -> tuple[tuple[int, ...], ...] | None:
        """For region output: the class indices of each channel."""
        if self.regions is None:
            return None
        index = {value: i for i, value in enumerate(self.values)}
        return tuple(tuple(index[value] for value in region) for region in self.regions)


def classes_of(card: DatasetCard, output: str) -> Classes:
    """The classes of a dataset for a protocol's output ("softmax" or "regions").

    Raises:
        SegbenchError: SB104 when region output cannot be turned back into labels.
    """
    ignore = card.evaluation.ignore_label
    values = tuple(sorted(int(value) for value in card.labels if int(value) != ignore))
    if output == "softmax":
        return Classes(values, None, None, ignore)
    regions = sorted(card.regions.values(), key=lambda labels: -len(labels))
    written: list[int] = []
    for i, labels in enumerate(regions):
        smaller = {value for later in regions[i + 1 :] if set(later) <= set(labels) for value in later}
        own = sorted(set(labels) - smaller)
        if len(own) != 1:
            raise SegbenchError(
                "SB104",
                f"the regions of {card.slug} are not nested one label at a time",
                mend="use loss.output = softmax for this dataset",
            )
        written.append(own[0])
    return Classes(values, tuple(tuple(r) for r in regions), tuple(written), ignore)


def protocol_for(protocol: Protocol, model: ModelCard, card: DatasetCard) -> Protocol:
    """The protocol as it applies to one model on one dataset, every "card" replaced by the card's word."""
    own = protocol.for_family(model.family)
    if own.published:
        own = with_published_recipe(own, model)
    patch = own.patch.size
    if card.geometry.patch is not None:
        lowered = [min(a, b) for a, b in zip(patch, card.geometry.patch, strict=True)]
        patch = (lowered[0], lowered[1], lowered[2])
    spacing = own.data.spacing
    if spacing == "card":
        spacing = card.geometry.spacing_mm or "median"
    mirror = own.inference.mirror_axes
    mirror = card.geometry.mirror_axes if mirror == "card" else () if mirror == "none" else mirror
    updates = {
        "data": own.data.model_copy(update={"spacing": spacing}),
        "patch": own.patch.model_copy(update={"size": patch}),
        "inference": own.inference.model_copy(update={"mirror_axes": tuple(mirror)}),
        "metrics": own.metrics.model_copy(
            update={
                "profile": card.evaluation.profile if own.metrics.profile == "card" else own.metrics.profile
            }
        ),
    }
    return own.model_copy(update=updates)


def with_published_recipe(protocol: Protocol, model: ModelCard) -> Protocol:
    """The protocol with every field that the model's authors published in place of its own."""
    recipe = model.published_recipe
    if recipe is None:
        return protocol
    given = {name: value for name, value in recipe if value is not None}
    if isinstance(recipe.spacing_mm, str) and recipe.spacing_mm not in ("median", "native"):
        del given["spacing_mm"]  # told in words
    sections: dict[str, dict[str, Any]] = {}
    for field, (section, name) in _PUBLISHED_FIELDS.items():
        if field in given:
            sections.setdefault(section, {})[name] = given[field]
    if "image_order" in given:
        sections["augment"] = {"overrides": {"image_order": given["image_order"]}}
    if given.get("mirror") is False:
        sections.setdefault("inference", {})["mirror_axes"] = "none"
    if (
        "normalisation" in sections.get("data", {})
        and sections["data"]["normalisation"] not in NORMALISATIONS
    ):
        del sections["data"]["normalisation"]
    if sections.get("optimiser", {}).get("name") == "adam":
        sections["optimiser"]["name"] = "adamw"
    content = protocol.resolved()
    for section, fields in sections.items():
        content[section] |= fields
    return Protocol.model_validate(content)


NORMALISATIONS = ("ct", "zscore", "zscore-nonzero", "rescale01", "none")
_PUBLISHED_FIELDS: dict[str, tuple[str, str]] = {
    "patch": ("patch", "size"),
    "batch_size": ("sampling", "batch_size"),
    "samples": ("budget", "samples"),
    "warmup_samples": ("budget", "warmup_samples"),
    "spacing_mm": ("data", "spacing"),
    "normalisation": ("data", "normalisation"),
    "optimiser": ("optimiser", "name"),
    "lr": ("optimiser", "lr"),
    "momentum": ("optimiser", "momentum"),
    "nesterov": ("optimiser", "nesterov"),
    "weight_decay": ("optimiser", "weight_decay"),
    "schedule": ("schedule", "name"),
    "loss": ("loss", "terms"),
    "deep_supervision": ("loss", "deep_supervision"),
    "precision": ("train", "precision"),
    "foreground_fraction": ("sampling", "foreground_fraction"),
    "overlap": ("inference", "overlap"),
}
"""Field of `[published_recipe]` to section and field of the protocol."""


def check_fit(protocol: Protocol, model: ModelCard) -> SegbenchError | None:
    """Why the model cannot be run under the protocol, or None when it can."""
    if protocol.inference.ensemble != "none":
        return SegbenchError(
            "SB104",
            "a cell is one fold and one seed, and cannot be an ensemble by itself",
            expected="inference.ensemble = none",
            found=protocol.inference.ensemble,
            mend="train the folds or seeds, then segbench predict --run A,B,C",
        )
    try:
        AugmentationSettings(protocol.augment.name, overrides=protocol.augment.overrides)
    except ValueError as error:
        return SegbenchError(
            "SB104",
            f"augment.overrides: {error}",
            mend="for example --set augment.overrides.gamma.probability=0.5",
        )
    if model.kind == "floor" or model.input is None:
        return None
    divisor = model.input.divisor if protocol.patch.divisible_by == "model" else protocol.patch.divisible_by
    patch, smallest = protocol.patch.size, model.input.minimum
    if all(n % divisor == 0 and n >= smallest for n in patch):
        return None
    return SegbenchError(
        "SB104",
        f"{model.slug} cannot take patches of {'x'.join(map(str, patch))} voxels",
        expected=f"multiples of {divisor}, at least {smallest}",
        mend=f"--set patch.size={max(smallest, -(-max(patch) // divisor) * divisor)}",
    )


def check_selection(protocol: Protocol, split: Split) -> SegbenchError | None:
    """Why no weights could be selected as the protocol asks, or None when they can."""
    if protocol.validation.selection != "best_validation" or split.validation:
        return None
    return SegbenchError(
        "SB104",
        f"split '{split.name}' has no validation cases to select weights on",
        expected="validation cases, or validation.selection = last",
        found=protocol.validation.selection,
        mend="--set validation.selection=last, or a split with a validation part",
    )


def card_settings(card: DatasetCard) -> dict[str, Any]:
    """The fields of a dataset card that change numbers; they enter the run id beside the content digest."""
    content = card.model_dump(
        mode="json", include={"channels", "labels", "regions", "geometry", "evaluation"}
    )
    content["geometry"].pop("expected_shape_zyx", None)
    for name in ("mean_regions", "margin", "margin_source"):  # decide no score, only what is said of scores
        content["evaluation"].pop(name)
    return content


def network_arguments(model: ModelCard, card: DatasetCard, protocol: Protocol) -> dict[str, Any]:
    """What `build_network` is called with; empty for a floor."""
    if model.kind == "floor":
        return {}
    arguments: dict[str, Any] = {
        "in_channels": len(card.channels.order),
        "out_channels": classes_of(card, protocol.loss.output).channels,
    }
    if protocol.loss.deep_supervision and model.deep_supervision:
        arguments["deep_supervision"] = True
    if model.input is not None and model.input.fixed_size:
        arguments["patch_size"] = list(protocol.patch.size)
    return arguments


@dataclass(frozen=True)
class Cell:
    """One planned cell.

    Attributes:
        model: The model's card.
        dataset: The dataset's card.
        dataset_digest: Digest of the dataset's content.
        protocol: Resolved by `protocol_for`.
        split: The fold's lists of case ids, with leak counts.
        fold: Fold index.
        seed: Training seed.
        run_id: Identity; the same id means the same experiment.
        folder: The run folder.
        code: The code of a network that is not segbench's own, else None.
    """

    model: ModelCard
    dataset: DatasetCard
    dataset_digest: str
    protocol: Protocol
    split: Split
    fold: int
    seed: int
    run_id: str
    folder: Path
    code: CodeRecord | None = None

    @cached_property
    def classes(self) -> Classes:
        """Label values, class indices and output channels of the network."""
        return classes_of(self.dataset, self.protocol.loss.output)

    @cached_property
    def output_names(self) -> list[str]:
        """The name of each output of the network: labels, or regions where it has region output."""
        if self.classes.regions is None:
            return [self.dataset.labels[value] for value in self.classes.values]
        regions = sorted(self.dataset.regions.items(), key=lambda item: -len(item[1]))
        return [name for name, _ in regions]

    @cached_property
    def network_arguments(self) -> dict[str, Any]:
        """What `build_network` is called with beside the slug; empty for a floor."""
        return network_arguments(self.model, self.dataset, self.protocol)

    def id_with(self, code_digest: str | None) -> str:
        """The run id that the cell would have if its network's code were another."""
        content = identify(
            self.model,
            self.dataset,
            self.protocol,
            dataset_digest=self.dataset_digest,
            split_digest=self.split.digest,
            code_digest=code_digest,
        )
        return run_id(
            self.model.slug,
            self.dataset.slug,
            self.protocol.name,
            fold=self.fold,
            seed=self.seed,
            content=content,
        )


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell with its state.

    Attributes:
        cell: What is to be run.
        state: What its folder says.
        note: Why it is blocked, or how far it has come.
        problem: The fault of a blocked cell.
        forecast_s: Seconds it will take; None when nothing was measured.
        step_s: Seconds of a training step.
        memory_bytes: Peak memory of training.
        forecast_from: What was measured.
    """

    cell: Cell
    state: CellState
    note: str = ""
    problem: SegbenchError | None = None
    forecast_s: float | None = None
    step_s: float | None = None
    memory_bytes: int | None = None
    forecast_from: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """All cells of a command in the order they are run, and the datasets and models that are not here."""

    cells: tuple[PlannedCell, ...]
    absent: tuple[SegbenchError, ...] = ()

    @property
    def runnable(self) -> tuple[PlannedCell, ...]:
        """Cells with something left to do."""
        return tuple(
            cell for cell in self.cells if cell.state in {"planned", "resumable", "running", "failed"}
        )


def identify(
    model: ModelCard,
    card: DatasetCard,
    protocol: Protocol,
    *,
    dataset_digest: str,
    split_digest: str,
    code_digest: str | None,
) -> dict[str, Any]:
    """Everything that changes numbers, as hashed into the run id (fold and seed stand in the id itself).

    Args:
        model: The model's card.
        card: The dataset's card.
        protocol: Resolved by `protocol_for`.
        dataset_digest: Digest of the dataset's content.
        split_digest: Digest of the fold's lists.
        code_digest: Digest of the code of a network that is not segbench's own, else None.
    """
    network = {
        "implementation": model.implementation,
        "card_arguments": model.model_dump(mode="json", include={"arguments"})["arguments"],
        "arguments": network_arguments(model, card, protocol),
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "model": network if code_digest is None else {**network, "code": code_digest},
        "protocol": protocol.digest(),
        "metric_profile": load_profile(protocol.metrics.profile).digest(),
        "dataset": dataset_digest,
        "dataset_settings": digest_json(card_settings(card)),
        "split": split_digest,
    }
