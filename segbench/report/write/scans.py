"""Volumes behind the rows: image, reference and prediction of a case, where they still lie on this machine.

The report needs none of them. Where they are at hand, pictures and the 3D view of worst cases are made;
where they are not, the report says so. Nothing is generated, fetched or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
)  # what shows most of a lesion, where a card has several channels


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
    _listed: dict[Path, frozenset[str]] = field(default_factory=dict[Path, frozenset[str]])

    def has(self, run: Run, case: str) -> bool:
        """Whether both label maps of a case are there; nothing is read."""
        real = self.case_names.get(case, case)
        return self._prediction(run, real) is not None and self._has_reference(run, real)

    def load(self, run: Run, case: str) -> CaseScan | None:
        """The case as it is shown, or None when a file is absent, broken or on another grid."""
        from segbench.volumes import read_label_map, reorient_like, to_canonical

        real = self.case_names.get(case, case)
        path = self._prediction(run, real)
        try:
            reference = self._reference(run, real)
            if path is None or reference is None:
                return None
            prediction = reorient_like(read_label_map(path), reference)
            if prediction is None or prediction.array.shape != reference.array.shape:
                return None
            image = self._image(run, real, reference)
            return shown_case(
                None if image is None else to_canonical(image).array,
                to_canonical(reference),
                to_canonical(prediction).array,
                window=self._window(run),
            )
        except (SegbenchError, OSError, ValueError):
            return None

    def holds(self, run: Run) -> bool:
        """Whether there is any prediction of a run."""
        return any(self._files(folder) for folder in _prediction_folders(run))

    def _files(self, folder: Path) -> frozenset[str]:
        """Names in a folder, which is listed once; empty where there is none."""
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(path.name for path in folder.iterdir())
            except (OSError, ValueError):
                self._listed[folder] = frozenset()
        return self._listed[folder]

    def _find(self, folder: Path, case: str) -> Path | None:
        """The file of a case in a folder."""
        from segbench.volumes import VOLUME_ENDINGS

        *above, name = case.split("/")
        place = folder.joinpath(*above) if above else folder
        known = self._files(place)
        return next((place / f"{name}{end}" for end in VOLUME_ENDINGS if f"{name}{end}" in known), None)

    def _prediction(self, run: Run, case: str) -> Path | None:
        found = (self._find(folder, case) for folder in _prediction_folders(run))
        return next((path for path in found if path is not None), None)

    def _external_reference(self, run: Run, case: str) -> Path | None:
        named = facts.table(run.record.external).get("reference")
        return self._find(Path(named).expanduser(), case) if isinstance(named, str) else None

    def _has_reference(self, run: Run, case: str) -> bool:
        if self._external_reference(run, case) is not None:
            return True
        dataset = self._dataset(run.dataset)
        return dataset is not None and case in dataset.case_ids

    def _reference(self, run: Run, case: str) -> Volume | None:
        from segbench.volumes import read_label_map

        path = self._external_reference(run, case)
        if path is not None:
            return read_label_map(path)
        dataset = self._dataset(run.dataset)
        return dataset.read_reference(case) if dataset is not None and case in dataset.case_ids else None

    def _image(self, run: Run, case: str, reference: Volume) -> Volume | None:
        """One channel of the image on the reference's grid, None when the dataset is not here."""
        dataset = self._dataset(run.dataset)
        if dataset is None or case not in dataset.case_ids:
            return None
        image = dataset.read_image(case)
        if image.array.shape[-3:] != reference.array.shape:
            return None
        order = list(dataset.card.channels.order)
        channel = next((order.index(name) for name in BEST_CHANNELS if name in order), 0)
        from dataclasses import replace

        return replace(image, array=image.array[channel])

    def _window(self, run: Run) -> tuple[float, float] | None:
        dataset = self._dataset(run.dataset)
        if dataset is None or dataset.card.modality != "CT":
            return None
        return LUNG_WINDOW if dataset.card.evaluation.tree else CT_WINDOW

    def _dataset(self, slug: str) -> Dataset | None:
        """The dataset when it lies under the data folder; a phantom that is not there is not made."""
        if slug not in self._datasets:
            self._datasets[slug] = _open(slug, self.data_dir)
        return self._datasets[slug]


def _open(slug: str, data_dir: str | None) -> Dataset | None:
    from segbench.cards import load_dataset_card
    from segbench.data.opening import find_root, open_dataset

    try:
        card = load_dataset_card(slug)
        root = find_root(card, data_dir)
        return None if root is None else open_dataset(card, path=root)
    except (SegbenchError, OSError):
        return None


def _prediction_folders(run: Run) -> list[Path]:
    """Where the predictions of a run may lie: in its own folder, else where they were scored."""
    named = facts.table(run.record.external).get("prediction")
    own = [] if run.folder is None else [run.folder / "predictions"]
    return [*own, Path(named).expanduser()] if isinstance(named, str) else own


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
