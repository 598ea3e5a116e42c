"""`segbench status`: the state of every planned cell, read from the run folders alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from segbench.cli.common import settings, show
from segbench.cli.options import option
from segbench.core import console
from segbench.core.environment import results_dir
from segbench.core.text import count

if TYPE_CHECKING:
    from segbench.runs.status import CellStatus


def status(watch: Annotated[bool, option("--watch", "Print again every ten seconds.")] = False) -> int:
    """Show planned, resumable, running, done, failed and blocked cells.

    Example: segbench status --results results/runs
    """
    from segbench.runs.status import read_status

    while True:
        cells = read_status(results_dir(settings().results))
        totals = Counter(cell.state for cell in cells)
        show({"cells": [asdict(cell) for cell in cells], "totals": totals}, _lines(cells, totals))
        if not watch:
            return 0
        time.sleep(10)


def _lines(cells: Sequence[CellStatus], totals: Counter[str]) -> Iterator[str]:
    rows = [
        [
            cell.run_id,
            cell.state,
            cell.progress,
            "" if cell.eta_s is None else console.duration(cell.eta_s),
            cell.host or "",
            cell.failure or "",
        ]
        for cell in cells
    ]
    yield from console.table_lines(["run", "state", "step", "left", "host", "failure"], rows)
    # Such as `3 done, 2 failed (1 bug, 1 oom)`.
    classes = Counter(cell.failure for cell in cells if cell.state == "failed")
    why = ", ".join(f"{many} {name}" for name, many in sorted(classes.items(), key=str))
    told = [f"{many} {state}" + f" ({why})" * (state == "failed") for state, many in sorted(totals.items())]
    yield f"{count(len(cells), 'cell')}: {', '.join(told) or 'none'}"
