"""Cost of checked reading: CPU of `read_volume(raw=True)` against nibabel and SimpleITK on the same files.

Claim (docs: datasets, reading): at most 1.2 times the CPU of nibabel reading the raw array of the same file.

    python benchmarks/read_volumes.py [FOLDER_WITH_NIFTI_FILES ...]

Without a folder, volumes of three usual shapes are made. Readers take turns in one process; medians of CPU
seconds. nibabel maps an uncompressed file into memory, so a copy is asked of it, or nothing would be read.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from segbench.volumes import read_header, read_label_map, read_volume

ROUNDS = 7


def made(folder: Path) -> list[Path]:
    """A small crop, a brain and a CT, each with a label map, compressed and one plain."""
    rng = np.random.default_rng(0)
    paths = []
    for name, shape in (("crop", (36, 50, 35)), ("brain", (155, 240, 240)), ("ct", (120, 512, 512))):
        smooth = gaussian_filter(rng.standard_normal(shape).astype(np.float32), 2.0)
        image = (smooth * 4000 + rng.normal(0, 12, shape)).astype(np.int16)
        label = (smooth > 0.05).astype(np.uint8) + (smooth > 0.1)
        for kind, array in (("image", image), ("label", label)):
            paths.append(folder / f"{name}_{kind}.nii.gz")
            nib.save(nib.Nifti1Image(array.T, np.eye(4)), paths[-1])
    paths.append(folder / "ct_image.nii")
    nib.save(nib.load(folder / "ct_image.nii.gz"), paths[-1])
    return paths


def readers() -> dict[str, Callable[[Path], object]]:
    found: dict[str, Callable[[Path], object]] = {
        "nibabel": lambda path: np.array(nib.load(path).dataobj),
        "segbench raw": lambda path: read_volume(path, raw=True, allow_channels=True),
        "segbench float32": lambda path: read_volume(path, allow_channels=True),
        "nibabel get_fdata": lambda path: nib.load(path).get_fdata(),
        "nibabel float32": lambda path: nib.load(path).get_fdata(dtype=np.float32),
        "segbench header": lambda path: read_header(path),
        "nibabel header": lambda path: nib.load(path).header.get_data_shape(),
    }
    try:
        import SimpleITK as sitk

        found["SimpleITK"] = lambda path: sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except ImportError:
        print("left out: SimpleITK is not installed")
    return found


def measure(paths: list[Path], call: Callable[[Path], object]) -> float:
    start = time.process_time()
    for path in paths:
        call(path)
    return time.process_time() - start


def compare(title: str, paths: list[Path], rounds: int = ROUNDS) -> None:
    peers = readers()
    if "label" in title:
        peers["segbench label map"] = lambda path: read_label_map(path)
    times: dict[str, list[float]] = {name: [] for name in peers}
    for call in peers.values():
        measure(paths[:1], call)
    for _ in range(rounds):
        for name, call in peers.items():
            times[name].append(measure(paths, call))
    base = statistics.median(times["nibabel"])
    print(f"{title}: {len(paths)} file(s), nibabel raw {1e3 * base / len(paths):.2f} ms CPU a file")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"  {name:20s} {1e3 * median / len(paths):9.3f} ms   {median / base:6.3f} x nibabel")


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:]]
    for folder in folders:
        paths = sorted(folder.rglob("*.nii.gz")) + sorted(folder.rglob("*.nii"))
        compare(folder.name, paths[:200], rounds=5)
    if not folders:
        with tempfile.TemporaryDirectory() as folder:
            for path in made(Path(folder)):
                compare(path.name, [path])


if __name__ == "__main__":
    main()
