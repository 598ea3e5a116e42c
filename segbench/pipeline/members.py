"""Trained networks and what is needed to predict with them: one, or the members of an ensemble.

Everything comes from the weights files themselves (the run wrote it there), what they do not say from a
dataset's card; nothing is guessed. Members must see the same channels on the same grid and answer with the
same labels; their statistics of normalisation may differ, as they do between folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core.errors import SegbenchError
from segbench.core.hashing import sha256_file
from segbench.records import RunRecord, read_run
from segbench.volumes import Volume

if TYPE_CHECKING:
    import torch
    from torch import nn

    from segbench.engine.predictor import Image
    from segbench.networks.weights import WeightsMetadata

__all__ = ["Member", "load_members", "member_notes", "predict_channels", "run_of"]

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
        facts: How images become its input, and its outputs labels.
        channels: Names of the input channels in order, from the file or else from the dataset's card.
        network: In evaluation mode, on its device.
        record: Of the run it comes from, where the file lies in one.
    """

    weights: Path
    metadata: WeightsMetadata
    facts: dict[str, Any]
    channels: tuple[str, ...]
    network: nn.Module
    record: RunRecord | None = None

    @property
    def run(self) -> str | None:
        """The run it comes from, where known."""
        return self.facts.get("run") if self.record is None else self.record.run_id

    @property
    def training(self) -> frozenset[str]:
        """Cases it was trained or selected on, where known."""
        split = None if self.record is None else self.record.split
        return frozenset() if split is None else frozenset((*(split.train or ()), *(split.validation or ())))


def load_members(
    weights: Sequence[Path], device: torch.device, *, model: str | None = None, dataset: str | None = None
) -> list[Member]:
    """The networks of weights files, refused where they do not belong together.

    Raises:
        SegbenchError: SB103 what a file does not say, or says otherwise than asked; SB104 members that cannot
            be averaged; SB406 files that cannot be used.
    """
    members = [_load(path, device, model, dataset) for path in weights]
    first = members[0]
    for other in members[1:]:
        differing = [name for name in _SHARED if other.facts.get(name) != first.facts.get(name)]
        if other.channels != first.channels:
            differing.insert(0, "channels")
        if other.metadata.out_channels != first.metadata.out_channels:
            differing.append("outputs")
        if differing:
            raise SegbenchError(
                "SB104",
                f"the weights cannot be averaged: they differ in {', '.join(differing)}",
                path=other.weights,
                details=[
                    f"{name}: {first.facts.get(name)} and {other.facts.get(name)}"
                    for name in differing
                    if name in _SHARED
                ],
                mend="name runs of one dataset and one protocol",
            )
    return members


def _load(path: Path, device: torch.device, model: str | None, dataset: str | None) -> Member:
    import torch

    from segbench.networks import load_official_weights
    from segbench.networks.weights import build_for_file, read_metadata
    from segbench.pipeline.weights_facts import channel_names, facts_of

    metadata = read_metadata(path)
    if metadata is None:
        raise SegbenchError(
            "SB103",
            "the weights file does not say which channels it was trained on",
            path=path,
            mend="import it with segbench weights import, or name the run with --run",
        )
    if model is not None and model != metadata.model:
        raise SegbenchError(
            "SB103",
            "the weights belong to another model",
            path=path,
            expected=model,
            found=metadata.model,
            mend=f"--model {metadata.model}, or leave --model out",
        )
    channels, facts = channel_names(metadata, path, dataset), facts_of(metadata, path, dataset)
    with torch.random.fork_rng(devices=[]):
        network = build_for_file(
            path,
            metadata.model,
            in_channels=metadata.in_channels,
            out_channels=metadata.out_channels,
            **metadata.arguments,
        )
    load_official_weights(network, path)
    return Member(path, metadata, facts, channels, network.to(device).eval(), run_of(path))


def run_of(weights: Path) -> RunRecord | None:
    """The record of the run that a weights file lies in; None for a file elsewhere."""
    folder = weights.parent.parent
    return read_run(folder) if (folder / "run.json").is_file() else None


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


def predict_channels(
    members: Sequence[Member],
    case: str,
    channels: Sequence[Volume],
    device: torch.device,
    *,
    probabilities: Path | None = None,
    between: Callable[[], None] = lambda: None,
) -> Any:
    """The label map (z, y, x) of a case on the first channel's stored grid.

    Args:
        members: One network, or several whose probabilities are averaged.
        case: Its id, for messages.
        channels: In the networks' order.
        device: Where the networks are.
        probabilities: Also stream the class scores to this `.b2nd`.
        between: Called after every window.
    """
    from segbench.engine.export import export_grid, to_stored_grid
    from segbench.engine.memory import want_of_memory_is_a_result
    from segbench.engine.precision import usable_precision
    from segbench.engine.predictor import predict_case
    from segbench.engine.probabilities import ProbabilityWriter
    from segbench.pipeline.predicting import label_values

    facts, outputs = members[0].facts, members[0].metadata.out_channels
    inference = dict(facts.get("inference") or {})
    regions = facts.get("region_labels")
    with want_of_memory_is_a_result(device), ExitStack() as stack:
        images, properties = _prepared(members, case, channels)
        shape, nearest = export_grid(properties)
        observe = None
        if probabilities is not None:
            names = facts.get("outputs", members[0].metadata.labels)
            writer = ProbabilityWriter(
                probabilities, outputs, images[0].shape[1:], by_sign=regions is not None,
                averaged=len(members) > 1, names=[str(name) for name in names], properties=properties,
            )  # fmt: skip
            observe = stack.enter_context(writer).push
        labels = predict_case(
            [member.network for member in members],
            images,
            patch=facts["patch"],
            num_outputs=outputs,
            shape=shape,
            nearest_axis=nearest,
            regions=None if regions is None else tuple(regions),
            overlap=inference.get("overlap", 0.5),
            mirror_axes=[axis for axis in ("z", "y", "x") if axis in inference.get("mirror_axes", ())],
            window_batch=inference.get("window_batch", 1),
            device=device,
            precision=usable_precision(facts.get("precision", "fp32"), device),
            importance=inference.get("importance", "gaussian"),
            sigma_scale=inference.get("sigma_scale", 0.125),
            observe=observe,
            between=between,
        )
    if regions is None:
        labels = label_values(labels, [int(v) for v in facts.get("label_values", range(outputs))])
    return to_stored_grid(labels, properties)


def _prepared(
    members: Sequence[Member], case: str, channels: Sequence[Volume]
) -> tuple[list[Image], dict[str, Any]]:
    """The network input of each member, prepared once per way of normalising, as the cache would give it."""
    from segbench.data.prepared.cache_write import as_read_back
    from segbench.data.prepared.case import prepare_case

    made: list[tuple[tuple[Any, Any], Image]] = []
    images: list[Image] = []
    properties: dict[str, Any] = {}
    for member in members:
        facts = member.facts
        way = (facts["normalisation"], facts.get("normalisation_statistics"))
        known = next((image for seen, image in made if seen == way), None)
        if known is None:
            spacing = facts.get("spacing_mm", "native")
            prepared = prepare_case(
                channels,
                spacing_mm="native" if spacing == "native" else tuple(spacing),
                normalisation=facts["normalisation"],
                normalisation_statistics=facts.get("normalisation_statistics"),
                orientation=facts.get("orientation", "canonical"),
            )
            stored_as = facts.get("cache_dtype", "float16")
            known, properties = as_read_back(prepared, case, dtype=stored_as), prepared.properties
            made.append((way, known))
        images.append(known)
    return images, properties
