"""Running a plan: every cell once, one failure stays alone, the summary names it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segbench.core import console
from segbench.core.catalogue import ExitCode
from segbench.core.environment import named_threads
from segbench.core.errors import SegbenchError
from segbench.data import open_dataset
from segbench.launch import LauncherChoice
from segbench.launch.drive import Ending
from segbench.metrics.profiles import load_profile
from segbench.metrics.summary import summarise
from segbench.pipeline.cell import Plan, PlannedCell
from segbench.pipeline.context import Execution, execution_of
from segbench.pipeline.driving import drive_cells
from segbench.pipeline.plan import cell_state
from segbench.pipeline.plan_file import append_plan
from segbench.pipeline.runner import plan_run, run_cell
from segbench.records import RunRecord, read_cases, read_run, write_run
from segbench.records.lease import Lease, lease_holder


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the matrix ended: each cell with its final record, and the exit status of the command."""

    cells: tuple[tuple[PlannedCell, RunRecord | None], ...]
    exit_code: int


def run_plan(
    plan: Plan,
    execution: Execution,
    *,
    launcher: LauncherChoice | None = None,
    gpus: int = 0,
    in_process: bool = False,
    fresh: str | None = None,
    check_outputs: bool = False,
) -> Outcome:
    """Run every cell that has something left to do.

    Args:
        plan: From `make_plan`.
        execution: Where and how.
        launcher: What starts the cells; None: this machine, one cell at a time.
        gpus: GPUs that one cell wants.
        in_process: Run in this process (the demo); else each cell is a child process.
        fresh: Forget this stage and every later one first, also of finished cells.
        check_outputs: Look at finished cells again and hash their outputs.
    """
    again = fresh is not None or check_outputs
    todo = [
        planned
        for planned in plan.cells
        if planned.state in {"planned", "resumable", "running", "failed"}
        or (again and planned.state == "done")
    ]
    choice = launcher or LauncherChoice()
    choice.check()
    execution = replace(execution, launcher=choice.name)
    _write_planned(todo, execution)
    append_blocked(plan)
    ended: dict[Path, Ending] = {}
    if in_process:
        for planned in todo:
            _here(planned.cell.folder, fresh, ended)
    else:
        ended = drive_cells(plan.cells, todo, execution, choice, gpus=gpus, fresh=fresh)
    locked = {folder for folder, ending in ended.items() if ending == "locked"}
    broken = "environment" in ended.values()
    cells = tuple(
        (planned, read_run(planned.cell.folder) if (planned.cell.folder / "run.json").is_file() else None)
        for planned in plan.cells
    )
    return Outcome(cells, ExitCode.ENVIRONMENT if broken else exit_code(plan, cells, locked))


def write_plan(plan: Plan, execution: Execution) -> None:
    """Write the planned runs and their list, so that any launcher or person can start their cells."""
    _write_planned(plan.runnable, execution)
    if plan.cells:
        append_plan(plan.cells[0].cell.folder.parent, plan.cells)


def append_blocked(plan: Plan) -> None:
    """List the blocked cells, which have no folder, so that `segbench status` can name them."""
    blocked = [planned for planned in plan.cells if planned.state == "blocked"]
    if blocked:
        append_plan(blocked[0].cell.folder.parent, blocked)


def _write_planned(todo: Sequence[PlannedCell], execution: Execution) -> None:
    patients: dict[str, Callable[[str], str]] = {}
    for planned in todo:
        cell = planned.cell
        slug = cell.dataset.slug
        if slug not in patients:
            patients[slug] = open_dataset(slug, data_dir=execution.data_dir).patient_of
        record = plan_run(cell, execution, patient_of=patients[slug])
        wanted = replace(execution, threads=_threads(record, execution))
        if _wanted(execution_of(record)) != _wanted(wanted):
            _change_execution(cell.folder, wanted)


def _threads(record: RunRecord, execution: Execution) -> int:
    """Threads of a cell: what `SEGBENCH_THREADS` says to this command, else what it was planned with."""
    kept = (record.execution or {}).get("threads") if named_threads() is None else None
    return kept or execution.threads


def _wanted(execution: Execution) -> Execution:
    """What the user asked for, without what a launcher filled in."""
    return replace(execution, launcher="", job="", node="")


def _change_execution(folder: Path, execution: Execution) -> None:
    """Let the run's next start follow this command; a cell that is at work keeps what it was given."""
    if lease_holder(folder) is not None:
        return
    try:
        with Lease(folder):
            record = read_run(folder)
            write_run(folder, record.model_copy(update={"execution": execution.as_dict()}))
    except SegbenchError as error:
        if error.code != "SB603":
            raise


def exit_code(plan: Plan, cells: Sequence[tuple[PlannedCell, RunRecord | None]], locked: set[Path]) -> int:
    """0 all done; 3 some failed, blocked or absent; 4 nothing here; 5 environment; 7 only locked cells."""
    statuses = [record.status if record is not None else "blocked" for _, record in cells]
    failed = [r for _, r in cells if r is not None and r.status == "failed" and r.failure is not None]
    if locked and all(planned.cell.folder in locked or planned.state == "done" for planned, _ in cells):
        return ExitCode.LOCKED
    if any(record.failure and record.failure.failure_class == "environment" for record in failed):
        return ExitCode.ENVIRONMENT
    if not cells and plan.absent:
        return ExitCode.DATA if len(plan.absent) == 1 else ExitCode.PARTIAL
    if plan.absent or any(status != "complete" for status in statuses):
        return ExitCode.PARTIAL
    return ExitCode.DONE


def summary_rows(cells: Sequence[tuple[PlannedCell, RunRecord | None]]) -> list[list[str]]:
    """Rows of the closing table: model, dataset, fold, seed, state, region, cases, headline means."""
    rows: list[list[str]] = []
    for planned, record in cells:
        cell = planned.cell
        head = [cell.model.slug, cell.dataset.slug, str(cell.fold), str(cell.seed)]
        if record is None or record.status != "complete":
            rows.append([*head, _state(planned, record), "", "", "", "", ""])
            continue
        profile = load_profile(cell.protocol.metrics.profile)
        headline = [m for m in ("dice", "hd95", "nsd") if m in profile.columns] or list(profile.headline[:3])
        cases = read_cases(cell.folder)
        means = {
            (s.region, s.metric): s
            for s in summarise(_numbers(cases, headline), headline, expected=len(cell.split.test))
        }
        for region in cell.dataset.regions:
            found = [means.get((region, metric)) for metric in headline]
            count = next((s for s in found if s is not None), None)
            n = f"{count.n_scored}/{count.n_expected}" if count else ""
            values = [f"{s.mean:.3f}" if s is not None else "" for s in found]
            rows.append([*head, "done", region, n, *values])
            head = ["", "", "", ""]
    return rows


def _numbers(cases: Sequence[dict[str, str]], metrics: Sequence[str]) -> list[dict[str, object]]:
    return [{**row, **{m: float(row[m]) if row.get(m) else float("nan") for m in metrics}} for row in cases]


def _state(planned: PlannedCell, record: RunRecord | None) -> str:
    if planned.state == "blocked":
        return "blocked"
    if record is None:
        return "not started"
    if record.failure is not None:
        return f"failed ({record.failure.failure_class}) {record.failure.code or ''}".rstrip()
    state, note = cell_state(planned.cell.folder)
    return f"{state} {note}".strip()


def _here(folder: Path, fresh: str | None, ended: dict[Path, Ending]) -> None:
    try:
        run_cell(folder, fresh=fresh)
    except SegbenchError as error:
        if error.code not in {"SB603", "SB605"}:
            raise
        console.fail(error)
        ended[folder] = "locked"
