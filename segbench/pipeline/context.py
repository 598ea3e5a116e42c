"""What the stages of one cell share: the cell, where it runs, and what the stages before have left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.cards import DatasetCard, ModelCard, Protocol
from segbench.core import console
from segbench.core.environment import planned_threads
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import StopRequest
from segbench.data.splits import Split
from segbench.pipeline.cell import Classes, classes_of
from segbench.records.schema import CodeRecord

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
        model: The model's card.
        dataset: The opened dataset.
        protocol: Resolved for the cell.
        split: The cell's cases.
        fold: Fold index.
        seed: Training seed.
        run_id: Identity.
        folder: The run folder.
        execution: Where it runs.
        stop: Asked between steps and cases.
        check_lease: Raises SB605 when the run is no longer ours.
        code: The code of a network that is not segbench's own, as it was when the run was planned.
    """

    def __init__(
        self,
        *,
        model: ModelCard,
        dataset: Dataset,
        protocol: Protocol,
        split: Split,
        fold: int,
        seed: int,
        run_id: str,
        folder: Path,
        execution: Execution,
        stop: StopRequest,
        check_lease: Callable[[], None] = lambda: None,
        code: CodeRecord | None = None,
    ) -> None:
        self.model = model
        self.dataset = dataset
        self.protocol = protocol
        self.split = split
        self.fold = fold
        self.seed = seed
        self.run_id = run_id
        self.folder = folder
        self.execution = execution
        self.stop = stop
        self.check_lease = check_lease
        self.code = code
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

    @property
    def card(self) -> DatasetCard:
        """The dataset's card."""
        return self.dataset.card

    @cached_property
    def classes(self) -> Classes:
        """Label values, class indices and output channels."""
        return classes_of(self.card, self.protocol.loss.output)

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


def log_line(folder: Path, text: str) -> None:
    """Append a line with the time (UTC) to `log.txt` of a run; the log carries no result."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as stream:
        stream.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")
