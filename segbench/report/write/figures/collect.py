"""Figures as files: Figure 1 always, differences under `--appendix`; one without data is left out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from segbench.report.analysis.analysis import Analysis
from segbench.report.write.figures import differences, models
from segbench.report.write.figures.style import NoData, Sketch, rendered, style


@lru_cache(maxsize=1)  # page and paper show the same figures
def figure_files(analysis: Analysis) -> tuple[Sketch | None, Mapping[str, bytes]]:
    """Figure 1, or None when no model has a mean, and every figure file by its path, as PDF and SVG.

    Figure 1 is `figures/models.*`; `figures/differences.*` are one for each block.
    """
    files: dict[str, bytes] = {}
    with style():
        try:
            first = models.draw(analysis)
        except NoData:
            return None, files
        files |= rendered(first.figure, "figures/models")
        for number in range(len(analysis.blocks)) if analysis.options.appendix else ():
            try:
                sketch = differences.draw(analysis, number)
            except NoData:
                continue
            place = f"-{number + 1}" if len(analysis.blocks) > 1 else ""
            files |= rendered(sketch.figure, f"figures/differences{place}")
    return first, files
