"""`segbench demo`: two small models on generated scans, a table and the report, within a minute on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings
from segbench.core import console
from segbench.core.environment import results_dir

MODELS = ("nnunet-tiny", "segmamba-v2-tiny")
DATASET = "phantom-brats"


def demo(
    results: Annotated[Path | None, typer.Option(help="Folder of runs.", envvar="SEGBENCH_RESULTS")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the report.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of datasets.", envvar="SEGBENCH_DATA")] = None,
    seed: Annotated[int, typer.Option(help="Training seed.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a protocol field.")
    ] = None,
) -> int:
    """Train two small models on generated scans, compare them, write the report."""
    from segbench.cards.protocol import parse_setting
    from segbench.cli.report import print_findings
    from segbench.report import build_report
    from segbench.report.write.terminal import report_lines
    from segbench.runs.cell import Execution
    from segbench.runs.drive import run_plan
    from segbench.runs.plan import Request, make_plan

    runs = results_dir(results)
    request = Request(
        models=MODELS,
        datasets=[DATASET],
        results=runs,
        protocol="demo",
        overrides=dict(parse_setting(text) for text in set_ or ()),
        seeds=[seed],
        data_dir=data_dir,
    )
    console.note("generated scans, two small models, a few hundred samples: a demonstration, not a benchmark")
    plan = make_plan(request)
    execution = Execution(device=device, data_dir=None if data_dir is None else str(data_dir))
    outcome = run_plan(plan, execution, in_process=True)
    done = [
        planned.cell.folder for planned, record in outcome.cells if record and record.status == "complete"
    ]
    target = output or runs.parent / "report"
    written = build_report(done, target, progress=console.step) if done else None
    if settings().json:
        console.emit_json(
            {
                "schema_version": 1,
                "runs": [str(folder) for folder in done],
                "report": str(target),
                "files": sorted(str(path) for path in written.files) if written else [],
                "exit_code": int(outcome.exit_code),
            }
        )
        return outcome.exit_code
    for planned, record in outcome.cells:
        if record is None or record.status != "complete":
            console.emit(f"{planned.cell.run_id}: {'not run' if record is None else record.status}")
    for line in report_lines(written.analysis) if written else []:
        console.emit(line)
    print_findings(written.findings if written else ())
    console.emit()
    console.emit(f"runs:   {runs}")
    if written:
        console.emit(f"report: {target}  (begin with {written.files[0].name})")
    console.note("next: segbench run --model segmamba-v2,nnunet --dataset msd-hippocampus --dry-run")
    return outcome.exit_code
