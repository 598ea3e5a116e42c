"""Airway trees: how much of the tree's length and how many of its branches a prediction finds.

Three variants: `aiib2023` scores the largest 6-connected piece of the prediction against the whole reference,
as the AIIB23 challenge's script does (so that a perfect prediction of a reference in several pieces scores a
little below 1); `tree` takes the largest piece of both, holes filled; `atm2022` takes both as given, in per
cent rounded to two decimals. The reference's side (skeleton, branches, nearest branch of every voxel) is most
of the work and is cached in the process.

Source: Nandayang/AIIB23 utils/airway_metric.py and utils/tree_parse.py; EndoluminalSurgicalVision-IMR/
ATM-22-Related-Work evaluation/ (definitions; no code).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segbench.core.hashing import sha256_bytes
from segbench.metrics._ndimage import CORNERS, FACES, Mask, count_around, fill_holes, label, nearest_true
from segbench.metrics.boxes import box_of
from segbench.metrics.inputs import check_pair, check_spacing
from segbench.metrics.skeleton import thin

Variant = Literal["aiib2023", "tree", "atm2022"]
VARIANTS: tuple[str, ...] = ("aiib2023", "tree", "atm2022")
SHARES = ("iou", "dlr", "dbr", "precision", "leakage", "amr")
MINIMUM_PIECE = 5
"""Pieces of the skeleton with fewer voxels are no branch."""
MARGIN = 2
"""Voxels around the union of both trees that are looked at."""

_KEPT = 4


@dataclass(frozen=True, eq=False)
class AirwayScores(Mapping[str, float]):
    """The airway set of one case, read like a dict.

    Keys: iou, dlr (tree length detected), dbr (branches detected), precision, leakage (descriptive), amr as
    fractions, and the counts branches, branches_detected, skeleton_voxels.

    Attributes:
        values_by_name: name -> value; nan where not defined.
        status: `ok` or which side is empty.
        penalised: names whose value comes from a rule for empties.
    """

    values_by_name: Mapping[str, float]
    status: str
    penalised: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> float:
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


@dataclass(frozen=True, eq=False)
class ReferenceTree:
    """What only depends on the reference.

    Attributes:
        skeleton: Skeleton of the reference as it is scored.
        branch: Branch number of every voxel of the largest piece (0 elsewhere).
        branches: Number of branches.
    """

    skeleton: Mask
    branch: NDArray[np.int32]
    branches: int


def evaluate_airway(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    spacing_mm: tuple[float, float, float],
    variant: str = "aiib2023",
    branch_threshold: float = 0.8,
) -> AirwayScores:
    """Return the airway scores of one case.

    Args:
        reference: Label map, z y x; labels > 0 are airway.
        prediction: Label map of the same shape.
        spacing_mm: Voxel size (z, y, x) in mm; checked, but every score counts voxels.
        variant: `aiib2023`, `tree` or `atm2022`.
        branch_threshold: Share of a branch's skeleton voxels that must be found.

    Raises:
        ValueError: Unequal shapes, rank, spacing, unknown variant, threshold outside (0, 1].
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown airway variant {variant!r}; known: {', '.join(VARIANTS)}")
    if not 0 < branch_threshold <= 1:
        raise ValueError(f"branch_threshold must be in (0, 1], not {branch_threshold}")
    check_spacing(spacing_mm)
    truth_map, guess_map = check_pair(reference, prediction)
    truth, guess = truth_map > 0, guess_map > 0
    if not truth.any() or not guess.any():
        return _of_empties(truth, guess, variant)
    box = box_of(truth | guess, margin=MARGIN)
    assert box is not None
    truth, guess = np.ascontiguousarray(truth[box]), np.ascontiguousarray(guess[box])
    tree = reference_tree(truth, variant)
    if variant == "tree":
        truth = fill_holes(largest_piece(truth))
    if variant != "atm2022":
        guess = largest_piece(guess)
    if variant == "tree":
        guess = fill_holes(guess)
    return _scores(truth, guess, tree, variant, branch_threshold)


def largest_piece(mask: Mask) -> Mask:
    """The largest 6-connected component; the first in raster order when several are equally large."""
    labels, count = label(mask, FACES)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == int(sizes.argmax())


_cache: OrderedDict[tuple[str, str], ReferenceTree] = OrderedDict()


def reference_tree(truth: Mask, variant: str) -> ReferenceTree:
    """Skeleton, branches and nearest branch of a cropped reference; the last few are kept in the process."""
    whole = "tree" if variant == "tree" else "whole"
    shape = ",".join(map(str, truth.shape))
    key = (whole, sha256_bytes(shape.encode() + np.packbits(truth).tobytes()))
    if key in _cache:
        _cache.move_to_end(key)
        return _cache[key]
    tree = _parse(truth, whole)
    _cache[key] = tree
    while len(_cache) > _KEPT:
        _cache.popitem(last=False)
    return tree


def _parse(truth: Mask, whole: str) -> ReferenceTree:
    trunk = fill_holes(largest_piece(truth))
    centre = thin(trunk)
    pieces, count = label(centre & (count_around(centre) <= 3), CORNERS)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    large = sizes >= MINIMUM_PIECE
    large[0] = False
    number = np.cumsum(large) * large
    pieces = number[pieces].astype(np.int32)
    branches = int(large.sum())
    branch = np.zeros(truth.shape, dtype=np.int32)
    if branches:
        nearest = nearest_true(pieces != 0)
        where = np.nonzero(trunk)
        branch[where] = pieces[tuple(index[where] for index in nearest)]
    skeleton = centre if whole == "tree" else thin(truth)
    return ReferenceTree(skeleton, branch, branches)


def _scores(truth: Mask, guess: Mask, tree: ReferenceTree, variant: str, threshold: float) -> AirwayScores:
    common = int(np.count_nonzero(truth & guess))
    n_truth, n_guess = int(np.count_nonzero(truth)), int(np.count_nonzero(guess))
    length = int(np.count_nonzero(tree.skeleton))
    found = tree.skeleton & guess
    hits = int(np.count_nonzero(found))
    of_branch = np.bincount(tree.branch[tree.skeleton], minlength=tree.branches + 1)[1:]
    hit_branch = np.bincount(tree.branch[found], minlength=tree.branches + 1)[1:]
    detected = int(np.count_nonzero((of_branch > 0) & (hit_branch >= threshold * of_branch)))
    whole_tree = float(length > 0 and hits >= threshold * length)  # a tree without branches is found or not
    dbr = detected / tree.branches if tree.branches else whole_tree
    values = {
        "iou": common / (n_truth + n_guess - common),
        "dlr": hits / length if length else 0.0,
        "dbr": dbr,
        "precision": common / n_guess,
        "leakage": (n_guess - common) / n_truth,
        "amr": 1.0 - common / n_truth,
    }
    if variant == "atm2022":
        smooth = 1e-5
        values |= {
            "iou": (common + smooth) / (n_truth + n_guess - common + smooth),
            "precision": (common + smooth) / (n_guess + smooth),
        }
        values = {name: round(100.0 * value, 2) for name, value in values.items()}
    counts = {
        "branches": float(tree.branches),
        "branches_detected": float(detected),
        "skeleton_voxels": float(length),
    }
    return AirwayScores(MappingProxyType(values | counts), "ok")


def _of_empties(truth: Mask, guess: Mask, variant: str) -> AirwayScores:
    """Both empty is right, anything else is as wrong as can be."""
    has_truth, has_guess = bool(truth.any()), bool(guess.any())
    good = not has_truth and not has_guess
    share = 1.0 if good else 0.0
    values = {
        "iou": share,
        "dlr": share,
        "dbr": share,
        "precision": share,
        "leakage": 0.0,
        "amr": 1.0 - share,
    }
    if has_guess:
        values["leakage"] = math.nan  # relative to a reference of nothing
    if variant == "atm2022":
        values = {name: 100.0 * value for name, value in values.items()}
    tree = None
    if has_truth:
        box = box_of(truth, margin=MARGIN)
        assert box is not None
        tree = reference_tree(np.ascontiguousarray(truth[box]), variant)
    counts = {
        "branches": float(tree.branches) if tree else 0.0,
        "branches_detected": 0.0,
        "skeleton_voxels": float(np.count_nonzero(tree.skeleton)) if tree else 0.0,
    }
    status = "both_empty" if good else "prediction_empty" if has_truth else "reference_empty"
    penalised = frozenset(name for name in SHARES if name != "leakage")
    return AirwayScores(MappingProxyType(values | counts), status, penalised)
