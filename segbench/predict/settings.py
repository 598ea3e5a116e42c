"""What a weights file says of its images and labels, checked before anything is built on it.

A run writes these facts into its weights; a file may also come from elsewhere, or be damaged. What is not
valid is refused by name (SB406), what is missing is asked for (SB103).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segbench.cards import load_dataset_card, load_model_card
from segbench.cards.fault_lines import fault_lines
from segbench.core.errors import SegbenchError
from segbench.networks.weights import WeightsMetadata, read_metadata

__all__ = ["Settings", "channel_names", "metadata_of", "settings_of"]

Length = Annotated[int, Field(ge=1)]
Millimetres = Annotated[float, Field(gt=0)]
Scheme = Literal["ct", "zscore", "zscore-nonzero", "rescale01", "none"]
Label = Annotated[int, Field(ge=0, le=65535)]


class _Part(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)


class _Statistics(_Part):
    p005: float
    p995: float
    mean: float
    std: float


class _Inference(_Part):
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    mirror_axes: list[Literal["z", "y", "x"]] = []
    window_batch: Annotated[int, Field(ge=1)] = 1
    importance: Literal["gaussian", "constant"] = "gaussian"
    sigma_scale: Annotated[float, Field(gt=0)] = 0.125


class Settings(_Part):
    """How images become the input of a network, and its outputs a label map.

    Attributes:
        normalisation, normalisation_statistics: Per input channel; `ct` needs its numbers.
        spacing_mm: Grid of the network, z y x, or that of the image.
        orientation: Whether images are turned to canonical axes first.
        patch: Window in voxels.
        num_outputs, outputs: Number of outputs, and their names.
        label_values: Label value of each class; None: 0, 1, 2, ...
        region_labels: Region output: the label written where an output is positive; else None.
        inference, precision: How windows are laid, weighted and computed.
        cache_dtype: How prepared images are stored, and so rounded.
        run: Id of the run that trained the weights, where known.
    """

    normalisation: list[Scheme]
    normalisation_statistics: list[_Statistics | None] | None = None
    spacing_mm: Literal["native"] | tuple[Millimetres, Millimetres, Millimetres] = "native"
    orientation: Literal["canonical", "stored"] = "canonical"
    patch: tuple[Length, Length, Length]
    num_outputs: int
    outputs: list[str] = []
    label_values: list[Label] | None = None
    region_labels: list[Label] | None = None
    inference: _Inference = _Inference()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    cache_dtype: Literal["float16", "float32"] = "float16"
    run: str | None = None


def metadata_of(path: Path) -> WeightsMetadata:
    """What a weights file of segbench says of itself.

    Raises:
        SegbenchError: SB103 for a file that does not say, SB406 for one that cannot be read.
    """
    metadata = read_metadata(path)
    if metadata is None:
        raise SegbenchError(
            "SB103",
            "the weights file does not say which channels it was trained on",
            path=path,
            mend="import it with segbench weights import, or name the run with --run",
        )
    return metadata


def settings_of(metadata: WeightsMetadata, path: Path, dataset: str | None = None) -> Settings:
    """The settings as the file has them, what it leaves open taken from a dataset's card.

    Args:
        metadata: Of the file.
        path: The file, for messages.
        dataset: Slug of the dataset the weights were trained on, where the file does not say enough.

    Raises:
        SegbenchError: SB103 for what nobody says, SB406 for what is not valid.
    """
    facts: dict[str, Any] = {"outputs": metadata.labels, **(metadata.extra or {})}
    if "normalisation" not in facts:
        if dataset is None:
            raise _missing("how images are normalised", path)
        card = load_dataset_card(dataset)
        facts["normalisation"] = list(card.channel_normalisation)
        facts["spacing_mm"] = card.geometry.spacing_mm or "native"
        facts["label_values"] = sorted(card.labels)
    if "patch" not in facts:
        card = load_model_card(metadata.model)
        smallest = card.input.minimum if card.input is not None else 32
        facts["patch"] = [max(smallest, 64)] * 3
    if facts.get("inference") is None:  # a file from elsewhere
        facts.pop("inference", None)
    try:
        checked = Settings.model_validate({**facts, "num_outputs": metadata.out_channels})
    except ValidationError as error:
        raise SegbenchError(
            "SB406",
            "what the weights file says of its images is not valid",
            path=path,
            details=fault_lines(error),
        ) from None
    _check_counts(checked, metadata, path)
    return checked


def _check_counts(facts: Settings, metadata: WeightsMetadata, path: Path) -> None:
    """Lists must be as long as the network has channels and outputs; `ct` needs its numbers."""
    channels, outputs = metadata.in_channels, metadata.out_channels
    statistics = facts.normalisation_statistics or [None] * len(facts.normalisation)
    labels = facts.label_values if facts.region_labels is None else facts.region_labels
    for what, count, expected in (
        ("normalisation", len(facts.normalisation), channels),
        ("normalisation_statistics", len(statistics), channels),
        ("labels", outputs if labels is None else len(labels), outputs),
    ):
        if count != expected:
            raise SegbenchError(
                "SB406",
                f"the weights file names {count} {what}, its network has {expected}",
                path=path,
                expected=expected,
                found=count,
            )
    pairs = zip(facts.normalisation, statistics, strict=True)
    if any(scheme == "ct" and numbers is None for scheme, numbers in pairs):
        raise _missing("the statistics that CT is normalised with", path, mend="name the run with --run")


def channel_names(metadata: WeightsMetadata, path: Path, dataset: str | None) -> tuple[str, ...]:
    """The file's own names, else those of the dataset's card: as many as the network takes.

    Raises:
        SegbenchError: SB103 for another number of names, or none.
    """
    names = metadata.channels
    if not names and dataset is not None:
        names = tuple(load_dataset_card(dataset).channels.order)
    if len(names) != metadata.in_channels:
        raise SegbenchError(
            "SB103",
            f"the network takes {metadata.in_channels} channels, {len(names) or 'none'} are named",
            path=path,
            expected=f"{metadata.in_channels} names",
            found=", ".join(names) or "none",
            mend="name the dataset it was trained on with --dataset, or the run with --run",
        )
    return names


def _missing(
    what: str,
    path: Path,
    *,
    mend: str = "name the dataset it was trained on with --dataset, or the run with --run",
) -> SegbenchError:
    return SegbenchError("SB103", f"the weights file does not say {what}", path=path, mend=mend)
