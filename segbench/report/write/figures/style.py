"""One look for all figures: colours that colour-blind readers can tell apart, markers beside them, fixed
bytes.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's palette (its yellow, too pale for points on white, replaced by a brown)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8", "H")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
GREY = "#767676"
SCREEN_DPI = 110
WIDTHS = {"single": 3.5, "double": 7.16}

RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "segbench",
    "savefig.dpi": 200,
    "figure.dpi": 100,
    "text.usetex": False,
    "text.hinting": "no_hinting",  # else the width of text differs by resolution and it leaves the picture
    "text.parse_math": False,  # a model called $x$ is printed as it stands
    "axes.unicode_minus": True,
    "path.simplify": True,
}


@dataclass(frozen=True, slots=True)
class Look:
    """Colour and marker of one model."""

    colour: str
    marker: str


def looks(models: Sequence[str]) -> dict[str, Look]:
    """A fixed colour and marker per model, by the sorted names; markers differ before colours repeat."""
    return {
        name: Look(COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)])
        for place, name in enumerate(sorted(models))
    }


@contextmanager
def style() -> Generator[None]:
    """The figure settings within a block; nothing is set globally."""
    import matplotlib as mpl
    from matplotlib import rc_context

    settings: Any = {key: mpl.rcParamsDefault[key] for key in ("axes.prop_cycle", "image.cmap")} | RC
    with rc_context(settings), warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box; tables and the alt text hold the name.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
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


def for_screen(figure: Figure) -> bytes:
    """The figure as a small PNG for the page: screen resolution, at most 128 colours."""
    from PIL import Image

    stream, small = io.BytesIO(), io.BytesIO()
    figure.savefig(stream, format="png", dpi=SCREEN_DPI, metadata={"Software": None})
    picture = Image.open(stream).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(small, format="PNG", optimize=True)
    return small.getvalue()


def rendered(figure: Figure, kinds: Sequence[str]) -> dict[str, bytes]:
    """The figure as bytes by format (pdf, svg, png), without dates or names of programs in it."""
    metadata: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
    }
    found: dict[str, bytes] = {}
    figure.draw_without_rendering()  # lays out once; without this every format would do it again, twice
    figure.set_layout_engine("none")
    for kind in kinds:
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, metadata=metadata[kind])
        found[kind] = stream.getvalue()
    return found


def legend_height(labels: Iterable[str]) -> float:
    """Inches that a legend of one column with these labels needs."""
    return 0.35 + sum(0.168 + 0.11 * label.count("\n") for label in labels)


def plain_log(axis: Any, low: float, high: float) -> None:
    """A log axis with plain numbers: decades, with 2 and 5 below two decades, four round numbers below one.

    Args:
        axis: `axes.xaxis` or `axes.yaxis`, already of log scale.
        low: smallest value shown.
        high: largest value shown.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    decades = math.log10(high / low) if low > 0 and high > low else 0.0
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    if decades < 1:
        steps = [low * (high / low) ** (place / 3) for place in range(4)] if decades else [low]
        axis.set_major_locator(FixedLocator(sorted({float(f"{value:.2g}") for value in steps})))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(
            LogLocator(base=10, subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,), numticks=12)
        )


def point_size(cases: int) -> float:
    """Marker size that stays visible for few cases and does not smear for many."""
    return 3.5 if cases <= 30 else 2.4 if cases <= 100 else 1.6
