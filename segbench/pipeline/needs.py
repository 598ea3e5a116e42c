"""What cells need, from finished cells like them; what was never measured is left to the launcher."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from segbench.core.environment import thread_count
from segbench.launch import Need
from segbench.pipeline.context import Execution
from segbench.pipeline.plan import PlannedCell
from segbench.records import read_run

MARGIN = 1.3
"""Time asked for beyond the forecast; a cell that runs out of it is queued again."""


MOST_THREADS = 4
"""Threads of one cell on a cluster when SEGBENCH_THREADS does not say; the submitting machine may be huge."""


def needs_of(cells: Sequence[PlannedCell], execution: Execution, *, gpus: int = 0) -> Callable[[Path], Need]:
    """A function from a run folder to what its cell needs.

    Args:
        cells: The whole plan; its finished cells are what was measured.
        execution: Where and how.
        gpus: GPUs of one cell.
    """
    peaks: dict[tuple[str, str], int] = {}
    for planned in cells:
        if planned.state == "done":
            record = read_run(planned.cell.folder)
            on_cuda = str((record.execution or {}).get("device", "")).startswith("cuda")
            if on_cuda and record.peak_memory_bytes:
                kind = _kind(planned)
                peaks[kind] = max(peaks.get(kind, 0), record.peak_memory_bytes)
    hours = {p.cell.folder: None if p.forecast_s is None else MARGIN * p.forecast_s / 3600 for p in cells}
    kinds = {p.cell.folder: _kind(p) for p in cells}
    named = "SEGBENCH_THREADS" in os.environ
    threads = thread_count() if named else min(thread_count(), MOST_THREADS)

    def need(folder: Path) -> Need:
        return Need(
            gpus=gpus,
            cores=threads + execution.workers,
            threads=threads,
            device_bytes=peaks.get(kinds[folder]) if gpus else None,
            hours=None if hours[folder] is None else round(hours[folder] or 0.0, 1),
        )

    return need


def _kind(planned: PlannedCell) -> tuple[str, str]:
    return planned.cell.model.slug, planned.cell.dataset.slug
