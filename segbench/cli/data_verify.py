"""`segbench data verify`: what is wrong with a dataset, before anything trains on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings
from segbench.core import console
from segbench.core.environment import physical_cores


def verify(
    dataset: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="Dataset card or folder.")],
    path: Annotated[Path | None, typer.Option(metavar="DIR", help="The dataset's root itself.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of datasets.", envvar="SEGBENCH_DATA")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Also check this split for leaks and ids.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    headers: Annotated[bool, typer.Option("--headers", help="Headers only, no voxels.")] = False,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes that read (default: cores).")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Read every file again.")] = False,
) -> int:
    """Check layout, geometry, voxels, labels, duplicates and the split. Exit 4 with any error."""
    from segbench.data.verify.api import verify as verify_dataset
    from segbench.data.verify.report import as_text

    with ExitStack() as bars:

        def begin(title: str, total: int) -> Callable[[float], None]:
            bars.close()  # the bar of the pass before
            return bars.enter_context(console.progress(title, total)).advance

        report = verify_dataset(
            dataset,
            path=path,
            data_dir=data_dir,
            split=split,
            headers_only=headers,
            workers=workers or physical_cores(),
            cache=False if no_cache else None,
            max_bytes=settings().max_volume,
            on_progress=begin,
        )
    if settings().json:
        console.emit_json(report.as_json())
    else:
        console.emit(as_text(report, verbose=settings().verbose))
    return 0 if report.is_clean(strict=strict) else 4
