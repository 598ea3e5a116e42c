"""A cell at work: what its stages share, what it warns of, and how it is taken up again from its record."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segbench.cards import Protocol, load_model_card
from segbench.cards.fault_lines import fault_lines
from segbench.core import console
from segbench.core.environment import now
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import StopRequest
from segbench.core.text import one_line
from segbench.data import open_dataset
from segbench.data.digest import content_digest
from segbench.data.finding import finding
from segbench.data.splits import Split
from segbench.data.verify.report import grouped
from segbench.records import RunRecord
from segbench.runs.cell import Cell, Execution
from segbench.runs.code import changed_code, code_of
from segbench.runs.start import START_WEIGHTS

TOLD = "SEGBENCH_TOLD"
"""Names the file in which the cells of one command note what they have warned of."""


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
