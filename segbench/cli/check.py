"""`segbench check`: does a network of one's own work, before hours are spent on it."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from segbench.cli.common import settings, show
from segbench.core import console
from segbench.core.errors import SegbenchError


def check(
    what: Annotated[str, typer.Argument(help="model:NAME.")],
    channels: Annotated[int, typer.Option(min=1, help="Input channels.")] = 1,
    classes: Annotated[int, typer.Option(min=1, help="Output channels.")] = 2,
    patch: Annotated[
        str | None,
        typer.Option(metavar="DxHxW", help="Size of the patch. Default: the card's smallest, at least 8."),
    ] = None,
) -> int:
    """Build a network and send one patch through it, forward and backward, on the CPU.

    Example: segbench check model:mine --channels 4 --classes 3
    """
    from segbench.networks.check import check_network
    from segbench.profiling.schema import parse_shape

    kind, _, name = what.partition(":")
    if kind != "model" or not name:
        raise SegbenchError(
            "SB104",
            f"segbench check {what}: no such thing",
            expected="model:NAME",
            found=what,
            mend=f"segbench data verify {name}"
            if kind == "dataset"
            else f"segbench check model:{name or kind}",
        )
    size = None if patch is None else parse_shape(patch, 3, flag="--patch")
    if not settings().json:
        console.note(f"{name}: one patch forward and backward, on the CPU")
    with contextlib.redirect_stdout(sys.stderr):  # a network may print; this stream is for the result
        found = check_network(name, in_channels=channels, out_channels=classes, patch=size)
    names = ("model", "in_channels", "out_channels", "parameters")
    document = {name: getattr(found, name) for name in names} | {
        "patch": list(found.patch),
        "faults": list(found.faults),
        "notes": list(found.notes),
    }
    tried = "x".join(map(str, found.patch))
    sound = f"{name}: builds ({found.parameters:,} parameters), forward and backward on {tried}: sound"
    if settings().json:
        show(document)
        return 2 if found.faults else 0
    found.raise_faults()
    for note in found.notes:
        console.note(f"{name}: {note}")
    show(document, [sound])
    return 0
