"""Volumes behind the rows: image, reference and prediction of a case, where they still lie on this machine.

The report needs none of them. Where they are at hand, pictures and the 3D view of worst cases are made;
where they are not, the report says so. Nothing is generated, fetched or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.core.errors import SegbenchError
from segbench.report.read import facts
from segbench.report.read.runs import Run

if TYPE_CHECKING:
    from segbench.data import Dataset
    from segbench.volumes import Volume

FloatArray = npt.NDArray[np.float64]
LabelArray = npt.NDArray[np.uint8]

AGREE, MISSED, EXTRA = 1, 2, 3  # classes of the comparison mask
BORDER = 16  # voxels around reference and prediction that are kept
LONGEST = 192  # voxels of a crop's longest side; larger crops are shown at every n-th voxel
CT_WINDOW = (-160.0, 240.0)
LUNG_WINDOW = (-1000.0, 200.0)
BEST_CHANNELS = (
    "t2f",
    "flair",
    "FLAIR",
    "t1c",
)  # show most of a lesion


@dataclass(frozen=True, eq=False)
class CaseScan:
    """A case as it is shown: cropped, in canonical orientation, z y x.

    Attributes:
        image: 8-bit, windowed by modality; None when only the label maps are at hand.
        reference: label values, clipped to 8 bits.
        prediction: label values.
        spacing_mm: z, y, x, of the voxels shown.
        step: every n-th voxel is shown.
    """

    image: LabelArray | None
    reference: LabelArray
    prediction: LabelArray
    spacing_mm: tuple[float, float, float]
    step: int

    @property
    def comparison(self) -> LabelArray:
        """Mask of classes: agree, missed (or wrong label), extra."""
        reference, prediction = self.reference, self.prediction
        mask = np.zeros(reference.shape, dtype=np.uint8)
        mask[(prediction > 0) & (reference == 0)] = EXTRA
        mask[(reference > 0) & (prediction != reference)] = MISSED
        mask[(reference > 0) & (prediction == reference)] = AGREE
        return mask

    def worst_slices(self) -> tuple[int, int, int]:
        """Per axis the slice with most voxels in error; without errors the one with most reference."""
        mask = self.comparison
        wrong = mask >= MISSED
        shown = wrong if wrong.any() else mask > 0
        axes = ((1, 2), (0, 2), (0, 1))
        z, y, x = (int(np.argmax(shown.sum(axis=other))) for other in axes)
        return z, y, x


@dataclass(slots=True)
class ScanSource:
    """Finds and reads the volumes of runs.

    Attributes:
        data_dir: folder of datasets, None for the environment's.
        case_names: real case id by pseudonym.
    """

    data_dir: str | None = None
    case_names: Mapping[str, str] = field(default_factory=dict[str, str])
    _datasets: dict[str, Dataset | None] = field(default_factory=dict[str, Any])
    _held: dict[str, bool] = field(default_factory=dict[str, bool])

    def may_hold(self, run: Run) -> bool:
        """Whether a folder of predictions of a run is there; asked once for each run."""
        if run.run_id not in self._held:
            self._held[run.run_id] = any(folder.expanduser().is_dir() for folder in _folders(run))
        return self._held[run.run_id]

    def load(self, run: Run, case: str) -> CaseScan | None:
        """The case as it is shown, or None when a file is absent, broken or on another grid."""
        from segbench.volumes import read_label_map, reorient_like, to_canonical

        real = self.case_names.get(case, case)
        path = _find(real, _folders(run))
        if path is None:
            return None
        dataset = self._dataset(run.dataset, real)
        stated = facts.text(run.record.external, "reference")
        try:
            if (own := _find(real, [Path(stated)] if stated else [])) is not None:
                reference = read_label_map(own)
            elif dataset is not None:
                reference = dataset.read_reference(real)
            else:
                return None
            prediction = reorient_like(read_label_map(path), reference)
            if prediction is None or prediction.array.shape != reference.array.shape:
                return None
            image = None if dataset is None else _image(dataset, real, reference)
            return shown_case(
                None if image is None else to_canonical(image).array,
                to_canonical(reference),
                to_canonical(prediction).array,
                window=None if dataset is None else _window(dataset),
            )
        except (SegbenchError, OSError, ValueError):
            return None

    def _dataset(self, slug: str, case: str) -> Dataset | None:
        """The dataset of a case where it lies under the data folder; a phantom is never made."""
        if slug not in self._datasets:
            self._datasets[slug] = _open(slug, self.data_dir)
        dataset = self._datasets[slug]
        return dataset if dataset is not None and case in dataset.case_ids else None


def _image(dataset: Dataset, case: str, reference: Volume) -> Volume | None:
    """One channel of the image, None when it lies on another grid than the reference."""
    image = dataset.read_image(case)
    if image.array.shape[-3:] != reference.array.shape:
        return None
    order = list(dataset.card.channels.order)
    channel = next((order.index(name) for name in BEST_CHANNELS if name in order), 0)
    return replace(image, array=image.array[channel])


def _window(dataset: Dataset) -> tuple[float, float] | None:
    if dataset.card.modality != "CT":
        return None
    return LUNG_WINDOW if dataset.card.evaluation.tree else CT_WINDOW


def _open(slug: str, data_dir: str | None) -> Dataset | None:
    from segbench.cards import load_dataset_card
    from segbench.data.opening import find_root, open_dataset

    try:
        card = load_dataset_card(slug)
        root = find_root(card, data_dir)
        return None if root is None else open_dataset(card, path=root)
    except (SegbenchError, OSError):
        return None


def _folders(run: Run) -> list[Path]:
    """Where the predictions of a run may lie: in its folder, else where it was told they are."""
    stated = facts.text(run.record.external, "prediction")
    own = [run.folder / "predictions"] if run.folder is not None else []
    return [*own, Path(stated)] if stated else own


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
) -> CaseScan | None:
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
    box = _box(both)
    step = max(1, -(-max(part.stop - part.start for part in box) // LONGEST))
    thin = tuple(slice(part.start, part.stop, step) for part in box)
    z, y, x = (length * step for length in reference.spacing_mm)
    return CaseScan(
        image=None if image is None else _windowed(image[thin], window),
        reference=np.minimum(reference.array[thin], 255).astype(np.uint8),
        prediction=np.minimum(prediction[thin], 255).astype(np.uint8),
        spacing_mm=(z, y, x),
        step=step,
    )


def _box(mask: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    parts: list[slice] = []
    for axis in range(3):
        other = tuple(place for place in range(3) if place != axis)
        filled = np.flatnonzero(mask.any(axis=other))
        low, high = int(filled[0]) - BORDER, int(filled[-1]) + BORDER + 1
        parts.append(slice(max(low, 0), min(high, mask.shape[axis])))
    return tuple(parts)


def _windowed(values: npt.NDArray[Any], window: tuple[float, float] | None) -> LabelArray:
    finite = np.nan_to_num(values.astype(np.float32))
    low, high = window if window is not None else np.percentile(finite, [1.0, 99.5]).tolist()
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.clip((finite - low) * (255.0 / (high - low)) + 0.5, 0, 255).astype(np.uint8)
