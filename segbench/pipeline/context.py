"""What the stages of one cell share: the cell, where it runs, and what the stages before have left."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from segbench.cards import Protocol, load_model_card
from segbench.cards.fault_lines import fault_lines
from segbench.core import console
from segbench.core.environment import planned_threads
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import StopRequest
from segbench.data import open_dataset
from segbench.data.digest import content_digest
from segbench.data.splits import Split
from segbench.launch.command import JOB, LAUNCHER, NODE
from segbench.pipeline.cell import Cell
from segbench.pipeline.code import changed_code, code_of
from segbench.records import RunRecord

if TYPE_CHECKING:
    from segbench.data import Dataset


@dataclass(frozen=True, slots=True)
class Execution:
    """Where and how a cell runs: recorded, never hashed.

    Attributes:
        device: "cpu" or "cuda"; "auto" takes CUDA where there is one.
        workers: Data workers.
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


class Context:
    """One cell at work.

    Args:
        cell: What is to be run; its fields are the context's.
        dataset: The opened dataset.
        execution: Where it runs.
        stop: Asked between steps and cases.
        check_lease: Raises SB605 when the run is no longer ours.
    """

    def __init__(
        self,
        cell: Cell,
        dataset: Dataset,
        execution: Execution,
        stop: StopRequest,
        *,
        check_lease: Callable[[], None] = lambda: None,
    ) -> None:
        self.cell = cell
        self.dataset = dataset
        self.model, self.card, self.protocol = cell.model, cell.dataset, cell.protocol
        self.split, self.fold, self.seed = cell.split, cell.fold, cell.seed
        self.run_id, self.folder, self.code = cell.run_id, cell.folder, cell.code
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
                console.warn(text)
                self.log(text)

    def log(self, text: str) -> None:
        """Append a line to the run's log."""
        log_line(self.folder, text)


def context_of(
    record: RunRecord, folder: Path, where: Execution, stop: StopRequest, check: Callable[[], None]
) -> Context:
    """The cell as `run.json` describes it, refused when cards or data have changed since it was planned."""
    assert record.model and record.dataset and record.protocol and record.split  # plan_run wrote them
    model = load_model_card(str(record.model["slug"]))
    dataset = open_dataset(str(record.dataset["slug"]), data_dir=where.data_dir)
    try:
        protocol = Protocol.model_validate(record.protocol)
    except ValidationError as error:
        raise SegbenchError(
            "SB338",
            "the run was planned by another version of segbench: its protocol has other fields",
            path=folder,
            details=fault_lines(error),
            mend="plan it again with segbench run; the new run gets its own id",
        ) from error
    part = record.split
    split = Split(
        dataset=dataset.card.slug,
        name=part.name or "",
        train=part.train or (),
        validation=part.validation or (),
        test=part.test or (),
        acknowledged_leaks=part.acknowledged_leaks,
    )
    cell = Cell(
        model=model,
        dataset=dataset.card,
        dataset_digest=content_digest(dataset),
        protocol=protocol,
        split=split,
        fold=record.fold or 0,
        seed=record.seed or 0,
        run_id=record.run_id,
        folder=folder,
        code=code_of(model),
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
            mend="plan it again with segbench run; the new run gets its own id",
        )
    return Context(cell, dataset, where, stop, check_lease=check)


def execution_of(record: RunRecord) -> Execution:
    """Where and how a record says the cell runs; what a finished run noted besides is left out."""
    noted = record.execution or {}
    return Execution(**{name: noted[name] for name in Execution.__slots__ if name in noted})


def started_by(execution: Execution) -> Execution:
    """The execution with the launcher, job and node that the launcher gave this process, if one did."""
    if LAUNCHER not in os.environ:
        return execution
    return replace(
        execution,
        launcher=os.environ[LAUNCHER],
        job=os.environ.get(JOB, ""),
        node=os.environ.get(NODE, ""),
    )


def log_line(folder: Path, text: str) -> None:
    """Append a line with the time (UTC) to `log.txt` of a run; the log carries no result."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as stream:
        stream.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")
