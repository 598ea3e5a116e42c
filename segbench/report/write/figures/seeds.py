"""11 Seeds: the mean of every training run over the interval of the model's mean."""

from __future__ import annotations

from segbench.report.analysis import Analysis
from segbench.report.figures.data import view
from segbench.report.figures.sketch import NoData, Sketch
from segbench.report.figures.style import GREY, WIDTHS, new_figure


def draw(analysis: Analysis, number: int) -> Sketch:
    """One line per model in the last region shown.

    Raises:
        NoData: no model has two training runs.
    """
    shown = view(analysis, number, floors=False)
    region = shown.regions[-1]
    spreads = {item.model: item for item in analysis.seeds[shown.key(region)]}
    if all(len(item.seeds) < 2 for item in spreads.values()):
        raise NoData("no model has two training runs")
    summaries = {item.model: item for item in analysis.summaries[shown.key(region)]}
    scale = shown.metric.scale
    figure, axis = new_figure(WIDTHS["double"], 0.75 + 0.24 * len(shown.models))
    parts: list[str] = []
    for place, model in enumerate(shown.models):
        look, item = shown.looks[model], spreads[model]
        interval = summaries[model].mean_interval
        low, high = shown.metric.within(interval.low), shown.metric.within(interval.high)
        if low is not None and high is not None:
            axis.plot(
                [low * scale, high * scale],
                [place, place],
                color=look.colour,
                alpha=0.3,
                linewidth=6,
                solid_capstyle="butt",
            )
        means = [value * scale for value in item.means if value is not None]
        axis.plot(means, [place] * len(means), look.marker, color=look.colour, ms=4.5, mfc="white")
        if means:
            parts.append(f"{shown.label(model)} {min(means):.2f} to {max(means):.2f} over {len(means)} runs")
    names = shown.names()
    axis.set_yticks(range(len(shown.models)), [names[model] for model in shown.models], linespacing=1.0)
    for tick, model in zip(axis.get_yticklabels(), shown.models, strict=True):
        tick.set_color(GREY if model in shown.single else "black")
    axis.set_ylim(len(shown.models) - 0.4, -0.6)
    axis.set_xlabel(f"{shown.metric.axis}, {region}")
    axis.grid(axis="x", color="0.92", linewidth=0.5)
    axis.set_axisbelow(True)
    level = f"{100 * analysis.options.confidence:g} %"
    caption = (
        f"Training runs on {shown.block.name} ({region}): one symbol per seed over the {level} interval of "
        "the model's "
        "mean, which counts seeds and cases as random where there are two seeds and more."
    )
    alt = f"Means per training run in {shown.metric.head} on {shown.block.name}: " + "; ".join(parts) + "."
    return Sketch(figure, caption, alt)
