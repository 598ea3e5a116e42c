"""Writes phantoms in the exact layouts of the real datasets, with phantom.json beside them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.core.atomic import atomic_write_json, temporary_name
from segbench.core.errors import SegbenchError
from segbench.data.phantoms.plan import (
    DEFAULT_CASES,
    LAYOUTS,
    PHANTOM_VERSION,
    UNLABELLED,
    Case,
    Kind,
    Made,
    Size,
)
from segbench.data.phantoms.space import Grid
from segbench.data.scan_file import write_scan
from segbench.data.workers import ordered_map
from segbench.volumes import Volume, spacing_of, write_label_map
from segbench.volumes.geometry import Orientation

SCHEMA_VERSION = 1
# How every fourth AbdomenAtlas case is stored; canonical arrays are unchanged.
_ORDERS = (
    Orientation((0, 1, 2), (False, True, True)),
    Orientation((1, 0, 2), (False, True, False)),
    Orientation((2, 1, 0), (True, False, False)),
    Orientation((0, 2, 1), (True, True, False)),
)


def write_tree(
    kind: Kind, destination: Path, size: Size, cases: int | None, seed: int, workers: int, traps: bool
) -> Path:
    """Generate a tree of phantoms in one step: a temporary folder beside it, then a rename.

    Raises:
        SegbenchError: SB337 if the destination exists and is not empty.
    """
    refuse_occupied(destination)
    count = DEFAULT_CASES[size] if cases is None else cases
    plan = [Case(kind, size, seed, index, traps) for index in range(count)]
    if LAYOUTS[kind].test_case is not None:
        extra = -(-count // 10)
        plan += [Case(kind, size, seed, UNLABELLED + index, traps) for index in range(extra)]
    temporary = temporary_name(destination)
    nested = kind == "msd" and destination.name != LAYOUTS[kind].folder
    inner = temporary / LAYOUTS[kind].folder if nested else temporary
    try:
        inner.mkdir(parents=True)
        rows = _write_cases(plan, inner, workers)
        if kind == "msd":
            atomic_write_json(inner / "dataset.json", _msd_json(plan))
        atomic_write_json(
            inner / "phantom.json",
            {
                "schema_version": SCHEMA_VERSION,
                "kind": kind,
                "version": PHANTOM_VERSION,
                "size": size,
                "seed": seed,
                "generator": "segbench.data.phantoms",
                "cases": rows,
            },
        )
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(temporary, destination)  # noqa: PTH104 - an empty folder may be replaced, a full one not
        except OSError as error:
            raise _occupied(destination) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return destination / LAYOUTS[kind].folder if nested else destination


def refuse_occupied(destination: Path) -> None:
    """SB337 unless the destination is absent or an empty folder."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise _occupied(destination)


def _occupied(destination: Path) -> SegbenchError:
    return SegbenchError(
        "SB337",
        f"{destination} exists and is not empty",
        path=destination,
        mend="name a folder that does not exist yet, or remove this one",
    )


def _write_cases(plan: list[Case], root: Path, workers: int) -> list[dict[str, Any]]:
    from segbench.core.console import progress

    rows: list[dict[str, Any]] = []
    write = partial(write_case, root=root)
    with progress("generating phantoms", len(plan)) as tracker:
        for _, row, error in ordered_map(
            write, plan, 0 if workers <= 1 else workers, case_of=lambda case: case.name
        ):
            if error is not None:
                raise error
            rows.append(row)
            tracker.advance()
    return rows


def make_case(case: Case) -> Made:
    """The arrays of a case."""
    make: Callable[[Case], Made] = import_module(f"segbench.data.phantoms.{case.kind}").make
    return make(case)


def write_case(case: Case, root: Path) -> dict[str, Any]:
    """Make one case, write its files, give its entry of phantom.json."""
    images, labels, analytic_ml = make_case(case)
    layout, spacing = case.layout, case.grid.spacing
    order = Orientation((0, 1, 2), (False, False, False))
    if "other_axis_order" in case.traps:
        order = _ORDERS[(case.index // 4) % len(_ORDERS)]
    affine = order.affine(Grid(labels.shape, spacing).affine(), labels.shape)
    template = layout.image if case.labelled else layout.test_image
    files = {"": np.stack(list(images.values()))} if layout.stacked else images
    for channel, image in files.items():
        write_scan(root / template.format(case=case.name, channel=channel), order.apply(image), affine)
    if case.labelled:
        _write_labels(case, root, labels, order, affine)
    row: dict[str, Any] = {
        "case": case.name,
        "patient": case.patient,
        "site": "B" if case.site_b else "A",
        "calibration": case.calibration,
        "traps": list(case.traps),
        "shape_zyx": list(order.apply(labels).shape),
        "spacing_mm": list(spacing_of(affine)),
        "orientation": _letters(order),
        "image_sha256": {name: array_sha256(image, "<i2") for name, image in images.items()},
        "labels": {},
        "label_sha256": None,
    }
    if case.labelled:
        voxels = np.bincount(labels.reshape(-1), minlength=256)
        row["labels"] = {
            str(value): {"name": name, "voxels": int(voxels[value]), "analytic_ml": analytic_ml.get(value)}
            for value, name in layout.labels.items()
        }
        row["label_sha256"] = array_sha256(labels, "<u1")
    return row


def array_sha256(array: NDArray[Any], kind: str) -> str:
    """Sha256 of the canonical array's little-endian bytes, order z y x."""
    return hashlib.sha256(np.ascontiguousarray(array, dtype=kind).data).hexdigest()


def _letters(order: Orientation) -> str:
    """The orientation as three letters in the file's i, j, k order."""
    ends = [("SI", "AP", "RL")[axis][int(flip)] for axis, flip in zip(order.axes, order.flips, strict=True)]
    return "".join(reversed(ends))


def _write_labels(
    case: Case, root: Path, labels: NDArray[np.uint8], order: Orientation, affine: NDArray[np.float64]
) -> None:
    layout, stored = case.layout, order.apply(labels)
    grid = Volume(stored, spacing_of(affine), affine)
    whole = without_lower_liver(labels) if "combined_differs" in case.traps else labels
    write_label_map(root / layout.label.format(case=case.name), order.apply(whole), grid)
    if layout.mask is not None:
        for value, name in layout.labels.items():
            path = root / layout.mask.format(case=case.name, name=name)
            write_label_map(path, (stored == value).astype(np.uint8), grid)


def without_lower_liver(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A combined map that differs from the masks: the lowest part of the liver is missing."""
    combined = labels.copy()
    planes = np.flatnonzero((labels == 5).any(axis=(1, 2)))
    if planes.size:
        lower = combined[: planes[0] + max(1, planes.size // 4)]
        lower[lower == 5] = 0
    return combined


def _msd_json(plan: list[Case]) -> dict[str, Any]:
    layout = LAYOUTS["msd"]
    labelled = [case.name for case in plan if case.labelled]
    unlabelled = [case.name for case in plan if not case.labelled]
    return {
        "name": "Phantom",
        "description": "Generated scans of two abutting parts, in the layout of MSD",
        "reference": "segbench",
        "licence": "generated; no rights reserved",
        "release": f"{PHANTOM_VERSION}.0",
        "tensorImageSize": "4D",
        "modality": {str(index): name for index, name in enumerate(layout.channels)},
        "labels": {"0": "background", **{str(value): name for value, name in layout.labels.items()}},
        "numTraining": len(labelled),
        "numTest": len(unlabelled),
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in labelled
        ],
        "test": [f"./imagesTs/{name}.nii.gz" for name in unlabelled],
    }
