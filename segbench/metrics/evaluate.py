"""`evaluate_case`: every metric of every region of one case, with a status that says what happened.

The order of work: check the arguments, measure counts and surface distances with an engine, decide empties by
the policy, apply the formulas. Engines never see a policy and formulas never see an array.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from segbench.metrics.boxes import box_of
from segbench.metrics.engine import _plain
from segbench.metrics.engine.choice import compiled_engine_wanted
from segbench.metrics.engine.measure import Measurement, measured_values
from segbench.metrics.inputs import check_pair, check_regions, check_spacing, check_tolerance, diagonal_mm
from segbench.metrics.policies import check_policy, fill, penalised, status_of
from segbench.metrics.registry import METRICS, resolve_metrics
from segbench.metrics.scores import CaseScores

if TYPE_CHECKING:
    from segbench.metrics.inputs import LabelMap, Regions, Spacing

SMALL_VOXELS = 200_000
"""Voxels of the box that holds all labels up to which the plain engine is used while no kernel is loaded."""


def evaluate_case(
    reference: Any,
    prediction: Any,
    *,
    spacing_mm: Sequence[float],
    regions: Mapping[str, Sequence[int]],
    metrics: Iterable[str] | None = None,
    nsd_tolerance_mm: float | Mapping[str, float] = 1.0,
    empty_policy: str = "worst",
) -> dict[str, CaseScores]:
    """Return the scores of every region of one case.

    Args:
        reference: 3-D integer or bool label map, z y x; any integer dtype and strides, never written to.
            Float maps whose values are all integers are accepted. A 2-D map needs an axis of length 1: its
            neighbours across that axis lie outside, so every voxel is then a boundary voxel.
        prediction: label map of the same shape.
        spacing_mm: voxel size in mm, (3,), order z y x, finite and > 0. There is no default.
        regions: name -> labels; regions may overlap; label 0 may not be in one.
        metrics: names of region metrics (`registry.REGION_METRICS`); None means all but `cldice`.
        nsd_tolerance_mm: tolerance of `nsd` in mm, one number or region -> number (`default` covers the
            rest). A distance equal to the tolerance is inside: the comparison is `d <= t * (1 + 1e-12)`.
        empty_policy: a name in `policies.POLICIES`.

    Returns:
        Region name -> `CaseScores`, in the order of `regions`. The same arrays give the same bits, whatever
        the threads, dtype, strides or order of regions.

    Raises:
        ValueError: unequal shapes, wrong rank, spacing, region, tolerance, or an unknown name.

    Source: the formulas' sources stand in `registry.METRICS`.
    """
    names = resolve_metrics(metrics)
    policy = check_policy(empty_policy)
    spacing = check_spacing(spacing_mm)
    region_labels = check_regions(regions)
    tolerances = check_tolerance(nsd_tolerance_mm, region_labels)
    reference_map, prediction_map = check_pair(reference, prediction)
    diagonal = diagonal_mm(reference_map.shape, spacing)

    need_distances = any(METRICS[name].needs == "distances" for name in names)
    measurements = measure(
        reference_map, prediction_map, spacing_mm=spacing, regions=region_labels, distances=need_distances
    )
    scores: dict[str, CaseScores] = {}
    for region, measurement in measurements.items():
        counts = measurement.counts
        status = status_of(counts.reference, counts.prediction)
        if status != "ok":
            values = fill(names, status, policy=policy, diagonal_mm=diagonal)
        else:
            values = measured_values(measurement, names, tolerances[region])
            if "cldice" in names:
                values["cldice"] = _cldice(reference_map, prediction_map, region_labels[region])
        scores[region] = CaseScores(
            {name: float(values[name]) for name in names},
            status,
            counts.reference,
            counts.prediction,
            penalised(names, status),
        )
    return scores


def measure(
    reference: LabelMap, prediction: LabelMap, *, spacing_mm: Spacing, regions: Regions, distances: bool
) -> dict[str, Measurement]:
    """Return the measurements by the compiled engine where it pays, else by the plain one: the same bits."""
    engine = _plain if not _compiled_engine_pays(reference, prediction) else _native_engine()
    return engine.measure(reference, prediction, spacing_mm=spacing_mm, regions=regions, distances=distances)


def _compiled_engine_pays(reference: LabelMap, prediction: LabelMap) -> bool:
    """Tell whether to use the compiled engine: small maps never wait for a compiler, nor for the kernels'
    cache.
    """
    if not compiled_engine_wanted() or reference.size == 0:
        return False
    if "segbench.metrics.engine._kernels" in sys.modules:
        return True
    if reference.size <= SMALL_VOXELS:
        return False
    box = box_of(reference, prediction)
    return box is not None and math.prod(part.stop - part.start for part in box) > SMALL_VOXELS


def _native_engine() -> ModuleType:
    try:
        return importlib.import_module("segbench.metrics.engine._native")
    except ImportError:
        return _plain


def _cldice(reference: LabelMap, prediction: LabelMap, labels: tuple[int, ...]) -> float:
    from segbench.metrics.airways.skeleton import cldice

    box = box_of(reference, prediction)
    assert box is not None
    return cldice(_plain.region_mask(reference[box], labels), _plain.region_mask(prediction[box], labels))
