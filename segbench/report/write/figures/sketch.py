"""What a figure function gives, and how it says that there is nothing to draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


WEIGHTS_ONLY = "Cases are counted as random, training runs are not: for these weights only."
"""What captions of figures say that draw or rank cases and average the seeds."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """A drawn figure before it becomes bytes.

    Attributes:
        figure: the figure.
        caption: what stands under it.
        alt: what it shows, in words, with its main numbers.
    """

    figure: Figure
    caption: str
    alt: str


class NoData(Exception):  # noqa: N818 - not an error: a figure that has nothing to show
    """Why a figure is skipped."""
