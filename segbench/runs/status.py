"""The state of every cell in a results folder: one small file per run, no data, no cards, no torch.

`plan.jsonl` there has one line per planned cell, so that any launcher or person can go on. A cell that can
run has its own folder besides; the line of a blocked one is all there is of it, and lets `segbench status`
name it. The last line of a cell counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core.atomic import append_line, read_lines, sync_lines
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.records.lease import Holder, lease_holder
from segbench.records.progress import last_step
from segbench.records.store import CASES_FILE, RUN_FILE

if TYPE_CHECKING:
    from segbench.runs.cell import CellState, PlannedCell


@dataclass(frozen=True, slots=True)
class CellStatus:
    """One cell as its folder tells it."""

    run_id: str
    state: str
    failure: str | None
    step: int | None
    steps: int | None
    eta_s: float | None
    host: str | None

    @property
    def progress(self) -> str:
        """`612/1000`, or nothing."""
        return "" if self.step is None else f"{self.step}/{self.steps if self.steps is not None else '?'}"


@dataclass(frozen=True, slots=True)
class StatusReport:
    """All cells of a results folder."""

    cells: tuple[CellStatus, ...]

    @property
    def totals(self) -> dict[str, int]:
        """Cells per state."""
        return dict(Counter(cell.state for cell in self.cells))

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "schema_version": 1,
            "cells": [{name: getattr(cell, name) for name in cell.__slots__} for cell in self.cells],
            "totals": self.totals,
        }


def read_status(results: Path) -> StatusReport:
    """The state of every cell under a results folder.

    Raises:
        SegbenchError: SB701 when the folder does not exist.
    """
    if not results.is_dir():
        raise SegbenchError(
            "SB701",
            "there is no folder of runs here",
            path=results,
            mend="name it with --results, or begin with segbench run",
        )
    cells = [_cell(path.parent) for path in sorted(results.glob(f"*/{RUN_FILE}"))]
    here = {cell.run_id for cell in cells}
    cells += [
        CellStatus(run_id, str(line["state"]), str(line.get("note") or "") or None, None, None, None, None)
        for run_id, line in sorted(read_plan(results).items())
        if run_id not in here
    ]
    return StatusReport(tuple(cells))


def _cell(folder: Path) -> CellStatus:
    try:
        record = parse_json((folder / RUN_FILE).read_text(encoding="utf-8"))
        status = str(record["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return CellStatus(folder.name, "failed", "run.json is unreadable", None, None, None, None)
    failure = record.get("failure") or {}
    state, holder = state_of(folder, status)
    step, steps = (None, None) if status == "complete" else _steps(folder, record)
    return CellStatus(
        run_id=str(record.get("run_id", folder.name)),
        state=state,
        failure=str(failure.get("class")) if failure else None,
        step=step,
        steps=steps,
        eta_s=_time_left(folder, step, steps) if state == "running" else None,
        host=None if holder is None else f"{holder.host}:{holder.pid}",
    )


def state_of(folder: Path, status: str) -> tuple[CellState, Holder | None]:
    """The state of a run folder and, while it is at work, who holds it.

    Args:
        folder: The run folder.
        status: What its `run.json` says.
    """
    if status == "complete":
        return "done" if (folder / CASES_FILE).is_file() else "resumable", None
    if status == "failed":
        return "failed", None
    holder = lease_holder(folder)
    if holder is not None:
        return "running", holder
    return "planned" if status == "planned" else "resumable", None


def _steps(folder: Path, record: dict[str, Any]) -> tuple[int | None, int | None]:
    protocol = record.get("protocol") or {}
    try:
        samples, batch = protocol["budget"]["samples"], protocol["sampling"]["batch_size"]
    except (KeyError, TypeError):
        return None, None
    return last_step(folder), -(-samples // batch)


def _time_left(folder: Path, step: int | None, steps: int | None) -> float | None:
    """Seconds left from the pace of the last row of `epochs.jsonl`; None when nothing was measured."""
    try:
        last = (folder / "epochs.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        row = parse_json(last)
        pace = float(row["seconds"]) / float(row["step"])
    except (OSError, ValueError, KeyError, IndexError, ZeroDivisionError, TypeError):
        return None
    return None if step is None or steps is None else round(max(0, steps - step) * pace, 1)


PLAN_FILE = "plan.jsonl"


def append_plan(results: Path, cells: Sequence[PlannedCell]) -> None:
    """Add the cells whose line is not there yet, or has another state."""
    known = read_plan(results, repair=True)
    for planned in cells:
        state = "blocked" if planned.state == "blocked" else "planned"
        before = known.get(planned.cell.run_id)
        if before is None or before["state"] != state:
            append_line(results / PLAN_FILE, {**_line(planned), "state": state})
    sync_lines(results / PLAN_FILE)


def read_plan(results: Path, *, repair: bool = False) -> dict[str, dict[str, Any]]:
    """The planned cells by run id, as their last lines say; `repair` cuts a torn last line off the file."""
    lines = read_lines(results / PLAN_FILE, repair=repair)
    return {str(line["run_id"]): line for line in lines if "run_id" in line and "state" in line}


def _line(planned: PlannedCell) -> dict[str, object]:
    cell = planned.cell
    return {
        "schema_version": 1,
        "run_id": cell.run_id,
        "model": cell.model.slug,
        "dataset": cell.dataset.slug,
        "protocol": cell.protocol.name,
        "fold": cell.fold,
        "seed": cell.seed,
        "forecast_seconds": None if planned.forecast_s is None else round(planned.forecast_s, 1),
        "note": planned.note,
    }
