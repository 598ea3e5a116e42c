"""`segbench data export`: the cases of a split as a dataset of nnU-Net or MSD."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from segbench.cli.common import settings, show
from segbench.cli.options import DatasetArgument, Root, option
from segbench.core import console
from segbench.core.text import count


def export(
    dataset: DatasetArgument,
    output: Annotated[
        Path, option("--output", "Receives DatasetNNN_Name (nnUNet_raw) or TaskNN_Name.", metavar="DIR")
    ],
    format: Annotated[Literal["nnunet", "msd"], option("--format", "Whose layout.")] = "nnunet",
    number: Annotated[
        int | None, option("--id", "Number of the dataset; 500 or 99 by default.", metavar="NNN")
    ] = None,
    split: Annotated[
        str | None, option("--split", "Name or file; the card's default otherwise.", metavar="NAME")
    ] = None,
    link: Annotated[
        bool, option("--link", "Hard-link files that are right already instead of copying.")
    ] = False,
    path: Root = None,
) -> int:
    """Write images unchanged, labels consecutive, test cases apart, and splits_final.json.

    Example: segbench data export msd-hippocampus --output nnUNet_raw
    """
    from segbench.data import open_dataset
    from segbench.data.exchange import export_dataset

    opened = open_dataset(dataset, path=path, max_bytes=settings().max_volume)
    report = export_dataset(opened, output, format=format, number=number, split=split, link=link)
    document = {
        "root": str(report.root),
        "training": report.training,
        "test": report.test,
        "folds": report.folds,
        "labels_unchanged": report.identity,
        "left_out": list(report.left_out),
    }
    lines = [f"{report.root}: {report.training} cases in imagesTr, {report.test} in imagesTs"]
    if report.folds:
        lines.append(f"splits_final.json: {count(report.folds, 'fold')}")
    if not report.identity:
        lines.append("label values were made consecutive: segbench_label_map.json says how")
    if report.left_out:
        lines.append(f"left out by the split: {count(len(report.left_out), 'case')}")
    show(document, lines)
    if not report.folds:
        console.warn("the split has no validation cases: no splits_final.json, nnU-Net makes its own folds")
    return 0
