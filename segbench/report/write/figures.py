"""Figure 1: models against score: interval over seeds and patients, each seed a dot, baselines as lines.

All figures have one look: colours that colour-blind readers can tell apart, the same bytes each time.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column
from segbench.report.analysis.metric import Metric, format_number
from segbench.report.write.tables import STARS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, RULE, PAPER = "#1b1b1b", "#636363", "#dddddd", "#ffffff"
MODEL, REFERENCE = "#0072B2", "#B4500A"
WIDTHS = {"single": 3.5, "double": 7.16}  # inches of a column and of a page
METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
}
"""Formats of figures; no date and no name of a program stands in them."""
MOST_COLUMNS = 3
ROW = 0.19  # inches
NAME = 24  # letters of a line of a name; longer ones are wrapped, none is cut


@lru_cache(maxsize=1)  # page and paper show the same figure
def figure_files(analysis: Analysis) -> tuple[Sketch | None, Mapping[str, bytes]]:
    """Figure 1 and its files by path, `figures/models.pdf` and `.svg`; None when no model has a mean."""
    with style():
        sketch = draw(analysis)
        return sketch, {} if sketch is None else rendered(sketch.figure, "figures/models")


def draw(analysis: Analysis) -> Sketch | None:
    """One panel for each block, in the order of Table 1: readers, models, baselines."""
    found = [(column, _rows(analysis, column)) for column in analysis.main_columns()]
    columns, rows = [c for c, labels in found if labels], [labels for _, labels in found if labels]
    if not columns:
        return None
    shared = all(set(labels) == set(rows[0]) for labels in rows)
    across = min(len(columns), MOST_COLUMNS if shared else 2)
    down = -(-len(columns) // across)
    names = {
        label: "\n".join(textwrap.wrap(analysis.short(label), NAME)) or "?" for label in analysis.by_label
    }
    lines = max(sum(names[label].count("\n") + 1 for label in max(rows, key=len)), max(map(len, rows)))
    width, height = WIDTHS["single" if across == 1 else "double"], down * (0.62 + ROW * lines)
    figure, axes = new_figure(width, height, down, across, squeeze=False)
    panels = list(axes.flat)
    for place, (column, labels, axis) in enumerate(zip(columns, rows, panels, strict=False)):
        named = not shared or place % across == 0
        _panel(axis, analysis, column, labels, [names[label] if named else "" for label in labels])
        if len(columns) > 1:
            axis.set_title(column.block.name, loc="left")
    for axis in panels[len(columns) :]:
        axis.set_visible(False)
    return Sketch(figure, _caption(analysis, columns), _alt(analysis, columns, rows))


def _rows(analysis: Analysis, column: Column) -> list[str]:
    """Labels with a finite mean, in the order of Table 1."""
    means = {label: mean.value for label, mean in column.means.items()}
    return analysis.ordered(
        [label for label, mean in means.items() if mean is not None and math.isfinite(mean)]
    )


def _panel(
    axis: Any, analysis: Analysis, column: Column, labels: Sequence[str], names: Sequence[str]
) -> None:
    scale, block = column.metric.scale, column.block
    apart = {scores.label for scores in (*block.readers, *block.baselines)}
    spans: list[float] = []  # every finite number of the models, printed units
    for label in [label for label in labels if label not in apart] or labels:
        mean = column.means[label]
        values = (mean.value, mean.low, mean.high, *(value for _, value in mean.per_seed))
        spans += [value * scale for value in values if value is not None and math.isfinite(value)]
    axis.set_xlim(*limits(column.metric, spans))
    name_rows(axis, names)
    for place, label in enumerate(labels):
        if label in apart:
            _line(axis, (column.means[label].value or 0.0) * scale, place, column.options.digits)
        else:
            _model(axis, column, label, place)
    for tick, label in zip(axis.get_yticklabels(), labels, strict=True):
        if label in apart:
            tick.set(color=SOFT, style="italic")
        elif label == column.reference:
            tick.set(color=REFERENCE)
    axis.set_xlabel(f"{column.metric.head} {column.metric.arrow}".strip())


def _model(axis: Any, column: Column, label: str, place: int) -> None:
    mean, scale = column.means[label], column.metric.scale
    reference = label == column.reference
    colour, marker = (REFERENCE, "D") if reference else (MODEL, "o")
    value = (mean.value or 0.0) * scale
    end = value
    if mean.low is not None and mean.high is not None:
        end = mean.high * scale
        axis.plot([mean.low * scale, end], [place, place], color=colour, linewidth=1.4, zorder=2)
    if reference:
        axis.axvline(value, color=colour, linewidth=0.6, alpha=0.6, zorder=1)
    seeds = [seed * scale for _, seed in mean.per_seed if seed is not None and math.isfinite(seed)]
    if len(seeds) > 1:
        axis.plot(seeds, [place] * len(seeds), "o", ms=3.0, mfc=PAPER, mec=colour, mew=0.7, zorder=3)
    axis.plot([value], [place], marker, color=colour, ms=5.0 if len(seeds) < 2 else 4.2, zorder=4)
    star = STARS.get(column.star(label), "")
    if star:
        axis.annotate(
            star, (end, place), (2, -1), textcoords="offset points", va="center", color=INK, fontsize=9
        )


def _line(axis: Any, value: float, place: int, digits: int) -> None:
    """A line through the panel, or where it lies beyond the models' range its number at that edge."""
    low, high = axis.get_xlim()
    if low <= value <= high:
        axis.axvline(value, color=SOFT, linewidth=0.9, linestyle="--", zorder=1)
        axis.plot([value], [place], "|", color=SOFT, ms=6, zorder=3)
        return
    number = format_number(value, digits=digits)
    left = value < low
    axis.annotate(
        f"\N{LEFTWARDS ARROW} {number}" if left else f"{number} \N{RIGHTWARDS ARROW}",
        (0.01 if left else 0.99, place),
        xycoords=("axes fraction", "data"),
        ha="left" if left else "right",
        va="center",
        color=SOFT,
        fontsize=7,
    )


def _caption(analysis: Analysis, columns: Sequence[Column]) -> str:
    percent = f"{analysis.options.confidence * 100:g}"
    where = " and ".join(dict.fromkeys(column.block.unit for column in columns))
    several = any(len(mean.per_seed) > 1 for column in columns for mean in column.means.values())
    parts = [f"bar: {percent} % interval over {'seeds and ' if several else ''}{where}"]
    if several:
        parts.append("hollow dots: single seeds")
    reference = next((column.reference for column in columns if column.reference), None)
    if reference:
        parts.append(f"diamond: reference ({analysis.short(reference)})")
    if any(column.block.baselines for column in columns):
        parts.append("grey: baselines")
    if any(column.block.readers for column in columns):
        parts.append("grey, above the models: a second reader")
    return f"{columns[0].metric.label} of each model; {'; '.join(parts)}."


def _alt(analysis: Analysis, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """What the figure shows, in words."""
    found: list[str] = []
    for column, labels in zip(columns, rows, strict=True):
        means = [(analysis.short(label), column.means[label]) for label in labels]
        items = ", ".join(
            f"{name} {column.number(mean.value)}{column.interval(mean)}" for name, mean in means
        )
        found.append(f"{column.metric.head} on {column.block.name}: {items}.")
    return " ".join(found)


# ---- the look of all figures


@dataclass(frozen=True, slots=True)
class Sketch:
    """A drawn figure before it becomes bytes.

    Attributes:
        figure: the figure.
        caption: one line.
        alt: what it shows, in words, with its main numbers.
    """

    figure: Figure
    caption: str
    alt: str


@contextmanager
def style() -> Generator[None]:
    """The figure settings within a block, whatever the user's own; nothing is set globally."""
    import matplotlib as mpl
    from matplotlib import rc_context, rc_params_from_file

    own = rc_params_from_file(
        Path(__file__).parent / "assets" / "segbench.mplstyle", use_default_template=False
    )
    plain = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")}
    settings: Any = plain | own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mpl.MatplotlibDeprecationWarning)
        # A letter that the font lacks is drawn as a box; tables and the alt text hold the name.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        with rc_context(settings):
            yield


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **keywords: Any
) -> tuple[Figure, Any]:
    """A figure on the Agg canvas with its axes; no window system, no pyplot state.

    Args:
        width: inches.
        height: inches.
        rows: of axes.
        columns: of axes.
        **keywords: for `Figure.subplots`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **keywords)


def rendered(figure: Figure, stem: str) -> dict[str, bytes]:
    """The figure as bytes by path: `stem` with the ending of each format."""
    found: dict[str, bytes] = {}
    figure.draw_without_rendering()  # lays out once; without this every format would do it again, twice
    figure.set_layout_engine("none")
    for kind, metadata in METADATA.items():
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, metadata=metadata)
        found[f"{stem}.{kind}"] = stream.getvalue()
    return found


def name_rows(axis: Any, names: Sequence[str]) -> None:
    """One named row for each name, the first on top, without an axis of their own."""
    axis.set_yticks(range(len(names)), names, linespacing=0.95)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="x")
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)


def limits(metric: Metric, values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis that holds the values with a margin; a share never leaves 0 to 100, a distance 0.

    Args:
        metric: what is shown.
        values: in printed units, all finite.
    """
    low, high = min(values), max(values)
    pad = 0.06 * (high - low) if high > low else max(abs(high), 1.0) * 0.05
    least = 0.0 if metric.unit in {"%", "mm"} else -math.inf
    most = 100.0 if metric.unit == "%" else math.inf
    edge = 0.015 * (high - low + 2 * pad)
    return max(low - pad, least - edge), min(high + pad, most + edge)
