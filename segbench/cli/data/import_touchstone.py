"""`segbench data import touchstone`: a user's copy of the Touchstone per-case tables, as runs."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings
from segbench.core import console


def touchstone(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A clone of MrGiovanni/Touchstone.")],
    results: Annotated[Path | None, typer.Option(help="Folder of runs.", envvar="SEGBENCH_RESULTS")] = None,
) -> int:
    """Take per-case scores of the Touchstone benchmark in; the tables are CC BY-NC-ND and stay yours.

    Example: segbench data import touchstone Touchstone/ && segbench report --metrics dice
    """
    from segbench.scoring.import_touchstone import LICENCE, import_touchstone

    taken = import_touchstone(folder, results=results, command=sys.argv)
    if settings().json:
        document = {"schema_version": 1, "licence": LICENCE, "runs": [item.as_json() for item in taken]}
        console.emit_json(document)
        return 0
    rows = [
        [item.dataset, item.model, str(item.rows), str(item.missing), _number(item.mean)] for item in taken
    ]
    console.emit_table(["test set", "model", "rows", "missing", "mean Dice"], rows, right=(2, 3, 4))
    console.emit(f"{len(taken)} runs under {taken[0].folder.parent}/; {LICENCE}")
    return 0


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
