"""What scoring gives back for one region of one case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion of the reference.

    Attributes:
        volume_mm3: Volume of its reference voxels.
        components: Predicted components that match it.
        dice: Against the union of those components, 0 when unmatched.
        hd95_mm: Likewise, the penalty when unmatched.
        kept: Whether it is large enough to count.
    """

    volume_mm3: float
    components: int
    dice: float
    hd95_mm: float
    kept: bool


@dataclass(frozen=True, eq=False)
class CaseScores(Mapping[str, float]):
    """The metrics of one region of one case, read like a dict of python floats.

    Attributes:
        values_by_name: metric name -> value; nan where the policy or the definition says "not defined".
        status: `ok` or which side is empty, or why there was no usable prediction.
        reference_voxels: voxels of the region in the reference.
        prediction_voxels: voxels of the region in the prediction, 0 when there was none.
        penalised: names of ranked scores whose value comes from a rule for empties, not from a measurement.
        lesions: of lesion-wise scores every lesion, in raster order of its first voxel, ignored ones too.
    """

    values_by_name: Mapping[str, float]
    status: str
    reference_voxels: int
    prediction_voxels: int
    penalised: frozenset[str] = frozenset()
    lesions: tuple[Lesion, ...] = ()

    def __getitem__(self, name: str) -> float:
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)
