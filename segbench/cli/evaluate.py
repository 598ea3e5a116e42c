"""`segbench evaluate`: score predictions of any tool against references."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segbench.cli.common import settings, split_list
from segbench.core import console
from segbench.core.catalogue import ExitCode
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import Interrupted

if TYPE_CHECKING:
    from segbench.scoring.evaluate import Evaluation

WHAT, HOW, RUN = "What", "How", "Run"


def evaluate(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PREDICTIONS [REFERENCES]]", help="In place of the two options."),
    ] = None,
    prediction: Annotated[
        Path | None,
        typer.Option(help="Folder of predictions.", rich_help_panel=WHAT),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Folder of references. Default: the dataset's own.", rich_help_panel=WHAT),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER", help="Dataset: regions, tolerances.", rich_help_panel=WHAT),
    ] = None,
    dataset_json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="nnU-Net or MSD dataset.json: regions.", rich_help_panel=WHAT),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1,2", help="A region and its labels; repeat.", rich_help_panel=WHAT),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="1=NAME,...", help="Names of labels; all found are scored.", rich_help_panel=WHAT
        ),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Case ids to score, one a line.", rich_help_panel=WHAT),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Score the test part of a split.", rich_help_panel=WHAT),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="The model. Default: the folder's name.", rich_help_panel=WHAT),
    ] = None,
    fold: Annotated[int, typer.Option(help="Fold of the training.", min=0, rich_help_panel=WHAT)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the training.", min=0, rich_help_panel=WHAT)] = 0,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="Metric profile. Default: the card's, else honest.", rich_help_panel=HOW
        ),
    ] = None,
    empty_policy: Annotated[
        Literal["worst", "paper", "brats", "nan", "inf"] | None,
        typer.Option(metavar="worst|paper|brats|nan|inf", help="What empties score.", rich_help_panel=HOW),
    ] = None,
    nsd_tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="MM|NAME=MM", help="Tolerance of the NSD in mm.", rich_help_panel=HOW),
    ] = None,
    geometry: Annotated[
        Literal["strict", "shape"] | None,
        typer.Option(metavar="strict|shape", help="How grids are compared.", rich_help_panel=HOW),
    ] = None,
    other_labels: Annotated[
        Literal["error", "background"],
        typer.Option(metavar="error|background", help="Labels nobody declared.", rich_help_panel=HOW),
    ] = "error",
    backend: Annotated[str, typer.Option(hidden=True)] = "native",
    workers: Annotated[
        int | None,
        typer.Option(help="Processes. Default: cores, as memory allows.", min=1, rich_help_panel=RUN),
    ] = None,
    on_error: Annotated[
        Literal["score", "stop"],
        typer.Option(
            metavar="score|stop", help="Score unusable predictions worst, or stop.", rich_help_panel=RUN
        ),
    ] = "score",
    fail_under: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=X", help="Exit 6 when a mean is worse than X.", rich_help_panel=RUN),
    ] = None,
    fresh: Annotated[
        Literal["evaluate"] | None,
        typer.Option(metavar="evaluate", help="Score all cases again.", rich_help_panel=RUN),
    ] = None,
) -> int:
    """Score predictions of any tool; no case is dropped, and the same command goes on.

    Without --region or --dataset every label that is found is scored.

    Example: segbench evaluate preds labelsTs --region tumour=1
    """
    from segbench.cli.tables.evaluation import print_table
    from segbench.scoring.evaluate import Request, evaluate_predictions
    from segbench.scoring.sources import parse_regions

    if backend != "native":
        raise SegbenchError(
            "SB104",
            f"--backend {backend}: evaluate scores with its own engine alone",
            mend="segbench doctor --metrics compares it with medpy and MONAI on your machine",
        )
    prediction, reference = _folders(folders or [], prediction, reference)
    gates = parse_numbers(fail_under, "--fail-under", "dice=0.80")
    request = Request(
        prediction=prediction,
        reference=reference,
        dataset=dataset,
        dataset_json=dataset_json,
        regions=parse_regions(region or []) or None,
        label_names=_label_names(labels),
        cases=cases,
        split=split,
        profile=profile,
        nsd_tolerance=_tolerance(nsd_tolerance),
        empty_policy=empty_policy,
        geometry=geometry,
        other_labels=other_labels,
        name=name,
        fold=fold,
        seed=seed,
        workers=workers,
        on_error=on_error,
        results=settings().results,
        fresh=fresh is not None,
        max_bytes=settings().max_volume,
        gated=tuple(gates),
    )
    try:
        evaluation = evaluate_predictions(request)
    except Interrupted as stop:
        console.warn("stopped; finished cases are kept, the same command goes on")
        return stop.exit_code
    if settings().json:
        console.emit_json(evaluation.as_json())
    else:
        print_table(evaluation)
    if not passes(evaluation, gates):
        return ExitCode.GATE
    return ExitCode.PARTIAL if evaluation.failures else ExitCode.DONE


def _folders(given: list[Path], prediction: Path | None, reference: Path | None) -> tuple[Path, Path | None]:
    """The folders of predictions and references, named by place or by option."""
    named = [path for path in (prediction, reference) if path is not None]
    if len(given) > 2 or (given and prediction is not None) or (len(given) == 2 and reference is not None):
        raise SegbenchError(
            "SB104",
            "the folders are named twice",
            found=", ".join(str(path) for path in [*given, *named]),
            mend="segbench evaluate PREDICTIONS REFERENCES",
        )
    if not given and prediction is None:
        raise SegbenchError(
            "SB104", "no predictions are named", mend="segbench evaluate PREDICTIONS REFERENCES"
        )
    return given[0] if given else named[0], given[1] if len(given) == 2 else reference


def _label_names(text: str | None) -> dict[int, str]:
    """The names of `--labels 1=liver,2=spleen` (SB104 otherwise)."""
    names: dict[int, str] = {}
    for part in split_list([text] if text else None):
        label, _, name = (each.strip() for each in part.partition("="))
        if not (label.isascii() and label.isdigit() and int(label) > 0 and name) or name in names.values():
            raise SegbenchError(
                "SB104", f"--labels {part!r} is not valid", mend="for example --labels 1=liver,2=spleen"
            )
        names[int(label)] = name
    return names


def passes(evaluation: Evaluation, gates: dict[str, float]) -> bool:
    """Tell whether the mean of every gated metric, over regions, is good enough; name those that are not."""
    from segbench.metrics.registry import METRICS
    from segbench.metrics.summary import MEAN_REGION

    means = {
        summary.metric: summary.mean
        for summary in evaluation.summaries
        if summary.region == MEAN_REGION or len(evaluation.rules.regions) == 1
    }
    passed = True
    for name, limit in gates.items():
        higher = METRICS[name].direction == "higher"
        good = means[name] >= limit if higher else means[name] <= limit
        if not good:
            passed = False
            console.warn(f"gate failed: mean {name} {means[name]:.6g}, asked for {limit:g} or better")
    return passed


def parse_numbers(texts: list[str] | None, flag: str, example: str) -> dict[str, float]:
    """Return the numbers of `NAME=X` texts (SB104 otherwise)."""
    numbers: dict[str, float] = {}
    for text in split_list(texts):
        name, sign, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not sign or not name.strip() or number != number:
            raise SegbenchError(
                "SB104", f"{flag} {text!r} is not valid", mend=f"for example {flag} {example}"
            )
        numbers[name.strip()] = number
    return numbers


def _tolerance(texts: list[str] | None) -> float | dict[str, float] | None:
    parts = split_list(texts)
    if not parts:
        return None
    named = parse_numbers(
        [part if "=" in part else f"default={part}" for part in parts], "--nsd-tolerance", "2 or WT=2"
    )
    for name, value in named.items():
        if not 0 <= value < float("inf"):
            raise SegbenchError("SB104", f"--nsd-tolerance of {name} must be 0 or more, found {value:g}")
    return named
