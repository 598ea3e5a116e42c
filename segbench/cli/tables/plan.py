"""The plan of `segbench run` on paper: its table, its JSON, what it will cost, what a budget pays for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from segbench.cli.common import settings, show
from segbench.core import console
from segbench.core.catalogue import ExitCode
from segbench.core.errors import SegbenchError
from segbench.core.text import bytes_words, count
from segbench.runs.cell import Execution, Plan, PlannedCell
from segbench.runs.drive import write_plan
from segbench.runs.forecast import disk_needed, fitting


def print_plan(
    plan: Plan, execution: Execution, *, dry_run: bool, print_jobs: bool, hours: float | None
) -> int:
    """Print the plan; unless it is a dry run, also write the planned runs."""
    fits = None if hours is None else fitting(plan.cells, hours, gpus=execution.gpus_per_cell)
    if not dry_run:
        write_plan(plan, execution)
    if print_jobs and not settings().json:
        for planned in plan.runnable:
            console.emit(f"segbench cell {shlex.quote(str(planned.cell.folder))}")
    else:
        lines = _lines(plan, execution, fits, hours, dry_run=dry_run) if plan.cells else ()
        show(plan_document(plan, fits), lines)
    if not plan.absent:
        return ExitCode.DONE
    return ExitCode.PARTIAL if plan.cells or len(plan.absent) > 1 else ExitCode.DATA


def _lines(
    plan: Plan,
    execution: Execution,
    fits: Sequence[bool | None] | None,
    hours: float | None,
    *,
    dry_run: bool,
) -> Iterator[str]:
    end = "nothing is written (dry run)" if dry_run else "written; start cells with segbench cell"
    names = ", ".join(sorted({p.cell.protocol.name for p in plan.cells}))
    yield f"Plan: {count(len(plan.cells), 'cell')}, protocol {names}            {end}"
    rows = [
        [
            p.cell.model.slug,
            p.cell.dataset.slug,
            str(p.cell.fold),
            str(p.cell.seed),
            _state(p),
            _forecast(p),
            "-" if p.memory_bytes is None else f"{p.memory_bytes / 1e9:.1f} GB",
            *([] if fits is None else [_FITS[fits[i]]]),
            "; ".join(filter(None, ("" if _step(p) else p.note, _pace(p)))),
        ]
        for i, p in enumerate(plan.cells)
    ]
    budget = [] if hours is None else [f"in {hours:g} h"]
    header = ["model", "dataset", "fold", "seed", "state", "forecast", "memory", *budget, "note"]
    yield from console.table_lines(header, rows, right=(2, 3, 5, 6))
    if dry_run:
        yield _totals(plan, execution)


def within_budget(plan: Plan, execution: Execution, hours: float) -> Plan:
    """The plan without the cells that the budget does not pay for.

    Raises:
        SegbenchError: SB104 when a cell's cost was never measured: a guess could spend the budget many times.
    """
    fits = fitting(plan.cells, hours, gpus=execution.gpus_per_cell)
    unknown = [p for p, fit in zip(plan.cells, fits, strict=True) if fit is None]
    if unknown:
        first = unknown[0].cell
        raise SegbenchError(
            "SB104",
            f"--budget-hours: nothing is known of the cost of {len(unknown)} cells, "
            f"such as {first.model.slug} on {first.dataset.slug}",
            mend="add --probe",
        )
    left = [p for p, fit in zip(plan.cells, fits, strict=True) if not fit]
    for planned in left:
        console.note(f"not started, beyond {hours:g} h: {planned.cell.run_id} ({_forecast(planned)})")
    return replace(plan, cells=tuple(p for p, fit in zip(plan.cells, fits, strict=True) if fit))


def _state(planned: PlannedCell) -> str:
    """`resumable 612/1000` where a checkpoint says how far the training has come."""
    protocol = planned.cell.protocol
    steps = -(-protocol.budget.samples // protocol.sampling.batch_size)
    step = _step(planned)
    return f"{planned.state} {step}/{steps}" if step else planned.state


def _step(planned: PlannedCell) -> str:
    return planned.note.removeprefix("step ") if planned.note.startswith("step ") else ""


def _forecast(planned: PlannedCell) -> str:
    """Time to come: measured on finished cells like it, `?` when nothing was measured, `-` when done."""
    if planned.state in {"done", "blocked"}:
        return "-"
    return "?" if planned.forecast_s is None else console.duration(planned.forecast_s)


_FITS = {True: "yes", False: "NO", None: "?"}


def _pace(planned: PlannedCell) -> str:
    """Seconds per step and where they were measured, for cells still to run."""
    if planned.state in {"done", "blocked"} or not planned.forecast_from:
        return ""
    pace = "" if planned.step_s is None else f"{planned.step_s:.3g} s/step, "
    return f"{pace}{planned.forecast_from}"


def _totals(plan: Plan, execution: Execution) -> str:
    """Hours and disk of everything that is still to run."""
    open_cells = [p for p in plan.cells if p.state not in {"done", "blocked"}]
    known = [p.forecast_s for p in open_cells if p.forecast_s is not None]
    unknown = len(open_cells) - len(known)
    hours = sum(known) * max(1, execution.gpus_per_cell) / 3600
    more = f" and {count(unknown, 'cell')} never measured (--probe)" if unknown else ""
    told = "?" if unknown == len(open_cells) > 0 else f"{hours:.2f}"
    return f"total: {told} device hours{more}; {bytes_words(disk_needed(plan))} of prepared data to write"


def plan_document(plan: Plan, fits: Sequence[bool | None] | None = None) -> dict[str, Any]:
    """The plan as `--dry-run --json` prints it; `fits`: which cells a budget pays for."""
    cells = [
        {
            "run_id": p.cell.run_id,
            "model": p.cell.model.slug,
            "dataset": p.cell.dataset.slug,
            "protocol": p.cell.protocol.name,
            "fold": p.cell.fold,
            "seed": p.cell.seed,
            "state": p.state,
            "forecast_seconds": None if p.forecast_s is None else round(p.forecast_s, 1),
            "forecast_from": p.forecast_from or None,
            "step_seconds": p.step_s,
            "memory_bytes": p.memory_bytes,
            "note": p.note,
            **({} if fits is None else {"within_budget": fits[i]}),
        }
        for i, p in enumerate(plan.cells)
    ]
    states = [p.state for p in plan.cells]
    return {
        "cells": cells,
        "totals": {state: states.count(state) for state in sorted(set(states))},
        "absent": [error.as_dict() for error in plan.absent],
    }
