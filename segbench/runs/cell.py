"""One cell: a model, a dataset, a protocol as it applies to both, a fold and a seed; planned, and at work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from segbench.cards import DatasetCard, ModelCard, Protocol, load_model_card
from segbench.cards.fault_lines import fault_lines
from segbench.core import console
from segbench.core.environment import now, planned_threads
from segbench.core.errors import SegbenchError
from segbench.core.hashing import digest_json
from segbench.core.interrupt import StopRequest
from segbench.core.text import one_line
from segbench.data import open_dataset
from segbench.data.digest import content_digest
from segbench.data.finding import finding
from segbench.data.splits import Split
from segbench.data.verify.report import grouped
from segbench.launch.command import JOB, LAUNCHER, NODE
from segbench.metrics.profiles import load_profile
from segbench.records import RunRecord
from segbench.records.identity import run_id
from segbench.records.schema import SCHEMA_VERSION, CodeRecord, StartRecord
from segbench.runs.code import changed_code, code_of
from segbench.runs.fit import Classes, classes_of
from segbench.runs.start import START_WEIGHTS

if TYPE_CHECKING:
    from segbench.data import Dataset

TOLD = "SEGBENCH_TOLD"
"""Names the file in which the cells of one command note what they have warned of."""
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


class ActiveCell(Cell):
    """A cell at work: what its stages share, and what the stages before have left.

    Args:
        cell: What is to be run.
        execution: Where it runs.
        stop: Asked between steps and cases.
        check_lease: Raises SB605 when the run is no longer ours.
    """

    def __init__(
        self,
        cell: Cell,
        execution: Execution,
        stop: StopRequest,
        *,
        check_lease: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(**{each.name: getattr(cell, each.name) for each in fields(cell)})
        self.execution = execution
        self.stop = stop
        self.check_lease = check_lease
        self.code_loaded = False
        """The network's code was imported in this process: edits of its files no longer reach it."""
        self.artefacts: dict[str, str] = {}
        """Digest of what each finished stage produced."""
        self.facts: dict[str, dict[str, Any]] = {}
        """Small values each finished stage left for the record."""
        self.inputs_digest: str | None = None
        """Digest of what the stage at work computes from."""
        self.seconds: dict[str, float] = {}
        """Seconds each stage took when it ran."""
        self.warnings: list[str] = []
        """What the user was warned of."""
        self.quiet = False
        """Warnings stay here: another process says the same."""
        self.give_up: Callable[[SegbenchError], object] | None = None
        """Ends a process that hangs, from another thread, with a record that says why."""

    def warn(self, text: str) -> None:
        """Warn the user, and remember it for the record and the log."""
        if text not in self.warnings:
            self.warnings.append(text)
            if not self.quiet:
                if not told_before(text):
                    console.warn(text)
                self.log(text)

    def warn_of_cases(self, faults: Iterable[tuple[str, str, str]], outcome: str) -> None:
        """Warn of (code, case, message), once for each code, with three cases and a count of the others."""
        for line in grouped(finding(code, "error", text, case=case) for code, case, text in faults):
            self.warn(f"{line}; {outcome}")

    def log(self, text: str) -> None:
        """Append a line to the run's log."""
        log_line(self.folder, text)


def active_cell(
    record: RunRecord, folder: Path, where: Execution, stop: StopRequest, check: Callable[[], None]
) -> ActiveCell:
    """The cell as `run.json` describes it, refused when cards or data have changed since it was planned.

    Raises:
        SegbenchError: SB338.
    """
    assert record.model and record.dataset and record.protocol and record.split  # plan_run wrote them
    again = "plan it again with segbench run; the new run gets its own id"
    model = load_model_card(str(record.model["slug"]))
    data = open_dataset(str(record.dataset["slug"]), data_dir=where.data_dir)
    try:
        protocol = Protocol.model_validate(record.protocol)
    except ValidationError as error:
        raise SegbenchError(
            "SB338",
            "the run was planned by another version of segbench: its protocol has other fields",
            path=folder,
            details=fault_lines(error),
            mend=again,
        ) from error
    part = record.split
    cell = Cell(
        model=model,
        dataset=data.card,
        data=data,
        dataset_digest=content_digest(data),
        protocol=protocol,
        split=Split(
            dataset=data.card.slug,
            name=part.name or "",
            train=part.train or (),
            validation=part.validation or (),
            test=part.test or (),
            acknowledged_leaks=part.acknowledged_leaks,
        ),
        fold=record.fold or 0,
        seed=record.seed or 0,
        run_id=record.run_id,
        folder=folder,
        code=code_of(model),
        init=record.init,
        init_file=None if record.init is None else folder / START_WEIGHTS,
    )
    expected = cell.id_with(None if cell.code is None else cell.code.digest)
    if expected != record.run_id and record.code is not None and cell.code != record.code:
        raise changed_code(record.code, cell.code, folder)
    if expected != record.run_id:
        raise SegbenchError(
            "SB338",
            "the data, the cards or segbench's definitions have changed since this run was planned",
            path=folder,
            expected=record.run_id,
            found=expected,
            mend=again,
        )
    return ActiveCell(cell, where, stop, check_lease=check)


def told_before(text: str) -> bool:
    """Whether a cell of the same command has said it already; where `TOLD` names no file, never."""
    try:
        told = Path(os.environ.get(TOLD, ""))
        if one_line(text) in told.read_text(encoding="utf-8").splitlines():
            return True
        with told.open("a", encoding="utf-8") as stream:
            stream.write(one_line(text) + "\n")
    except OSError:  # no such file: the command is gone, or on another machine
        pass
    return False


def log_line(folder: Path, text: str) -> None:
    """Append a line with the time (UTC) to `log.txt` of a run; the log carries no result."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as stream:
        stream.write(f"{now()} {text}\n")


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
