"""One look for all figures: colours that colour-blind readers can tell apart, the same bytes each time."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.report.analysis.metric import Metric

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

    own = rc_params_from_file(Path(__file__).parent / "segbench.mplstyle", use_default_template=False)
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
