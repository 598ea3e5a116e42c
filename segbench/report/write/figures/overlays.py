"""07 Overlays: best, median and worst case of the leading model in three planes, with the case's true
aspect.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from segbench.report.analysis import Analysis
from segbench.report.figures.labels import cut
from segbench.report.figures.sketch import NoData, Sketch
from segbench.report.figures.style import WIDTHS, new_figure
from segbench.report.scans import CaseScan, ScanSource
from segbench.report.worst import first_metric, spread_cases

MOST_NAMED = 8  # labels in the legend
CONTOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "#009E73", "#D55E00")  # seen on black and on white
PLANES = ("axial", "coronal", "sagittal")


def draw(analysis: Analysis, number: int) -> Sketch:
    """Contours through the slice of largest error: reference solid, prediction dashed, one colour per label.

    Raises:
        NoData: the volumes of these runs are not on this machine.
    """
    source = ScanSource(analysis.options.data_dir, analysis.case_names)
    block = analysis.blocks[number]
    metric = first_metric(analysis, block)
    cases = spread_cases(analysis, number, source)
    loaded = [
        (word, item, scan) for word, item in cases if (scan := source.load(item.run, item.case)) is not None
    ]
    if not loaded or metric is None:
        raise NoData("volumes of these runs are not on this machine")
    heights = [_row_height(scan) for _, _, scan in loaded]
    figure, axes = new_figure(
        WIDTHS["double"],
        sum(heights) + 0.55,
        len(loaded),
        3,
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )
    labels = sorted({int(v) for _, _, scan in loaded for v in np.unique(scan.reference) if v})
    parts: list[str] = []
    for line, (row, (word, item, scan)) in enumerate(zip(axes, loaded, strict=True)):
        score = f"{metric.label} {item.value * metric.scale:.1f}"
        for place, axis in enumerate(row):
            _plane(axis, scan, place, labels)
            if line == 0:
                axis.set_title(PLANES[place], fontsize=8)
        row[0].set_ylabel(f"{word}\n{cut(item.case, 24)}\n{score}", fontsize=7)
        parts.append(f"{word}: case {item.case}, {score}")
    _legend(figure, block.dataset, labels)
    model = analysis.labels.get(loaded[0][1].run.model, loaded[0][1].run.model)
    caption = (
        f"{model} on {block.name}, seed {loaded[0][1].run.seed}: {', '.join(word for word, _, _ in loaded)} "
        "case in "
        "three planes through the slice of largest error; reference solid, prediction dashed, one colour per "
        "label."
    )
    alt = f"Overlays of reference and prediction of {model} on {block.name}. " + "; ".join(parts) + "."
    return Sketch(figure, caption, alt)


def _legend(figure: Any, dataset: str, labels: list[int]) -> None:
    """Which colour is which label, by the card's words where there is a card."""
    from matplotlib.lines import Line2D

    from segbench.cards import load_dataset_card
    from segbench.core.errors import SegbenchError

    try:
        words = {int(value): word for value, word in load_dataset_card(dataset).labels.items()}
    except SegbenchError:
        words = {}
    handles = [
        Line2D([], [], color=_colour(number), label=cut(words.get(label, f"label {label}"), 24))
        for number, label in enumerate(labels[:MOST_NAMED])
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)


def _colour(number: int) -> str:
    return CONTOURS[number % len(CONTOURS)]


def plane_of(array: Any, axis: int, place: int) -> Any:
    """One slice, upright: the head or the front is up, the first in-plane axis vertical."""
    return np.take(array, place, axis=axis)[::-1]


def _row_height(scan: CaseScan) -> float:
    """Inches a row needs so that its tallest plane keeps its true aspect in a third of the width."""
    sizes = np.array(scan.reference.shape) * np.array(scan.spacing_mm)
    tallest = max(sizes[1] / sizes[2], sizes[0] / sizes[2], sizes[0] / sizes[1])
    return float(min(max(WIDTHS["double"] / 3.4 * min(tallest, 1.4), 0.9), 3.0))


def _plane(axis: Any, scan: CaseScan, place: int, labels: list[int]) -> None:
    """One plane with contours; voxels keep the shape their spacing gives them."""
    at = scan.worst_slices()[place]
    rest = [scan.spacing_mm[other] for other in range(3) if other != place]
    aspect = rest[0] / rest[1]
    background = scan.image if scan.image is not None else np.zeros(scan.reference.shape, dtype=np.uint8)
    axis.imshow(
        plane_of(background, place, at), cmap="gray", vmin=0, vmax=255, aspect=aspect, interpolation="nearest"
    )
    for number, label in enumerate(labels):
        colour = _colour(number)
        for array, style in ((scan.reference, "solid"), (scan.prediction, "dashed")):
            mask = plane_of(array == label, place, at).astype(float)
            if mask.any() and not mask.all():
                axis.contour(mask, levels=[0.5], colors=[colour], linestyles=style, linewidths=0.9)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
