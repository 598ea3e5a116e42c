"""One case to rows: what `segbench run` and `segbench evaluate` both call, so their rows are identical.

`ScoringRules` say how a case is scored (profile, regions, tolerances, labels allowed, geometry).
`score_file` reads a prediction with every check of `segbench.volumes`, compares its grid with the reference's
and scores it; whatever is wrong with a prediction becomes rows with a status, a code and the worst values,
never an absent row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segbench.core.errors import SegbenchError
from segbench.core.hashing import canonical_json
from segbench.metrics import evaluate_case
from segbench.metrics.inputs import diagonal_mm
from segbench.metrics.policies import fill, penalised
from segbench.scoring.extra_sets import extra_sets
from segbench.scoring.masks import Masks, Member, on_one_code, read_masks, region_faults
from segbench.scoring.mirrored import mirror_hint
from segbench.scoring.rules import ScoringRules
from segbench.volumes import Volume, compare_geometry, count_labels, read_label_map
from segbench.volumes.geometry import reorient, shape_mend, unit_mend
from segbench.volumes.volume import UNIT_NAMES, UNITS_MM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Labels = NDArray[np.unsignedinteger[Any]]

Row = dict[str, Any]
Note = tuple[str, str]

GEOMETRY_MISMATCH = "SB214"
MISSING = "SB215"
_ROLES = ("reference", "prediction")
KILLED = "SB503"


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What scoring a case left.

    Attributes:
        case: its id.
        rows: one per region.
        reference: digest of the reference that was scored, see `reference_digest`.
        inputs: stamps of the files and the digest of the rules that the rows were computed from.
        failure: why there was no usable prediction, as `SegbenchError.as_dict`, with `status`; else None.
        notes: what may hold of many cases, (text, example) each: said once, with the number of cases.
        spacing_mm: voxel size (z, y, x) that distances were measured with; None in lines of older versions.
    """

    case: str
    rows: list[Row]
    reference: str
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    failure: dict[str, Any] | None = None
    notes: tuple[Note, ...] = ()
    spacing_mm: tuple[float, ...] | None = None

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> CaseResult:
        """Return what a line of `cases.jsonl` says."""
        return cls(
            case=line["case"],
            rows=line["rows"],
            reference=line["reference"],
            inputs=line.get("inputs") or {},
            failure=line.get("failure"),
            notes=tuple((text, example) for text, example in line.get("notes") or ()),
            spacing_mm=tuple(line["spacing_mm"]) if line.get("spacing_mm") else None,
        )

    def as_line(self) -> dict[str, Any]:
        """Return what a line of `cases.jsonl` holds besides case and rows."""
        return {
            "inputs": self.inputs,
            "reference": self.reference,
            "failure": self.failure,
            "notes": [list(note) for note in self.notes],
            "spacing_mm": self.spacing_mm,
        }


def score_file(
    rules: ScoringRules,
    case: str,
    reference: Volume | Masks,
    prediction: Path | Mapping[Member, Path] | None,
    *,
    absent: str | None = None,
) -> CaseResult:
    """Return the rows of one case, read from its prediction; a fault of its files becomes a status.

    Args:
        rules: how to score.
        case: its id.
        reference: the expert's label map or masks, as read.
        prediction: the file, what a mask shows -> its file, or None when there is none.
        absent: why there is none, where that is known.
    """
    coded, truth, _ = on_one_code(rules, reference)
    digest, spacing = reference_digest(truth), rules.scoring_spacing(truth.spacing_mm)
    broken: dict[Member, SegbenchError] = {}
    try:
        read = _read_prediction(rules, case, prediction, absent, truth, broken)
        coded, truth, guess = on_one_code(rules, reference, read)
        assert guess is not None
        path = prediction if isinstance(prediction, Path) else None
        volume, placed = on_reference_grid(case, truth, guess, rules.profile.geometry, path)
    except SegbenchError as error:
        explain_label(error, rules)
        rows = score_failure(coded, case, truth, error)
        failure = {**error.as_dict(), "case": case, "status": failure_status(error.code)}
        notes = _header_notes(case, [truth])
        return CaseResult(
            case=case, rows=rows, reference=digest, failure=failure, notes=notes, spacing_mm=spacing
        )
    rows = score_case(coded, case, truth, volume.array)
    notes = (*placed, *_header_notes(case, [truth, guess]))
    hint = mirror_hint(truth.array, volume.array, coded.regions, rows)
    if hint is not None:
        what = f"{hint[0]} the prediction would fit much better: was its array turned under its header?"
        notes = (*notes, (what, f"{case}: {hint[1]}"))
    failure = None
    why = region_faults(rules, case, prediction, broken) if isinstance(prediction, Mapping) else {}
    if why:
        failure = {**next(iter(why.values())).as_dict(), "case": case}
        failure["status"] = failure_status(failure["code"])
        failed = {id(error): score_failure(coded, case, truth, error) for error in why.values()}
        rows = [
            failed[id(why[row["region"]])][place] if row["region"] in why else row
            for place, row in enumerate(rows)
        ]
    return CaseResult(
        case=case, rows=rows, reference=digest, failure=failure, notes=notes, spacing_mm=spacing
    )


def _read_prediction(
    rules: ScoringRules,
    case: str,
    prediction: Path | Mapping[Member, Path] | None,
    absent: str | None,
    reference: Volume,
    broken: dict[Member, SegbenchError],
) -> Volume | Masks:
    """The prediction as a label map, or as masks; faults of single masks go to `broken`."""
    if isinstance(prediction, Mapping):
        size = rules.max_bytes
        return read_masks(case, prediction, max_bytes=size, reference=reference, broken=broken)
    if prediction is None or not os.path.lexists(prediction):
        what = f"no prediction for case {case}" if absent is None else f"no prediction: {absent}"
        raise SegbenchError("SB215", what, case=case, path=prediction)
    return read_label_map(prediction, labels=rules.labels, max_bytes=rules.max_bytes)


def _header_notes(case: str, read: Sequence[Volume]) -> tuple[Note, ...]:
    """What headers say that changes how they are taken: another unit, no position.

    Args:
        case: its id.
        read: the reference, and the prediction where there is one, as read.
    """
    notes: list[Note] = []
    for unit in dict.fromkeys(volume.unit for volume in read):
        if UNITS_MM[unit] != 1.0:
            who = " and ".join(
                name for name, volume in zip(_ROLES, read, strict=False) if volume.unit == unit
            )
            name = UNIT_NAMES[unit]
            notes.append(
                (f"the header of the {who} is in {name}: lengths are converted to millimetres", case)
            )
    lost = [name for name, volume in zip(_ROLES, read, strict=False) if not volume.positioned]
    if lost:
        what = f"the header of the {' and '.join(lost)} does not say where it lies"
        notes.append((f"{what}: shape and spacing alone are compared", case))
    return tuple(notes)


def reference_digest(reference: Volume) -> str:
    """Sha256 over voxels and grid of a reference: the same label map gives the same, however it is stored.

    The grid is shape, spacing and affine to 0.0001 mm, so that float32 and float64 headers agree. Of the
    voxels, the box that holds all labels is hashed with its place; around it all is background.
    """
    labels, box = reference.array, list[tuple[int, int]]()
    for axis in range(3):
        low, high = _extent(labels, axis)
        labels = np.moveaxis(np.moveaxis(labels, axis, 0)[low:high], 0, axis)
        box.append((low, high))
    kind = next(
        kind for kind in ("<u1", "<u2", "<u4", "<u8") if int(labels.max(initial=0)) < 256 ** int(kind[2])
    )
    grid = (*reference.spacing_mm, *np.asarray(reference.affine, dtype=np.float64).ravel())
    content = {
        "shape": [int(n) for n in reference.shape_zyx],
        "grid": [round(float(number), 4) + 0.0 for number in grid],
        "box": box,
    }
    sha = hashlib.sha256(canonical_json(content).encode())
    sha.update(np.ascontiguousarray(labels.astype(kind, copy=False)).data)
    return sha.hexdigest()


def _extent(labels: Labels, axis: int) -> tuple[int, int]:
    """First place along an axis that holds a label, and the one after the last; 0, 0 where none does."""
    places = np.flatnonzero(labels.any(axis=tuple({0, 1, 2} - {axis})))
    return (int(places[0]), int(places[-1]) + 1) if places.size else (0, 0)


def explain_label(error: SegbenchError, rules: ScoringRules) -> None:
    """Say how to fix an undeclared label (SB213) in the words of the command at hand."""
    if error.code == "SB213" and rules.label_mend is not None:
        error.mend = rules.label_mend


def on_reference_grid(
    case: str, reference: Volume, prediction: Volume, geometry: str, path: Path | None = None
) -> tuple[Volume, tuple[Note, ...]]:
    """Return the prediction on the reference's grid, and notes. Nothing is ever resampled.

    Args:
        case: its id, for messages.
        reference: the reference.
        prediction: the prediction as read.
        geometry: `strict` compares shape, spacing and the eight corners, and reorders axes where that alone
            is needed; `shape` compares the shape only.
        path: the prediction's file, for messages.

    Raises:
        SegbenchError: SB214 when the grids differ.
    """
    compared = compare_geometry(reference, prediction)
    if geometry == "shape" and compared.shape_equal:
        return prediction, ()
    shifted = compared.reoriented_displacement_voxels or compared.displacement_voxels
    notes: list[Note] = []
    if geometry == "strict" and compared.shifted:
        notes.append(("the prediction lies beside the reference", f"{case}: {shifted:.3g} voxels"))
    if geometry == "strict" and compared.same_grid:
        return prediction, tuple(notes)
    if geometry == "strict" and compared.orientation is not None:
        how = "stored with a flipped or swapped axis; reoriented to the reference grid without interpolation"
        notes.append((how, case))
        return reorient(prediction, compared.orientation), tuple(notes)
    if not compared.shape_equal:
        what, expected, found = "shape (z, y, x)", reference.shape_zyx, prediction.shape_zyx
        mend = shape_mend(reference, prediction)
    elif not compared.spacing_equal:
        what, expected, found = "spacing (z, y, x) in mm", reference.spacing_mm, prediction.spacing_mm
        mend = unit_mend(reference, prediction)
    else:
        what, expected, mend = "position", "corners within half a voxel", None
        found = f"{compared.displacement_voxels:.3g} voxels apart"
    raise SegbenchError(
        "SB214",
        f"prediction and reference of case {case} differ in {what}",
        case=case,
        path=path,
        expected=expected,
        found=found,
        mend=mend,
    )


def score_case(rules: ScoringRules, case: str, reference: Volume, prediction: Labels) -> list[Row]:
    """Return one row per region for a prediction on the reference's grid.

    Args:
        rules: how to score.
        case: its id.
        reference: the expert's label map, as read.
        prediction: label map of the same shape, z y x.

    Returns:
        Rows with the columns from `case` on; whose they are (run, model, fold, seed) the caller adds.
    """
    truth, spacing_mm = reference.array, reference.spacing_mm
    if rules.ignore_label is not None:
        ignored = truth == rules.ignore_label
        if ignored.any():
            truth, prediction = truth.copy(), prediction.copy()
            truth[ignored] = 0
            prediction[ignored] = 0
    spacing = rules.scoring_spacing(spacing_mm)
    scores = evaluate_case(
        truth,
        prediction,
        spacing_mm=spacing,
        regions=rules.regions,
        metrics=rules.metrics,
        nsd_tolerance_mm=rules.tolerances_mm,
        empty_policy=rules.profile.empty_policy,
    )
    extra = extra_sets(truth, prediction, spacing, rules)
    diagonal = diagonal_mm(truth.shape, spacing)
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    rows: list[Row] = []
    for region, score in scores.items():
        values, from_policy = extra[region]
        rows.append(
            {
                "case": case,
                "region": region,
                "status": score.status,
                "reference_voxels": score.reference_voxels,
                "prediction_voxels": score.prediction_voxels,
                "reference_volume_ml": score.reference_voxels * voxel_ml,
                "prediction_volume_ml": score.prediction_voxels * voxel_ml,
                "diagonal_mm": diagonal,
                "penalised": _joined(rules, score.penalised | from_policy),
                "code": "",
                **score,
                **values,
            }
        )
    return rows


def score_failure(rules: ScoringRules, case: str, reference: Volume, error: SegbenchError) -> list[Row]:
    """Return the rows of a case without a usable prediction: the policy's failed column, in every region."""
    status = failure_status(error.code)
    spacing = rules.scoring_spacing(reference.spacing_mm)
    diagonal = diagonal_mm(reference.shape_zyx, spacing)
    values = fill(rules.columns, status, policy=rules.profile.empty_policy, diagonal_mm=diagonal)
    voxel_ml = float(np.prod(reference.spacing_mm)) / 1000.0
    counts = count_labels(reference.array)
    rows: list[Row] = []
    for region, labels in rules.regions.items():
        voxels = sum(counts.get(label, 0) for label in labels)
        rows.append(
            {
                "case": case,
                "region": region,
                "status": status,
                "reference_voxels": voxels,
                "prediction_voxels": None,
                "reference_volume_ml": voxels * voxel_ml,
                "prediction_volume_ml": None,
                "diagonal_mm": diagonal,
                "penalised": _joined(rules, penalised(rules.columns, status)),
                "code": error.code,
                **values,
            }
        )
    return rows


def failure_error(failure: Mapping[str, Any], *details: str) -> SegbenchError:
    """Return the error that a `CaseResult.failure` tells of, with further lines."""
    return SegbenchError(
        failure["code"],
        failure["message"],
        path=failure.get("path"),
        case=failure["case"],
        expected=failure.get("expected"),
        found=failure.get("found"),
        mend=failure.get("mend"),
        details=[*failure.get("details", ()), *details],
    )


def failure_status(code: str) -> str:
    """Return the status that goes with the code of a failed prediction."""
    return {MISSING: "missing", GEOMETRY_MISMATCH: "geometry_mismatch"}.get(code, "unreadable")


def _joined(rules: ScoringRules, names: frozenset[str]) -> str:
    return ";".join(name for name in rules.columns if name in names)
