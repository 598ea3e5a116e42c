"""`segbench status`: the state of every planned cell, read from the run folders alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from segbench.cli.common import settings, show
from segbench.cli.options import option
from segbench.core import console
from segbench.core.environment import results_dir
from segbench.core.text import count

if TYPE_CHECKING:
    from segbench.runs.status import StatusReport


def status(watch: Annotated[bool, option("--watch", "Print again every ten seconds.")] = False) -> int:
    """Show planned, resumable, running, done, failed and blocked cells.

    Example: segbench status --results results/runs
    """
    from segbench.runs.status import read_status

    while True:
        report = read_status(results_dir(settings().results))
        show(report.as_dict(), _lines(report))
        if not watch:
            return 0
        time.sleep(10)


def _lines(report: StatusReport) -> Iterator[str]:
    rows = [
        [
            cell.run_id,
            cell.state,
            cell.progress,
            "" if cell.eta_s is None else console.duration(cell.eta_s),
            cell.host or "",
            cell.failure or "",
        ]
        for cell in report.cells
    ]
    yield from console.table_lines(["run", "state", "step", "left", "host", "failure"], rows)
    yield f"{count(len(report.cells), 'cell')}: {_totals(report) or 'none'}"


def _totals(report: StatusReport) -> str:
    """`3 done, 2 failed (1 bug, 1 oom)`."""
    classes = Counter(cell.failure for cell in report.cells if cell.state == "failed")
    why = ", ".join(f"{count} {name}" for name, count in sorted(classes.items(), key=str))
    return ", ".join(
        f"{count} {state}" + (f" ({why})" if state == "failed" else "")
        for state, count in sorted(report.totals.items())
    )
