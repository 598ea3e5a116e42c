"""What a report costs: 20 runs x 40 cases, and 450 runs (30 models, 5 datasets, 3 seeds, 200 cases, 3 regions).

    python benchmarks/report.py [--only small] [--folder DIR]

Each line is a fresh process with one thread of the matrix library: CPU seconds, wall seconds, peak memory, bytes
of report.html. Goals: the default report below 8 CPU s for the small set and below 40 CPU s for the large one,
`compare` of two models below 2 s. Before the report was rebuilt, report.json alone of the large set took 126 CPU
s and the whole report did not end within 9 minutes. Measured on two busy cores: 2.6, 27.2 and 1.7 s. Other tools
write no such report.
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
SETS = {
    "small": {"datasets": 1, "models": 5, "seeds": 4, "cases": 40, "regions": 3},
    "large": {"datasets": 5, "models": 30, "seeds": 3, "cases": 200, "regions": 3},
}
TASKS = {
    "report, default formats": "from segbench.report import build_report; build_report(sys.argv[1], sys.argv[2])",
    "report, json alone": "from segbench.report import build_report; "
    "build_report(sys.argv[1], sys.argv[2], format='json')",
    "compare of two models": "from segbench import compare; "
    "from segbench.report.write.terminal import compare_lines; "
    "compare_lines(compare('model-0', 'model-1', runs=sys.argv[1]))",
}
CHILD = """
import json, resource, sys, time
from pathlib import Path
wall, cpu = time.perf_counter(), time.process_time()
{task}
page = Path(sys.argv[2]) / "report.html"
print(json.dumps({{
    "cpu": time.process_time() - cpu,
    "wall": time.perf_counter() - wall,
    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "page": page.stat().st_size if page.exists() else 0,
}}))
"""


def write_runs(root: Path, *, datasets: int, models: int, seeds: int, cases: int, regions: int) -> None:
    """Synthetic runs: shared difficulty per case, a skill per model, noise per training run, skewed scores."""
    for d in range(datasets):
        rng = np.random.default_rng(d)
        hard, volume = rng.random((cases, regions)) ** 2, np.exp(rng.normal(2, 1, (cases, regions)))
        for m in range(models):
            for s in range(seeds):
                own = np.random.default_rng((d, m, s))
                luck = own.normal(0, 0.005)
                spread = own.normal(0, 0.03, hard.shape)
                dice = np.clip(0.7 + 0.008 * m + luck - 0.15 * hard + spread, 0.01, 0.999)
                write_run(root, f"model-{m}", f"data{d}", s, dice, volume)


def write_run(root: Path, model: str, dataset: str, seed: int, dice: np.ndarray, volume: np.ndarray) -> None:
    """One run folder."""
    name = f"{model}__{dataset}__external__f0__s{seed}__{seed:08x}"
    folder = root / name
    folder.mkdir(parents=True)
    record = {"schema_version": 1, "run_id": name, "kind": "external", "status": "complete"}
    (folder / "run.json").write_text(json.dumps(record))
    with (folder / "cases.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HEAD)
        for c, r in np.ndindex(dice.shape):
            score, ml = float(dice[c, r]), float(volume[c, r])
            writer.writerow([
                name, model, dataset, "external", 0, seed, f"case-{c:04d}", f"R{r}", "ok", ml,
                ml * (0.9 + 0.1 * score), 300.0, score, 40 * (1 - score), min(1.0, score + 0.03),
            ])  # fmt: skip


def measured(task: str, runs: Path, out: Path) -> dict[str, float]:
    """One task in a fresh process with one thread of the matrix library."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD.format(task=TASKS[task]), str(runs), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=sorted(SETS), help="one of the two sets")
    parser.add_argument("--folder", type=Path, help="keep runs and reports here")
    given = parser.parse_args()
    root = given.folder or Path(tempfile.mkdtemp(prefix="segbench-report-"))
    for name, sizes in SETS.items():
        if given.only not in (None, name):
            continue
        runs = root / name / "runs"
        if not runs.exists():
            write_runs(runs, **sizes)
        print(
            " x ".join(f"{count} {word}" for word, count in sizes.items()), f"load {os.getloadavg()[0]:.1f}"
        )
        for number, task in enumerate(TASKS):
            found = measured(task, runs, root / name / f"out{number}")
            print(
                f"  {task:24} cpu {found['cpu']:6.1f} s   wall {found['wall']:6.1f} s   "
                f"memory {found['memory'] / 1e6:5.0f} MB   page {found['page'] / 1e6:.2f} MB"
            )


if __name__ == "__main__":
    main()
