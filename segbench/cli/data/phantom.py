"""`segbench data phantom`: generated scans in the layouts of the real datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from segbench.cli.common import show


def phantom(
    kind: Annotated[
        Literal["crc", "brats", "aiib", "abdomenatlas", "msd", "all"],
        typer.Argument(help="Which layout; all: the five of them."),
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="A folder that does not exist or is empty.")
    ],
    size: Annotated[
        Literal["tiny", "small", "full"],
        typer.Option(help="tiny: 48 voxels an axis at most; full: native size."),
    ] = "tiny",
    cases: Annotated[
        int | None, typer.Option(help="Labelled cases; 12, 60 or 20 by size. Case k is always the same.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives other scans.")] = 0,
    no_traps: Annotated[
        bool, typer.Option("--no-traps", help="Leave out the traps (empty labels, cut fields of view, ...).")
    ] = False,
) -> int:
    """Generate scans with known truth, the same bits on every machine.

    With `all`, DEST becomes a data directory: `segbench run --dataset mission --data-dir DEST` then runs on
    generated stand-ins for CRC-2000, BraTS 2023, AIIB 2023 and AbdomenAtlas.

    Example: segbench data phantom brats data/brats --cases 12
    """
    import json

    from segbench.core.environment import thread_count
    from segbench.data.phantoms import FOLDERS, generate

    workers = 1 if size == "tiny" else thread_count()  # tiny ones are written before a process has started
    root = generate(kind, destination, size, cases, seed, workers=workers, traps=not no_traps)
    roots = [root / folder for folder in FOLDERS.values()] if kind == "all" else [root]
    described: list[tuple[Path, list[dict[str, Any]]]] = [
        (path, json.loads((path / "phantom.json").read_text(encoding="utf-8"))["cases"]) for path in roots
    ]
    trees, lines = [], []
    for path, found in described:
        labelled = [case for case in found if case["label_sha256"]]
        trapped = sum(bool(case["traps"]) for case in labelled)
        trees.append({"root": str(path), "cases": [case["case"] for case in labelled]})
        lines.append(f"{path}: {len(labelled)} cases, {trapped} with a trap (phantom.json names them)")
    show({"kind": kind, "size": size, "seed": seed, "trees": trees}, lines)
    return 0
