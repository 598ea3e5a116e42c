"""Volumes behind the rows: image, reference and prediction of a case, where they still lie on this machine.

The report needs none of them. Where they are at hand, pictures and the 3D view of worst cases are made;
where they are not, the report says so. Nothing is generated, fetched or written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.core.errors import SegbenchError
from segbench.records import facts
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
