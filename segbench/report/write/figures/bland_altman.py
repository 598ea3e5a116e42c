"""05 Bland-Altman: predicted against reference volume, with bias, limits of agreement and their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from segbench.report.analysis import Analysis
from segbench.report.figures.data import View, view
from segbench.report.figures.sketch import NoData, Sketch
from segbench.report.figures.style import WIDTHS, new_figure, plain_log
from segbench.report.missing import FloatArray, failed

MOST_PANELS = 9
LOG_FROM = 100.0  # ratio of largest to smallest volume above which ratios are shown


def draw(analysis: Analysis, number: int) -> Sketch:
    """One panel per model, in the region with the largest mean reference volume.

    Differences in ml where volumes are of one order; ratios on a log axis where they span two orders and
    more.

    Raises:
        NoData: volumes are not in the records.
    """
    shown = view(analysis, number, floors=False)
    place = _largest_region(shown)
    region = shown.block.regions[place]
    reference = shown.block.reference_ml[:, place]
    volumes = {model: _predicted(shown, model, place) for model in shown.models}
    models = [m for m in shown.models if np.isfinite(volumes[m] + reference).sum() >= 2][:MOST_PANELS]
    if not models:
        raise NoData("volumes are not in the records")
    positive = reference[np.isfinite(reference) & (reference > 0)]
    log = positive.size > 1 and float(positive.max() / positive.min()) > LOG_FROM
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    width = WIDTHS["double"] if columns > 1 else WIDTHS["single"]
    figure, axes = new_figure(
        width, 0.5 + 1.75 * rows, rows, columns, squeeze=False, sharex=True, sharey=True
    )
    panels = list(axes.flat)
    parts: list[str] = []
    for model, axis in zip(models, panels, strict=False):
        bias, low, high = _panel(axis, shown, model, reference, volumes[model], log=log)
        unit = "times" if log else "ml"
        parts.append(f"{shown.label(model)} bias {bias:.3g} {unit}, limits {low:.3g} to {high:.3g}")
    for axis in panels[len(models) :]:
        axis.set_visible(False)
    figure.supxlabel("mean of predicted and reference volume (ml)", fontsize=8)
    figure.supylabel("predicted / reference" if log else "predicted - reference (ml)", fontsize=8)
    what = "ratio" if log else "difference"
    some = (
        f" The first {len(models)} models of {len(shown.models)}." if len(models) < len(shown.models) else ""
    )
    caption = (
        f"Volumes on {shown.block.name} ({region}): {what} against mean; line bias, dashes 95 % limits of "
        "agreement, "
        f"bands their 95 % intervals.{some}"
    )
    alt = f"Bland-Altman plots of volume on {shown.block.name}, region {region}: " + "; ".join(parts) + "."
    return Sketch(figure, caption, alt)


def _largest_region(shown: View) -> int:
    means = [
        float(column[np.isfinite(column)].mean()) if np.isfinite(column).any() else -1.0
        for column in shown.block.reference_ml.T
    ]
    return int(np.argmax(means))


def _predicted(shown: View, model: str, place: int) -> FloatArray:
    """(cases,) predicted volume, the mean over seeds; NaN where a prediction is missing."""
    scores = shown.scores(model)
    volumes = np.where(failed(scores.status), np.nan, scores.prediction_ml)[:, :, place]
    known = ~np.isnan(volumes)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, volumes, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _panel(
    axis: Any, shown: View, model: str, reference: FloatArray, predicted: FloatArray, *, log: bool
) -> tuple[float, float, float]:
    """Points, bias, limits with intervals; gives bias and limits in the unit of the axis."""
    usable = np.isfinite(reference) & np.isfinite(predicted)
    if log:
        usable &= (reference > 0) & (predicted > 0)
    x, y = reference[usable], predicted[usable]
    difference = np.log2(y / x) if log else y - x
    look = shown.looks[model]
    middle = (x + y) / 2
    n = difference.size
    bias = float(difference.mean()) if n else float("nan")
    sd = float(difference.std(ddof=1)) if n > 1 else 0.0
    convert = (lambda value: 2.0**value) if log else (lambda value: value)
    axis.plot(middle, convert(difference), look.marker, color=look.colour, ms=2.2, alpha=0.7, mew=0)
    if n > 1:
        _lines(axis, bias, sd, n, convert)
    if log:
        from matplotlib.ticker import FuncFormatter

        axis.set_xscale("log")
        plain_log(axis.xaxis, float(middle.min()), float(middle.max()))
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.axhline(convert(0.0), color="0.8", linewidth=0.6, zorder=0)
    title = shown.names(length=32)[model]
    axis.set_title(title, fontsize=7 if "\n" in title else 8, loc="left", linespacing=1.0)
    return convert(bias), convert(bias - 1.96 * sd), convert(bias + 1.96 * sd)


def _lines(axis: Any, bias: float, sd: float, n: int, convert: Any) -> None:
    """Bias and limits with Bland and Altman's standard errors sqrt(1/n) and sqrt(1/n + 1.96^2 / (2(n-1)))."""
    from scipy.special import stdtrit

    t = float(stdtrit(n - 1, 0.975))
    limit_error = sd * np.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))
    for centre, error, style in (
        (bias, sd / np.sqrt(n), "-"),
        (bias - 1.96 * sd, limit_error, "--"),
        (bias + 1.96 * sd, limit_error, "--"),
    ):
        axis.axhspan(
            convert(centre - t * error), convert(centre + t * error), color="0.85", linewidth=0, zorder=0
        )
        axis.axhline(convert(centre), color="black", linewidth=0.8, linestyle=style, zorder=1)
