"""10 Performance profile: the share of cases that a model brings to a score or better, with its band."""

from __future__ import annotations

import numpy as np

from segbench.report.analysis import Analysis
from segbench.report.figures.data import limits, view
from segbench.report.figures.sketch import NoData, Sketch
from segbench.report.figures.style import LINES, WIDTHS, legend_height, new_figure
from segbench.report.missing import FloatArray

BANDS_UP_TO = 6  # models; beyond, bands hide each other


def draw(analysis: Analysis, number: int) -> Sketch:
    """Shares over a grid of scores in the last region shown; bands are pointwise 95 % Wilson intervals.

    Raises:
        NoData: no finite values, or a metric without a direction.
    """
    shown = view(analysis, number)
    region = shown.regions[-1]
    models = [model for model in shown.models if shown.known(model, region).size]
    if not models or shown.metric.higher_is_better is None:
        raise NoData("no finite values of a metric with a direction")
    everything = np.concatenate([shown.known(model, region) for model in models])
    low, high = limits(shown.metric, float(everything.min()), float(everything.max()))
    grid = np.linspace(low, high, 300)
    names = shown.names()
    height = legend_height([names[model] for model in models])
    figure, axis = new_figure(WIDTHS["double"], max(2.8, height))
    for place, model in enumerate(models):
        values = np.sort(shown.known(model, region))
        share = _share(values, grid, higher=shown.metric.higher_is_better)
        look = shown.looks[model]
        axis.plot(
            grid,
            100 * share,
            color=look.colour,
            linestyle=LINES[place % len(LINES)],
            label=names[model],
            marker=look.marker,
            markevery=(7 * place % 60, 60),
            ms=3.5,
        )
        if len(models) <= BANDS_UP_TO:
            lower, upper = wilson(share, values.size)
            inside = (share > 0) & (share < 1)  # at 0 and 1 the bands of all models would lie on each other
            axis.fill_between(
                grid, 100 * lower, 100 * upper, where=inside, color=look.colour, alpha=0.12, linewidth=0
            )
    axis.set_xlim((low, high) if shown.metric.higher_is_better else (high, low))
    axis.set_ylim(-2, 102)
    axis.set_xlabel(f"{shown.metric.head}, {'at least' if shown.metric.higher_is_better else 'at most'}")
    axis.set_ylabel("cases (%) \N{UPWARDS ARROW}")
    axis.grid(color="0.92", linewidth=0.5)
    figure.legend(loc="outside right center", frameon=False)
    caption = (
        f"Share of cases on {shown.block.name} ({region}) with {shown.metric.label} at the value or better"
        + ("; bands: pointwise 95 % Wilson intervals." if len(models) <= BANDS_UP_TO else ".")
    )
    middle = float(np.median(everything))
    parts: list[str] = []
    for model in models:
        ordered = np.sort(shown.known(model, region))
        share = _share(ordered, np.array([middle]), higher=shown.metric.higher_is_better)
        parts.append(f"{shown.label(model)} {100 * float(share[0]):.0f} %")
    alt = (
        f"Performance profiles on {shown.block.name}, region {region}. Cases at {middle:.1f} or better: "
        f"{'; '.join(parts)}."
    )
    return Sketch(figure, caption, alt)


def _share(ordered: FloatArray, grid: FloatArray, *, higher: bool) -> FloatArray:
    """Share of the sorted values at each grid point or better."""
    if higher:
        return 1.0 - np.searchsorted(ordered, grid, side="left") / ordered.size
    return np.searchsorted(ordered, grid, side="right") / ordered.size


def wilson(share: FloatArray, n: int, z: float = 1.959963984540054) -> tuple[FloatArray, FloatArray]:
    """Wilson's 95 % interval of shares of n cases. **Source:** Wilson 1927, JASA 22."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
