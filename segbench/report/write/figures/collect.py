"""Figures as files: Figure 1 always, the others under `--appendix`; one without data is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from segbench.report.analysis.analysis import Analysis
from segbench.report.write.figures import cases, cost, differences, models, ranks, size
from segbench.report.write.figures.style import NoData, Sketch, rendered, style

APPENDIX: Mapping[str, Callable[[Analysis, int], Sketch]] = {
    "differences": differences.draw,
    "ranks": ranks.draw,
    "cases": cases.draw,
    "size": size.draw,
    "cost": cost.draw,
}


def figure_files(analysis: Analysis) -> tuple[Sketch | None, dict[str, bytes]]:
    """Figure 1, or None when no model has a mean, and every figure file by its path.

    `figures/models.*` is there as PDF, PNG and SVG; the others, one for each block, as PDF and SVG.
    """
    files: dict[str, bytes] = {}
    with style():
        try:
            first = models.draw(analysis)
        except NoData:
            return None, files
        made = rendered(first.figure, ("pdf", "png", "svg"))
        files |= {f"figures/models.{kind}": content for kind, content in made.items()}
        for name, draw in APPENDIX.items() if analysis.options.appendix else ():
            for number in range(len(analysis.blocks)):
                try:
                    sketch = draw(analysis, number)
                except NoData:
                    continue
                stem = f"figures/{name}-{number + 1}" if len(analysis.blocks) > 1 else f"figures/{name}"
                made = rendered(sketch.figure, ("pdf", "svg"))
                files |= {f"{stem}.{kind}": content for kind, content in made.items()}
    return first, files
