"""The state of every cell in a results folder: one small file per run, no data, no cards, no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.pipeline.plan_file import read_plan
from segbench.records.lease import lease_holder
from segbench.records.store import RUN_FILE


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
    holder = None
    if status == "running":
        holder = lease_holder(folder)
        state = "running" if holder is not None else "resumable"
    else:
        state = {"complete": "done", "interrupted": "resumable"}.get(status, status)
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


def _steps(folder: Path, record: dict[str, Any]) -> tuple[int | None, int | None]:
    protocol = record.get("protocol") or {}
    try:
        samples, batch = protocol["budget"]["samples"], protocol["sampling"]["batch_size"]
    except (KeyError, TypeError):
        return None, None
    names = sorted(entry.name for entry in (folder / "checkpoints").glob("step-*"))
    return (int(names[-1].removeprefix("step-")) if names else 0), -(-samples // batch)


def _time_left(folder: Path, step: int | None, steps: int | None) -> float | None:
    """Seconds left from the pace of the last row of `epochs.jsonl`; None when nothing was measured."""
    try:
        last = (folder / "epochs.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        row = parse_json(last)
        pace = float(row["seconds"]) / float(row["step"])
    except (OSError, ValueError, KeyError, IndexError, ZeroDivisionError, TypeError):
        return None
    return None if step is None or steps is None else round(max(0, steps - step) * pace, 1)
