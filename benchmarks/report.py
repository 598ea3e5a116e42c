"""What a report costs: 4 datasets x 10 models x 250 cases x 5 regions, one seed, every format, and JSON
alone.

    python benchmarks/report.py [--datasets 4 --models 10 --cases 250 --regions 5] [--folder DIR]

Each line is a fresh process: CPU seconds, wall seconds, peak memory, bytes of report.html. Goals
(statistics-and-report, section 15): all formats below 60 s on two cores and 1 GB, JSON alone below 15 s, the
page without its viewer at most 3 MB. There is no peer: no other tool writes such a report.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HEAD = (
    "run_id", "model", "dataset", "protocol", "fold", "seed", "case", "region", "status", "reference_volume_ml",
    "prediction_volume_ml", "diagonal_mm", "dice", "hd95", "nsd",
)  # fmt: skip
CHILD = """
import json, resource, sys, time
from pathlib import Path
from segbench.report import build_report
wall, cpu = time.perf_counter(), time.process_time()
build_report(sys.argv[1], sys.argv[2], format=sys.argv[3])
page = Path(sys.argv[2]) / "report.html"
print(json.dumps({
    "cpu": time.process_time() - cpu,
    "wall": time.perf_counter() - wall,
    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "page": page.stat().st_size if page.exists() else 0,
}))
"""


def write_runs(root: Path, *, datasets: int, models: int, cases: int, regions: int) -> None:
    """Synthetic runs: shared difficulty per case, a skill per model, skewed scores."""
    for d in range(datasets):
        rng = np.random.default_rng(d)
        hard, volume = rng.random((cases, regions)) ** 2, np.exp(rng.normal(2, 1, (cases, regions)))
        for m in range(models):
            own = np.random.default_rng((d, m))
            dice = np.clip(0.8 + 0.015 * m - 0.15 * hard + own.normal(0, 0.03, hard.shape), 0.01, 0.999)
            name = f"model_{m}__data{d}__external__f0__s0__{m:08x}"
            folder = root / name
            folder.mkdir(parents=True)
            record = {"schema_version": 1, "run_id": name, "kind": "external", "status": "complete"}
            (folder / "run.json").write_text(json.dumps(record))
            with (folder / "cases.csv").open("w", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(HEAD)
                for c in range(cases):
                    for r in range(regions):
                        score, ml = float(dice[c, r]), float(volume[c, r])
                        writer.writerow([
                            name, f"model_{m}", f"data{d}", "external", 0, 0, f"case-{c:04d}", f"R{r}", "ok", ml,
                            ml * (0.9 + 0.1 * score), 300.0, score, 40 * (1 - score), min(1.0, score + 0.03),
                        ])  # fmt: skip


def measured(runs: Path, out: Path, formats: str) -> dict[str, float]:
    """One report in a fresh process with one thread of the matrix library."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(runs), str(out), formats]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("datasets", 4), ("models", 10), ("cases", 250), ("regions", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="keep runs and reports here")
    given = parser.parse_args()
    root = given.folder or Path(tempfile.mkdtemp(prefix="segbench-report-"))
    sizes = {name: getattr(given, name) for name in ("datasets", "models", "cases", "regions")}
    if not (root / "runs").exists():
        write_runs(root / "runs", **sizes)
    print(" x ".join(f"{count} {name}" for name, count in sizes.items()), f"load {os.getloadavg()[0]:.1f}")
    for label, formats in (
        ("json", "json"),
        ("html", "html"),
        ("all", "latex,html,markdown,csv,json,figures"),
    ):
        found = measured(root / "runs", root / label, formats)
        print(
            f"{label:5} cpu {found['cpu']:6.1f} s   wall {found['wall']:6.1f} s   "
            f"memory {found['memory'] / 1e6:5.0f} MB   page {found['page'] / 1e6:.2f} MB"
        )


if __name__ == "__main__":
    main()
