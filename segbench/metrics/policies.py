"""What an empty region and a failed prediction score, as one table.

`status` says what happened; the policy says which number stands in for a measurement that does not exist. The
last column (`failed`) never depends on the policy being kind: a prediction that is missing or unreadable
scores worst even where the reference region is empty, so deleting a prediction can never improve a mean.

Source: Metrics Reloaded (`worst`); ge-xing/SegMamba-V2 5_compute_metrics.py (`paper`);
rachitsaluja/BraTS-2023-Metrics (`brats`);
brats-evaluation 0.0.10 (`brats2026`); nnU-Net and MONAI (`nan`); panoptica, BraTS 2025 (`inf`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast, get_args

from segbench.metrics.registry import METRICS, suggestions

Status = Literal[
    "ok",
    "both_empty",
    "reference_empty",
    "prediction_empty",
    "missing",
    "unreadable",
    "geometry_mismatch",
]
STATUSES: tuple[Status, ...] = get_args(Status)
FAILED: frozenset[str] = frozenset(("missing", "unreadable", "geometry_mismatch"))
"""Statuses of a case without a usable prediction."""

EmptyPolicy = Literal["worst", "paper", "brats", "brats2026", "nan", "inf"]

NAN = math.nan
INF = math.inf


@dataclass(frozen=True)
class Fill:
    """What stands in for the overlap family and for the distance family.

    Attributes:
        overlap: value of dice, iou, precision, recall, volume_similarity, nsd, cldice.
        distance: value in mm of hd, hd95, hd95_max, assd, masd.
        at_least_diagonal: the distance value is raised to the physical diagonal of the grid.
    """

    overlap: float
    distance: float
    at_least_diagonal: bool = False

    def distance_mm(self, diagonal_mm: float) -> float:
        """Return the distance value for a grid of this diagonal; NaN where that is not known."""
        if not self.at_least_diagonal or diagonal_mm <= self.distance:
            return self.distance
        return diagonal_mm


def _diagonal(at_least: float = 0.0) -> Fill:
    return Fill(0.0, at_least, at_least_diagonal=True)


POLICIES: Mapping[str, Mapping[str, Fill]] = MappingProxyType(
    {
        "worst": {
            "both_empty": Fill(1.0, 0.0),
            "reference_empty": _diagonal(),
            "prediction_empty": _diagonal(),
            "failed": _diagonal(),
        },
        "paper": {
            "both_empty": Fill(0.0, 50.0),
            "reference_empty": Fill(0.0, 50.0),
            "prediction_empty": Fill(0.0, 50.0),
            "failed": _diagonal(50.0),
        },
        "brats": {
            "both_empty": Fill(1.0, 0.0),
            "reference_empty": Fill(0.0, 374.0),
            "prediction_empty": Fill(0.0, 374.0),
            "failed": _diagonal(374.0),
        },
        "brats2026": {
            "both_empty": Fill(NAN, NAN),
            "reference_empty": Fill(0.0, 373.0),
            "prediction_empty": Fill(0.0, 373.0),
            "failed": _diagonal(373.0),
        },
        "nan": {
            "both_empty": Fill(NAN, NAN),
            "reference_empty": Fill(0.0, NAN),
            "prediction_empty": Fill(0.0, NAN),
            "failed": _diagonal(),
        },
        "inf": {
            "both_empty": Fill(1.0, 0.0),
            "reference_empty": Fill(0.0, INF),
            "prediction_empty": Fill(0.0, INF),
            "failed": Fill(0.0, INF),
        },
    }
)
"""Policy -> situation -> what to fill in."""


def check_policy(policy: str) -> EmptyPolicy:
    """Return the policy's name; raise `ValueError` with suggestions when there is none of that name."""
    if policy not in POLICIES:
        raise ValueError(f"unknown empty policy {policy!r}{suggestions(policy, POLICIES)}")
    return cast("EmptyPolicy", policy)


def status_of(reference_voxels: int, prediction_voxels: int) -> Status:
    """Return `ok` or which side of a region is empty. The status never depends on the policy."""
    if reference_voxels and prediction_voxels:
        return "ok"
    if reference_voxels:
        return "prediction_empty"
    return "reference_empty" if prediction_voxels else "both_empty"


def filled_value(metric: str, status: str, *, policy: str, diagonal_mm: float) -> float:
    """Return the number that stands in for a metric where nothing could be measured.

    Args:
        metric: name of a region metric; of a lesion-wise or airway one where the prediction failed.
        status: any status but `ok`.
        policy: name of the empty policy.
        diagonal_mm: physical diagonal of the scored grid in mm; NaN where it is not known.
    """
    info, failed = METRICS[metric], status in FAILED
    if metric == "relative_volume_error":
        if status == "prediction_empty":
            return -1.0
        return 0.0 if status == "both_empty" and policy != "nan" else NAN
    if info.descriptive:
        return NAN
    if info.needs == "lesions" and info.family == "distance":
        return _failed_lesion_mm(policy, diagonal_mm)
    if isinstance(info.worst, float) and failed:
        return info.worst
    fill = POLICIES[policy]["failed" if failed else status]
    if info.family == "distance":
        return fill.distance_mm(diagonal_mm)
    undefined = (metric, status) in (("precision", "prediction_empty"), ("recall", "reference_empty"))
    # nnU-Net's habit made visible: 0/0 is not 0 under `nan`.
    return NAN if policy == "nan" and undefined else fill.overlap


def _failed_lesion_mm(policy: str, diagonal_mm: float) -> float:
    """What a lesion-wise distance of a case without a usable prediction costs, in mm.

    374 mm by the rules of 2023. 373 mm by those of 2026, which is the diagonal of the BraTS grid in whole
    millimetres: larger grids cost theirs, so that a failure never beats a very far miss.
    """
    rules = "brats2026" if policy == "brats2026" else "brats"
    penalty = POLICIES[rules]["prediction_empty"].distance
    if math.isnan(diagonal_mm):
        return penalty
    return max(penalty, float(math.floor(diagonal_mm)) if rules == "brats2026" else diagonal_mm)


def may_be_undefined(metric: str, policy: str | None) -> bool:
    """Tell whether a metric can be undefined although both sides are there: no large lesion (`brats2026`)."""
    return policy == "brats2026" and METRICS[metric].needs == "lesions"


def fill(metrics: Iterable[str], status: str, *, policy: str, diagonal_mm: float) -> dict[str, float]:
    """Return the filled values of several region metrics for one status."""
    return {name: filled_value(name, status, policy=policy, diagonal_mm=diagonal_mm) for name in metrics}


def penalised(metrics: Iterable[str], status: str) -> frozenset[str]:
    """Return the names whose value comes from the policy table: all ranked ones of a row that is not `ok`."""
    if status == "ok":
        return frozenset()
    return frozenset(name for name in metrics if not METRICS[name].descriptive)
