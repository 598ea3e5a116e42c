"""`segbench demo`: two small models on generated scans, a table and the report, within a minute on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from segbench.cli.common import settings, show
from segbench.cli.options import Overrides
from segbench.core import console
from segbench.core.environment import results_dir

if TYPE_CHECKING:
    from segbench.report import ReportResult
    from segbench.runs.drive import Outcome

MODELS = ("segmamba-v2-tiny", "nnunet-tiny")
DATASET = "phantom-brats"


def demo(set_: Overrides = None) -> int:
    """Train two small models on generated scans, compare them, write the report.

    Example: segbench demo --results demo/runs
    """
    from segbench.cards.protocol import parse_setting
    from segbench.cli.report import print_findings
    from segbench.report import build_report
    from segbench.runs.cell import Execution
    from segbench.runs.drive import run_plan
    from segbench.runs.plan import Request, make_plan

    # As fast as numba's scan at this size, with 100 MB less, and nothing to compile at the first start.
    os.environ.setdefault("SEGBENCH_SCAN", "torch")
    runs, data_dir = results_dir(settings().results), settings().data_dir
    request = Request(
        models=MODELS,
        datasets=[DATASET],
        results=runs,
        protocol="demo",
        overrides=dict(parse_setting(text) for text in set_ or ()),
        data_dir=data_dir,
    )
    console.note("generated scans, two small models, a few hundred samples: a demonstration, not a benchmark")
    plan = make_plan(request)
    execution = Execution(device="cpu", data_dir=None if data_dir is None else str(data_dir))
    outcome = run_plan(plan, execution, in_process=True)
    done = [
        planned.cell.folder for planned, record in outcome.cells if record and record.status == "complete"
    ]
    target = runs.parent / "report"
    written = build_report(done, target, progress=console.step) if done else None
    document = {
        "runs": [str(folder) for folder in done],
        "report": str(target),
        "files": sorted(str(path) for path in written.files) if written else [],
        "exit_code": int(outcome.exit_code),
    }
    show(document, _lines(outcome, written))
    if settings().json:
        return outcome.exit_code
    print_findings(written.findings if written else ())
    console.emit(f"\nruns:   {runs}")
    if written:
        console.emit(f"report: {target}  (begin with {written.files[0].name})")
    console.note("next: segbench run --model segmamba-v2,nnunet --dataset msd-hippocampus --dry-run")
    return outcome.exit_code


def _lines(outcome: Outcome, written: ReportResult | None) -> Iterator[str]:
    from segbench.report.write.terminal import report_lines

    for planned, record in outcome.cells:
        if record is None or record.status != "complete":
            yield f"{planned.cell.run_id}: {'not run' if record is None else record.status}"
    yield from report_lines(written.analysis) if written else ()
