"""A plan's cells through a launcher: the first look, then the cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segbench.core import console
from segbench.launch import LauncherChoice, open_launcher
from segbench.launch.drive import Ending, drive
from segbench.pipeline.cell import PlannedCell
from segbench.pipeline.context import Execution
from segbench.pipeline.first_look import likenesses, look_first
from segbench.pipeline.needs import needs_of


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
    need, alike = needs_of(cells, execution, gpus=gpus), likenesses(todo)
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
