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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from segbench.core.environment import tilde
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.hashing import sha256_file
from segbench.core.names import is_safe_case
from segbench.metrics.overlap import Counts, dice, iou
from segbench.metrics.policies import fill, penalised, status_of
from segbench.metrics.profiles import load_profile
from segbench.metrics.summary import MEAN_REGION
from segbench.scoring.import_scores import Imported, store_run
from segbench.volumes import read_label_map, stem_and_ending

if TYPE_CHECKING:
    from segbench.cards.dataset_card import DatasetCard

TOLERANCE = 1e-12
"""Largest difference between our Dice and nnU-Net's, which both come from the same counts."""
SUMMARY_METRICS = ("dice", "iou")
MAX_BYTES = 512 * 2**20


def import_summary(
    path: Path,
    card: DatasetCard,
    *,
    name: str | None = None,
    fold: int = 0,
    seed: int = 0,
    results: Path | None = None,
    command: Sequence[str] = (),
) -> Imported:
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
        SegbenchError: SB602 when the file is not a summary, SB306 for a case twice, SB339 for a case name
            that is not an id.
    """
    document = read_summary(path)
    cases: dict[str, Mapping[str, Any]] = {}
    for entry in document["metric_per_case"]:
        case = case_of(entry, path)
        if case in cases:
            raise SegbenchError("SB306", "a case appears twice in the summary", path=path, case=case)
        cases[case] = entry
    rows: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    compared = 0
    for case, entry in cases.items():
        measured = _counts_of_files(entry)
        compared += measured is not None
        for key, values in entry["metrics"].items():
            region, labels = _region_name(key, card), _labels(key)
            fault = _fault(values, None if measured is None else measured(labels))
            if fault:
                refused.append({"case": case, "region": region, "message": fault})
            rows.append(_row(case, region, values, refused=bool(fault)))
    profile, digest = load_profile("nnunet"), sha256_file(path)
    known = [name for name in dict.fromkeys(row["region"] for row in rows) if name in card.regions]
    run = store_run(
        (name or path.resolve().parent.name, card.slug, fold, seed),
        {"nnunet_summary": digest, "schema_version": 1},
        rows,
        SUMMARY_METRICS,
        inputs=[path],
        results=results,
        cases=sorted(cases),
        profile={
            "name": profile.name,
            "metrics": list(SUMMARY_METRICS),
            "empty_policy": profile.empty_policy,
            "regions": {name: list(card.regions[name]) for name in known},
            "digest": profile.digest(),
        },
        external={"nnunet_summary": tilde(path), "sha256": digest, "compared_with_files": compared},
        command=command,
        warnings=tuple(f"{r['case']}, {r['region']}: SB217 {r['message']}" for r in refused),
    )
    theirs = {
        _region_name(key, card): float(values.get("Dice", math.nan))
        for key, values in cast("Mapping[str, Any]", document.get("mean", {})).items()
    }
    theirs[MEAN_REGION] = float(document.get("foreground_mean", {}).get("Dice", math.nan))
    return replace(run, refused=refused, compared=compared, theirs=theirs)


_NOT_V2 = "this is not a summary.json of nnU-Net v2"


def read_summary(path: Path) -> Mapping[str, Any]:
    """Return a `summary.json` of nnU-Net v2; it writes NaN, which python reads.

    Raises:
        SegbenchError: SB602 when it cannot be read or is not one.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SegbenchError("SB602", f"the summary is larger than {MAX_BYTES >> 20} MiB", path=path)
        document: Any = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SegbenchError("SB602", f"the summary cannot be read: {error.strerror}", path=path) from error
    except (ValueError, RecursionError) as error:
        raise SegbenchError("SB602", f"the summary is not JSON: {error}", path=path) from error
    entries = document.get("metric_per_case") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("metrics"), dict)
        for entry in cast("list[Any]", entries)
    ):
        first = isinstance(document, dict) and isinstance(document.get("results"), dict)
        raise SegbenchError(
            "SB602",
            "this is a summary of nnU-Net v1, which has no counts" if first else _NOT_V2,
            path=path,
            expected="metric_per_case: [{metrics, prediction_file, reference_file}]",
            mend="score the label maps themselves: segbench evaluate PREDICTIONS REFERENCES",
        )
    return cast("Mapping[str, Any]", document)


def case_of(entry: Mapping[str, Any], path: Path) -> str:
    """Return the case of an entry of `metric_per_case`, by its file's name on any system (else SB339)."""
    name = str(entry.get("prediction_file") or entry.get("reference_file") or "").replace("\\", "/")
    name = name.rpartition("/")[2]
    parts = stem_and_ending(name)
    case = parts[0] if parts else name.partition(".")[0]
    if not is_safe_case(case):
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


def _fault(values: Mapping[str, Any], ours: tuple[int, int, int] | None) -> str:
    """Return what contradicts itself in the values of a row; empty when nothing does."""
    counts = [values.get(name) for name in ("TP", "FP", "FN")]
    if not all(
        isinstance(count, int | float) and float(count).is_integer() and count >= 0 for count in counts
    ):
        return f"TP, FP, FN are not counts: {counts}"
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
        numbers = fill(SUMMARY_METRICS, status, policy="nan", diagonal_mm=math.nan)
        row |= {"reference_voxels": None, "prediction_voxels": None}
    else:
        tp, fp, fn = (int(values[name]) for name in ("TP", "FP", "FN"))
        counts = Counts(tp + fn, tp + fp, tp)
        status = status_of(counts.reference, counts.prediction)
        row |= {"reference_voxels": counts.reference, "prediction_voxels": counts.prediction}
        if status == "ok":
            numbers = {"dice": dice(counts), "iou": iou(counts)}
        else:
            numbers = fill(SUMMARY_METRICS, status, policy="nan", diagonal_mm=math.nan)
    from_policy = penalised(SUMMARY_METRICS, status)
    row |= {
        "status": status,
        "penalised": ";".join(name for name in SUMMARY_METRICS if name in from_policy),
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
