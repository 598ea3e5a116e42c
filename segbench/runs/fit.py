"""How a model, a dataset and a protocol go together: classes, the protocol in force, splits, limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from segbench.cards import DatasetCard, ModelCard, Protocol
from segbench.core.errors import SegbenchError
from segbench.data.patches.augment_parameters import AugmentationSettings
from segbench.data.splits import Split, count_leaks, limit_split, load_split

if TYPE_CHECKING:
    from segbench.data import Dataset


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
    patch, most = own.patch.size, own.patch.card_up_to
    if card.geometry.patch is not None:
        z, y, x = (min(most or ours, theirs) for ours, theirs in zip(patch, card.geometry.patch, strict=True))
        patch = (z, y, x)
    spacing = own.data.spacing
    if spacing == "card":
        spacing = card.geometry.spacing_mm or "median"
    mirror = own.inference.mirror_axes
    mirror = card.geometry.mirror_axes if mirror == "card" else () if mirror == "none" else mirror
    updates = {
        "data": own.data.model_copy(update={"spacing": spacing}),
        "patch": own.patch.model_copy(update={"size": patch, "card_up_to": 0}),
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
    wanted = f"multiples of {divisor}, at least {smallest}"
    return SegbenchError(
        "SB104",
        f"{model.slug} cannot take patches of {'x'.join(map(str, patch))} voxels, but {wanted}",
        expected=wanted,
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


def usable_splits(dataset: Dataset, name: str | None, limit: int) -> list[Split]:
    """The folds of a split, cut to `limit`, with unacknowledged leaks refused.

    In a cross-validation the held-out fold is what is scored; it then is the test part, and nothing is left
    to select on.

    Raises:
        SegbenchError: SB101, SB323, SB324, SB335.
    """
    splits = load_split(name, dataset)
    usable: list[Split] = []
    for split in splits:
        whole = split
        if not split.test and split.validation:
            whole = replace(split, test=split.validation, validation=())
        if limit:
            whole = limit_split(whole, limit, patient_of=dataset.patient_of)
        leaks = count_leaks(whole, patient_of=dataset.patient_of)
        if leaks.patients and not whole.acknowledged_leaks:
            raise SegbenchError(
                "SB323",
                f"{leaks.test_cases} of {len(whole.test)} test cases of split '{whole.name}' share a patient "
                "with training or validation",
                found=f"{leaks.patients} patients in two parts",
            )
        if not whole.train or not whole.test:
            raise SegbenchError(
                "SB324",
                f"split '{whole.name}' of {dataset.card.slug} leaves no case to train on or to test on",
            )
        usable.append(whole)
    return usable
