"""What `segbench evaluate` is asked, and what is to be done then: names resolved, cases chosen, rules made.

Nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segbench.core.environment import results_dir
from segbench.core.errors import SegbenchError
from segbench.metrics.profiles import load_profile
from segbench.metrics.summary import MEAN_REGION
from segbench.records.identity import run_id as make_run_id
from segbench.records.schema import SCHEMA_VERSION
from segbench.scoring.case import Row
from segbench.scoring.found import found_labelling
from segbench.scoring.masks import Member, structure
from segbench.scoring.named import Labelling, labelling_of_json, read_case_list
from segbench.scoring.record import PROTOCOL
from segbench.scoring.rules import Geometry, ScoringRules, rules_for
from segbench.scoring.sources import (
    DatasetReferences,
    Predictions,
    References,
    files_of,
    find_predictions,
    reference_folder,
)
from segbench.volumes import DEFAULT_MAX_BYTES

if TYPE_CHECKING:
    from segbench.cards.dataset_card import DatasetCard
    from segbench.data import Dataset


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to score and how; the flags of `segbench evaluate` (`metrics.md` 8).

    Attributes:
        prediction: folder of predictions.
        reference: folder of references; None takes those of the dataset.
        dataset: slug, or folder that describes itself.
        dataset_json: nnU-Net's or MSD's `dataset.json`, for regions and labels.
        regions: name -> labels, where neither a dataset nor a `dataset.json` says.
        label_names: names of labels, where nobody names a region and every label found is one.
        cases: file of case ids, or the ids themselves.
        split: split by name or file: its test part of `fold` is scored.
        profile: metric profile by name or file; None takes the card's, else `honest`.
        nsd_tolerance: mm for all regions, or region -> mm.
        empty_policy: instead of the profile's.
        geometry: instead of the profile's.
        other_labels: `background` allows labels that nobody declared and takes them for background.
        name: the model of the rows; None takes the folder's name.
        fold: fold the predictions come from.
        seed: seed of the training they come from.
        workers: processes; None decides by cores, memory and size.
        on_error: `stop` ends at the first unusable prediction.
        results: folder of runs.
        fresh: forget the rows of an earlier run.
        data_dir: folder of datasets.
        max_bytes: largest volume that is read.
        origin: what else the record says of where the predictions come from.
        rules: taken as they are, in place of those that follow from the other fields.
        gated: metrics that the profile must have, because their means will be compared with a limit.
    """

    prediction: Path
    reference: Path | None = None
    dataset: str | None = None
    dataset_json: Path | None = None
    regions: Mapping[str, tuple[int, ...]] | None = None
    label_names: Mapping[int, str] = field(default_factory=dict[int, str])
    cases: Path | Sequence[str] | None = None
    split: str | None = None
    profile: str | None = None
    nsd_tolerance: float | Mapping[str, float] | None = None
    empty_policy: str | None = None
    geometry: Geometry | None = None
    other_labels: Literal["error", "background"] = "error"
    name: str | None = None
    fold: int = 0
    seed: int = 0
    workers: int | None = None
    on_error: Literal["score", "stop"] = "score"
    results: Path | None = None
    fresh: bool = False
    data_dir: Path | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    origin: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rules: ScoringRules | None = None
    gated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """Everything that is known before the first volume is opened."""

    request: Request
    rules: ScoringRules
    references: References
    cases: tuple[str, ...]
    predictions: Predictions
    model: str
    dataset: str
    run_id: str
    folder: Path
    split: str | None

    @property
    def keys(self) -> Row:
        """Return the columns that say whose rows these are."""
        request = self.request
        return {
            "run_id": self.run_id,
            "model": self.model,
            "dataset": self.dataset,
            "protocol": PROTOCOL,
            "fold": request.fold,
            "seed": request.seed,
        }

    @property
    def given(self) -> list[Path]:
        """Return every file that is read."""
        named = [path for path in (self.request.dataset_json, self.request.cases) if isinstance(path, Path)]
        predictions = [path for source in self.predictions.paths.values() for path in files_of(source)]
        return [*named, *(path for case in self.cases for path in self.references.files(case)), *predictions]


def prepare(request: Request) -> Job:
    """Return what is to be done, all names resolved; no volume is opened."""
    card, dataset = _card_of(request)
    if request.reference is None and dataset is None:
        mend = "segbench evaluate PREDICTIONS REFERENCES, or --dataset NAME for the dataset's own"
        raise SegbenchError("SB104", "no references are named", mend=mend)
    labelling = None
    if request.label_names and (card or request.dataset_json or request.regions):
        mend = "--region NAME=LABEL names and scores a label"
        raise SegbenchError("SB104", "--labels needs all labels scored: no --dataset, no --region", mend=mend)
    if request.dataset_json is not None:
        labelling = labelling_of_json(request.dataset_json)
    elif card is None and request.regions is None and request.rules is None:
        labelling = found_labelling(
            request.reference,
            request.prediction,
            profile=request.profile,
            label_names=request.label_names,
            max_bytes=request.max_bytes,
        )
    rules = request.rules or _rules(request, card, labelling)
    _check_names(rules, request.gated)
    structures = _structures(rules, card)
    if request.reference is not None:
        references: References = reference_folder(
            request.reference,
            labels=rules.labels,
            regions=rules.regions,
            structures=structures,
            max_bytes=request.max_bytes,
        )
    else:
        assert dataset is not None  # else no references are named
        references = DatasetReferences(dataset)
    cases, split = _chosen(request, references, dataset)
    model = request.name or request.prediction.resolve().name
    name = card.slug if card is not None else (labelling.name if labelling is not None else "")
    name = name or (request.reference.resolve().name if request.reference is not None else "unnamed")
    identity = make_run_id(
        model,
        name,
        PROTOCOL,
        fold=request.fold,
        seed=request.seed,
        content={
            "schema_version": SCHEMA_VERSION,
            "rules": rules.digest(),
            "cases": list(cases),
            # Two folders of one name are two sources; the path itself never leaves this digest.
            "prediction": str(request.prediction.resolve()),
            "reference": None if request.reference is None else str(request.reference.resolve()),
        },
    )
    return Job(
        request=request,
        rules=rules,
        references=references,
        cases=cases,
        predictions=find_predictions(request.prediction, cases, references.cases, structures),
        model=model,
        dataset=name,
        run_id=identity,
        folder=results_dir(request.results) / identity,
        split=split,
    )


def _card_of(request: Request) -> tuple[DatasetCard | None, Dataset | None]:
    """Return the dataset's card, and the opened dataset where its references or splits are needed."""
    if request.dataset is None:
        if request.split is not None:
            raise SegbenchError("SB104", "--split needs a --dataset to draw on")
        return None, None
    from segbench.cards import list_dataset_cards, load_dataset_card
    from segbench.data import open_dataset

    needs_files = request.reference is None or request.split is not None
    if not needs_files and request.dataset in list_dataset_cards():
        return load_dataset_card(request.dataset), None
    dataset = open_dataset(request.dataset, data_dir=request.data_dir, max_bytes=request.max_bytes)
    return dataset.card, dataset


def _rules(request: Request, card: DatasetCard | None, labelling: Labelling | None) -> ScoringRules:
    name = request.profile or (card.evaluation.profile if card is not None else "honest")
    regions = request.regions
    labels: tuple[int, ...] | None = None
    ignore, mend = None, None
    if labelling is not None and card is None:
        regions, labels, ignore = regions or labelling.regions, labelling.labels, labelling.ignore_label
    elif card is None and regions is not None:
        labels = tuple(label for members in regions.values() for label in members)
        mend = "name a region for it, or take what no region names for background: --other-labels background"
    return rules_for(
        card,
        load_profile(name),
        regions=regions,
        labels=labels,
        ignore_label=ignore,
        tolerance_mm=request.nsd_tolerance,
        empty_policy=request.empty_policy,
        geometry=request.geometry,
        max_bytes=request.max_bytes,
        any_label=request.other_labels == "background",
        label_mend=mend,
    )


def _structures(rules: ScoringRules, card: DatasetCard | None) -> dict[str, Member]:
    """Return what a mask shows by its file's name in small letters: a region, or a label of the card."""
    found: dict[str, Member] = {}
    if card is not None:
        templates = [(value, text) for form in card.layout.form for value, text in form.structures.items()]
        found = {structure(Path(text)).lower(): value for value, text in templates}
        found |= {name.lower(): value for value, name in card.labels.items() if value}
    for name, labels in rules.regions.items():
        if found.get(name.lower()) not in labels or len(labels) > 1:
            found[name.lower()] = name
    return found


def _check_names(rules: ScoringRules, gated: Sequence[str]) -> None:
    """Raise before anything is scored: a gate that names no metric, a region named as the row over all."""
    unknown = [name for name in gated if name not in rules.columns]
    if unknown:
        raise SegbenchError(
            "SB104",
            f"--fail-under {unknown[0]}: this profile has no such metric",
            expected=", ".join(rules.columns),
        )
    if MEAN_REGION in rules.regions:
        raise SegbenchError(
            "SB104",
            f"a region may not be called {MEAN_REGION!r}: tables call the mean of the regions so",
            mend="name it otherwise, for example --region whole=1,2",
        )


def _chosen(
    request: Request, references: References, dataset: Dataset | None
) -> tuple[tuple[str, ...], str | None]:
    """Return the cases to score and the name of the split they come from."""
    if request.cases is not None and request.split is not None:
        raise SegbenchError("SB104", "--cases and --split cannot both say which cases are scored")
    if request.cases is not None:
        return read_case_list(request.cases, references.cases), None
    if request.split is None or dataset is None:
        return references.cases, None
    from segbench.data.splits import load_split

    folds = load_split(request.split, dataset)
    if len(folds) > 1 and request.fold >= len(folds):
        raise SegbenchError(
            "SB104", f"--fold {request.fold}: the split has {len(folds)} folds, counted from 0"
        )
    fold = folds[request.fold if len(folds) > 1 else 0]
    cases = tuple(sorted(fold.test or fold.validation))
    absent = sorted(set(cases).difference(references.cases))
    if absent:
        raise SegbenchError(
            "SB324", f"{len(absent)} test cases have no reference", found=", ".join(absent[:10])
        )
    if not cases:
        raise SegbenchError("SB311", f"split {fold.name} has no test case")
    return cases, fold.name
