"""`evaluate_case`: every metric of every region of one case, with a status that says what happened.

The order of work: check the arguments, measure counts and surface distances with an engine, decide empties by
the policy, apply the formulas. Engines never see a policy and formulas never see an array.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from segbench.metrics import _plain
from segbench.metrics.engines import compiled_engine_wanted
from segbench.metrics.inputs import check_pair, check_regions, check_spacing, check_tolerance, diagonal_mm
from segbench.metrics.measure import Measurement, measured_values
from segbench.metrics.policies import Status, check_policy, fill, penalised, status_of
from segbench.metrics.registry import METRICS, resolve_metrics, suggestions

if TYPE_CHECKING:
    from segbench.metrics.inputs import LabelMap, Regions, Spacing

BACKENDS = ("native", "medpy", "monai")

SMALL_VOXELS = 200_000
"""Voxels of the box that holds all labels up to which the plain engine is used while no kernel is loaded."""


@dataclass(frozen=True, eq=False)
class CaseScores(Mapping[str, float]):
    """The metrics of one region of one case, read like a dict of python floats.

    Attributes:
        values_by_name: metric name -> value; nan where the policy or the definition says "not defined".
        status: `ok` or which side is empty, or why there was no usable prediction.
        reference_voxels: voxels of the region in the reference.
        prediction_voxels: voxels of the region in the prediction, 0 when there was none.
        penalised: names whose value comes from the empty policy, not from a measurement.
    """

    values_by_name: Mapping[str, float]
    status: Status
    reference_voxels: int
    prediction_voxels: int
    penalised: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        """Freeze the values."""
        object.__setattr__(self, "values_by_name", MappingProxyType(dict(self.values_by_name)))

    def __getitem__(self, name: str) -> float:
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (
            dict(self.values_by_name),
            self.status,
            self.reference_voxels,
            self.prediction_voxels,
            self.penalised,
        )
        return CaseScores, arguments


def evaluate_case(
    reference: Any,
    prediction: Any,
    *,
    spacing_mm: Sequence[float],
    regions: Mapping[str, Sequence[int]],
    metrics: Iterable[str] | None = None,
    nsd_tolerance_mm: float | Mapping[str, float] = 1.0,
    empty_policy: str = "worst",
    backend: str = "native",
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
        empty_policy: `worst`, `paper`, `brats`, `nan` or `inf` (`policies.py`).
        backend: `native`, or `medpy` / `monai` as a cross-check.

    Returns:
        Region name -> `CaseScores`, in the order of `regions`. The same arrays give the same bits, whatever
        the threads, dtype, strides or order of regions.

    Raises:
        ValueError: unequal shapes, wrong rank, spacing, region, tolerance, or an unknown name.
        BackendUnavailable: the backend's package is not installed.

    Source: the formulas' sources stand in `registry.METRICS`.
    """
    names = resolve_metrics(metrics)
    policy = check_policy(empty_policy)
    spacing = check_spacing(spacing_mm)
    region_labels = check_regions(regions)
    tolerances = check_tolerance(nsd_tolerance_mm, region_labels)
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}{suggestions(backend, BACKENDS)}")
    reference_map, prediction_map = check_pair(reference, prediction)
    diagonal = diagonal_mm(reference_map.shape, spacing)

    need_distances = backend == "native" and any(METRICS[name].needs == "distances" for name in names)
    measurements = measure(
        reference_map, prediction_map, spacing_mm=spacing, regions=region_labels, distances=need_distances
    )
    scores: dict[str, CaseScores] = {}
    for region, measurement in measurements.items():
        counts = measurement.counts
        status = status_of(counts.reference, counts.prediction)
        if status != "ok":
            values = fill(names, status, policy=policy, diagonal_mm=diagonal)
        elif backend == "native":
            values = measured_values(measurement, names, tolerances[region])
            if "cldice" in names:
                values["cldice"] = _cldice(reference_map, prediction_map, region_labels[region])
        else:
            values = _from_backend(
                backend,
                reference_map,
                prediction_map,
                region_labels[region],
                names,
                spacing,
                tolerances[region],
            )
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
    if "segbench.metrics._kernels" in sys.modules:
        return True
    if reference.size <= SMALL_VOXELS:
        return False
    box = _plain.occupied_box(reference, prediction)
    return box is not None and math.prod(part.stop - part.start for part in box) > SMALL_VOXELS


def _native_engine() -> ModuleType:
    try:
        return importlib.import_module("segbench.metrics._native")
    except ImportError:
        return _plain


def _cldice(reference: LabelMap, prediction: LabelMap, labels: tuple[int, ...]) -> float:
    cldice: Any = importlib.import_module("segbench.metrics.cldice").cldice
    box = _plain.occupied_box(reference, prediction)
    assert box is not None
    return float(
        cldice(_plain.region_mask(reference[box], labels), _plain.region_mask(prediction[box], labels))
    )


def _from_backend(
    backend: str,
    reference: LabelMap,
    prediction: LabelMap,
    labels: tuple[int, ...],
    names: tuple[str, ...],
    spacing_mm: Spacing,
    tolerance_mm: float,
) -> dict[str, float]:
    module = importlib.import_module(f"segbench.metrics.backends.{backend}_backend")
    return module.scores(
        _plain.region_mask(reference, labels),
        _plain.region_mask(prediction, labels),
        names=names,
        spacing_mm=spacing_mm,
        tolerance_mm=tolerance_mm,
    )
