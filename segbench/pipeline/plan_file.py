"""`plan.jsonl` in the results folder: one line per planned cell, so that any launcher or person can go on.

A cell that can run has its own folder besides; the line of a blocked one is all there is of it, and lets
`segbench status` name it. The last line of a cell counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core.atomic import append_line, read_lines, sync_lines

if TYPE_CHECKING:
    from segbench.pipeline.cell import PlannedCell

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
