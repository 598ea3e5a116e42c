"""Trained networks and what is needed to predict with them: one, or the members of an ensemble.

Everything comes from the weights files themselves (the run wrote it there), what they do not say from a
dataset's card; nothing is guessed. Members must see the same channels on the same grid and answer with the
same labels; their statistics of normalisation may differ, as they do between folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segbench.core.errors import SegbenchError
from segbench.core.hashing import sha256_file
from segbench.data.prepared.cache_write import as_read_back
from segbench.data.prepared.case import prepare_case
from segbench.engine.predictor import Image
from segbench.networks import load_official_weights
from segbench.networks.weights import WeightsMetadata, build_for_file
from segbench.predict.settings import Settings, channel_names, metadata_of, settings_of
from segbench.records import RunRecord, run_in
from segbench.volumes import Volume

__all__ = ["Member", "load_members", "member_notes", "prepared_images", "run_of"]

_SHARED = (
    "spacing_mm",
    "orientation",
    "cache_dtype",
    "label_values",
    "region_labels",
    "patch",
    "inference",
    "precision",
)


@dataclass(frozen=True, slots=True)
class Member:
    """One trained network.

    Attributes:
        weights: Its file.
        metadata: What the file says of itself.
        settings: How images become its input, and its outputs labels.
        channels: Names of the input channels in order, from the file or else from the dataset's card.
        network: In evaluation mode, on its device.
        record: Of the run it comes from, where the file lies in one.
    """

    weights: Path
    metadata: WeightsMetadata
    settings: Settings
    channels: tuple[str, ...]
    network: nn.Module
    record: RunRecord | None = None

    @property
    def run(self) -> str | None:
        """The run it comes from, where known."""
        return self.settings.run if self.record is None else self.record.run_id

    @property
    def training(self) -> frozenset[str]:
        """Cases it was trained or selected on, where known."""
        split = None if self.record is None else self.record.split
        return frozenset() if split is None else frozenset((*(split.train or ()), *(split.validation or ())))


def load_members(
    weights: Sequence[Path], device: torch.device, *, dataset: str | None = None
) -> list[Member]:
    """The networks of weights files, refused where they do not belong together.

    Raises:
        SegbenchError: SB103 what a file does not say, or says otherwise than asked; SB104 members that cannot
            be averaged; SB406 files that cannot be used.
    """
    members = [_load(path, device, dataset) for path in weights]
    first = members[0]
    for other in members[1:]:
        theirs, ours = _shared(other), _shared(first)
        differing = [name for name in _SHARED if theirs[name] != ours[name]]
        if other.channels != first.channels:
            differing.insert(0, "channels")
        if other.metadata.out_channels != first.metadata.out_channels:
            differing.append("outputs")
        if differing:
            raise SegbenchError(
                "SB104",
                f"the weights cannot be averaged: they differ in {', '.join(differing)}",
                path=other.weights,
                details=[f"{name}: {ours[name]} and {theirs[name]}" for name in differing if name in ours],
                mend="name runs of one dataset and one protocol",
            )
    return members


def _shared(member: Member) -> dict[str, Any]:
    """The settings that members must have in common, as plain values."""
    return member.settings.model_dump(mode="json", include=set(_SHARED))


def _load(path: Path, device: torch.device, dataset: str | None) -> Member:
    metadata = metadata_of(path)
    channels, settings = channel_names(metadata, path, dataset), settings_of(metadata, path, dataset)
    with torch.random.fork_rng(devices=[]):
        network = build_for_file(
            path,
            metadata.model,
            in_channels=metadata.in_channels,
            out_channels=metadata.out_channels,
            **metadata.arguments,
        )
    load_official_weights(network, path)
    return Member(path, metadata, settings, channels, network.to(device).eval(), run_of(path))


def run_of(weights: Path) -> RunRecord | None:
    """The record of the run that a weights file lies in; None for a file elsewhere."""
    return run_in(weights.parent.parent)


def member_notes(members: Sequence[Member]) -> list[dict[str, Any]]:
    """What is kept beside predictions about who made them."""
    return [
        {
            "run": member.run,
            "model": member.metadata.model,
            "weights_sha256": sha256_file(member.weights),
        }
        for member in members
    ]


def prepared_images(
    members: Sequence[Member], case: str, channels: Sequence[Volume]
) -> tuple[list[Image], dict[str, Any]]:
    """The input of each member as the cache would give it, one per way of normalising; its properties."""
    made: list[tuple[tuple[Any, Any], Image]] = []
    images: list[Image] = []
    properties: dict[str, Any] = {}
    for member in members:
        settings = member.settings.model_dump()
        way = (settings["normalisation"], settings["normalisation_statistics"])
        known = next((image for seen, image in made if seen == way), None)
        if known is None:
            prepared = prepare_case(
                channels,
                spacing_mm=settings["spacing_mm"],
                normalisation=settings["normalisation"],
                normalisation_statistics=settings["normalisation_statistics"],
                orientation=settings["orientation"],
            )
            known = as_read_back(prepared, case, dtype=settings["cache_dtype"])
            properties = prepared.properties
            made.append((way, known))
        images.append(known)
    return images, properties
