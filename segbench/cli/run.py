"""`segbench run`: train and evaluate models on datasets under one protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segbench.cli.common import settings, split_list, split_numbers
from segbench.core import console
from segbench.core.catalogue import ExitCode

if TYPE_CHECKING:
    from segbench.runs.cell import Execution, Plan
    from segbench.runs.drive import Outcome

WHAT, PLAN, WHERE, LAUNCH = "What", "Plan", "Where", "Launcher"


def run(
    model: Annotated[
        list[str], typer.Option("--model", help="Models: A,B, globs, or all.", rich_help_panel=WHAT)
    ],
    dataset: Annotated[
        list[str], typer.Option("--dataset", help="Datasets: X,Y, globs, or all.", rich_help_panel=WHAT)
    ],
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Protocol, or a TOML file. Default: standard; demo on generated scans.", rich_help_panel=WHAT
        ),
    ] = None,
    fold: Annotated[
        list[str] | None, typer.Option(help="Folds: 0, 0-4 or all.", rich_help_panel=WHAT)
    ] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option(help="Seeds: 0,1,2 or 0-9. Default: the protocol's.", rich_help_panel=WHAT),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split by name or file.", rich_help_panel=WHAT)] = None,
    limit: Annotated[
        int, typer.Option(help="First N cases of each part; 0: all.", min=0, rich_help_panel=WHAT)
    ] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a protocol field.", rich_help_panel=WHAT),
    ] = None,
    fresh: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Forget this stage and every later one.", rich_help_panel=WHAT),
    ] = None,
    check_outputs: Annotated[
        bool, typer.Option("--check-outputs", help="Hash finished outputs again.", rich_help_panel=WHAT)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan; write nothing.", rich_help_panel=PLAN)
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Measure a few steps of what never ran here.",
            rich_help_panel=PLAN,
        ),
    ] = False,
    budget_hours: Annotated[
        float | None,
        typer.Option(
            metavar="H", help="Only the cells that fit into H device hours.", min=0, rich_help_panel=PLAN
        ),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Each model must overfit one case; then stop.", rich_help_panel=PLAN),
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Write the planned runs and stop.", rich_help_panel=PLAN)
    ] = False,
    print_jobs: Annotated[
        bool,
        typer.Option("--print-jobs", help="Plan, and print one command per cell.", rich_help_panel=PLAN),
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of datasets.", envvar="SEGBENCH_DATA", rich_help_panel=WHERE),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder of runs.", envvar="SEGBENCH_RESULTS", rich_help_panel=WHERE),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=WHERE)] = "auto",
    workers: Annotated[int, typer.Option(help="Data workers.", min=0, rich_help_panel=WHERE)] = 0,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="0: after every step.", min=0, rich_help_panel=WHERE)
    ] = 10.0,
    step_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="A step that takes longer has hung. Default: 30 median steps, at least 600 s; 0: never.",
            min=0,
            rich_help_panel=WHERE,
        ),
    ] = None,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Keep class probabilities.", rich_help_panel=WHERE)
    ] = False,
    launcher: Annotated[
        str, typer.Option(help="What starts the cells: local, slurm or ray.", rich_help_panel=LAUNCH)
    ] = "local",
    max_parallel: Annotated[
        int | None,
        typer.Option(
            help="Cells at a time. Default: one per GPU, else one; a cluster takes what it can.",
            min=1,
            rich_help_panel=LAUNCH,
        ),
    ] = None,
    gpus_per_cell: Annotated[
        int,
        typer.Option(
            help="GPUs that train one network together (torchrun); the global batch is split among them.",
            min=1,
            rich_help_panel=LAUNCH,
        ),
    ] = 1,
    retries: Annotated[
        int,
        typer.Option(
            help="A cell that is lost is started again while it comes further; given up after N in vain.",
            min=0,
            rich_help_panel=LAUNCH,
        ),
    ] = 3,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait for cells that other processes hold.", rich_help_panel=LAUNCH),
    ] = False,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="An option for sbatch, such as partition=gpu.", rich_help_panel=LAUNCH
        ),
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Address of the Ray cluster.", rich_help_panel=LAUNCH)
    ] = None,
) -> int:
    """Train and evaluate; the same command again continues.

    Example: segbench run --model segmamba-v2,nnunet --dataset all --seed 0,1,2
    """
    from segbench.cards.protocol import parse_setting
    from segbench.cli.run_plan import print_plan, within_budget
    from segbench.launch import LauncherChoice
    from segbench.runs.api import make_request
    from segbench.runs.cell import Execution
    from segbench.runs.drive import run_plan, summary_rows
    from segbench.runs.plan import check_ranks, code_news, in_order, make_plan
    from segbench.runs.trial import with_probes

    choice = LauncherChoice(
        launcher, max_parallel, retries, wait, slurm=tuple(slurm or ()), ray_address=ray_address
    )
    choice.check()
    folds = split_list(fold) or ["0"]
    request = make_request(
        split_list(model),
        split_list(dataset),
        protocol=protocol,
        fold="all" if folds == ["all"] else split_numbers(folds, what="fold"),
        seed=None if seed is None else split_numbers(seed, what="seed"),
        split=split,
        limit=limit,
        overrides=dict(parse_setting(text) for text in set_ or ()),
        data_dir=data_dir,
        results=results,
    )
    plan = make_plan(request)
    for error in plan.absent:
        console.fail(error)
    for line in code_news(planned.cell for planned in plan.cells):
        console.note(line)
    if plan.absent and plan.cells:
        console.note(f"  the other {len(plan.cells)} cells of this command go on")
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
    if dry_run or plan_only or print_jobs:
        return print_plan(plan, execution, dry_run=dry_run, print_jobs=print_jobs, hours=budget_hours)
    chosen = plan if budget_hours is None else within_budget(plan, execution, budget_hours)
    outcome = run_plan(
        chosen,
        execution,
        launcher=choice,
        gpus=gpus_wanted(device, per_cell=gpus_per_cell),
        fresh=fresh,
        check_outputs=check_outputs,
    )
    if settings().json:
        console.emit_json(_result(outcome))
    elif plan.cells:
        header = ["model", "dataset", "fold", "seed", "state", "region", "cases", "Dice", "HD95 mm", "NSD"]
        console.emit_table(header, summary_rows(outcome.cells), right=(6, 7, 8, 9))
        for planned in plan.cells:
            if planned.problem is not None:
                console.fail(planned.problem)
        console.note(f"-> {request.results}/     next: segbench report --runs {request.results}")
    return (
        max(outcome.exit_code, ExitCode.PARTIAL) if len(chosen.cells) < len(plan.cells) else outcome.exit_code
    )


def gpus_wanted(device: str, *, per_cell: int = 1) -> int:
    """GPUs that one cell wants: none on the CPU; with `auto`, one where this machine has any."""
    from segbench.launch.gpus import visible_gpus

    if device == "cpu" or (device == "auto" and not visible_gpus()):
        return 0
    return per_cell


def _smoke(plan: Plan, execution: Execution) -> int:
    """Let each model overfit one case; exit 6 when one cannot."""
    from dataclasses import asdict

    from segbench.runs.trial import SMOKE_DICE, smoke

    results = smoke(plan.cells, execution)
    if settings().json:
        rows = [{**asdict(result), "passed": result.passed} for result in results]
        console.emit_json({"schema_version": 1, "smoke": rows})
    else:
        header = ["model", "dataset", "case", "Dice", f"> {SMOKE_DICE}"]
        lines = [
            [
                r.model,
                r.dataset,
                r.case,
                ", ".join(f"{region} {value:.3f}" for region, value in r.dice.items()),
                "yes" if r.passed else "NO",
            ]
            for r in results
        ]
        console.emit_table(header, lines)
    return ExitCode.DONE if all(r.passed for r in results) else ExitCode.GATE


def _result(outcome: Outcome) -> dict[str, Any]:
    """The matrix's end as JSON."""
    return {
        "schema_version": 1,
        "cells": [
            {
                "run_id": planned.cell.run_id,
                "folder": str(planned.cell.folder),
                "state": planned.state,
                "status": None if record is None else record.status,
                "failure": None
                if record is None or record.failure is None
                else record.failure.model_dump(mode="json", by_alias=True),
                "note": planned.note,
            }
            for planned, record in outcome.cells
        ],
        "exit_code": int(outcome.exit_code),
    }
