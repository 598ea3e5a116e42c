"""`segbench weights`: from anybody's checkpoint to safetensors, and back to the official names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings
from segbench.core import console


def import_weights(
    file: Annotated[
        Path, typer.Argument(help=".pt, .pth or .safetensors; tensors only, nothing is executed.")
    ],
    model: Annotated[str, typer.Option(help="The model that the weights belong to.")],
    output: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
) -> None:
    """Convert a checkpoint to safetensors in segbench's names; every tensor must fit."""
    from segbench.networks import weights

    report = weights.import_weights(file, model, output)
    if settings().json:
        console.emit_json({"schema_version": 1, "output": str(output), "loaded": len(report.loaded)})
    else:
        console.emit(f"{len(report.loaded)} tensors -> {output}")


def export_weights(
    file: Annotated[Path, typer.Argument(help="A .safetensors file of segbench.")],
    model: Annotated[str, typer.Option(help="The model that the weights belong to.")],
    output: Annotated[Path, typer.Option(help="The file to write: .safetensors, .pt or .pth.")],
) -> None:
    """Write weights under the names of the authors' own code."""
    from segbench.networks import weights

    names = weights.export_weights(file, model, output)
    if settings().json:
        console.emit_json({"schema_version": 1, "output": str(output), "tensors": len(names)})
    else:
        console.emit(f"{len(names)} tensors in official names -> {output}")
