"""`segbench status`: the state of every planned cell, read from the run folders alone."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segbench.cli.common import settings
from segbench.core import console
from segbench.core.environment import results_dir

if TYPE_CHECKING:
    from segbench.runs.status import StatusReport


def status(
    results: Annotated[Path | None, typer.Option(help="Folder of runs.", envvar="SEGBENCH_RESULTS")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Print again every ten seconds.")] = False,
) -> int:
    """Show planned, resumable, running, done, failed and blocked cells."""
    from segbench.runs.status import read_status

    folder = results_dir(results)
    while True:
        report = read_status(folder)
        if settings().json:
            console.emit_json(report.as_dict())
        else:
            rows = [
                [
                    cell.run_id,
                    cell.state,
                    cell.progress,
                    _left(cell.eta_s),
                    cell.host or "",
                    cell.failure or "",
                ]
                for cell in report.cells
            ]
            console.emit_table(["run", "state", "step", "left", "host", "failure"], rows)
            console.emit(f"{len(report.cells)} cells: {_totals(report) or 'none'}")
        if not watch:
            return 0
        time.sleep(10)


def _left(seconds: float | None) -> str:
    return "" if seconds is None else console.duration(seconds)


def _totals(report: StatusReport) -> str:
    """`3 done, 2 failed (1 bug, 1 oom)`."""
    classes = Counter(cell.failure for cell in report.cells if cell.state == "failed")
    why = ", ".join(f"{count} {name}" for name, count in sorted(classes.items(), key=str))
    return ", ".join(
        f"{count} {state}" + (f" ({why})" if state == "failed" else "")
        for state, count in sorted(report.totals.items())
    )
