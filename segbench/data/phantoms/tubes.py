"""Tubes made of many straight pieces: signed distance to their surface, piece by piece in small boxes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from segbench.data.phantoms.space import Array, Capsule, Grid, box_around, points_in


def distance_to(grid: Grid, pieces: Iterable[Capsule], *, reach: float) -> Array:
    """Millimetres to the nearest surface of any piece, negative inside; `reach` where nothing is that near.

    Args:
        grid: Where.
        pieces: The tubes.
        reach: How far around each piece distances are computed, mm.
    """
    nearest = np.full(grid.shape, reach)
    for piece in pieces:
        margin = piece.radius + reach
        lower = [min(a, b) - margin for a, b in zip(piece.start, piece.end, strict=True)]
        upper = [max(a, b) + margin for a, b in zip(piece.start, piece.end, strict=True)]
        box = box_around(grid, lower, upper)
        if any(part.start >= part.stop for part in box):
            continue
        view = nearest[box]
        np.minimum(view, piece.distance(points_in(grid, box)), out=view)
    return nearest
