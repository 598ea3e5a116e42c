"""One look for all figures: colours that colour-blind readers can tell apart, markers beside them, fixed
bytes.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's palette (its yellow, too pale for points on white, replaced by a brown)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8", "H")
GREY = "#767676"
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

    with rc_context({**{key: mpl.rcParamsDefault[key] for key in ("axes.prop_cycle", "image.cmap")}, **RC}):
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


def rendered(figure: Figure, kinds: Sequence[str]) -> dict[str, bytes]:
    """The figure as bytes by format (pdf, svg, png), without dates or names of programs in it."""
    metadata: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
    }
    found: dict[str, bytes] = {}
    for kind in kinds:
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, metadata=metadata[kind])
        found[kind] = stream.getvalue()
    return found


def short(label: str, length: int = 28) -> str:
    """A label for an axis: cut in the middle when long, so that beginnings and ends stay readable."""
    if len(label) <= length:
        return label
    keep = (length - 3) // 2
    return f"{label[:keep]}...{label[-keep:]}"


def scaled(values: Any, scale: float) -> Any:
    """Values in printed units."""
    return values * scale
