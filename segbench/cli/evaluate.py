"""`segbench evaluate`: score predictions of any tool against references."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segbench.cli.common import settings, show, split_list
from segbench.cli.options import Fold, Seed, option
from segbench.core import console
from segbench.core.catalogue import ExitCode
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import Interrupted

if TYPE_CHECKING:
    from segbench.scoring.evaluate import Evaluation

WHAT, HOW, RUN = "What", "How", "Run"
_FOLDERS = "Folders. References: by default the dataset's own."
Folders = Annotated[list[Path] | None, typer.Argument(metavar="PREDICTIONS [REFERENCES]", help=_FOLDERS)]
_REFERENCE = "References; repeat for a second reader."
Reference = Annotated[list[Path] | None, option("--reference", _REFERENCE, WHAT, "DIR")]
_DATASET = "Regions, tolerances: a dataset, or its dataset.json."
DatasetName = Annotated[str | None, option("--dataset", _DATASET, WHAT, "NAME|FOLDER|FILE")]
_REGION = "A region and its labels; repeat."
Region = Annotated[list[str] | None, option("--region", _REGION, WHAT, "NAME=1,2")]
_LABELS = "Names of labels; all found are scored."
Labels = Annotated[str | None, option("--labels", _LABELS, WHAT, "1=NAME,...")]
Cases = Annotated[Path | None, option("--cases", "Case ids to score, one a line.", WHAT, "FILE")]
Split = Annotated[str | None, option("--split", "Score the test part of a split.", WHAT, "NAME|FILE")]
Name = Annotated[str | None, option("--name", "The model. Default: the folder's name.", WHAT, "LABEL")]

_PROFILE = "Metric profile. Default: the card's, else honest."
Profile = Annotated[str | None, option("--profile", _PROFILE, HOW, "NAME|FILE")]
EmptyPolicy = Annotated[
    Literal["worst", "paper", "brats", "brats2026", "nan", "inf"] | None,
    option("--empty-policy", "Score when prediction or reference is empty.", HOW),
]
_TOLERANCE = "Tolerance of the NSD in mm."
Tolerance = Annotated[list[str] | None, option("--nsd-tolerance", _TOLERANCE, HOW, "MM|NAME=MM")]
Geometry = Annotated[Literal["strict", "shape"] | None, option("--geometry", "How grids are compared.", HOW)]
OtherLabels = Annotated[
    Literal["error", "background"], option("--other-labels", "Labels nobody declared.", HOW)
]

_WORKERS = "Processes. Default: cores, as memory allows."
Workers = Annotated[int | None, option("--workers", _WORKERS, RUN, min=1)]
OnError = Annotated[
    Literal["score", "stop"], option("--on-error", "Score unusable predictions worst, or stop.", RUN)
]
_UNDER = "Exit 6 when a mean is worse than X."
FailUnder = Annotated[list[str] | None, option("--fail-under", _UNDER, RUN, "METRIC=X")]
Fresh = Annotated[Literal["evaluate"] | None, option("--fresh", "Score all cases again.", RUN)]


def evaluate(
    folders: Folders = None,
    reference: Reference = None,
    dataset: DatasetName = None,
    region: Region = None,
    labels: Labels = None,
    cases: Cases = None,
    split: Split = None,
    name: Name = None,
    fold: Fold = 0,
    seed: Seed = 0,
    profile: Profile = None,
    empty_policy: EmptyPolicy = None,
    nsd_tolerance: Tolerance = None,
    geometry: Geometry = None,
    other_labels: OtherLabels = "error",
    workers: Workers = None,
    on_error: OnError = "score",
    fail_under: FailUnder = None,
    fresh: Fresh = None,
) -> int:
    """Score predictions of any tool; no case is dropped, and the same command goes on.

    Without regions every label that is found is scored.

    Example: segbench evaluate preds labelsTs --region tumour=1
    """
    from segbench.cli.tables.evaluation import evaluation_lines
    from segbench.scoring.evaluate import Request
    from segbench.scoring.named import parse_regions
    from segbench.scoring.readers import evaluate_with_readers

    prediction, references = _folders(folders or [], reference or [])
    is_json = dataset is not None and dataset.endswith(".json")
    gates = parse_numbers(fail_under, "--fail-under", "dice=0.80")
    request = Request(
        prediction=prediction,
        reference=references[0] if references else None,
        dataset=None if is_json else dataset,
        dataset_json=Path(dataset) if dataset is not None and is_json else None,
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
        evaluation, readers = evaluate_with_readers(request, references[1:])
    except Interrupted as stop:
        console.warn("stopped; finished cases are kept, the same command goes on")
        return stop.exit_code
    show(evaluation.as_json(readers), evaluation_lines(evaluation, readers))
    if not passes(evaluation, gates):
        return ExitCode.GATE
    return ExitCode.PARTIAL if evaluation.failures else ExitCode.DONE


def _folders(given: list[Path], references: list[Path]) -> tuple[Path, list[Path]]:
    """The folder of predictions, and those of references named by place or by option."""
    mend = "segbench evaluate PREDICTIONS REFERENCES; second readers: --reference A --reference B"
    if not given:
        raise SegbenchError("SB104", "no predictions are named", mend=mend)
    if len(given) > 2 or (len(given) == 2 and references):
        found = ", ".join(str(path) for path in [*given, *references])
        raise SegbenchError("SB104", "more folders than predictions and references", found=found, mend=mend)
    return given[0], given[1:] or references


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
