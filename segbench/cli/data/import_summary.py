"""`segbench data import nnunet-summary`: scores that nnU-Net computed, checked, as a run."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings
from segbench.core import console
from segbench.core.catalogue import ExitCode


def nnunet_summary(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="summary.json of nnU-Net v2.")],
    dataset: Annotated[str, typer.Option(metavar="NAME|FOLDER", help="Dataset: its regions are matched.")],
    name: Annotated[
        str | None, typer.Option(metavar="LABEL", help="The model. Default: the folder's name.")
    ] = None,
    fold: Annotated[int, typer.Option(help="Fold of the training.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the training.", min=0)] = 0,
    results: Annotated[Path | None, typer.Option(help="Folder of runs.", envvar="SEGBENCH_RESULTS")] = None,
) -> int:
    """Take nnU-Net's scores in; each value must follow from its counts, or its row is refused.

    Example: segbench data import nnunet-summary summary.json --dataset msd-spleen --name nnunet
    """
    from segbench.cards import list_dataset_cards, load_dataset_card
    from segbench.data import open_dataset
    from segbench.scoring.import_nnunet import import_summary

    known = dataset in list_dataset_cards() or not Path(dataset).is_dir()
    card = load_dataset_card(dataset) if known else open_dataset(dataset).card
    taken = import_summary(file, card, name=name, fold=fold, seed=seed, results=results, command=sys.argv)
    for refusal in taken.refused:
        console.warn(
            f"SB217: {refusal['case']}, {refusal['region']}: {refusal['message']}; scored as a failure"
        )
    if settings().json:
        console.emit_json(taken.as_json())
    else:
        rows = [[region, _number(ours), _number(theirs)] for region, (ours, theirs) in taken.means.items()]
        console.emit_table(["region", "mean Dice here", "nnU-Net's own"], rows, right=(1, 2))
        compared = f", counts of {taken.compared} cases equal to the files'" if taken.compared else ""
        console.emit(
            f"{len(taken.rows)} rows, {len(taken.refused)} refused{compared}; no distances in the file"
        )
        console.emit(f"-> {taken.folder}/{'         exit 3' if taken.refused else ''}")
    return ExitCode.PARTIAL if taken.refused else ExitCode.DONE


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
