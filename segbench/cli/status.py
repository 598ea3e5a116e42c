"""`segbench status`: the state of every planned cell, read from the run folders alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings
from segbench.core import console
from segbench.core.environment import results_dir


def status(
    results: Annotated[Path | None, typer.Option(help="Folder of runs.", envvar="SEGBENCH_RESULTS")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Print again every ten seconds.")] = False,
) -> int:
    """Show planned, resumable, running, done, failed and blocked cells."""
    from segbench.pipeline.status import read_status

    folder = results_dir(results)
    while True:
        report = read_status(folder)
        if settings().json:
            console.emit_json(report.as_dict())
        else:
            rows = [
                [cell.run_id, cell.state, cell.progress, cell.host or "", cell.failure or ""]
                for cell in report.cells
            ]
            console.emit_table(["run", "state", "step", "host", "failure"], rows)
            totals = ", ".join(f"{count} {state}" for state, count in sorted(report.totals.items()))
            console.emit(f"{len(report.cells)} cells: {totals or 'none'}")
        if not watch:
            return 0
        time.sleep(10)
