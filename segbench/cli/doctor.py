"""`segbench doctor`: what works here, and proofs of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from segbench.cli.common import show
from segbench.cli.options import option
from segbench.core import console
from segbench.core.outputs import check_targets

if TYPE_CHECKING:
    from segbench.runs.doctor.diagnosis import Diagnosis


def doctor(
    metrics: Annotated[
        bool, option("--metrics", "Check the metric engine against other libraries here.")
    ] = False,
    device: Annotated[
        Literal["cpu", "cuda"] | None,
        option("--device", "Scan backends, determinism and a convolution self-test on this device."),
    ] = None,
    bundle: Annotated[
        Path | None, option("--bundle", "Write all findings to FILE, for a bug report.", metavar="FILE")
    ] = None,
) -> int:
    """Show the environment and the scan backends; with flags, prove that they work.

    Example: segbench doctor --metrics --device cpu
    """
    from segbench.core.atomic import atomic_write_json
    from segbench.runs.doctor.diagnosis import diagnose

    if bundle is not None:
        check_targets([bundle])
    report = diagnose(metrics=metrics, device=device)
    show(report.as_dict(), _lines(report))
    if bundle is not None:
        atomic_write_json(bundle, report.as_dict())
        console.note(f"-> {bundle}")
    return report.exit_code


def _lines(report: Diagnosis) -> Iterator[str]:
    for title, rows in report.sections:
        yield title
        yield from console.table_lines(["what", "state", "detail"], rows)
        yield ""
