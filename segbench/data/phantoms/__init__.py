"""Generated scans in the exact layouts of the mission's datasets: the same bits on every machine.

Nothing measured on them may stand beside real results (report guard `demo-data`); they prove that adapters,
training, scoring and reporting work, and the calibration cases prove that volumes are right.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from segbench.data.phantoms.plan import KINDS, LAYOUTS, PHANTOM_VERSION, SIZES, Kind, Size, check_arguments
from segbench.data.phantoms.writing import refuse_occupied, write_tree

__all__ = ["FOLDERS", "KINDS", "PHANTOM_VERSION", "SIZES", "generate"]

FOLDERS: dict[Kind, str] = {kind: layout.folder for kind, layout in LAYOUTS.items()}
"""The folder names under which `segbench run --data-dir DIR` finds the five kinds."""


def generate(
    kind: str,
    destination: Path | str,
    size: str = "tiny",
    cases: int | None = None,
    seed: int = 0,
    *,
    workers: int = 1,
    traps: bool = True,
) -> Path:
    """The root of a new tree of phantoms, the folder that holds phantom.json.

    Args:
        kind: crc, brats, aiib, abdomenatlas or msd; "all": a data directory with the five, under the folder
            names that the real cards look for.
        destination: A folder that does not exist or is empty.
        size: tiny (at most 48 voxels per axis), small, or full (native size).
        cases: How many labelled cases; 12, 60 or 20 by size. Case k is the same whatever the number.
        seed: Another seed gives other scans.
        workers: Processes; the files do not depend on it.
        traps: Lay the traps of `datasets.md` 9 (named per case in phantom.json).

    Raises:
        SegbenchError: SB101 unknown kind, SB104 other values that are not valid, SB337 destination not empty;
            nothing is written when one of the five folders is occupied.
    """
    base = Path(destination)
    check_arguments(KINDS[0] if kind == "all" else kind, size, cases, seed)
    if kind != "all":
        return write_tree(cast("Kind", kind), base, cast("Size", size), cases, seed, workers, traps)
    for folder in FOLDERS.values():
        refuse_occupied(base / folder)
    for each, folder in FOLDERS.items():
        generate(each, base / folder, size, cases, seed, workers=workers, traps=traps)
    return base
