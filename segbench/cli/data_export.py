"""`segbench data export`: the cases of a split as a dataset of nnU-Net or MSD."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from segbench.cli.common import settings
from segbench.core import console


def export(
    dataset: Annotated[str, typer.Argument(metavar="DATASET|FOLDER", help="A dataset, or its folder.")],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Receives DatasetNNN_Name (nnUNet_raw) or TaskNN_Name.")
    ],
    format: Annotated[Literal["nnunet", "msd"], typer.Option(help="Whose layout.")] = "nnunet",
    number: Annotated[
        int | None, typer.Option("--id", metavar="NNN", help="Number of the dataset; 500 or 99 by default.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name or file; the card's default otherwise.")
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Hard-link files that are right already instead of copying.")
    ] = False,
    path: Annotated[Path | None, typer.Option(metavar="DIR", help="The dataset's root itself.")] = None,
) -> int:
    """Write images unchanged, labels consecutive, test cases apart, and splits_final.json."""
    from segbench.data import open_dataset
    from segbench.data.exchange import export_dataset

    opened = open_dataset(dataset, path=path, max_bytes=settings().max_volume)
    report = export_dataset(opened, output, format=format, number=number, split=split, link=link)
    if settings().json:
        console.emit_json(
            {
                "schema_version": 1,
                "root": str(report.root),
                "training": report.training,
                "test": report.test,
                "folds": report.folds,
                "labels_unchanged": report.identity,
                "left_out": list(report.left_out),
            }
        )
        return 0
    console.emit(f"{report.root}: {report.training} cases in imagesTr, {report.test} in imagesTs")
    if report.folds:
        console.emit(f"splits_final.json: {report.folds} fold{'s' * (report.folds > 1)}")
    else:
        console.warn("the split has no validation cases: no splits_final.json, nnU-Net makes its own folds")
    if not report.identity:
        console.emit("label values were made consecutive: segbench_label_map.json says how")
    if report.left_out:
        console.emit(f"left out by the split: {len(report.left_out)} cases")
    return 0
