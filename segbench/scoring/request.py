"""What an evaluation is asked and what it answers: the flags of `segbench evaluate`, and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from segbench.metrics.summary import Summary, summarise
from segbench.scoring.case import Row, ScoringRules
from segbench.scoring.rules import Geometry
from segbench.volumes import DEFAULT_MAX_BYTES


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to score and how; the flags of `segbench evaluate` (`metrics.md` 8).

    Attributes:
        prediction: folder of predictions.
        reference: folder of references; None takes those of the dataset.
        dataset: slug, or folder that describes itself.
        dataset_json: nnU-Net's or MSD's `dataset.json`, for regions and labels.
        regions: name -> labels, where neither a dataset nor a `dataset.json` says.
        cases: file of case ids.
        split: split by name or file: its test part of `fold` is scored.
        profile: metric profile by name or file; None takes the card's, else `honest`.
        nsd_tolerance: mm for all regions, or region -> mm.
        empty_policy: instead of the profile's.
        geometry: instead of the profile's.
        other_labels: `background` allows labels that nobody declared and takes them for background.
        backend: which implementation computes the region metrics.
        name: the model of the rows; None takes the folder's name.
        fold: fold the predictions come from.
        seed: seed of the training they come from.
        workers: processes; None decides by cores, memory and size.
        on_error: `stop` ends at the first unusable prediction.
        results: folder of runs.
        fresh: forget the rows of an earlier run.
        data_dir: folder of datasets.
        max_bytes: largest volume that is read.
        gated: metrics that the profile must have, because their means will be compared with a limit.
    """

    prediction: Path
    reference: Path | None = None
    dataset: str | None = None
    dataset_json: Path | None = None
    regions: Mapping[str, tuple[int, ...]] | None = None
    cases: Path | None = None
    split: str | None = None
    profile: str | None = None
    nsd_tolerance: float | Mapping[str, float] | None = None
    empty_policy: str | None = None
    geometry: Geometry | None = None
    other_labels: Literal["error", "background"] = "error"
    backend: str = "native"
    name: str | None = None
    fold: int = 0
    seed: int = 0
    workers: int | None = None
    on_error: Literal["score", "stop"] = "score"
    results: Path | None = None
    fresh: bool = False
    data_dir: Path | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    gated: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation left.

    Attributes:
        run_id: id of the run.
        folder: its folder.
        rules: how it was scored.
        cases: expected cases.
        rows: one per (case, region), in the order of cases, then regions.
        failures: one per case without a usable prediction: case, status, code, message and more.
        extra_predictions: files without a reference.
        warnings: what else the user should know, notes with their numbers of cases included.
        notes: what holds of several cases, with an example of each such case.
    """

    run_id: str
    folder: Path
    rules: ScoringRules
    cases: tuple[str, ...]
    rows: list[Row]
    failures: list[dict[str, Any]]
    extra_predictions: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    @cached_property
    def summaries(self) -> list[Summary]:
        """The summary of every region and metric, regions in the order of the tables."""
        order = {region: index for index, region in enumerate(self.rules.regions)}
        rows = sorted(self.rows, key=lambda row: order[row["region"]])
        return summarise(rows, self.rules.columns, self.cases, self.rules.mean_regions)

    def as_json(self) -> dict[str, Any]:
        """Return the document of `segbench evaluate --json`."""
        failed = [
            {key: failure.get(key) for key in ("case", "status", "code", "message")}
            for failure in self.failures
        ]
        return {
            "schema_version": 1,
            "kind": "external",
            "run_id": self.run_id,
            "run_directory": str(self.folder),
            "profile": self.rules.profile.name,
            "empty_policy": self.rules.profile.empty_policy,
            "n_expected": len(self.cases),
            "n_scored": len(self.cases) - len(failed),
            "n_failed": len(failed),
            "extra_predictions": list(self.extra_predictions),
            "failures": failed,
            "summary": [summary.as_json() for summary in self.summaries],
        }
