"""Worst cases for the page: which, their volumes as base64, posters as PNG, and the viewer's own code."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
from collections import Counter
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np

from segbench.core.text import one_line
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column
from segbench.report.analysis.numbers import format_number
from segbench.report.read.runs import Run
from segbench.report.write.case_volumes import (
    AGREE,
    EXTRA,
    MISSED,
    CaseVolumes,
    LabelArray,
    load_case,
    prediction_folders,
)

MOST_PER_MODEL = 3
CLASS_COLOURS = {AGREE: "#56B4E9", MISSED: "#E69F00", EXTRA: "#F0E442"}
CLASS_WORDS = {AGREE: "agree", MISSED: "missed", EXTRA: "extra"}


@dataclass(frozen=True, eq=False)
class Picture:
    """A case of one training run and what the page shows of it.

    Attributes:
        run: the training run.
        label: of its entry.
        column: the deciding column.
        place: of the case in its block.
        value: score of the case there, stored units.
        shown: its volumes, once they were found.
    """

    run: Run
    label: str
    column: Column
    place: int
    value: float
    shown: CaseVolumes | None = None

    @property
    def case(self) -> str:
        """The printed name of the case."""
        return self.column.block.case_names[self.place]

    @property
    def volume_ml(self) -> float:
        """The largest reference volume of its regions, NaN where unknown."""
        return float(np.fmax.reduce(self.column.block.reference_ml[self.place]))

    @property
    def title(self) -> str:
        """Model, dataset, case and score in words."""
        metric, block = self.column.metric, self.column.block
        score = f"{metric.label} {format_number(self.value, scale=metric.scale, digits=1)}"
        where = f"seed {self.run.seed}, {block.name}, {self.case}"
        return one_line(f"{block.short(self.label)}, {where}: {score}")


def load_pictures(analysis: Analysis) -> list[Picture]:
    """The worst cases whose volumes are on this machine, as many as `--viewer` asks for, three of a model."""
    taken: Counter[str] = Counter()
    pictures: list[Picture] = []
    most = analysis.options.viewer_cases
    held = {run.run_id for run in analysis.runs if prediction_folders(run)} if most else set[str]()
    for item in worst_cases(analysis) if most else ():
        if taken[item.label] == MOST_PER_MODEL or item.run.run_id not in held:
            continue
        shown = load_case(item.run, item.column.block.cases[item.place], analysis.options.data_dir)
        if shown is not None:
            taken[item.label] += 1
            pictures.append(replace(item, shown=shown))
        if len(pictures) == most:
            break
    return pictures


def worst_cases(analysis: Analysis) -> list[Picture]:
    """Every case with a score in the primary metric over all blocks, the worst first, once for each model."""
    found: list[Picture] = []
    for column in analysis.main_columns():
        block = column.block
        for scores in block.models if column.metric.higher_is_better is not None else ():
            runs = {(run.seed, run.fold): run for run in scores.entry.runs if run.rows is not None}
            table = block.per_case(scores, column.region, column.metric.name)
            for seed, values in zip(scores.seeds, table, strict=True):
                found += [
                    Picture(run, scores.label, column, place, float(values[place]))
                    for place in np.flatnonzero(np.isfinite(values)).tolist()
                    if (run := runs.get((seed, block.folds[place]))) is not None
                ]
    found.sort(key=lambda p: (p.column.sign * p.value, p.column.block.name, p.label, p.run.seed, p.case))
    first: dict[tuple[str, str, int], Picture] = {}
    for item in found:
        first.setdefault((item.column.block.name, item.label, item.place), item)
    return list(first.values())


def view(picture: Picture, shown: CaseVolumes) -> dict[str, Any]:
    """What the page shows of a case: its poster with words, and the volumes of the 3D view as base64."""
    counts = ", ".join(f"{words} {int((shown.mask == code).sum())}" for code, words in CLASS_WORDS.items())
    return {
        "title": picture.title,
        "alt": f"Three planes through the slice of largest error of {picture.title}; voxels: {counts}.",
        "poster": poster(shown),
        "scan": "" if shown.image is None else packed(shown.image, shown.spacing_mm),
        "mask": packed(shown.mask, shown.spacing_mm),
        "step": shown.step,
    }


def poster(shown: CaseVolumes) -> str:
    """PNG, as a data URI, of axial, coronal and sagittal planes with the comparison mask over the image."""
    from matplotlib.colors import to_rgb

    from segbench.report.write.figures import new_figure, style

    with style():
        figure, axes = new_figure(6.0, 2.1, 1, 3, squeeze=False)
        figure.patch.set_facecolor("black")
        mask, slices = shown.mask, shown.worst_slices()
        background = shown.image if shown.image is not None else np.zeros(mask.shape, dtype=np.uint8)
        for place, axis in enumerate(axes[0]):
            rest = [shown.spacing_mm[other] for other in range(3) if other != place]
            # upright: the head or the front is up, the first in-plane axis vertical
            planes = (np.take(array, slices[place], axis=place)[::-1] for array in (background, mask))
            grey, flat = next(planes).astype(float) / 255, next(planes)
            rgb = np.repeat(grey[:, :, None], 3, axis=2)
            for code, colour in CLASS_COLOURS.items():
                where = flat == code
                rgb[where] = 0.45 * rgb[where] + 0.55 * np.array(to_rgb(colour))
            axis.imshow(rgb, aspect=rest[0] / rest[1], interpolation="nearest")
            axis.axis("off")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=110, facecolor="black", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def packed(array: LabelArray, spacing_mm: tuple[float, float, float]) -> str:
    """Base64 of the gzipped NIfTI of an 8-bit volume (z, y, x), the same bytes every time."""
    return base64.b64encode(gzip.compress(nifti_bytes(array, spacing_mm), compresslevel=9, mtime=0)).decode()


def nifti_bytes(array: LabelArray, spacing_mm: tuple[float, float, float]) -> bytes:
    """A NIfTI-1 file of an 8-bit volume (z, y, x) with its origin in the first voxel; nothing else in it."""
    import nibabel as nib

    image = nib.Nifti1Image(array.transpose(2, 1, 0), np.diag([*spacing_mm[::-1], 1.0]))
    image.header.set_xyzt_units("mm")
    return image.to_bytes()


def viewer_code() -> tuple[str, str]:
    """Base64 of the viewer's gzipped code, and the reason when it cannot be used (SB706)."""
    folder = files("segbench.report.write").joinpath("assets")
    try:
        expected, name = folder.joinpath("SHA256").read_text(encoding="ascii").split()
        data = folder.joinpath(name).read_bytes()
    except (OSError, ValueError):
        return "", "SB706: the viewer asset is absent; pictures take its place"
    if hashlib.sha256(data).hexdigest() != expected:
        return "", "SB706: the viewer asset was changed; pictures take its place"
    return base64.b64encode(data).decode(), ""


def notices() -> str:
    """Licences of the embedded viewer."""
    try:
        return files("segbench.report.write").joinpath("assets", "THIRD_PARTY.md").read_text(encoding="utf-8")
    except OSError:
        return ""


def colour_table() -> dict[str, Any]:
    """Label colours of the comparison mask, as the viewer takes them."""
    colours = ["#000000", *CLASS_COLOURS.values()]
    channels = {
        name: [int(colour[place : place + 2], 16) for colour in colours]
        for name, place in (("R", 1), ("G", 3), ("B", 5))
    }
    labels = ["", *CLASS_WORDS.values()]
    return {**channels, "A": [0, 130, 220, 220], "I": [0, AGREE, MISSED, EXTRA], "labels": labels}
