"""Metrics that follow from three voxel counts: how large the two regions are and how much they share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """Voxel counts of one region: reference R, prediction P and their intersection."""

    reference: int
    prediction: int
    intersection: int


def dice(counts: Counts) -> float:
    """Return 2 #(R∩P) / (#R + #P); needs one non-empty side.

    Source: Dice 1945.
    """
    return 2.0 * counts.intersection / (counts.reference + counts.prediction)


def iou(counts: Counts) -> float:
    """Return #(R∩P) / #(R∪P); needs one non-empty side.

    Source: Jaccard 1912.
    """
    return counts.intersection / (counts.reference + counts.prediction - counts.intersection)


def precision(counts: Counts) -> float:
    """Return #(R∩P) / #P; needs a non-empty prediction."""
    return counts.intersection / counts.prediction


def recall(counts: Counts) -> float:
    """Return #(R∩P) / #R; needs a non-empty reference."""
    return counts.intersection / counts.reference


def volume_similarity(counts: Counts) -> float:
    """Return 1 - abs(#P - #R) / (#P + #R); needs one non-empty side.

    Source: Taha & Hanbury 2015, doi:10.1186/s12880-015-0068-x.
    """
    return 1.0 - abs(counts.prediction - counts.reference) / (counts.prediction + counts.reference)


def relative_volume_error(counts: Counts) -> float:
    """Return (#P - #R) / #R, signed; needs a non-empty reference. Descriptive: never ranked."""
    return (counts.prediction - counts.reference) / counts.reference


OVERLAP_FUNCTIONS = {
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "recall": recall,
    "volume_similarity": volume_similarity,
    "relative_volume_error": relative_volume_error,
}
"""Name to function for every metric that needs counts only."""
