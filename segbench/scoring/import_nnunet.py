"""nnU-Net's `summary.json` as a run: its Dice and IoU with our statuses, its arithmetic checked row by row.

Each value is recomputed from the counts beside it and must agree to 1e-12; where the label maps are still at
hand the counts must be ours as integers. A row that contradicts itself is refused: it is stored as a failure
(SB217), because leaving it out would move the mean. Distances are not in the file, so the rows have none.

Source: MIC-DKFZ/nnUNet nnunetv2/evaluation/evaluate_predictions.py (format and arithmetic).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from segbench.core.atomic import remove_leftovers, sync_lines
from segbench.core.environment import now, results_dir, tilde
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.hashing import sha256_file
from segbench.metrics.overlap import Counts, dice, iou
from segbench.metrics.policies import fill, penalised, status_of
from segbench.metrics.profiles import load_profile
from segbench.metrics.summary import MEAN_REGION, summarise
from segbench.records import append_case, write_cases_csv, write_run
from segbench.records.identity import run_id as make_run_id
from segbench.records.lease import Lease
from segbench.records.schema import RunRecord
from segbench.records.store import CASE_LINES, CASES_FILE, check_run_folder
from segbench.scoring.record import PROTOCOL, external_record
from segbench.scoring.sources import is_case_id
from segbench.volumes import read_label_map, stem_and_ending

if TYPE_CHECKING:
    from segbench.cards.dataset_card import DatasetCard

TOLERANCE = 1e-12
METRICS = ("dice", "iou")
MAX_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class ImportedSummary:
    """What an import left.

    Attributes:
        run_id: id of the run.
        folder: its folder.
        rows: one per (case, region).
        refused: one per row whose values contradict its counts: case, region, message.
        compared: cases whose label maps were at hand, so that the counts were compared with ours.
        means: region -> (our mean Dice, nnU-Net's own).
    """

    run_id: str
    folder: Path
    rows: list[dict[str, Any]]
    refused: list[dict[str, str]]
    compared: int
    means: dict[str, tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        """Return the document of `--json`."""
        summaries = [summary.as_json() for summary in summarise(self.rows, METRICS)]
        for summary in summaries:
            theirs = self.means.get(summary["region"], (math.nan, math.nan))[1]
            if summary["metric"] == "dice":
                summary["nnunet_mean"] = None if math.isnan(theirs) else theirs
        return {
            "schema_version": 1,
            "kind": "external",
            "run_id": self.run_id,
            "run_directory": str(self.folder),
            "n_rows": len(self.rows),
            "compared_with_files": self.compared,
            "refused": self.refused,
            "summary": summaries,
        }


def import_summary(
    path: Path,
    card: DatasetCard,
    *,
    name: str | None = None,
    fold: int = 0,
    seed: int = 0,
    results: Path | None = None,
    command: Sequence[str] = (),
) -> ImportedSummary:
    """Take the rows of a `summary.json` into a run of kind `external`.

    Args:
        path: the file.
        card: the dataset: its regions are matched by their labels.
        name: the model of the rows; None takes the name of the file's folder.
        fold: fold the predictions come from.
        seed: seed of their training.
        results: folder of runs.
        command: the command line, for the record.

    Raises:
        SegbenchError: SB602 when the file is no summary, SB339 for a case name that is no id.
    """
    document = _load(path)
    model = name or path.resolve().parent.name
    digest = sha256_file(path)
    identity = make_run_id(
        model,
        card.slug,
        PROTOCOL,
        fold=fold,
        seed=seed,
        content={"nnunet_summary": digest, "schema_version": 1},
    )
    folder = results_dir(results) / identity
    keys = {
        "run_id": identity, "model": model, "dataset": card.slug, "protocol": PROTOCOL,
        "fold": fold, "seed": seed,
    }  # fmt: skip
    gathered = _Gathered()
    check_run_folder(folder, identity, [path])
    with Lease(folder):
        remove_leftovers(folder)
        for file in (CASE_LINES, CASES_FILE):
            (folder / file).unlink(missing_ok=True)
        cases: list[str] = []
        for entry in document["metric_per_case"]:
            case = _case_id(entry, path)
            if case in cases:
                raise SegbenchError("SB306", "a case stands twice in the summary", path=path, case=case)
            rows = [keys | row for row in _rows_of_case(case, entry, card, gathered)]
            append_case(folder, case, rows, inputs={"summary": digest})
            gathered.rows.extend(rows)
            cases.append(case)
        sync_lines(folder / CASE_LINES)
        scores = {"cases": sha256_file(write_cases_csv(folder, METRICS))}
        record = _record(card, keys, cases, path, digest, command, gathered)
        write_run(folder, record.model_copy(update={"digests": scores}))
    ours = {
        summary.region: summary.mean
        for summary in summarise(gathered.rows, METRICS)
        if summary.metric == "dice"
    }
    theirs = {
        _region_name(key, card): float(values.get("Dice", math.nan))
        for key, values in cast("Mapping[str, Any]", document.get("mean", {})).items()
    }
    theirs[MEAN_REGION] = float(document.get("foreground_mean", {}).get("Dice", math.nan))
    return ImportedSummary(
        run_id=identity,
        folder=folder,
        rows=gathered.rows,
        refused=gathered.refused,
        compared=gathered.compared,
        means={region: (mean, theirs.get(region, math.nan)) for region, mean in ours.items()},
    )


@dataclass
class _Gathered:
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    refused: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    compared: int = 0


def _load(path: Path) -> Mapping[str, Any]:
    """Return the document; nnU-Net writes NaN, which python reads."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SegbenchError("SB602", f"the summary is larger than {MAX_BYTES >> 20} MiB", path=path)
        document: Any = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SegbenchError("SB602", f"the summary cannot be read: {error.strerror}", path=path) from error
    except (ValueError, RecursionError) as error:
        raise SegbenchError("SB602", f"the summary is no JSON: {error}", path=path) from error
    entries = document.get("metric_per_case") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("metrics"), dict)
        for entry in cast("list[Any]", entries)
    ):
        raise SegbenchError(
            "SB602",
            "this is no nnU-Net v2 summary.json",
            path=path,
            expected="metric_per_case: [{metrics, prediction_file, reference_file}]",
        )
    return cast("Mapping[str, Any]", document)


def _case_id(entry: Mapping[str, Any], path: Path) -> str:
    name = str(entry.get("prediction_file") or entry.get("reference_file") or "").replace("\\", "/")
    name = name.rpartition("/")[2]
    parts = stem_and_ending(name)
    case = parts[0] if parts else name.partition(".")[0]
    if not is_case_id(case):
        raise SegbenchError("SB339", "a case of the summary has no usable name", path=path, found=repr(case))
    return case


def _labels(key: str) -> tuple[int, ...]:
    """Return the labels of a region's key: "1", or the text of a tuple such as "(1, 2, 3)"."""
    if re.fullmatch(r"\d{1,5}|\(\s*\d{1,5}(\s*,\s*\d{1,5})*\s*,?\s*\)", key) is None:
        raise SegbenchError("SB602", f"{key!r} names no labels", expected='"1" or "(1, 2)"', found=key)
    return tuple(int(label) for label in re.findall(r"\d+", key))


def _region_name(key: str, card: DatasetCard) -> str:
    """Return the card's region with these labels, else the label's name, else the key itself."""
    labels = set(_labels(key))
    for name, members in card.regions.items():
        if set(members) == labels:
            return name
    if len(labels) == 1 and next(iter(labels)) in card.labels:
        return card.labels[next(iter(labels))]
    return f"labels {key}"


def _rows_of_case(
    case: str, entry: Mapping[str, Any], card: DatasetCard, gathered: _Gathered
) -> list[dict[str, Any]]:
    measured = _counts_of_files(entry)
    gathered.compared += measured is not None
    rows: list[dict[str, Any]] = []
    for key, values in entry["metrics"].items():
        region, labels = _region_name(key, card), _labels(key)
        fault = _fault(values, None if measured is None else measured(labels))
        if fault:
            gathered.refused.append({"case": case, "region": region, "message": fault})
        rows.append(_row(case, region, values, refused=bool(fault)))
    return rows


def _fault(values: Mapping[str, Any], ours: tuple[int, int, int] | None) -> str:
    """Return what contradicts itself in the values of a row; empty when nothing does."""
    counts = [values.get(name) for name in ("TP", "FP", "FN")]
    if not all(
        isinstance(count, int | float) and float(count).is_integer() and count >= 0 for count in counts
    ):
        return f"TP, FP, FN are no counts: {counts}"
    tp, fp, fn = (int(count) for count in cast("list[float]", counts))
    if ours is not None and ours != (tp, fp, fn):
        return f"TP, FP, FN are {(tp, fp, fn)} in the summary and {ours} in the files"
    for name, expected in (("Dice", _ratio(2 * tp, 2 * tp + fp + fn)), ("IoU", _ratio(tp, tp + fp + fn))):
        found = float(values.get(name, math.nan))
        both_nan = math.isnan(found) and math.isnan(expected)
        if not both_nan and not abs(found - expected) <= TOLERANCE:
            return f"{name} is {found!r}, its counts give {expected!r}"
    return ""


def _ratio(above: int, below: int) -> float:
    return above / below if below else math.nan


def _row(case: str, region: str, values: Mapping[str, Any], *, refused: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case": case,
        "region": region,
        "reference_volume_ml": None,
        "prediction_volume_ml": None,
        "diagonal_mm": None,
        "code": "SB217" if refused else "",
    }
    if refused:
        status = "unreadable"
        numbers = fill(METRICS, status, policy="nan", diagonal_mm=math.nan)
        row |= {"reference_voxels": None, "prediction_voxels": None}
    else:
        tp, fp, fn = (int(values[name]) for name in ("TP", "FP", "FN"))
        counts = Counts(tp + fn, tp + fp, tp)
        status = status_of(counts.reference, counts.prediction)
        row |= {"reference_voxels": counts.reference, "prediction_voxels": counts.prediction}
        if status == "ok":
            numbers = {"dice": dice(counts), "iou": iou(counts)}
        else:
            numbers = fill(METRICS, status, policy="nan", diagonal_mm=math.nan)
    from_policy = penalised(METRICS, status)
    row |= {
        "status": status,
        "penalised": ";".join(name for name in METRICS if name in from_policy),
        **numbers,
    }
    return row


def _counts_of_files(entry: Mapping[str, Any]) -> Any:
    """Return a function labels -> (TP, FP, FN) of the label maps, or None when they are not here."""
    paths = [entry.get(key) for key in ("reference_file", "prediction_file")]
    if not all(isinstance(path, str) and Path(path).is_file() for path in paths):
        return None
    import numpy as np

    try:
        reference, prediction = (read_label_map(cast("str", path)).array for path in paths)
    except SegbenchError:
        return None
    if reference.shape != prediction.shape:
        return None

    def count(labels: tuple[int, ...]) -> tuple[int, int, int]:
        r, p = np.isin(reference, labels), np.isin(prediction, labels)
        return int((r & p).sum()), int((p & ~r).sum()), int((r & ~p).sum())

    return count


def _record(
    card: DatasetCard,
    keys: Mapping[str, Any],
    cases: Sequence[str],
    path: Path,
    digest: str,
    command: Sequence[str],
    gathered: _Gathered,
) -> RunRecord:
    profile = load_profile("nnunet")
    record = external_record(
        keys,
        cases=sorted(cases),
        profile={
            "name": profile.name,
            "metrics": list(METRICS),
            "empty_policy": profile.empty_policy,
            "regions": {
                name: list(card.regions[name])
                for name in dict.fromkeys(row["region"] for row in gathered.rows)
                if name in card.regions
            },
            "digest": profile.digest(),
        },
        external={"nnunet_summary": tilde(path), "sha256": digest, "compared_with_files": gathered.compared},
        command=command,
    )
    refused = tuple(f"{r['case']}, {r['region']}: SB217 {r['message']}" for r in gathered.refused)
    return record.model_copy(update={"status": "complete", "finished": now(), "warnings": refused})
