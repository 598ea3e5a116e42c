"""Airway trees: how much of the tree's length and how many of its branches a prediction finds.

Three variants: `aiib2023` scores the largest 6-connected piece of the prediction against the whole reference,
as the AIIB23 challenge's script does (so that a perfect prediction of a reference in several pieces scores a
little below 1); `tree` takes the largest piece of both, holes filled; `atm2022` takes both as given, in per
cent rounded to two decimals. The reference's side is most of the work and is cached (`airway_tree.py`).

Source: Nandayang/AIIB23 utils/airway_metric.py and utils/tree_parse.py; EndoluminalSurgicalVision-IMR/
ATM-22-Related-Work evaluation/ (definitions; no code).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.airways.tree import MARGIN, ReferenceTree, reference_tree
from segbench.metrics.boxes import box_of
from segbench.metrics.engine._runs import Mask, fill_holes, largest_piece
from segbench.metrics.inputs import check_pair, check_spacing
from segbench.metrics.scores import CaseScores

Variant = Literal["aiib2023", "tree", "atm2022"]
VARIANTS: tuple[str, ...] = ("aiib2023", "tree", "atm2022")
SHARES = ("iou", "dlr", "dbr", "precision", "leakage", "amr")


def evaluate_airway(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    spacing_mm: tuple[float, float, float],
    variant: str = "aiib2023",
    branch_threshold: float = 0.8,
    cache: Path | None = None,
) -> CaseScores:
    """Return the airway scores of one case: iou, dlr (tree length detected), dbr (branches detected),
    precision, leakage (descriptive), amr as fractions; branches, branches_detected, skeleton_voxels.

    Args:
        reference: Label map, z y x; labels > 0 are airway.
        prediction: Label map of the same shape.
        spacing_mm: Voxel size (z, y, x) in mm; checked, but every score counts voxels.
        variant: `aiib2023`, `tree` or `atm2022`.
        branch_threshold: Share of a branch's skeleton voxels that must be found.
        cache: Folder where skeletons of references are kept; None keeps the last few in memory only.

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
        return _of_empties(truth, guess, variant, cache)
    tree = reference_tree(truth, trunk_only=variant == "tree", folder=cache)
    box = box_of(truth | guess, margin=MARGIN)
    assert box is not None
    truth, guess = np.ascontiguousarray(truth[box]), np.ascontiguousarray(guess[box])
    skeleton = tree.skeleton - np.array([part.start for part in box])
    if variant == "tree":
        truth = fill_holes(largest_piece(truth))
    if variant != "atm2022":
        guess = largest_piece(guess)
    if variant == "tree":
        guess = fill_holes(guess)
    return _scores(truth, guess, guess[tuple(skeleton.T)], tree, variant, branch_threshold)


def _scores(
    truth: Mask, guess: Mask, found: Mask, tree: ReferenceTree, variant: str, threshold: float
) -> CaseScores:
    """Return the scores; `found` says of each skeleton voxel whether it is predicted."""
    common = int(np.count_nonzero(truth & guess))
    n_truth, n_guess = int(np.count_nonzero(truth)), int(np.count_nonzero(guess))
    length, hits = len(found), int(np.count_nonzero(found))
    of_branch = np.bincount(tree.branch, minlength=tree.branches + 1)[1:]
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
    return CaseScores(values | counts, "ok", n_truth, n_guess)


def _of_empties(truth: Mask, guess: Mask, variant: str, cache: Path | None) -> CaseScores:
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
    tree = reference_tree(truth, trunk_only=variant == "tree", folder=cache) if has_truth else None
    counts = {
        "branches": float(tree.branches) if tree else 0.0,
        "branches_detected": 0.0,
        "skeleton_voxels": float(len(tree.skeleton)) if tree else 0.0,
    }
    status = "both_empty" if good else "prediction_empty" if has_truth else "reference_empty"
    penalised = frozenset(name for name in SHARES if name != "leakage")
    n_truth, n_guess = (int(np.count_nonzero(mask)) for mask in (truth, guess))
    return CaseScores(values | counts, status, n_truth, n_guess, penalised)
