"""CPU seconds of the data room's promises: phantoms, baselines, opening a large tree.

Run: python benchmarks/data_room.py [--no-tree]

Peers: none. nnU-Net has no phantoms and no baselines, and lists its cases from imagesTr alone.
Promises: five kinds of tiny phantoms < 50 s; each baseline on 200 hippocampus cases < 60 s; AbdomenAtlas's 5,195
folders listed in a small part of the 60 s of its header pass.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from segbench.core import console
from segbench.data import open_dataset
from segbench.data.baselines import BASELINES, fit
from segbench.data.phantoms import KINDS, generate
from segbench.data.splits import load_split

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
ORGANS = (
    "aorta",
    "gall_bladder",
    "kidney_left",
    "kidney_right",
    "liver",
    "pancreas",
    "postcava",
    "spleen",
    "stomach",
)


def phantoms(folder: Path) -> None:
    total = 0.0
    for kind in KINDS:
        start = time.process_time()
        generate(kind, folder / kind)
        spent = time.process_time() - start
        total += spent
        print(f"phantom {kind}, tiny, 12 cases: {spent:.2f} CPU s")
    print(f"phantoms, five kinds: {total:.2f} CPU s (promised < 50)")


def baselines() -> None:
    if not REAL.is_dir():
        print("baselines: left out, the real hippocampus is not here")
        return
    dataset = open_dataset("msd-hippocampus", data_dir=REAL)
    split = load_split(None, dataset)[0]
    for name in BASELINES:
        start = time.process_time()
        baseline = fit(name, dataset, split.train)
        for case in dataset.case_ids:
            baseline.predict(case)
        spent = time.process_time() - start
        print(f"baseline {name}, {len(split.train)} fitted, 200 predicted: {spent:.2f} CPU s (promised < 60)")


def large_tree(folder: Path, cases: int = 5195) -> None:
    for index in range(cases):
        masks = folder / f"BDMAP_{index:08d}" / "segmentations"
        masks.mkdir(parents=True)
        for name in (*(f"segmentations/{organ}" for organ in ORGANS), "ct", "combined_labels"):
            (masks.parent / f"{name}.nii.gz").touch()
    start = time.process_time()
    dataset = open_dataset("abdomenatlas-1.0-mini", path=folder)
    opened = time.process_time() - start
    start = time.process_time()
    load_split(None, dataset)
    print(f"{len(dataset.case_ids)} folders of twelve files opened: {opened:.2f} CPU s, "
          f"split: {time.process_time() - start:.3f} CPU s")  # fmt: skip


if __name__ == "__main__":
    console.output.progress = False
    with tempfile.TemporaryDirectory() as temporary:
        phantoms(Path(temporary) / "phantoms")
        baselines()
        if "--no-tree" not in sys.argv:
            large_tree(Path(temporary) / "atlas")
