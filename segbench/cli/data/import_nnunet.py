"""`segbench data import nnunet`: a results folder of nnU-Net v2, scored fold by fold."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings, show
from segbench.cli.options import ModelLabel, option
from segbench.core import console
from segbench.core.catalogue import ExitCode


def nnunet(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Results of nnU-Net: of all, a dataset or a configuration.")
    ],
    dataset: Annotated[
        str | None, option("--dataset", "Whose cases these are: references, regions.", metavar="NAME|FOLDER")
    ] = None,
    reference: Annotated[
        Path | None, option("--reference", "Folder of references. Default: the dataset's own.")
    ] = None,
    name: ModelLabel = None,
) -> int:
    """Score every validated fold of nnU-Net v2; Dice must equal its own summary.json.

    Trainer, plans and configuration are the model, folds are folds. Regions come from the dataset's card, or
    without --dataset from nnU-Net's dataset.json.

    Example: segbench data import nnunet nnUNet_results/Dataset004_Hippocampus --dataset msd-hippocampus
    """
    from segbench.scoring.nnunet_results import left_out, score_folds
    from segbench.scoring.request import Request

    request = Request(
        prediction=folder,
        reference=reference,
        dataset=dataset,
        name=name,
        results=settings().results,
        data_dir=settings().data_dir,
        max_bytes=settings().max_volume,
    )
    scored = score_folds(folder, request, command=sys.argv)
    for each in scored:
        for text in each.differing[:3]:
            console.warn(f"{each.fold.folder.name}, fold {each.fold.fold}: {text}")
        if len(each.differing) > 3:
            console.warn(f"fold {each.fold.fold}: {len(each.differing) - 3} more values differ")
    for text in left_out(folder, [each.fold for each in scored]):
        console.warn(f"not scored: {text}")
    rows: list[list[str]] = []
    for each in scored:
        means = {
            summary.metric: summary.mean
            for summary in each.evaluation.summaries
            if summary.region == "mean" or len(each.evaluation.rules.regions) == 1
        }
        shown = [_number(means[metric]) for metric in ("dice", "hd95") if metric in means]
        own = (
            f"{each.compared} equal"
            if not each.differing
            else f"{len(each.differing)} of {each.compared} differ"
        )
        rows.append(
            [each.evaluation.rows[0]["model"], str(each.fold.fold), str(len(each.fold.cases)), *shown, own]
        )
    heads = ["model", "fold", "cases", "Dice", "HD95 mm", "Dice of its summary.json"]
    show({"folds": [each.as_json() for each in scored]}, console.table_lines(heads, rows, right=(1, 2, 3, 4)))
    whole = all(not each.differing and not each.evaluation.failures for each in scored)
    return ExitCode.DONE if whole else ExitCode.PARTIAL


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"
