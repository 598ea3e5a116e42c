"""08 Cost against accuracy: log cost, mean with its interval, the front of models nobody beats in both."""

from __future__ import annotations

from segbench.report.analysis import Analysis
from segbench.report.cost import Cost
from segbench.report.figures.data import View, limits, view
from segbench.report.figures.sketch import NoData, Sketch
from segbench.report.figures.style import WIDTHS, legend_height, new_figure, plain_log
from segbench.report.summary import Summary

AXES = (
    ("gmacs", "operations (GMAC)"),
    ("seconds_per_case", "inference (s per case)"),
    ("parameters_m", "parameters (M)"),
    ("peak_memory_gib", "peak memory (GiB)"),
    ("gpu_hours", "training (GPU-hours)"),
)


def draw(analysis: Analysis, number: int) -> Sketch:
    """The first cost that at least two models have against the metric in the last region shown.

    Raises:
        NoData: no cost is known of two models.
    """
    shown = view(analysis, number, floors=False)
    region = shown.regions[-1]
    costs = {
        cost.model: cost
        for cost in analysis.costs
        if (cost.dataset, cost.protocol) == (shown.block.dataset, shown.block.protocol)
    }
    summaries = {item.model: item for item in analysis.summaries[shown.key(region)] if item.mean is not None}
    field, words = _field(costs, summaries)
    models = [model for model in shown.models if model in summaries and _cost(costs, model, field)]
    names = shown.names()
    height = legend_height(["front", *(names[model] for model in models)])
    figure, axis = new_figure(WIDTHS["double"], max(3.0, height))
    scale = shown.metric.scale
    points = {
        model: (_cost(costs, model, field), float(summaries[model].mean or 0.0) * scale) for model in models
    }
    front = pareto_front(points, higher=bool(shown.metric.higher_is_better))
    axis.plot(
        [points[model][0] for model in front],
        [points[model][1] for model in front],
        color="0.6",
        linestyle="--",
        linewidth=0.9,
        zorder=0,
        label="front",
    )
    for model in models:
        x, y = points[model]
        look, interval = shown.looks[model], summaries[model].mean_interval
        low, high = shown.metric.within(interval.low), shown.metric.within(interval.high)
        if low is not None and high is not None:
            axis.plot([x, x], [low * scale, high * scale], color=look.colour, linewidth=1.0)
        face = look.colour if model not in shown.single else "white"
        axis.plot([x], [y], look.marker, color=look.colour, mfc=face, ms=6, label=names[model])
    axis.set_xscale("log")
    plain_log(axis.xaxis, min(x for x, _ in points.values()), max(x for x, _ in points.values()))
    axis.set_xlabel(f"{words} \N{DOWNWARDS ARROW}")
    axis.set_ylabel(shown.metric.axis)
    axis.set_ylim(*_score_limits(analysis, shown, [summaries[model] for model in models]))
    axis.grid(color="0.92", linewidth=0.5, which="both")
    axis.set_axisbelow(True)
    figure.legend(loc="outside right center", frameon=False)
    caption = (
        f"Cost against {shown.metric.head} on {shown.block.name} ({region}); bars are intervals of the mean, "
        "the dashed "
        "line joins models that no other beats in both; open symbols: one training run."
    )
    alt = (
        f"Scatter of {shown.metric.head} against {words} on {shown.block.name}. "
        + "; ".join(f"{shown.label(m)} {points[m][0]:.3g}, {points[m][1]:.2f}" for m in models)
        + f". On the front: {', '.join(shown.label(model) for model in front)}."
    )
    return Sketch(figure, caption, alt)


def _score_limits(analysis: Analysis, shown: View, items: list[Summary]) -> tuple[float, float]:
    """Limits of the axis that hold the means and their intervals."""
    scale = shown.metric.scale
    ends = [
        value * scale
        for item in items
        for value in (item.mean, *map(shown.metric.within, (item.mean_interval.low, item.mean_interval.high)))
        if value is not None
    ]
    return limits(shown.metric, min(ends), max(ends))


def _field(costs: dict[str, Cost], summaries: dict[str, Summary]) -> tuple[str, str]:
    for field, words in AXES:
        if sum(_cost(costs, model, field) > 0 for model in summaries) >= 2:
            return field, words
    raise NoData("no cost is known of two models")


def _cost(costs: dict[str, Cost], model: str, field: str) -> float:
    """The cost in question, 0 where it is not known (a log axis has no place for it)."""
    value = getattr(costs.get(model), field, None)
    return float(value) if isinstance(value, int | float) else 0.0


def pareto_front(points: dict[str, tuple[float, float]], *, higher: bool) -> list[str]:
    """Models that no other beats in both cost (lower) and score, from cheap to dear."""
    sign = 1 if higher else -1
    front: list[str] = []
    best = float("-inf")
    for model in sorted(points, key=lambda name: (points[name][0], -sign * points[name][1], name)):
        if sign * points[model][1] > best:
            best = sign * points[model][1]
            front.append(model)
    return front
