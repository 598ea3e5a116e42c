"""All figures of a report, in order; one whose data are absent is skipped with a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segbench.report.analysis import Analysis
from segbench.report.figures import (
    bland_altman,
    critical_difference,
    forest,
    overlays,
    pareto,
    profile,
    raincloud,
    rank_blobs,
    seeds,
    significance,
    size,
)
from segbench.report.figures.sketch import NoData, Sketch
from segbench.report.figures.style import for_screen, rendered, style
from segbench.report.latex import latex_label
from segbench.report.svg import INLINE_UP_TO

KINDS = ("pdf", "svg", "png")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One figure.

    Attributes:
        name: file stem, such as `01_raincloud`.
        caption: what stands under it.
        alt: what it shows, in words, with its main numbers.
        files: bytes by format.
        dataset: dataset it belongs to, empty for the whole report.
        screen: a small PNG for the page, where the svg is too large for it.
    """

    name: str
    caption: str
    alt: str
    files: dict[str, bytes]
    dataset: str
    screen: bytes = b""


PER_BLOCK: tuple[tuple[str, Callable[[Analysis, int], Sketch]], ...] = (
    ("01_raincloud", raincloud.draw),
    ("02_critical_difference", critical_difference.draw),
    ("03_rank_blobs", rank_blobs.draw),
    ("04_significance", significance.draw),
    ("05_bland_altman", bland_altman.draw),
    ("06_size", size.draw),
    ("07_overlays", overlays.draw),
    ("08_cost", pareto.draw),
    ("09_forest", forest.draw),
    ("10_profile", profile.draw),
    ("11_seeds", seeds.draw),
)


def draw_figures(
    analysis: Analysis, kinds: Sequence[str] = KINDS
) -> tuple[list[Drawn], list[dict[str, str]]]:
    """Every figure that has data, and the skipped ones with their reason.

    Args:
        analysis: what was computed.
        kinds: formats to render; a page alone needs svg, and png only where the svg is large.
    """
    drawn: list[Drawn] = []
    skipped: list[dict[str, str]] = []
    several = len(analysis.blocks) > 1
    with style():
        for name, draw in PER_BLOCK:
            for number, block in enumerate(analysis.blocks):
                stem = f"{name}_{_stem(analysis, number)}" if several else name
                try:
                    sketch = draw(analysis, number)
                except NoData as reason:
                    skipped.append({"figure": stem, "reason": str(reason)})
                    continue
                files = rendered(sketch.figure, kinds)
                large = len(files.get("svg", b"")) >= INLINE_UP_TO
                screen = for_screen(sketch.figure) if large and "html" in analysis.options.formats else b""
                drawn.append(Drawn(stem, sketch.caption, sketch.alt, files, block.dataset, screen))
    return drawn, skipped


def _stem(analysis: Analysis, number: int) -> str:
    """A file name part for a block that no other block has."""
    return latex_label(analysis.block_title(analysis.blocks[number])).removeprefix("tab:").replace(":", "-")
