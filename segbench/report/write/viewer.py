"""Worst cases for the page: which, and their volumes where they still lie on this machine.

The report needs none of them. Where image, reference and prediction of a case are at hand, posters and the 3D
view are made; where they are not, the report says so. Nothing is generated, fetched or written.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.core.errors import SegbenchError
from segbench.core.text import one_line
from segbench.records import facts
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column
from segbench.report.analysis.metric import format_number
from segbench.report.read.runs import Run

if TYPE_CHECKING:
    from segbench.data import Dataset
    from segbench.volumes import Volume

LabelArray = npt.NDArray[np.uint8]

AGREE, MISSED, EXTRA = 1, 2, 3  # classes of the comparison mask
BORDER = 16  # voxels around reference and prediction that are kept
LONGEST = 192  # voxels of a crop's longest side; larger crops are shown at every n-th voxel
WINDOWS = {False: (-160.0, 240.0), True: (-1000.0, 200.0)}  # of CT; of airway trees
BEST_CHANNELS = ("t2f", "flair", "FLAIR", "t1c")  # show most of a lesion
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
    most = int(analysis.options.viewer.partition(":")[2] or 0)  # none, or worst:K
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


def colour_table() -> dict[str, Any]:
    """Label colours of the comparison mask, as the viewer takes them."""
    colours = ["#000000", *CLASS_COLOURS.values()]
    channels = {
        name: [int(colour[place : place + 2], 16) for colour in colours]
        for name, place in (("R", 1), ("G", 3), ("B", 5))
    }
    labels = ["", *CLASS_WORDS.values()]
    return {**channels, "A": [0, 130, 220, 220], "I": [0, AGREE, MISSED, EXTRA], "labels": labels}


# ---- the volumes of a case


@dataclass(frozen=True, eq=False)
class CaseVolumes:
    """A case as it is shown: cropped, in canonical orientation, z y x.

    Attributes:
        image: 8-bit, windowed by modality; None when only the label maps are at hand.
        mask: classes of the comparison: agree, missed (or wrong label), extra; 0 elsewhere.
        spacing_mm: z, y, x, of the voxels shown.
        step: every n-th voxel is shown.
    """

    image: LabelArray | None
    mask: LabelArray
    spacing_mm: tuple[float, float, float]
    step: int

    def worst_slices(self) -> tuple[int, int, int]:
        """Per axis the slice with most voxels in error; without errors the one with most reference."""
        wrong = self.mask >= MISSED
        shown = wrong if wrong.any() else self.mask > 0
        axes = ((1, 2), (0, 2), (0, 1))
        z, y, x = (int(np.argmax(shown.sum(axis=other))) for other in axes)
        return z, y, x


def load_case(run: Run, case: str, data_dir: str | None = None) -> CaseVolumes | None:
    """A case as it is shown, or None when a file is absent, broken or on another grid.

    Args:
        run: whose prediction it is.
        case: case id, not its printed name.
        data_dir: folder of datasets, None for the environment's.
    """
    from segbench.volumes import read_label_map, reorient_like, to_canonical

    path = _find(case, prediction_folders(run))
    if path is None:
        return None
    dataset = _open(run.dataset, data_dir)
    if dataset is not None and case not in dataset.case_ids:
        dataset = None
    stated = facts.text(run.record.external, "reference")
    try:
        if (own := _find(case, [Path(stated)] if stated else [])) is not None:
            reference = read_label_map(own)
        elif dataset is not None:
            reference = dataset.read_reference(case)
        else:
            return None
        prediction = reorient_like(read_label_map(path), reference)
        if prediction is None or prediction.array.shape != reference.array.shape:
            return None
        ct = dataset is not None and dataset.card.modality == "CT"
        shown = shown_case(
            None if dataset is None else _image(dataset, case, reference),
            to_canonical(reference),
            to_canonical(prediction).array,
            window=WINDOWS[dataset.card.evaluation.tree] if dataset is not None and ct else None,
        )
    except (SegbenchError, OSError, ValueError):
        return None
    return shown


def _image(dataset: Dataset, case: str, reference: Volume) -> LabelArray | None:
    """One channel of the image in canonical orientation, None on another grid than the reference."""
    from segbench.volumes import to_canonical

    image = dataset.read_image(case)
    if image.array.shape[-3:] != reference.array.shape:
        return None
    order = list(dataset.card.channels.order)
    channel = next((order.index(name) for name in BEST_CHANNELS if name in order), 0)
    return to_canonical(replace(image, array=image.array[channel])).array


@lru_cache(maxsize=8)
def _open(slug: str, data_dir: str | None) -> Dataset | None:
    """A dataset where it lies under the data folder; a phantom is never made."""
    from segbench.cards import load_dataset_card
    from segbench.data.opening import find_root, open_dataset

    try:
        card = load_dataset_card(slug)
        root = find_root(card, data_dir)
        return None if root is None else open_dataset(card, path=root)
    except (SegbenchError, OSError):
        return None


def prediction_folders(run: Run) -> list[Path]:
    """Folders of predictions of a run that are there: its own, and the one it was told of."""
    stated = facts.text(run.record.external, "prediction")
    own = [run.folder / "predictions"] if run.folder is not None else []
    folders = [folder.expanduser() for folder in ([*own, Path(stated)] if stated else own)]
    return [folder for folder in folders if folder.is_dir()]


def _find(case: str, folders: Iterable[Path]) -> Path | None:
    """The volume of a case in the first folder that holds one."""
    from segbench.volumes import VOLUME_ENDINGS

    paths = (folder.expanduser() / f"{case}{ending}" for folder in folders for ending in VOLUME_ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def shown_case(
    image: npt.NDArray[Any] | None,
    reference: Volume,
    prediction: npt.NDArray[Any],
    *,
    window: tuple[float, float] | None,
) -> CaseVolumes | None:
    """Crop to reference or prediction with a border, window to 8 bits, thin out what is too large to show.

    Args:
        image: (z, y, x) intensities or None.
        reference: label map; its grid is the one shown.
        prediction: label map on the same grid.
        window: intensities shown as black and white; None takes the 1st and 99.5th percentile of the crop.

    Returns:
        None when neither map has a label.
    """
    both = (reference.array > 0) | (prediction > 0)
    if not both.any():
        return None
    filled = np.nonzero(both)
    low = [max(int(axis.min()) - BORDER, 0) for axis in filled]
    high = [min(int(axis.max()) + BORDER + 1, size) for axis, size in zip(filled, both.shape, strict=True)]
    step = max(1, -(-max(np.subtract(high, low).tolist()) // LONGEST))
    box = tuple(slice(*ends, step) for ends in zip(low, high, strict=True))
    ours, truth = prediction[box], reference.array[box]
    right, wrong = (truth > 0) & (ours == truth), (truth > 0) & (ours != truth)
    shown = None
    if image is not None:
        finite = np.nan_to_num(image[box].astype(np.float32))
        least, most = window if window is not None else np.percentile(finite, [1.0, 99.5]).tolist()
        scaled = (finite - least) * (255.0 / (most - least)) + 0.5 if most > least else np.zeros_like(finite)
        shown = np.clip(scaled, 0, 255).astype(np.uint8)
    z, y, x = (length * step for length in reference.spacing_mm)
    mask = np.select([right, wrong, ours > 0], [AGREE, MISSED, EXTRA], 0).astype(np.uint8)
    return CaseVolumes(image=shown, mask=mask, spacing_mm=(z, y, x), step=step)
