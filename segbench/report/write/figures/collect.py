"""Figures as files: Figure 1 always, the others under `--appendix`; one without data is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from segbench.report.analysis.analysis import Analysis
from segbench.report.write.figures import cost, differences, models, ranks
from segbench.report.write.figures.style import NoData, Sketch, rendered, style

APPENDIX: Mapping[str, Callable[[Analysis, int], Sketch]] = {
    "differences": differences.draw,
    "ranks": ranks.draw,
    "cost": cost.draw,
}


@lru_cache(maxsize=1)  # page and paper show the same figures
def figure_files(analysis: Analysis) -> tuple[Sketch | None, Mapping[str, bytes]]:
    """Figure 1, or None when no model has a mean, and every figure file by its path, as PDF and SVG.

    Figure 1 is `figures/models.*`; the others have one for each block.
    """
    files: dict[str, bytes] = {}
    with style():
        try:
            first = models.draw(analysis)
        except NoData:
            return None, files
        files |= rendered(first.figure, "figures/models")
        for name, draw in APPENDIX.items() if analysis.options.appendix else ():
            for number in range(len(analysis.blocks)):
                try:
                    sketch = draw(analysis, number)
                except NoData:
                    continue
                stem = f"figures/{name}-{number + 1}" if len(analysis.blocks) > 1 else f"figures/{name}"
                files |= rendered(sketch.figure, stem)
    return first, files
