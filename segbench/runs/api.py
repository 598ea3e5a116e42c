"""`segbench.run` and `segbench.evaluate`: the commands' work as Python functions, same words, same names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segbench.core.environment import results_dir
from segbench.runs.cell import Execution
from segbench.runs.drive import Outcome, run_plan
from segbench.runs.plan import Request, expanded, make_plan
from segbench.scoring.evaluate import Evaluation, evaluate_predictions
from segbench.scoring.evaluate import Request as ExternalRequest


def run(
    model: str | Sequence[str],
    dataset: str | Sequence[str],
    *,
    protocol: str | None = None,
    fold: Sequence[int] | str = (0,),
    seed: Sequence[int] | None = None,
    split: str | None = None,
    limit: int = 0,
    set: Mapping[str, object] | None = None,
    init: Path | str | None = None,
    acknowledge: bool = False,
    data_dir: Path | str | None = None,
    results: Path | str | None = None,
    device: str = "auto",
    workers: int = 0,
) -> Outcome:
    """Train and evaluate models on datasets; the same call again continues.

    Args:
        model: Slugs, globs or "all".
        dataset: Slugs, globs or "all" (every dataset but the phantoms).
        protocol: Name or TOML file; None: standard, and demo on generated images.
        fold: Fold indices or "all".
        seed: Seeds; None takes the protocol's default.
        split: Split by name or file.
        limit: Cases per part, 0 for all.
        set: Protocol fields to override, e.g. {"budget.samples": 64}.
        init: A .safetensors file that the networks start from.
        acknowledge: Start from it though test cases are, or may be, among what it was trained on.
        data_dir: Folder of datasets.
        results: Folder of runs.
        device: "auto", "cpu" or "cuda".
        workers: Processes that load data.

    Returns:
        Every cell with its record, and the exit code the command would have.

    Raises:
        SegbenchError: SB101, SB104, SB110 for what was asked; data and training faults stay in their cells.
    """
    request = Request(
        models=[model] if isinstance(model, str) else model,
        datasets=[dataset] if isinstance(dataset, str) else dataset,
        results=results_dir(results),
        protocol=protocol,
        overrides=set,
        folds=fold,
        seeds=seed,
        split=split,
        limit=limit,
        data_dir=None if data_dir is None else Path(data_dir),
        init=None if init is None else Path(init),
        acknowledge=acknowledge,
    )
    execution = Execution(
        device=device, workers=workers, data_dir=None if data_dir is None else str(data_dir)
    )
    return run_plan(make_plan(expanded(request)), execution, in_process=True)


def evaluate(prediction: Path | str, reference: Path | str | None = None, **options: Any) -> Evaluation:
    """Score predictions of any tool against references and leave a run of kind `external`.

    Args:
        prediction: Folder of predictions.
        reference: Folder of references; may be left out with `dataset`.
        options: The other fields of `segbench.scoring.evaluate.Request`, named as the command's flags.

    Raises:
        SegbenchError: As the command.
    """
    folder = None if reference is None else Path(reference)
    return evaluate_predictions(ExternalRequest(prediction=Path(prediction), reference=folder, **options))
