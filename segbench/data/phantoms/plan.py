"""Which case is what: sizes, ids, sites, traps and random numbers, all by index, so case k never changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segbench.core.errors import SegbenchError
from segbench.data.phantoms.space import Grid

PHANTOM_VERSION = 1
"""Raised whenever a voxel of any phantom changes; it enters the random numbers and phantom.json."""

Kind = Literal["crc", "brats", "aiib", "abdomenatlas", "msd"]
Size = Literal["tiny", "small", "full"]
KINDS: tuple[Kind, ...] = ("crc", "brats", "aiib", "abdomenatlas", "msd")
SIZES: tuple[Size, ...] = ("tiny", "small", "full")
DEFAULT_CASES: dict[Size, int] = {"tiny": 12, "small": 60, "full": 20}
UNLABELLED = 100_000
"""Indices from here on are the cases without a reference (validation folders)."""
Made = tuple[dict[str, NDArray[np.int16]], NDArray[np.uint8], dict[int, float]]
"""A case as made: image of each channel and label map in canonical axes, z y x; and the volume of each label
in closed form, ml, of calibration cases only."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tree of one kind looks: ids, files as templates of `{case}`, `{channel}` and `{name}`, content.

    Attributes:
        folder: Name under which `segbench run --data-dir DIR` finds the tree.
        case: The id, a template of `{index}`, `{first}` (the index of the patient's first visit), `{visit}`.
        image: File of each channel.
        label: The label map.
        labels: Name of each label value in use.
        grids: By size; site B has thicker slices.
        channels: Of an image, in file order.
        test_case: The id of a case without a reference; None where the kind has none.
        test_image: File of each channel of such a case.
        mask: One more file for each label.
        stacked: All channels in one 4D file.
        traps: Name -> (period, remainder): laid where index % period == remainder. Index 0 has none.
    """

    folder: str
    case: str
    image: str
    label: str
    labels: dict[int, str]
    grids: dict[Size, Grid]
    channels: tuple[str, ...] = ("CT",)
    test_case: str | None = None
    test_image: str = ""
    mask: str | None = None
    stacked: bool = False
    traps: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])


_ORGANS = {
    1: "aorta", 2: "gall_bladder", 3: "kidney_left", 4: "kidney_right", 5: "liver",
    6: "pancreas", 7: "postcava", 8: "spleen", 9: "stomach",
}  # fmt: skip
LAYOUTS: dict[Kind, Layout] = {
    "crc": Layout(
        folder="CRC-2000",
        case="crc_{index:04d}",
        image="Image/{case}.nii.gz",
        label="ROI/{case}.nii.gz",
        labels={1: "tumour"},
        grids={
            "tiny": Grid((32, 48, 48), (3.75, 2.1, 2.1)),
            "small": Grid((32, 128, 128), (3.75, 0.79, 0.79)),
            "full": Grid((100, 512, 512), (3.75, 0.79, 0.79)),
        },
        traps={"thin_tumour": (10, 3), "empty_label": (20, 6)},
    ),
    "brats": Layout(
        folder="BraTS2023-GLI",
        case="BraTS-GLI-9{first:04d}-{visit:03d}",
        image="{case}/{case}-{channel}.nii.gz",
        label="{case}/{case}-seg.nii.gz",
        labels={1: "necrotic core (NCR)", 2: "oedema (ED/SNFH)", 3: "enhancing tumour (ET)"},
        channels=("t2w", "t2f", "t1n", "t1c"),
        grids={
            "tiny": Grid((48, 48, 48), (1.0, 1.0, 1.0)),
            "small": Grid((96, 96, 96), (1.0, 1.0, 1.0)),
            "full": Grid((155, 240, 240), (1.0, 1.0, 1.0)),
        },
        traps={"no_enhancing_tumour": (10, 3), "tiny_lesion": (20, 6)},
    ),
    "aiib": Layout(
        folder="AIIB23",
        case="AIIB23_9{index:02d}",
        image="AIIB23_Train_T1/img/{case}.nii.gz",
        label="AIIB23_Train_T1/gt/{case}.nii.gz",
        labels={1: "airway"},
        grids={
            "tiny": Grid((48, 48, 48), (0.5, 0.7, 0.7)),
            "small": Grid((160, 128, 128), (0.5, 0.7, 0.7)),
            "full": Grid((600, 512, 512), (0.5, 0.7, 0.7)),
        },
        test_case="AIIB23_8{index:02d}",
        test_image="Val/img/{case}.nii.gz",
        traps={"satellites": (20, 6)},
    ),
    "abdomenatlas": Layout(
        folder="AbdomenAtlas1.0Mini",
        case="BDMAP_9{index:07d}",
        image="{case}/ct.nii.gz",
        label="{case}/combined_labels.nii.gz",
        labels=_ORGANS,
        grids={
            "tiny": Grid((32, 48, 48), (3.75, 2.0, 2.0)),
            "small": Grid((48, 96, 96), (2.5, 1.0, 1.0)),
            "full": Grid((300, 512, 512), (1.25, 0.75, 0.75)),
        },
        mask="{case}/segmentations/{name}.nii.gz",
        traps={"cut_field_of_view": (10, 3), "other_axis_order": (4, 1), "combined_differs": (33, 17)},
    ),
    "msd": Layout(
        folder="Task99_Phantom",
        case="phantom_{index:03d}",
        image="imagesTr/{case}.nii.gz",
        label="labelsTr/{case}.nii.gz",
        labels={1: "anterior", 2: "posterior"},
        channels=("T1w", "T2w"),
        grids={
            "tiny": Grid((36, 48, 36), (1.0, 1.0, 1.0)),
            "small": Grid((48, 64, 48), (1.0, 1.0, 1.0)),
            "full": Grid((48, 64, 48), (1.0, 1.0, 1.0)),
        },
        test_case="phantom_test_{index:03d}",
        test_image="imagesTs/{case}.nii.gz",
        stacked=True,
    ),
}
"""The five kinds, each in the exact layout of a real dataset."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case to be made.

    Attributes:
        kind, size, seed, index: What was asked for.
        with_traps: Whether traps are laid at all.
    """

    kind: Kind
    size: Size
    seed: int
    index: int
    with_traps: bool = True

    @property
    def layout(self) -> Layout:
        """Where the files of this kind lie."""
        return LAYOUTS[self.kind]

    @property
    def calibration(self) -> bool:
        """Index 0: closed forms, no deformation, no trap; its volumes are known."""
        return self.index == 0

    @property
    def labelled(self) -> bool:
        """Whether a reference is written."""
        return self.index < UNLABELLED

    @property
    def site_b(self) -> bool:
        """Every fifth case is taken at another site: noisier, more blurred, thicker slices."""
        return self.index % 5 == 4

    @property
    def grid(self) -> Grid:
        """The grid of this case, thicker slices at site B."""
        grid = self.layout.grids[self.size]
        z, y, x = grid.spacing
        return Grid(grid.shape, (round(z * 1.2, 6), y, x)) if self.site_b else grid

    @property
    def traps(self) -> tuple[str, ...]:
        """The traps laid in this case."""
        if not self.with_traps or self.calibration or not self.labelled:
            return ()
        laid = self.layout.traps.items()
        return tuple(name for name, (period, remainder) in laid if self.index % period == remainder)

    @property
    def follow_up(self) -> bool:
        """Whether this is the second visit (BraTS time point 001) of the patient of the case before."""
        return self.kind == "brats" and self.labelled and self.index % 12 == 7

    @property
    def name(self) -> str:
        """The case's id in the naming of the real dataset."""
        template = self.layout.case
        if not self.labelled:
            assert self.layout.test_case is not None
            template = self.layout.test_case
        return template.format(
            index=self.index % UNLABELLED, first=self.index - self.follow_up, visit=int(self.follow_up)
        )

    @property
    def patient(self) -> str:
        """The patient as the real card tells it."""
        return self.name.split("-")[2] if self.kind == "brats" else self.name

    def generator(self, *, of_patient: bool = False) -> np.random.Generator:
        """The case's own random numbers; `of_patient` gives those of the first visit (same anatomy)."""
        index = self.index - 1 if of_patient and self.follow_up else self.index
        words = [KINDS.index(self.kind), PHANTOM_VERSION, self.seed, index]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def check_arguments(kind: str, size: str, cases: int | None, seed: int) -> None:
    """Refuse what `generate` cannot do (SB101, SB104)."""
    from segbench.core.errors import unknown_name

    if kind not in KINDS:
        raise unknown_name("phantom", kind, [*KINDS, "all"], listing="segbench data phantom --help")
    if size not in SIZES:
        raise SegbenchError("SB104", f"no size called {size!r}", expected=", ".join(SIZES), found=size)
    if cases is not None and not 1 <= cases <= 9999:
        raise SegbenchError("SB104", f"--cases {cases} is not valid", expected="1 to 9999", found=cases)
    if seed < 0:
        raise SegbenchError("SB104", f"--seed {seed} is not valid", expected="0 or more", found=seed)
