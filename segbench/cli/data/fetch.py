"""`segbench data fetch`: the only command that opens a connection."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from segbench.cli.common import settings, show
from segbench.core import console
from segbench.core.environment import data_dir


def fetch(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset that is free to download.")],
) -> int:
    """Download a public dataset, check it, unpack it into the data folder. The same command resumes.

    Example: segbench data fetch msd-hippocampus --data-dir data
    """
    from segbench.cards import load_dataset_card
    from segbench.data.fetch import fetch as fetch_dataset

    card = load_dataset_card(dataset)
    folder = data_dir(settings().data_dir)
    with ExitStack() as bars:
        advance, here = None, 0.0

        def progress(have: int, total: int | None) -> None:
            nonlocal advance, here
            now, end = (round(number / 1e6, 1) for number in (have, total or 0))
            if advance is None or now < here:  # what is here before says nothing about the rate
                bars.close()
                bar = console.progress(f"fetch {card.slug}", end, unit="MB", before=now)
                advance, here = bars.enter_context(bar).advance, now
            advance(now - here)
            here = now

        fetched = fetch_dataset(card, folder, progress=progress)
    files = [{"name": name, "sha256": digest, "bytes": size} for name, digest, size in fetched.files]
    document = {"dataset": card.slug, "root": str(fetched.root), "files": files}
    lines = [f"{name}  {size:,} bytes  sha256 {digest}" for name, digest, size in fetched.files]
    lines = [*lines, f"-> {fetched.root}"]
    if fetched.already_here:
        lines = [f"{card.slug} is here already: {fetched.root}"]
    show({**document, "already_here": fetched.already_here}, lines)
    if not settings().json:
        console.note(f"next: segbench data verify {card.slug} --data-dir {folder}")
    return 0
