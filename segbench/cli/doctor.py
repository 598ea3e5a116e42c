"""`segbench doctor`: what works here, and proofs of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings
from segbench.core import console
from segbench.core.outputs import check_targets


def doctor(
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Check the metric engine against other libraries here.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda: scan backends, determinism, convolution self-test.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all findings to FILE, for a bug report.")
    ] = None,
) -> int:
    """Show the environment and the scan backends; with flags, prove that they work."""
    from segbench.runs.diagnosis import diagnose

    if bundle is not None:
        check_targets([bundle])
    report = diagnose(metrics=metrics, device=device)
    if settings().json:
        console.emit_json(report.as_dict())
    else:
        for title, rows in report.sections:
            console.emit(title)
            console.emit_table(["what", "state", "detail"], rows)
            console.emit()
    if bundle is not None:
        from segbench.core.atomic import atomic_write_json

        atomic_write_json(bundle, report.as_dict())
        console.note(f"-> {bundle}")
    return report.exit_code
