"""`segbench weights`: from anybody's checkpoint to safetensors, and back to the official names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import show
from segbench.cli.options import WeightsOf, option


def import_weights(
    file: Annotated[
        Path, typer.Argument(help=".pt, .pth or .safetensors; tensors only, nothing is executed.")
    ],
    model: WeightsOf,
    output: Annotated[Path, option("--output", "The .safetensors file to write.")],
) -> None:
    """Convert a checkpoint to safetensors in segbench's names; every tensor must fit.

    Example: segbench weights import model.pt --model segmamba-v2 --output model.safetensors
    """
    from segbench.networks import weights

    count = len(weights.import_weights(file, model, output).loaded)
    show({"output": str(output), "loaded": count}, [f"{count} tensors -> {output}"])


def export_weights(
    file: Annotated[Path, typer.Argument(help="A .safetensors file of segbench.")],
    model: WeightsOf,
    output: Annotated[Path, option("--output", "The file to write: .safetensors, .pt or .pth.")],
) -> None:
    """Write weights under the names of the authors' own code.

    Example: segbench weights export model.safetensors --model segmamba-v2 --output theirs.pt
    """
    from segbench.networks import weights

    count = len(weights.export_weights(file, model, output))
    lines = [f"{count} tensors in official names -> {output}"]
    show({"output": str(output), "tensors": count}, lines)


def weights_card(
    file: Annotated[Path, typer.Argument(help="A .safetensors file.")],
    trained_on: Annotated[
        Path | None,
        option(
            "--trained-on", "Text file: a line is a case id or sha256:DIGEST of an image.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Show what weights were trained on, or write it: FILE.card.json beside them.

    Example: segbench weights card model.safetensors --trained-on cases.txt
    """
    from segbench.core.outputs import check_targets
    from segbench.runs.start import card_path, read_list, start_of, write_card

    if trained_on is not None:
        cases = read_list(trained_on)
        check_targets([card_path(file)], inputs=[file, trained_on])
        if file.suffix == ".safetensors" and file.is_file():
            write_card(file, cases)
    known = start_of(file).trained_on
    listed = [case.case or f"sha256:{case.images[0]}" for case in known or ()]
    many = "not known" if known is None else f"{len(listed)} cases"
    show(
        {"weights": str(file), "trained_on": None if known is None else listed},
        [f"trained on: {many}", *listed],
    )
