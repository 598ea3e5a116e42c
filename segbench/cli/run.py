"""`segbench run`: train and evaluate models on datasets under one protocol; and `segbench cell`, hidden."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from segbench.cli.common import settings, show, split_list, split_numbers
from segbench.cli.options import Stage, option
from segbench.core import console
from segbench.core.catalogue import ExitCode

if TYPE_CHECKING:
    from segbench.launch import LauncherChoice
    from segbench.runs.cell import Execution, Plan
    from segbench.runs.drive import Outcome
    from segbench.runs.plan import Request
    from segbench.runs.trial import Smoke

Text = str | None
Texts = list[str] | None

WHAT, PLAN, WHERE, LAUNCH = "What", "Plan", "Where", "Launcher"
Models = Annotated[list[str], option("--model", "Models: A,B, globs, or all.", WHAT)]
Datasets = Annotated[list[str], option("--dataset", "Datasets: X,Y, globs, all, mission.", WHAT)]
_PROTOCOL = "Protocol, or a TOML file. Default: standard; demo on generated scans."
Protocol = Annotated[Text, option("--protocol", _PROTOCOL, WHAT)]
Folds = Annotated[Texts, option("--fold", "Folds: 0, 0-4 or all.", WHAT)]
Seeds = Annotated[Texts, option("--seed", "Seeds: 0,1,2 or 0-9. Default: the protocol's.", WHAT)]
Split = Annotated[Text, option("--split", "Split by name or file.", WHAT)]
Limit = Annotated[int, option("--limit", "First N cases of each part; 0: all.", WHAT, min=0)]
Set = Annotated[Texts, option("--set", "Override a protocol field.", WHAT, metavar="KEY=VALUE")]
_INIT = "Start from these weights (.safetensors)."
Init = Annotated[Path | None, option("--init", _INIT, WHAT, metavar="FILE")]
_KNOWN = "Start from --init though test cases may be among what it was trained on; marked."
Acknowledge = Annotated[bool, option("--acknowledge", _KNOWN, WHAT)]
_FRESH = "Forget this stage (verify, prepare, train, predict, evaluate, profile) and later ones."
Fresh = Annotated[Stage | None, option("--fresh", _FRESH, WHAT, metavar="STAGE")]
CheckOutputs = Annotated[bool, option("--check-outputs", "Hash finished outputs again.", WHAT)]

DryRun = Annotated[bool, option("--dry-run", "Print the plan; write nothing.", PLAN)]
Probe = Annotated[bool, option("--probe", "Measure a few steps of what never ran here.", PLAN)]
_BUDGET = "Only the cells that fit into H device hours."
Budget = Annotated[float | None, option("--budget-hours", _BUDGET, PLAN, metavar="H", min=0)]
TryAll = Annotated[bool, option("--smoke", "Each model must overfit one case; then stop.", PLAN)]
_JOBS = "Write the planned runs, print one command per cell, and stop."
PrintJobs = Annotated[bool, option("--print-jobs", _JOBS, PLAN)]

Device = Annotated[Literal["auto", "cpu", "cuda"], option("--device", "Where to compute.", WHERE)]
Workers = Annotated[int, option("--workers", "Processes that load data.", WHERE, min=0)]
Checkpoints = Annotated[float, option("--checkpoint-minutes", "0: after every step.", WHERE, min=0)]
_TIMEOUT = "A step that takes longer has hung. Default: 30 median steps, at least 600 s; 0: never."
StepTimeout = Annotated[float | None, option("--step-timeout", _TIMEOUT, WHERE, metavar="S", min=0)]
Probabilities = Annotated[bool, option("--save-probabilities", "Keep class probabilities.", WHERE)]

Launcher = Annotated[Literal["local", "slurm", "ray"], option("--launcher", "What starts the cells.", LAUNCH)]
_PARALLEL = "Cells at a time. Default: one per GPU, else one; a cluster takes what it can."
Parallel = Annotated[int | None, option("--max-parallel", _PARALLEL, LAUNCH, min=1)]
_GPUS = "GPUs that train one network together (torchrun); the global batch is split among them."
Gpus = Annotated[int, option("--gpus-per-cell", _GPUS, LAUNCH, min=1)]
_RETRIES = "Restart a lost cell while it makes progress; stop after N restarts without progress."
Retries = Annotated[int, option("--retries", _RETRIES, LAUNCH, metavar="N", min=0)]
Wait = Annotated[bool, option("--wait", "Wait for cells that other processes hold.", LAUNCH)]
_SLURM = "An option for sbatch, such as partition=gpu."
Slurm = Annotated[Texts, option("--slurm", _SLURM, LAUNCH, metavar="KEY=VALUE")]
RayAddress = Annotated[Text, option("--ray-address", "Address of the Ray cluster.", LAUNCH)]


def run(
    model: Models,
    dataset: Datasets,
    protocol: Protocol = None,
    fold: Folds = None,
    seed: Seeds = None,
    split: Split = None,
    limit: Limit = 0,
    set_: Set = None,
    init: Init = None,
    acknowledge: Acknowledge = False,
    fresh: Fresh = None,
    check_outputs: CheckOutputs = False,
    dry_run: DryRun = False,
    probe: Probe = False,
    budget_hours: Budget = None,
    smoke: TryAll = False,
    print_jobs: PrintJobs = False,
    device: Device = "auto",
    workers: Workers = 0,
    checkpoint_minutes: Checkpoints = 10.0,
    step_timeout: StepTimeout = None,
    save_probabilities: Probabilities = False,
    launcher: Launcher = "local",
    max_parallel: Parallel = None,
    gpus_per_cell: Gpus = 1,
    retries: Retries = 3,
    wait: Wait = False,
    slurm: Slurm = None,
    ray_address: RayAddress = None,
) -> int:
    """Train and evaluate; the same command again continues.

    Example: segbench run --model segmamba-v2,nnunet --dataset all --seed 0,1,2
    """
    from segbench.cards.protocol import parse_setting
    from segbench.cli.tables.plan import print_plan, within_budget
    from segbench.core.environment import results_dir
    from segbench.launch import LauncherChoice
    from segbench.runs.cell import Execution
    from segbench.runs.plan import Request, check_ranks, in_order
    from segbench.runs.trial import with_probes

    choice = LauncherChoice(
        launcher, max_parallel, retries, wait, slurm=tuple(slurm or ()), ray_address=ray_address
    )
    choice.check()
    folds, data_dir = split_list(fold) or ["0"], settings().data_dir
    plan = _plan(
        Request(
            models=split_list(model),
            datasets=split_list(dataset),
            results=results_dir(settings().results),
            protocol=protocol,
            overrides=dict(parse_setting(text) for text in set_ or ()),
            folds="all" if folds == ["all"] else split_numbers(folds, what="fold"),
            seeds=None if seed is None else split_numbers(seed, what="seed"),
            split=split,
            limit=limit,
            init=init,
            acknowledge=acknowledge,
            data_dir=data_dir,
        )
    )
    execution = Execution(
        device=device,
        workers=workers,
        data_dir=None if data_dir is None else str(data_dir),
        checkpoint_minutes=checkpoint_minutes,
        save_probabilities=save_probabilities,
        check_outputs=check_outputs,
        gpus_per_cell=gpus_per_cell,
        step_timeout=step_timeout,
        launcher=launcher,
    )
    check_ranks(plan, execution)
    if smoke:
        return _smoke(plan, execution)
    if dry_run or probe or budget_hours is not None:
        measured = with_probes(plan, execution, measure=probe, tell=console.note)
        plan = replace(measured, cells=in_order(measured.cells))
    if dry_run or print_jobs:
        return print_plan(plan, execution, dry_run=dry_run, print_jobs=print_jobs, hours=budget_hours)
    chosen = plan if budget_hours is None else within_budget(plan, execution, budget_hours)
    code = _run(plan, chosen, execution, choice, fresh)
    return max(code, ExitCode.PARTIAL) if len(chosen.cells) < len(plan.cells) else code


def _plan(asked: Request) -> Plan:
    """The plan of what was asked for; says which datasets are absent and whose code has changed."""
    from segbench.data.opening import in_one_table
    from segbench.runs.plan import code_news, expanded, make_plan

    request = expanded(asked)
    plan = make_plan(request)
    for error in in_one_table(plan.absent, request.datasets, request.data_dir):
        console.fail(error)
    for line in code_news(planned.cell for planned in plan.cells):
        console.note(line)
    once = sorted({planned.cell.model.slug for planned in plan.cells if not planned.cell.trains})
    if once and len({*(asked.seeds or ()), *(planned.cell.seed for planned in plan.cells)}) > 1:
        console.note(f"one run for all seeds, because no random number is drawn: {', '.join(once)}")
    if plan.absent and plan.cells:
        console.note(f"  the other {len(plan.cells)} cells of this command go on")
    return plan


def _run(plan: Plan, chosen: Plan, execution: Execution, choice: LauncherChoice, fresh: str | None) -> int:
    """Run what was chosen of the plan, show how each cell ended, and give the exit status."""
    from segbench.core.environment import results_dir
    from segbench.runs.drive import run_plan

    outcome = run_plan(
        chosen,
        execution,
        launcher=choice,
        gpus=gpus_wanted(execution.device, per_cell=execution.gpus_per_cell),
        fresh=fresh,
        check_outputs=execution.check_outputs,
    )
    show(_document(outcome), _summary(outcome) if plan.cells else ())
    if plan.cells and not settings().json:
        for planned in plan.cells:
            if planned.problem is not None:
                console.fail(planned.problem)
        results = results_dir(settings().results)
        console.note(f"-> {results}/     next: segbench report --runs {results}")
    return outcome.exit_code


def _summary(outcome: Outcome) -> Iterator[str]:
    from segbench.runs.drive import summary_table

    header, rows = summary_table(outcome.cells)
    yield from console.table_lines(header, rows, right=range(6, len(header)))


def gpus_wanted(device: str, *, per_cell: int = 1) -> int:
    """GPUs that one cell wants: none on the CPU; with `auto`, one where this machine has any."""
    from segbench.launch.gpus import visible_gpus

    if device == "cpu" or (device == "auto" and not visible_gpus()):
        return 0
    return per_cell


def _smoke(plan: Plan, execution: Execution) -> int:
    """Let each model overfit one case; exit 6 when one cannot."""
    from segbench.runs.trial import smoke

    results = smoke(plan.cells, execution)
    show({"smoke": [{**asdict(r), "passed": r.passed} for r in results]}, _smoke_lines(results))
    return ExitCode.DONE if all(r.passed for r in results) else ExitCode.GATE


def _smoke_lines(results: Sequence[Smoke]) -> Iterator[str]:
    from segbench.runs.trial import SMOKE_DICE

    rows = [
        [
            r.model,
            r.dataset,
            r.case,
            ", ".join(f"{region} {value:.3f}" for region, value in r.dice.items()),
            "yes" if r.passed else "NO",
        ]
        for r in results
    ]
    yield from console.table_lines(["model", "dataset", "case", "Dice", f"> {SMOKE_DICE}"], rows)


def _document(outcome: Outcome) -> dict[str, Any]:
    """The matrix's end as plain values."""
    cells: list[dict[str, Any]] = []
    for planned, record in outcome.cells:
        failure = None if record is None else record.failure
        cells.append(
            {
                "run_id": planned.cell.run_id,
                "folder": str(planned.cell.folder),
                "state": planned.state,
                "status": None if record is None else record.status,
                "failure": None if failure is None else failure.model_dump(mode="json", by_alias=True),
                "note": planned.note,
            }
        )
    return {"cells": cells, "exit_code": int(outcome.exit_code)}


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
