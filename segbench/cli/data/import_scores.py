"""`segbench data import scores`: scores that another tool computed, as runs that compare and report."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segbench.cli.common import settings, show
from segbench.cli.options import Fold, Seed
from segbench.core import console
from segbench.core.catalogue import ExitCode
from segbench.core.errors import SegbenchError

if TYPE_CHECKING:
    from segbench.cards.dataset_card import DatasetCard
    from segbench.scoring.import_scores import Imported


def scores(
    source: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE|DIR...", help="CSV tables, nnU-Net's summary.json, or a Touchstone clone."
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER", help="Dataset of the scores; a Touchstone clone has its own."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL", help="The model of each file, in order. Default: the file's or folder's name."
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT=COLUMN", help="Column of case, region or a metric, where its name differs."
        ),
    ] = None,
    fold: Fold = 0,
    seed: Seed = 0,
) -> int:
    """Take in scores per case: of CSV tables (columns case, region, metrics) or nnU-Net's summary.json.

    Files of several models are kept apart by --name; what one has a score for and another has not counts as
    missing. Each value of a summary.json must follow from its counts, or its row is refused.

    Example: segbench data import scores a.csv b.csv --dataset msd-spleen --name netA --name netB
    """
    from segbench.scoring.import_scores import import_tables, import_touchstone
    from segbench.scoring.import_summary import import_summary

    results = settings().results
    if len(source) == 1 and source[0].is_dir():
        return _show(import_touchstone(source[0], results=results, command=sys.argv))
    if dataset is None:
        raise SegbenchError("SB104", "--dataset is needed: whose scores are these?", mend="--dataset NAME")
    names = name or []
    if names and len(names) != len(source):
        message = f"{len(source)} files and {len(names)} names"
        raise SegbenchError("SB104", message, mend="give --name once for each file, in order")
    models = dict(zip(source, names or [_model_of(path) for path in source], strict=True))
    if len(set(models.values())) < len(source):
        raise SegbenchError("SB104", "two files would be one model", mend="give each its --name")
    card = _card(dataset)
    taken: list[Imported] = []
    tables = {model: {path: None} for path, model in models.items() if path.suffix.lower() != ".json"}
    if tables:
        columns = dict(_columns(column or []))
        taken += import_tables(
            tables,
            card.slug,
            columns=columns,
            fold=fold,
            seed=seed,
            results=results,
            command=sys.argv,
        )
    for path, model in models.items():
        if path.suffix.lower() == ".json":
            run = import_summary(
                path, card, name=model, fold=fold, seed=seed, results=results, command=sys.argv
            )
            taken.append(run)
    return _show(tuple(taken))


def _card(dataset: str) -> DatasetCard:
    from segbench.cards import list_dataset_cards, load_dataset_card
    from segbench.data import open_dataset

    known = dataset in list_dataset_cards() or not Path(dataset).is_dir()
    return load_dataset_card(dataset) if known else open_dataset(dataset).card


def _model_of(path: Path) -> str:
    """The folder's name for a summary.json, which all have in common, else the file's."""
    return path.resolve().parent.name if path.suffix.lower() == ".json" else path.stem


def _columns(given: list[str]) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in given]
    wrong = [text for text, (what, _, named) in zip(given, pairs, strict=True) if not what or not named]
    if wrong:
        raise SegbenchError(
            "SB104", f"--column {wrong[0]!r} is not WHAT=COLUMN", mend="for example --column dice=DSC"
        )
    return [(what.strip(), named.strip()) for what, _, named in pairs]


def _show(taken: tuple[Imported, ...]) -> int:
    """Print the runs, the means of a summary beside its own; exit 3 where a row was refused."""
    refused = sum(len(run.refused) for run in taken)
    for run in taken:
        for refusal in run.refused:
            place = f"{refusal['case']}, {refusal['region']}"
            console.warn(f"SB217: {place}: {refusal['message']}; scored as a failure")
    documents: dict[str, Any] = {"runs": [run.as_json() for run in taken]}
    if any(run.dataset.startswith("touchstone-") for run in taken):
        from segbench.scoring.import_scores import LICENCE

        documents["licence"] = LICENCE
    show(documents, _lines(taken))
    return ExitCode.PARTIAL if refused else ExitCode.DONE


def _lines(taken: tuple[Imported, ...]) -> Iterator[str]:
    header = ["dataset", "model", "rows", "missing", "mean Dice"]
    rows = [
        [run.dataset, run.model, str(len(run.rows)), str(run.missing), _number(run.mean)] for run in taken
    ]
    yield from console.table_lines(header, rows, right=(2, 3, 4))
    for run in taken:
        if run.theirs:
            means = [[region, _number(ours), _number(theirs)] for region, (ours, theirs) in run.means.items()]
            yield from console.table_lines(["region", "mean Dice here", "nnU-Net's own"], means, right=(1, 2))
            compared = f", counts of {run.compared} cases equal to the files'" if run.compared else ""
            yield f"{len(run.refused)} rows refused{compared}; no distances in the file"
        yield f"-> {run.folder}/{'         exit 3' if run.refused else ''}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
