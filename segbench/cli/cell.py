"""`segbench cell`: run one planned cell. What launchers start; hidden from the short help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.options import Stage, option
from segbench.core.catalogue import ExitCode


def cell(
    folder: Annotated[Path, typer.Argument(help="Run folder with a run.json.")],
    fresh: Annotated[Stage | None, option("--fresh", "Forget this stage and every later one first.")] = None,
    first_look: Annotated[
        bool, option("--first-look", "Only verify the dataset and make one training step.")
    ] = False,
) -> int:
    """Run the stages of one planned cell; idempotent, holds a lease."""
    from segbench.launch.command import stop_with_parent
    from segbench.runs.runner import look_at_cell, run_cell

    stop_with_parent()
    if first_look:
        return ExitCode.PARTIAL if look_at_cell(folder).status == "failed" else ExitCode.DONE
    record = run_cell(folder, fresh=fresh)
    return ExitCode.DONE if record.status == "complete" else ExitCode.PARTIAL
