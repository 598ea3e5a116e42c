"""One cell: a model, a dataset, a protocol as it applies to both, a fold and a seed, as it is planned."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segbench.cards import DatasetCard, ModelCard, Protocol
from segbench.core.environment import planned_threads
from segbench.core.errors import SegbenchError
from segbench.core.hashing import digest_json
from segbench.data.splits import Split
from segbench.launch.command import JOB, LAUNCHER, NODE
from segbench.metrics.profiles import load_profile
from segbench.records import RunRecord
from segbench.records.identity import run_id
from segbench.records.schema import SCHEMA_VERSION, CodeRecord, StartRecord
from segbench.runs.fit import Classes, classes_of

if TYPE_CHECKING:
    from segbench.data import Dataset

CellState = Literal["planned", "resumable", "running", "done", "failed", "blocked"]


@dataclass(frozen=True, slots=True)
class Execution:
    """Where and how a cell runs: recorded, never hashed.

    Attributes:
        device: "cpu" or "cuda"; "auto" takes CUDA where there is one.
        workers: Processes that load data.
        data_dir: Folder of datasets, None for the usual place.
        checkpoint_minutes: Time between checkpoints; 0: after every step.
        save_probabilities: Also keep class probabilities.
        check_outputs: Hash the outputs of finished stages again.
        gpus_per_cell: Processes that train one network together, one per GPU; on a CPU just processes.
        step_timeout: Seconds after which a training step counts as hung; None: 30 median steps, at least
            ten minutes.
        threads: Threads for compute, fixed when the cell is planned, because sums over another number round
            otherwise. Several processes that train together share them.
        launcher, job, node: Who started it.
    """

    device: str = "auto"
    workers: int = 0
    data_dir: str | None = None
    checkpoint_minutes: float = 10.0
    save_probabilities: bool = False
    check_outputs: bool = False
    gpus_per_cell: int = 1
    step_timeout: float | None = None
    threads: int = field(default_factory=planned_threads)
    launcher: str = "local"
    job: str = ""
    node: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, record: RunRecord) -> Execution:
        """Where and how a record says the cell runs; what a finished run noted besides is left out."""
        noted = record.execution or {}
        return cls(**{name: noted[name] for name in cls.__slots__ if name in noted})

    def started(self) -> Execution:
        """The execution with the launcher, job and node that the launcher gave this process, if one did."""
        if LAUNCHER not in os.environ:
            return self
        job, node = os.environ.get(JOB, ""), os.environ.get(NODE, "")
        return replace(self, launcher=os.environ[LAUNCHER], job=job, node=node)


def card_settings(card: DatasetCard) -> dict[str, Any]:
    """The fields of a dataset card that change numbers; they enter the run id beside the content digest."""
    content = card.model_dump(
        mode="json", include={"channels", "labels", "regions", "geometry", "evaluation"}
    )
    content["geometry"].pop("expected_shape_zyx", None)
    for name in ("mean_regions", "margin", "margin_source", "readers"):  # decide no score, only what is said
        content["evaluation"].pop(name)
    return content


def network_arguments(model: ModelCard, card: DatasetCard, protocol: Protocol) -> dict[str, Any]:
    """What `build_network` is called with; empty for a baseline."""
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


@dataclass(eq=False)
class Cell:
    """One planned cell, and what follows from it.

    Attributes:
        model: The model's card.
        dataset: The dataset's card.
        data: The opened dataset.
        dataset_digest: Digest of the dataset's content.
        protocol: Resolved by `protocol_for`.
        split: The fold's lists of case ids, with leak counts.
        fold: Fold index.
        seed: Training seed.
        run_id: Identity; the same id means the same experiment.
        folder: The run folder.
        code: The code of a network that is not segbench's own, else None.
        init: The weights that training starts from; None for those that the seed gives.
        init_file: Where they lie.
    """

    model: ModelCard
    dataset: DatasetCard
    data: Dataset
    dataset_digest: str
    protocol: Protocol
    split: Split
    fold: int
    seed: int
    run_id: str
    folder: Path
    code: CodeRecord | None = None
    init: StartRecord | None = None
    init_file: Path | None = None

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
        """What `build_network` is called with beside the slug; empty for a baseline."""
        return network_arguments(self.model, self.dataset, self.protocol)

    @property
    def cases(self) -> list[str]:
        """Every case of the split, sorted."""
        return sorted({*self.split.train, *self.split.validation, *self.split.test})

    @property
    def steps(self) -> int:
        """Training steps of the whole budget."""
        return -(-self.protocol.budget.samples // self.protocol.sampling.batch_size)

    @property
    def trains(self) -> bool:
        """Whether there is a network to train: baselines are fitted when they predict."""
        return self.model.kind == "network"

    def id_with(self, code_digest: str | None) -> str:
        """The run id that the cell would have if its network's code were another."""
        content = identify(
            self.model,
            self.dataset,
            self.protocol,
            dataset_digest=self.dataset_digest,
            split_digest=self.split.digest,
            code_digest=code_digest,
            init=self.init,
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
        record: Its `run.json` as planning found it; None when there was none.
        forecast_s: Seconds it will take; None when nothing was measured.
        step_s: Seconds of a training step.
        memory_bytes: Peak memory of training.
        forecast_from: What was measured.
    """

    cell: Cell
    state: CellState
    note: str = ""
    problem: SegbenchError | None = None
    record: RunRecord | None = None
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
    init: StartRecord | None = None,
) -> dict[str, Any]:
    """Everything that changes numbers, as hashed into the run id (fold and seed stand in the id itself).

    Args:
        model: The model's card.
        card: The dataset's card.
        protocol: Resolved by `protocol_for`.
        dataset_digest: Digest of the dataset's content.
        split_digest: Digest of the fold's lists.
        code_digest: Digest of the code of a network that is not segbench's own, else None.
        init: The weights that training starts from, where not those of the seed.
    """
    network: dict[str, Any] = {
        "implementation": model.implementation,
        "card_arguments": model.model_dump(mode="json", include={"arguments"})["arguments"],
        "arguments": network_arguments(model, card, protocol),
    }
    network |= {} if code_digest is None else {"code": code_digest}
    network |= {} if init is None else {"init": init.sha256}
    return {
        "schema_version": SCHEMA_VERSION,
        "model": network,
        "protocol": protocol.digest(),
        "metric_profile": load_profile(protocol.metrics.profile).digest(),
        "dataset": dataset_digest,
        "dataset_settings": digest_json(card_settings(card)),
        "split": split_digest,
    }
