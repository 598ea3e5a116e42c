"""Running a plan: every cell once, one failure stays alone, the summary names it.

A matrix that learns on its third day that its last model does not fit the GPU, or that one image is damaged,
has learnt it three days late. So where long trainings lie ahead, one cell of each kind first verifies its
dataset (read once, remembered for the cells) and makes one training step on zeros at its own patch and batch,
in a process of its own and on the device that it will get. What it finds is written as the cell's failure,
and into the cells that would fail alike.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from segbench.core import console
from segbench.core.catalogue import ExitCode
from segbench.core.environment import named_threads
from segbench.core.errors import SegbenchError
from segbench.launch import Launcher, LauncherChoice, Need, open_launcher
from segbench.launch.drive import Ending, drive, spread_failure
from segbench.metrics.profiles import load_profile
from segbench.metrics.registry import METRICS
from segbench.metrics.summary import summarise
from segbench.records import RunRecord, read_cases, read_run, run_in, write_run
from segbench.records.lease import Lease, lease_holder
from segbench.records.progress import last_step
from segbench.runs.active import TOLD
from segbench.runs.cell import Execution, Plan, PlannedCell
from segbench.runs.forecast import needs_of
from segbench.runs.plan import cell_state
from segbench.runs.runner import plan_run, run_cell
from segbench.runs.status import append_plan

Groups = dict[Path, Hashable]
"""By run folder, what is equal for cells of one group."""
LONG_STEPS = 200
"""A training of more steps than these is long: the one step costs less than half a percent of it."""


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
    with each_warning_once():
        if in_process:
            for planned in todo:
                _here(planned.cell.folder, fresh, ended)
        else:
            ended = drive_cells(plan.cells, todo, execution, choice, gpus=gpus, fresh=fresh)
    locked = {folder for folder, ending in ended.items() if ending == "locked"}
    broken = "environment" in ended.values()
    cells = tuple((planned, run_in(planned.cell.folder)) for planned in plan.cells)
    return Outcome(cells, ExitCode.ENVIRONMENT if broken else exit_code(plan, cells, locked))


@contextmanager
def each_warning_once() -> Generator[None]:
    """What several cells would say alike, such as what is odd about their dataset, is said once."""
    with tempfile.NamedTemporaryFile(prefix="segbench-told-") as told:
        os.environ[TOLD] = told.name
        try:
            yield
        finally:
            del os.environ[TOLD]


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
    for planned in todo:
        record = plan_run(planned.cell, execution, known=planned.record)
        wanted = replace(execution, threads=_threads(record, execution))
        if _wanted(Execution.of(record)) != _wanted(wanted):
            _change_execution(planned.cell.folder, wanted)


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


def summary_table(cells: Sequence[tuple[PlannedCell, RunRecord | None]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the closing table; its last columns are the metrics that the protocol's profile has.

    Cells of one command share a protocol, so the first cell's stands for all.
    """
    profile = load_profile(cells[0][0].cell.protocol.metrics.profile)
    headline = [m for m in ("dice", "hd95", "nsd") if m in profile.columns] or list(profile.headline[:3])
    titles = [f"{METRICS[m].title}{' mm' if METRICS[m].unit == 'mm' else ''}" for m in headline]
    rows: list[list[str]] = []
    for planned, record in cells:
        cell = planned.cell
        head = [cell.model.slug, cell.dataset.slug, str(cell.fold), str(cell.seed)]
        if record is None or record.status != "complete":
            rows.append([*head, _state(planned, record), "", "", *("" for _ in headline)])
            continue
        head, cases = [*head, "done"], read_cases(cell.folder)
        means = {
            (s.region, s.metric): s
            for s in summarise(_numbers(cases, headline), headline, expected=len(cell.split.test))
        }
        for region in cell.dataset.regions:
            found = [means.get((region, metric)) for metric in headline]
            count = next((s for s in found if s is not None), None)
            n = f"{count.n_scored}/{count.n_expected}" if count else ""
            values = [f"{s.mean:.3f}" if s is not None else "" for s in found]
            rows.append([*head, region, n, *values])
            head = ["", "", "", "", ""]
    return ["model", "dataset", "fold", "seed", "state", "region", "cases", *titles], rows


def _numbers(cases: Sequence[dict[str, str]], metrics: Sequence[str]) -> list[dict[str, object]]:
    return [{**row, **{m: float(row[m]) if row.get(m) else float("nan") for m in metrics}} for row in cases]


def _state(planned: PlannedCell, record: RunRecord | None) -> str:
    if planned.state == "blocked":
        return "blocked"
    if record is None:
        return "not started"
    if record.failure is not None:
        return f"failed ({record.failure.failure_class}) {record.failure.code or ''}".rstrip()
    state, note = cell_state(planned.cell.folder, record)
    return f"{state} {note}".strip()


def _here(folder: Path, fresh: str | None, ended: dict[Path, Ending]) -> None:
    try:
        run_cell(folder, fresh=fresh)
    except SegbenchError as error:
        if error.code not in {"SB603", "SB605"}:
            raise
        console.fail(error)
        ended[folder] = "locked"


def drive_cells(
    cells: Sequence[PlannedCell],
    todo: Sequence[PlannedCell],
    execution: Execution,
    choice: LauncherChoice,
    *,
    gpus: int = 0,
    fresh: str | None = None,
) -> dict[Path, Ending]:
    """Bring every cell of `todo` to its end; how each one ended.

    Args:
        cells: The whole plan; its finished cells say what the others need.
        todo: The cells that have something left to do, planned on disk.
        execution: Where and how.
        choice: What starts them.
        gpus: GPUs that one cell wants.
        fresh: Forget this stage and every later one first.

    Raises:
        Interrupted: A signal came.
    """
    if not todo:
        return {}
    results, shared = todo[0].cell.folder.parent, _shared_flags()
    need, (data, step) = needs_of(cells, execution, gpus=gpus), groups_of(todo)
    again = ["--fresh", fresh] if fresh else []
    opened = open_launcher(choice, results, gpus=gpus, arguments=[*again, *shared])
    ended: dict[Path, Ending] = {}
    # Where jobs wait in a queue, a look would wait there too, as long as the cells themselves: they find out.
    if not opened.detached and not again:
        looker = open_launcher(choice, results, gpus=gpus, arguments=["--first-look", *shared])
        ended = look_first(looker, todo, data, step, need)
    folders = [planned.cell.folder for planned in todo if planned.cell.folder not in ended]
    ended |= drive(
        opened,
        folders,
        need=need,
        same_data=data.__getitem__,
        retries=choice.retries,
        wait=choice.wait,
    )
    return ended


def _shared_flags() -> list[str]:
    flags = ["--quiet"] if console.output.quiet else []
    return flags if console.output.progress else [*flags, "--no-progress"]


def groups_of(cells: Sequence[PlannedCell]) -> tuple[Groups, Groups]:
    """What is equal for cells that read the same images, and for those that make the same step.

    Images: the dataset, its content, all cases of the split. A step: all but fold and seed.
    """
    protocols: dict[int, str] = {}  # cells of a plan share these objects; ten thousand digests take seconds
    splits: dict[int, frozenset[str]] = {}
    data, step = dict[Path, Hashable](), dict[Path, Hashable]()
    for planned in cells:
        cell, split = planned.cell, planned.cell.split
        if id(cell.protocol) not in protocols:
            protocols[id(cell.protocol)] = cell.protocol.digest()
        if id(split) not in splits:
            splits[id(split)] = frozenset((*split.train, *split.validation, *split.test))
        data[cell.folder] = (cell.dataset.slug, cell.dataset_digest, splits[id(split)])
        step[cell.folder] = (data[cell.folder], cell.model.slug, protocols[id(cell.protocol)])
    return data, step


def first_looks(cells: Sequence[PlannedCell], data: Groups, step: Groups) -> list[PlannedCell]:
    """One cell of each kind that has yet to show what it can do, in the order of the plan.

    Empty where nothing long lies ahead, or where there is only one kind: its first cell will show it as soon.
    A kind of which a cell has trained, finished or was measured has shown it.
    """
    long = [planned for planned in cells if _is_long(planned)]
    shown = {
        step[planned.cell.folder]
        for planned in long
        if planned.step_s is not None or (planned.state != "planned" and last_step(planned.cell.folder) > 0)
    }
    chosen: dict[Hashable, PlannedCell] = {}
    for planned in long:
        if step[planned.cell.folder] not in shown:
            chosen.setdefault(step[planned.cell.folder], planned)
    covered = {data[planned.cell.folder] for planned in long}
    for planned in cells if long else ():  # a dataset that no long cell reads is verified all the same
        if data[planned.cell.folder] not in covered:
            covered.add(data[planned.cell.folder])
            chosen[step[planned.cell.folder]] = planned
    return list(chosen.values()) if len(chosen) > 1 or (shown and chosen) else []


def look_first(
    launcher: Launcher,
    cells: Sequence[PlannedCell],
    data: Groups,
    step: Groups,
    need: Callable[[Path], Need],
) -> dict[Path, Ending]:
    """Look at one cell of each kind; the cells that need no start any more, with their endings.

    Args:
        launcher: Starts `segbench cell --first-look`.
        cells: Everything that is to run.
        data: Cells that read the same images, from `groups_of`.
        step: Cells that make the same step.
        need: What a cell needs.

    Raises:
        Interrupted: A signal came.
    """
    looks = first_looks(cells, data, step)
    if not looks:
        return {}
    datasets, models = {p.cell.dataset.slug for p in looks}, {p.cell.model.slug for p in looks}
    console.note(
        f"before the first long cell: {', '.join(sorted(datasets))} verified, "
        f"one step each of {', '.join(sorted(models))}"
    )
    folders = [planned.cell.folder for planned in looks]
    found = drive(
        launcher,
        folders,
        need=need,
        same_data=data.__getitem__,
        retries=0,
        title="first look",
    )
    if not {"environment", "not started"}.isdisjoint(found.values()):
        return {p.cell.folder: found.get(p.cell.folder, "not started") for p in cells}
    ended: dict[Path, Ending] = {}
    for folder in folders:
        record = read_run(folder)
        if record.status != "failed" or record.failure is None or folder in ended:
            continue
        alike = data if record.failure.failure_class == "data" else step
        others = (planned.cell.folder for planned in cells)
        same = [other for other in others if alike[other] == alike[folder] and other != folder]
        ended |= dict.fromkeys([folder, *spread_failure(folder, same)], "failed")
    return ended


def _is_long(planned: PlannedCell) -> bool:
    protocol = planned.cell.protocol
    return (
        planned.cell.model.kind == "network"
        and protocol.budget.samples > LONG_STEPS * protocol.sampling.batch_size
    )
