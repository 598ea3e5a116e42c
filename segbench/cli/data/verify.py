"""`segbench data verify`: what is wrong with a dataset, before anything trains on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated

import typer

from segbench.cli.common import settings, show
from segbench.cli.options import Root, option
from segbench.core import console
from segbench.core.environment import thread_count


def verify(
    dataset: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="Dataset card or folder.")],
    path: Root = None,
    split: Annotated[
        str | None, option("--split", "Also check this split for leaks and ids.", metavar="NAME|FILE")
    ] = None,
    strict: Annotated[bool, option("--strict", "Warnings count as errors.")] = False,
    headers: Annotated[bool, option("--headers", "Headers only, no voxels.")] = False,
    no_cache: Annotated[bool, option("--no-cache", "Read every file again.")] = False,
) -> int:
    """Check layout, geometry, voxels, labels, duplicates and the split. Exit 4 with any error.

    Example: segbench data verify msd-hippocampus
    """
    from segbench.data.verify.api import verify as verify_dataset
    from segbench.data.verify.report import as_text

    with ExitStack() as bars:

        def begin(title: str, total: int) -> Callable[[float], None]:
            bars.close()  # the bar of the pass before
            return bars.enter_context(console.progress(title, total)).advance

        report = verify_dataset(
            dataset,
            path=path,
            data_dir=settings().data_dir,
            split=split,
            headers_only=headers,
            workers=thread_count(),
            cache=False if no_cache else None,
            max_bytes=settings().max_volume,
            on_progress=begin,
        )
    show(report.as_json(), [] if settings().json else [as_text(report, verbose=settings().verbose)])
    return 0 if report.is_clean(strict=strict) else 4
