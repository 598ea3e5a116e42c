"""`segbench data prepare`: prepare a dataset's cases ahead of training, and tidy the cache."""

from __future__ import annotations

from typing import Annotated

import typer

from segbench.cli.common import settings, show
from segbench.cli.options import Root, option
from segbench.core.errors import ExitCode, SegbenchError


def prepare(
    dataset: Annotated[str | None, typer.Argument(help="The dataset; none with --evict alone.")] = None,
    path: Root = None,
    protocol: Annotated[str, option("--protocol", "Protocol, or a TOML file.")] = "standard",
    workers: Annotated[int, option("--workers", "Processes.", min=0)] = 0,
    evict: Annotated[
        float | None,
        option("--evict", "Remove recipes used longest ago beyond this size.", metavar="KEEP_GB"),
    ] = None,
) -> int:
    """Prepare every case once for a protocol, shared by all models; or evict old recipes from the cache.

    Example: segbench data prepare msd-hippocampus --protocol standard
    """
    from segbench.runs.prepare import evict_recipes, prepare_ahead

    if dataset is None and evict is None:
        raise SegbenchError(
            "SB104", "name a dataset, or --evict KEEP_GB", mend="segbench data prepare --help"
        )
    document: dict[str, object] = {}
    lines, code = [], ExitCode.DONE
    if evict is not None:
        removed = evict_recipes(evict)
        document["evicted"] = [str(folder) for folder in removed]
        lines.append(f"{len(removed)} prepared recipes removed")
    if dataset is not None:
        data_dir = settings().data_dir
        prepared = prepare_ahead(dataset, path=path, data_dir=data_dir, protocol=protocol, workers=workers)
        document |= prepared
        code = ExitCode.PARTIAL if prepared["failures"] else ExitCode.DONE
        done = f"{prepared['cases']} cases of {prepared['dataset']}"
        lines.append(f"{done} for {protocol} -> {prepared['folder']}")
    show(document, lines)
    return code
