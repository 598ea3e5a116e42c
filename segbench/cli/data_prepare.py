"""`segbench data prepare`: prepare a dataset's cases ahead of training, and tidy the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings
from segbench.core import console
from segbench.core.errors import ExitCode, SegbenchError


def prepare(
    dataset: Annotated[str | None, typer.Argument(help="The dataset; none with --evict alone.")] = None,
    path: Annotated[Path | None, typer.Option(help="The dataset's root itself.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of datasets.", envvar="SEGBENCH_DATA")] = None,
    protocol: Annotated[str, typer.Option(help="Protocol, or a TOML file.")] = "standard",
    workers: Annotated[int, typer.Option(help="Processes.", min=0)] = 0,
    evict: Annotated[
        float | None,
        typer.Option(metavar="KEEP_GB", help="Remove recipes used longest ago beyond this size."),
    ] = None,
) -> int:
    """Prepare every case once for a protocol, shared by all models; or evict old recipes from the cache."""
    from segbench.runs.prepare import evict_recipes, prepare_ahead

    if dataset is None and evict is None:
        raise SegbenchError(
            "SB104", "name a dataset, or --evict KEEP_GB", mend="segbench data prepare --help"
        )
    document: dict[str, object] = {"schema_version": 1}
    code = ExitCode.DONE
    if evict is not None:
        removed = evict_recipes(evict)
        document["evicted"] = [str(folder) for folder in removed]
        if not settings().json:
            console.emit(f"{len(removed)} prepared recipes removed")
    if dataset is not None:
        prepared = prepare_ahead(dataset, path=path, data_dir=data_dir, protocol=protocol, workers=workers)
        document |= prepared.as_dict()
        code = ExitCode.PARTIAL if prepared.failures else ExitCode.DONE
        if not settings().json:
            console.emit(f"{prepared.cases} cases of {prepared.dataset} for {protocol} -> {prepared.folder}")
    if settings().json:
        console.emit_json(document)
    return code
