"""A results folder of nnU-Net v2, as its trainings leave it: which folds there are, and what each one is.

`Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0/validation/*.nii.gz`, with `plans.json`
and `dataset.json` beside the folds. The label maps are scored by our own engine; nnU-Net's `summary.json`
beside them must then say the same Dice.

Source: MIC-DKFZ/nnUNet documentation/how_to_use_nnunet.md, nnunetv2/utilities/file_path_utilities.py (names).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.scoring.case import Row
from segbench.scoring.evaluate import Evaluation, evaluate_predictions
from segbench.scoring.import_summary import TOLERANCE, case_of, read_summary
from segbench.scoring.named import labelling_of_json
from segbench.scoring.request import Request, prepare
from segbench.volumes import stem_and_ending

_CONFIGURATION = re.compile(r"(?P<trainer>[^_].*?)__(?P<plans>.+?)__(?P<configuration>.+)")
_FOLD = re.compile(r"fold_(\d+)")
_RECIPE = ("patch_size", "batch_size", "spacing", "architecture", "normalization_schemes")


@dataclass(frozen=True)
class NnunetFold:
    """The validation of one fold of one configuration.

    Attributes:
        folder: the configuration's folder, `Trainer__Plans__Configuration`.
        fold: number of the fold.
        validation: folder of its label maps.
        cases: ids of these, sorted; those of `summary.json` too, so that a lost file is a missing case.
    """

    folder: Path
    fold: int
    validation: Path
    cases: tuple[str, ...]

    @property
    def dataset_json(self) -> Path:
        """The labels that the network was trained on."""
        return self.folder / "dataset.json"

    def recipe(self) -> dict[str, Any]:
        """Return what the training was: trainer, plans, configuration, and what `plans.json` says of it.

        Raises:
            SegbenchError: SB602 for a `plans.json` that cannot be read.
        """
        parts = _CONFIGURATION.fullmatch(self.folder.name)
        assert parts is not None
        found: dict[str, Any] = dict(parts.groupdict())
        path = self.folder / "plans.json"
        plans = _document(path) if path.is_file() else {}
        known = cast("Mapping[str, Any]", plans.get("configurations", {}))
        entry: Mapping[str, Any] = {}
        name: Any = found["configuration"]
        for _ in range(len(known)):  # a configuration may inherit from another
            entry = {**known.get(name, {}), **entry}
            name = known.get(name, {}).get("inherits_from")
            if name is None:
                break
        found |= {key: entry[key] for key in _RECIPE if key in entry}
        network = found.pop("architecture", None)
        if isinstance(network, Mapping):
            found["network"] = cast("Mapping[str, Any]", network).get("network_class_name")
        debug = self.folder / f"fold_{self.fold}" / "debug.json"
        epochs = _document(debug).get("num_epochs") if debug.is_file() else None
        return found if epochs is None else {**found, "epochs": _number(epochs)}

    def differing(self, rows: Sequence[Row], labels: Mapping[str, tuple[int, ...]]) -> tuple[int, list[str]]:
        """Return how many Dice values of `summary.json` were compared, and those that are not ours.

        Args:
            rows: our rows of this fold.
            labels: region -> labels, as they were scored.
        """
        path = self.validation / "summary.json"
        if not path.is_file():
            return 0, []
        theirs: dict[tuple[str, tuple[int, ...]], float] = {}
        for entry in read_summary(path)["metric_per_case"]:
            for key, values in entry["metrics"].items():
                members = tuple(sorted(int(number) for number in re.findall(r"\d+", key)))
                theirs[case_of(entry, path), members] = float(values.get("Dice", math.nan))
        compared, wrong = 0, list[str]()
        for row in rows:
            value = theirs.get((row["case"], tuple(sorted(labels[row["region"]]))))
            if value is None or math.isnan(value) or row["status"] != "ok":
                continue
            compared += 1
            if abs(row["dice"] - value) > TOLERANCE:
                wrong.append(
                    f"{row['case']}, {row['region']}: Dice {row['dice']:.6g} here, {value:.6g} there"
                )
        return compared, wrong


def find_folds(root: Path) -> list[NnunetFold]:
    """Return the folds below a folder: of results, of a dataset, of a configuration, of one fold.

    Left out are `fold_all`, trainings that run, ensembles and joined folders, as `left_out` tells.

    Raises:
        SegbenchError: SB201 no such folder, SB311 no validated fold in it.
    """
    if not root.is_dir():
        raise SegbenchError("SB201", "no such folder", path=root, expected="a results folder of nnU-Net v2")
    root = root.resolve().parent if root.name == "validation" else root.resolve()
    places = [root] if _FOLD.fullmatch(root.name) else sorted(root.glob("fold_*"))
    for depth in ("*/fold_*", "*/*/fold_*"):
        places = places or sorted(root.glob(depth))
    folds: list[NnunetFold] = []
    for place in places:
        number, validation = _FOLD.fullmatch(place.name), place / "validation"
        if number is None or not validation.is_dir() or not _CONFIGURATION.fullmatch(place.parent.name):
            continue
        names = {
            parts[0] for path in validation.iterdir() if (parts := stem_and_ending(path.name)) is not None
        }
        summary = validation / "summary.json"
        if summary.is_file():
            names.update(case_of(entry, summary) for entry in read_summary(summary)["metric_per_case"])
        if names:
            folder = place.parent
            folds.append(NnunetFold(folder, int(number.group(1)), validation, tuple(sorted(names))))
    if not folds:
        seen = ", ".join(sorted(path.name for path in root.iterdir())[:5])
        raise SegbenchError(
            "SB311",
            "there is no fold with a validation here",
            path=root,
            expected="DatasetNNN_NAME/Trainer__Plans__Configuration/fold_K/validation/*.nii.gz",
            found=seen or "an empty folder",
            mend="name the results folder; label maps of fold_all, ensembles and joined folds are scored by "
            "segbench evaluate DIR --dataset NAME",
        )
    return folds


def left_out(root: Path, folds: Sequence[NnunetFold]) -> list[str]:
    """Return what lies beside the folds and is not scored, with the reason.

    Args:
        root: as `find_folds`; beside a single fold nothing is looked for.
        folds: those found below it.
    """
    if _FOLD.fullmatch(root.resolve().name) or root.name == "validation":
        return []
    scored = {fold.validation.parent for fold in folds}
    told: list[str] = []
    for folder in dict.fromkeys(fold.folder for fold in folds):
        for place in sorted(each for each in folder.iterdir() if each.is_dir() and each not in scored):
            if place.name == "fold_all":
                told.append(f"{folder.name}/fold_all: it was trained on the cases that it predicts")
            elif place.name.startswith("crossval_results"):
                told.append(f"{folder.name}/{place.name}: the label maps of the folds once more")
            elif _FOLD.fullmatch(place.name):
                told.append(f"{folder.name}/{place.name}: no validation yet")
    for dataset in dict.fromkeys(fold.folder.parent for fold in folds):
        told += [
            f"ensembles/{place.name}: segbench evaluate scores its label maps"
            for place in sorted(dataset.glob("ensembles/*"))
            if place.is_dir()
        ]
    return told


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document: Any = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SegbenchError("SB602", f"the file cannot be read: {error}", path=path) from error
    if not isinstance(document, dict):
        raise SegbenchError("SB602", "this is not a document of nnU-Net", path=path, expected="a JSON object")
    return cast("Mapping[str, Any]", document)


def _number(value: Any) -> Any:
    """nnU-Net writes `debug.json` as texts."""
    text = str(value)
    return int(text) if text.isdigit() else value


@dataclass(frozen=True)
class ScoredFold:
    """What a fold of nnU-Net scores here.

    Attributes:
        fold: where it lies.
        evaluation: its rows and its run.
        compared: Dice values that stand in its own `summary.json` too.
        differing: those that are not ours, in words.
    """

    fold: NnunetFold
    evaluation: Evaluation
    compared: int
    differing: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fold as `--json` prints it."""
        return {
            "fold": self.fold.fold,
            "recipe": self.fold.recipe(),
            "compared_with_summary": self.compared,
            "differing": list(self.differing),
            **self.evaluation.as_json(),
        }


def score_folds(root: Path, request: Request, *, command: Sequence[str] | None = None) -> list[ScoredFold]:
    """Score the validation of every fold below a results folder; each becomes a run of its own.

    Folds are folds of one row, and trainer, plans and configuration are its model: they stand beside trained
    runs in every table. A fold that was scored before costs the look at its files.

    Args:
        root: as `find_folds`.
        request: how to score; predictions, cases, model and fold are those of each fold.
        command: the command line, for the record.

    Raises:
        SegbenchError: as `find_folds` and `evaluate_predictions`; SB104 when the training numbered a region's
            labels otherwise than the dataset does.
    """
    folds = find_folds(root)
    named = request.dataset is not None or request.dataset_json is not None or request.regions is not None
    scored: list[ScoredFold] = []
    for fold in folds:
        own = labelling_of_json(fold.dataset_json) if fold.dataset_json.is_file() else None
        wanted = replace(
            request,
            prediction=fold.validation,
            dataset_json=request.dataset_json if named or own is None else fold.dataset_json,
            cases=fold.cases,
            name=request.name or fold.folder.name,
            fold=fold.fold,
            origin={"nnunet": fold.recipe()},
        )
        if own is not None:
            _check_numbers(fold, own.regions, prepare(wanted).rules.regions)
        evaluation = evaluate_predictions(wanted, command=command)
        compared, wrong = fold.differing(evaluation.rows, evaluation.rules.regions)
        scored.append(ScoredFold(fold, evaluation, compared, tuple(wrong)))
    return scored


def _check_numbers(
    fold: NnunetFold, theirs: Mapping[str, tuple[int, ...]], ours: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse label maps whose numbers mean other structures than in the dataset."""
    mine = {name.lower(): set(labels) for name, labels in ours.items()}
    for name, labels in theirs.items():
        if mine.get(name.lower(), set(labels)) != set(labels):
            raise SegbenchError(
                "SB104",
                f"{fold.folder.name} was trained with other label values: {name}",
                path=fold.dataset_json,
                expected=f"{name}: {', '.join(map(str, sorted(mine[name.lower()])))}",
                found=", ".join(map(str, labels)),
                mend="segbench data import predictions FOLDER --map FILE turns the values back",
            )
