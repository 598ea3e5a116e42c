"""What cells need, from finished cells like them; what was never measured is left to the launcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from segbench.launch import Need
from segbench.pipeline.cell import PlannedCell
from segbench.pipeline.context import Execution, execution_of
from segbench.records import read_run

MARGIN = 1.3
"""Time asked for beyond the forecast; a cell that runs out of it is queued again."""


def needs_of(cells: Sequence[PlannedCell], execution: Execution, *, gpus: int = 0) -> Callable[[Path], Need]:
    """A function from a run folder to what its cell needs.

    Args:
        cells: The whole plan; its finished cells are what was measured.
        execution: Where and how.
        gpus: GPUs of one cell.
    """
    hours = {p.cell.folder: None if p.forecast_s is None else MARGIN * p.forecast_s / 3600 for p in cells}

    def need(folder: Path) -> Need:
        threads = execution_of(read_run(folder)).threads
        return Need(
            gpus=gpus,
            cores=threads + execution.workers,
            threads=threads,
            hours=None if hours[folder] is None else round(hours[folder] or 0.0, 1),
        )

    return need
