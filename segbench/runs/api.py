"""`segbench.run` and `segbench.evaluate`: the commands' work as Python functions, same words, same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from segbench.cards import list_dataset_cards, list_model_cards, load_dataset_card, load_model_card
from segbench.core.environment import results_dir
from segbench.core.errors import SegbenchError, unknown_name
from segbench.data.opening import MISSION
from segbench.runs.cell import Execution
from segbench.runs.drive import Outcome, run_plan
from segbench.runs.plan import Request, make_plan
from segbench.scoring.evaluate import Evaluation, evaluate_predictions
from segbench.scoring.evaluate import Request as ExternalRequest

Card = TypeVar("Card")


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
        workers: Data workers.

    Returns:
        Every cell with its record, and the exit code the command would have.

    Raises:
        SegbenchError: SB101, SB104, SB110 for what was asked; data and training faults stay in their cells.
    """
    request = make_request(
        model, dataset, protocol=protocol, fold=fold, seed=seed, split=split, limit=limit, overrides=set,
        init=init, acknowledge=acknowledge, data_dir=data_dir, results=results,
    )  # fmt: skip
    execution = Execution(
        device=device, workers=workers, data_dir=None if data_dir is None else str(data_dir)
    )
    return run_plan(make_plan(request), execution, in_process=True)


def make_request(
    model: str | Sequence[str],
    dataset: str | Sequence[str],
    *,
    protocol: str | None = None,
    fold: Sequence[int] | str = (0,),
    seed: Sequence[int] | None = None,
    split: str | None = None,
    limit: int = 0,
    overrides: Mapping[str, object] | None = None,
    init: Path | str | None = None,
    acknowledge: bool = False,
    data_dir: Path | str | None = None,
    results: Path | str | None = None,
) -> Request:
    """A plan's request with names, globs and "all" resolved.

    Raises:
        SegbenchError: SB101 for names that no card has.
    """
    models, datasets = list_model_cards(), list_dataset_cards()
    networks = [slug for slug in models if not _is(slug, load_model_card, lambda card: card.kind == "floor")]
    real = [slug for slug in datasets if not _is(slug, load_dataset_card, lambda card: card.is_phantom)]
    return Request(
        models=expand_names(model, models, what="model", everything=networks),
        datasets=expand_names(
            dataset, datasets, what="dataset", everything=real, groups={"mission": MISSION}
        ),
        results=results_dir(results),
        protocol=protocol,
        overrides=overrides,
        folds=fold,
        seeds=seed,
        split=split,
        limit=limit,
        data_dir=None if data_dir is None else Path(data_dir),
        init=None if init is None else Path(init),
        acknowledge=acknowledge,
    )


def _is(slug: str, load: Callable[[str], Card], what: Callable[[Card], bool]) -> bool:
    """Whether a card is of a kind; a broken one is not known to be, and is told when it is asked for."""
    try:
        return what(load(slug))
    except SegbenchError as error:
        if error.code != "SB110":
            raise
        return False


def expand_names(
    names: str | Sequence[str],
    known: Sequence[str],
    *,
    what: str,
    everything: Sequence[str],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Names with "all", groups and globs replaced, in order, without repeats.

    Raises:
        SegbenchError: SB101 with suggestions for an unknown name or a glob that fits nothing.
    """
    from fnmatch import fnmatchcase

    found: list[str] = []
    for name in [names] if isinstance(names, str) else names:
        if name == "all":
            matches: Sequence[str] = everything
        elif groups and name in groups:
            matches = groups[name]
        elif any(character in name for character in "*?["):
            matches = [candidate for candidate in known if fnmatchcase(candidate, name)]
        else:
            matches = [name] if name in known else []
        if not matches and what == "dataset" and Path(name).is_dir():
            raise SegbenchError(
                "SB101",
                f"{name} is a folder, not the name of a dataset",
                mend=f"segbench data import dataset {name} --output cards, then its slug with --cards cards",
            )
        if not matches:
            raise unknown_name(what, name, known, listing=f"segbench list {what}s")
        found.extend(matches)
    return list(dict.fromkeys(found))


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
