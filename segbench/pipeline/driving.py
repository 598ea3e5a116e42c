"""A plan's cells through a launcher: one look at every kind before the first long cell, then the cells.

A matrix that learns on its third day that its last model does not fit the GPU, or that one scan is damaged,
has learnt it three days late. So where long trainings lie ahead, one cell of each kind first verifies its
dataset (read once, remembered for the cells) and makes one training step on zeros at its own patch and batch,
in a process of its own and on the device that it will get. What it finds is written as the cell's failure,
and into the cells that would fail alike.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.core import console
from segbench.launch import Launcher, LauncherChoice, Need, open_launcher
from segbench.launch.drive import Ending, drive, spread_failure
from segbench.pipeline.cell import PlannedCell
from segbench.pipeline.context import Execution
from segbench.pipeline.forecast import needs_of
from segbench.records import read_run
from segbench.records.progress import last_step

LONG_STEPS = 200
"""A training of more steps than these is long: the one step costs less than half a percent of it."""


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
    need, alike = needs_of(cells, execution, gpus=gpus), groups_of(todo)
    again = ["--fresh", fresh] if fresh else []
    opened = open_launcher(choice, results, gpus=gpus, arguments=[*again, *shared])
    ended: dict[Path, Ending] = {}
    # Where jobs wait in a queue, a look would wait there too, as long as the cells themselves: they find out.
    if not opened.detached and not again:
        looker = open_launcher(choice, results, gpus=gpus, arguments=["--first-look", *shared])
        ended = look_first(looker, todo, alike, need)
    folders = [planned.cell.folder for planned in todo if planned.cell.folder not in ended]
    ended |= drive(
        opened,
        folders,
        need=need,
        akin=lambda folder: alike[folder].data,
        retries=choice.retries,
        wait=choice.wait,
    )
    return ended


def _shared_flags() -> list[str]:
    flags = ["--quiet"] if console.output.quiet else []
    return flags if console.output.progress else [*flags, "--no-progress"]


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of cells that a cell belongs to.

    Attributes:
        data: Equal for cells that read the same scans: the dataset, its content, all cases of the split.
        step: Equal for cells that make the same step: all but fold and seed.
    """

    data: Hashable
    step: Hashable


def groups_of(cells: Sequence[PlannedCell]) -> dict[Path, Groups]:
    """What each cell has in common with others, by run folder."""
    protocols: dict[int, str] = {}  # cells of a plan share these objects; ten thousand digests take seconds
    splits: dict[int, frozenset[str]] = {}
    found: dict[Path, Groups] = {}
    for planned in cells:
        cell, split = planned.cell, planned.cell.split
        if id(cell.protocol) not in protocols:
            protocols[id(cell.protocol)] = cell.protocol.digest()
        if id(split) not in splits:
            splits[id(split)] = frozenset((*split.train, *split.validation, *split.test))
        data = (cell.dataset.slug, cell.dataset_digest, splits[id(split)])
        found[cell.folder] = Groups(data, (data, cell.model.slug, protocols[id(cell.protocol)]))
    return found


def first_looks(cells: Sequence[PlannedCell], alike: dict[Path, Groups]) -> list[PlannedCell]:
    """One cell of each kind that has yet to show what it can do, in the order of the plan.

    Empty where nothing long lies ahead, or where there is only one kind: its first cell will show it as soon.
    A kind of which a cell has trained, finished or was measured has shown it.
    """
    long = [planned for planned in cells if _is_long(planned)]
    shown = {
        alike[planned.cell.folder].step
        for planned in long
        if planned.step_s is not None or (planned.state != "planned" and last_step(planned.cell.folder) > 0)
    }
    chosen: dict[Hashable, PlannedCell] = {}
    for planned in long:
        if alike[planned.cell.folder].step not in shown:
            chosen.setdefault(alike[planned.cell.folder].step, planned)
    covered = {alike[planned.cell.folder].data for planned in long}
    for planned in cells if long else ():  # a dataset that no long cell reads is verified all the same
        if alike[planned.cell.folder].data not in covered:
            covered.add(alike[planned.cell.folder].data)
            chosen[alike[planned.cell.folder].step] = planned
    return list(chosen.values()) if len(chosen) > 1 or (shown and chosen) else []


def look_first(
    launcher: Launcher,
    cells: Sequence[PlannedCell],
    alike: dict[Path, Groups],
    need: Callable[[Path], Need],
) -> dict[Path, Ending]:
    """Look at one cell of each kind; the cells that need no start any more, with their endings.

    Args:
        launcher: Starts `segbench cell --first-look`.
        cells: Everything that is to run.
        alike: From `groups_of`.
        need: What a cell needs.

    Raises:
        Interrupted: A signal came.
    """
    looks = first_looks(cells, alike)
    if not looks:
        return {}
    datasets, models = {p.cell.dataset.slug for p in looks}, {p.cell.model.slug for p in looks}
    console.note(
        f"before the first long cell: {', '.join(sorted(datasets))} verified, "
        f"one step each of {', '.join(sorted(models))}"
    )
    folders = [planned.cell.folder for planned in looks]
    found = drive(
        launcher, folders, need=need, akin=lambda folder: alike[folder].data, retries=0, title="first look"
    )
    if not {"environment", "not started"}.isdisjoint(found.values()):
        return {p.cell.folder: found.get(p.cell.folder, "not started") for p in cells}
    ended: dict[Path, Ending] = {}
    for folder in folders:
        record = read_run(folder)
        if record.status != "failed" or record.failure is None or folder in ended:
            continue
        kind = "data" if record.failure.failure_class == "data" else "step"
        same = [
            other
            for other in (planned.cell.folder for planned in cells)
            if getattr(alike[other], kind) == getattr(alike[folder], kind) and other != folder
        ]
        ended |= dict.fromkeys([folder, *spread_failure(folder, same)], "failed")
    return ended


def _is_long(planned: PlannedCell) -> bool:
    protocol = planned.cell.protocol
    return (
        planned.cell.model.kind == "network"
        and protocol.budget.samples > LONG_STEPS * protocol.sampling.batch_size
    )
