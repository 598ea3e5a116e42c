"""Cost of verification: first pass, second pass, headers alone, in CPU seconds; nibabel reading the same as
measure.

Claims: 200 pairs of hippocampus crops verified in under 15 s of CPU, again in under 2 s; the headers of
5,195 cases of 11 files in under 60 s.

    python benchmarks/verify_dataset.py [DATASET FOLDER]

Without arguments, 200 generated cases of the MSD layout. nnU-Net's own integrity check is left out: it is not
installed beside segbench.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from segbench.data import open_dataset
from segbench.data.phantoms import generate
from segbench.data.verify.api import verify


def cpu(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def read_all(dataset: str, root: Path) -> int:
    """What any check has to do at least: read every voxel, look at the values."""
    opened = open_dataset(dataset, path=root)
    paths = {path for case in opened.discovery.cases for path in opened.case(case).files}
    for path in paths:
        array = np.asarray(nib.load(path).dataobj)
        array.min(), array.max()
    return len(paths)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        if len(sys.argv) == 3:
            dataset, root = sys.argv[1], Path(sys.argv[2])
        else:
            root = generate("msd", Path(name) / "Task99_Phantom", cases=200, traps=False)
            dataset = str(root)
        cache = Path(name) / "cache"
        headers, _ = cpu(lambda: verify(dataset, path=root, cache=False, headers_only=True))
        first, report = cpu(lambda: verify(dataset, path=root, cache=cache))
        second, again = cpu(lambda: verify(dataset, path=root, cache=cache))
        peer, files = cpu(lambda: read_all(dataset, root))
        assert report.findings == again.findings
        each = 1e3 * headers / files
        print(f"{report.cases_found} cases, {files} files; {report.counts}")
        print(f"  headers alone     {headers:7.2f} s CPU   {each:.2f} ms a file")
        print(f"  first run         {first:7.2f} s CPU   {first / peer:.2f} x nibabel reading every voxel")
        print(f"  second run        {second:7.2f} s CPU   {second / first:.3f} x the first")
        print(f"  nibabel, read all {peer:7.2f} s CPU")


if __name__ == "__main__":
    main()
