"""Which case is what: sizes, ids, sites, traps and random numbers, all by index, so case k never changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segbench.core.errors import SegbenchError
from segbench.data.phantoms.scanner import Scanner
from segbench.data.phantoms.space import Grid, Triple

PHANTOM_VERSION = 1
"""Raised whenever a voxel of any phantom changes; it enters the random numbers and phantom.json."""

Kind = Literal["crc", "brats", "aiib", "abdomenatlas", "msd"]
Size = Literal["tiny", "small", "full"]
KINDS: tuple[Kind, ...] = ("crc", "brats", "aiib", "abdomenatlas", "msd")
SIZES: tuple[Size, ...] = ("tiny", "small", "full")
DEFAULT_CASES: dict[Size, int] = {"tiny": 12, "small": 60, "full": 20}
UNLABELLED = 100_000
"""Indices from here on are the cases without a reference (validation folders)."""

GRIDS: dict[Kind, dict[Size, Grid]] = {
    "crc": {
        "tiny": Grid((32, 48, 48), (3.75, 2.1, 2.1)),
        "small": Grid((32, 128, 128), (3.75, 0.79, 0.79)),
        "full": Grid((100, 512, 512), (3.75, 0.79, 0.79)),
    },
    "brats": {
        "tiny": Grid((48, 48, 48), (1.0, 1.0, 1.0)),
        "small": Grid((96, 96, 96), (1.0, 1.0, 1.0)),
        "full": Grid((155, 240, 240), (1.0, 1.0, 1.0)),
    },
    "aiib": {
        "tiny": Grid((48, 48, 48), (0.5, 0.7, 0.7)),
        "small": Grid((160, 128, 128), (0.5, 0.7, 0.7)),
        "full": Grid((600, 512, 512), (0.5, 0.7, 0.7)),
    },
    "abdomenatlas": {
        "tiny": Grid((32, 48, 48), (3.75, 2.0, 2.0)),
        "small": Grid((48, 96, 96), (2.5, 1.0, 1.0)),
        "full": Grid((300, 512, 512), (1.25, 0.75, 0.75)),
    },
    "msd": {
        "tiny": Grid((36, 48, 36), (1.0, 1.0, 1.0)),
        "small": Grid((48, 64, 48), (1.0, 1.0, 1.0)),
        "full": Grid((48, 64, 48), (1.0, 1.0, 1.0)),
    },
}

# trap -> (period, remainder): index % period == remainder. Index 0 is the calibration case and has none.
TRAPS: dict[Kind, dict[str, tuple[int, int]]] = {
    "crc": {"thin_tumour": (10, 3), "empty_label": (20, 6)},
    "brats": {"no_enhancing_tumour": (10, 3), "tiny_lesion": (20, 6)},
    "aiib": {"satellites": (20, 6)},
    "abdomenatlas": {"cut_field_of_view": (10, 3), "other_axis_order": (4, 1), "combined_differs": (33, 17)},
    "msd": {},
}


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
    def calibration(self) -> bool:
        """Index 0: closed forms, no deformation, no trap; its volumes are known."""
        return self.index == 0

    @property
    def labelled(self) -> bool:
        """Whether a reference is written."""
        return self.index < UNLABELLED

    @property
    def scanner(self) -> Scanner:
        """The last fifth of the indices modulo 5 is taken at site B."""
        return Scanner(site_b=self.index % 5 == 4)

    @property
    def grid(self) -> Grid:
        """The grid of this case, thicker slices at site B."""
        grid = GRIDS[self.kind][self.size]
        return Grid(grid.shape, self.scanner.spacing(grid.spacing))

    @property
    def traps(self) -> tuple[str, ...]:
        """The traps laid in this case."""
        if not self.with_traps or self.calibration or not self.labelled:
            return ()
        return tuple(
            name for name, (period, remainder) in TRAPS[self.kind].items() if self.index % period == remainder
        )

    @property
    def follow_up(self) -> bool:
        """Whether this is the second visit (BraTS time point 001) of the patient of the case before."""
        return self.kind == "brats" and self.labelled and self.index % 12 == 7

    @property
    def name(self) -> str:
        """The case's id in the naming of the real dataset."""
        index = self.index - (0 if self.labelled else UNLABELLED)
        if self.kind == "crc":
            return f"crc_{index:04d}"
        if self.kind == "brats":
            return f"BraTS-GLI-{90000 + index - self.follow_up:05d}-{int(self.follow_up):03d}"
        if self.kind == "aiib":
            return f"AIIB23_{9 if self.labelled else 8}{index:02d}"
        if self.kind == "abdomenatlas":
            return f"BDMAP_{90_000_000 + index:08d}"
        return f"phantom_{index:03d}" if self.labelled else f"phantom_test_{index:03d}"

    @property
    def patient(self) -> str:
        """The patient as the real card tells it."""
        return self.name.split("-")[2] if self.kind == "brats" else self.name

    def generator(self, *, of_patient: bool = False) -> np.random.Generator:
        """The case's own random numbers; `of_patient` gives those of the first visit (same anatomy)."""
        index = self.index - 1 if of_patient and self.follow_up else self.index
        words = [KINDS.index(self.kind), PHANTOM_VERSION, self.seed, index]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


@dataclass(slots=True)
class Made:
    """A case as made: canonical axes, z y x.

    Attributes:
        images: int16 per channel, in file order.
        labels: uint8.
        spacing: Millimetres, z y x.
        names: Name of each label value in use by the kind.
        analytic_ml: Volume of each label in closed form; calibration cases only.
        combined: What AbdomenAtlas's combined_labels hold when that differs from the masks.
    """

    images: dict[str, NDArray[np.int16]]
    labels: NDArray[np.uint8]
    spacing: Triple
    names: dict[int, str]
    analytic_ml: dict[int, float] = field(default_factory=dict)
    combined: NDArray[np.uint8] | None = None


def check_arguments(kind: str, size: str, cases: int | None, seed: int) -> None:
    """Refuse what `generate` cannot do (SB101, SB104)."""
    from segbench.core.errors import unknown_name

    if kind not in KINDS:
        raise unknown_name("phantom", kind, [*KINDS, "all"], listing="segbench data phantom --help")
    if size not in SIZES:
        raise SegbenchError("SB104", f"no size called {size!r}", expected=", ".join(SIZES), found=size)
    if cases is not None and not 1 <= cases <= 9999:
        raise SegbenchError("SB104", f"{cases} cases cannot be", expected="1 to 9999", found=cases)
    if seed < 0:
        raise SegbenchError("SB104", f"seed {seed} cannot be", expected="0 or more", found=seed)
