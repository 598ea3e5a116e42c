"""Profiles `brats2023` and `brats2026` against the challenges' own evaluators, number by number.

    python -m venv ENV && ENV/bin/pip install brats-evaluation surface-distance-based-measures
    python benchmarks/brats.py --python ENV/bin/python

The packages run in an environment of their own (brats-evaluation is AGPL-3.0: it is run, never imported here).
Every task is scored by its command and by `segbench evaluate --profile brats2026-TASK` on the same files: some
lesions, many, none on one side or both, files that are missing, spacings of all kinds, and `--full` volumes on
the challenge's grid of 240 x 240 x 155. What is printed is the largest difference of all numbers, the CPU
seconds of both commands on one core, start-up included, and those of one volume: what the command took less
what it takes for one pair of 8^3 voxels. Where the package writes `inf` (no lesion matched), segbench writes
the 373 mm that it writes elsewhere: counted apart. segbench's kernels are compiled before, once for an
installation; the package's second command, which makes its table, is not counted.
"""

import argparse
import csv
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from segbench.metrics.lesions.surfels import surfel_hd95
from segbench.metrics.profiles import load_profile

TASKS = {"gli": "gli", "met": "mets", "ped": "ped", "men": "MenPre", "men-rt": "MenRT", "goat": "GoAT"}
COLUMNS = {
    "lesionwise_dice": "lesionwise_dsc_mean",
    "lesionwise_hd95": "lesionwise_hd95_mean",
    "lesionwise_nsd": "lesionwise_nsd_mean",
    "legacy_dice": "global_dsc",
    "legacy_hd95": "global_hd95",
    "legacy_nsd": "global_nsd",
    "lesions_tp": "all_instance_tp",
    "lesions_fn": "all_instance_fn",
    "lesions_fp": "all_instance_fp",
}
MET = {
    "lesions_tp": "large_instance_tp",
    "lesions_fn": "large_instance_fn",
    "lesions_fp": "all_instance_fp",
    "small_lesions_found": "small_instance_tp",
}
GRID = (155, 240, 240)
ONE_CORE = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "SEGBENCH_THREADS")}


def lesions(rng, shape, n, labels):
    """A label map with some rough lesions, nested labels inside each."""
    found = np.zeros(shape, np.uint8)
    for _ in range(n):
        radius = rng.uniform(1.5, min(shape) / 6)
        centre = [rng.uniform(0, size) for size in shape]
        low = [max(0, int(c - 2 * radius)) for c in centre]
        high = [min(size, int(c + 2 * radius) + 1) for c, size in zip(centre, shape, strict=True)]
        grid = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True))) / radius
        distance = distance + 0.15 * ndimage.gaussian_filter(rng.standard_normal(distance.shape), 1.5)
        part = found[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        for share, value in zip((1.0, 0.7, 0.45), rng.permutation(labels), strict=False):
            part[distance < share] = value
    return found


def pair(number, labels, shape=None):
    """Reference, prediction (None: no file) and spacing of one case; a shape of one's own has 1 mm."""
    rng = np.random.default_rng(number)
    spacing = (1.0, 1.0, 1.0)
    if shape is None:
        shape = tuple(int(n) for n in rng.integers(20, 48, 3))
        spacing = tuple(float(s) for s in rng.choice((0.5, 1, 1.5, 3), 3))
    truth = lesions(rng, shape, int(rng.integers(1, 12)), labels)
    guess = np.roll(truth, rng.integers(-2, 3, 3), (0, 1, 2))
    guess[lesions(rng, shape, 2, labels) > 0] = labels[0]
    guess[lesions(rng, shape, 2, labels) > 0] = 0
    kind = 0 if shape[0] == GRID[0] and number % 2 else number % 10
    if kind in (3, 5):
        truth[:] = 0
    if kind in (4, 5):
        guess[:] = 0
    return truth, None if kind == 7 else guess, spacing


def write(folder, cases, labels, full):
    """All pairs as files; the last `full` of them are on the challenge's grid."""
    for side in ("reference", "prediction"):
        (folder / side).mkdir()
    for number in range(cases):
        truth, guess, spacing = pair(number, labels, GRID if number >= cases - full else None)
        affine = np.diag((*reversed(spacing), 1.0))
        for side, labelled in (("reference", truth), ("prediction", guess)):
            if labelled is not None:
                image = nib.Nifti1Image(labelled.transpose(2, 1, 0), affine)
                nib.save(image, folder / side / f"BraTS-XXX-{number:05d}-000.nii.gz")


def timed(*command):
    """Run a command; its CPU seconds, and its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE_CORE}, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode not in (0, 3):
        sys.exit(f"{' '.join(map(str, command))}\n{ran.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ran.stdout


def official(python, folder, task, name):
    """CPU seconds of the package's evaluation, and (case, region) -> its row."""
    run = "import sys; from brats_evaluation.{0} import main; sys.argv[0] = '{0}'; main()"
    summary, table = folder / f"{name}.json", folder / f"{name}.csv"
    sides = ("--ref_path", folder / "reference", "--pred_path", folder / "prediction")
    seconds, _ = timed(
        python, "-c", run.format("evaluation"), "--config", name, *sides, "--summary_json", summary
    )
    kind = "mets" if task == "met" else "seg"
    paths = ("--json_path", summary, "--output_csv_path", table)
    timed(python, "-c", run.format("metrics_parser"), kind, *paths)
    rows = {}
    with table.open() as lines:
        for row in csv.DictReader(lines):
            for key, value in row.items():
                if key != "subject_id":
                    column, region = key.rsplit("_", 1)
                    rows.setdefault((row["subject_id"].split(".")[0], region.upper()), {})[column] = value
    return seconds, rows


def ours(folder, task):
    """CPU seconds of segbench, and (case, region) -> its row."""
    sides = ("--reference", folder / "reference", "--prediction", folder / "prediction")
    command = (sys.executable, "-m", "segbench", "evaluate", *sides, "--profile", f"brats2026-{task}")
    seconds, out = timed(*command, "--workers", "1", "--results", folder / f"results-{task}", "--json")
    with (Path(json.loads(out)["run_directory"]) / "cases.csv").open() as lines:
        return seconds, {(row["case"], row["region"]): row for row in csv.DictReader(lines)}


def number(text):
    return float(text) if text not in ("", None) else math.nan


def compare(task, theirs, mine):
    """Largest difference of each number; how many were compared; where the package writes inf."""
    largest, n, endless = 0.0, 0, 0
    for key, row in mine.items():
        for name, column in (COLUMNS | (MET if task == "met" else {})).items():
            if row.get(name) in (None, "") and name.startswith(("lesions", "small")):
                continue  # a missing case: counts are not known, the package writes 0
            if task == "met" and theirs[key][column] == "" and number(row[name]) == 0:
                continue  # no lesion of that size: the package leaves its counts empty
            a, b = number(row[name]), number(theirs[key][column])
            n += 1
            if math.isinf(b):
                endless += 1
                b = 373.0
            if math.isnan(a) != math.isnan(b):
                sys.exit(f"{task} {key} {name}: segbench {a}, package {b}")
            if not math.isnan(a) and abs(a - b) > largest:
                largest = abs(a - b)
                if largest > 1e-6:
                    print(f"  {task} {key} {name}: segbench {a}, package {b}")
    return largest, n, endless


def surfels(python, folder, cases):
    """`brats2023`: HD95 over surface area against google-deepmind/surface-distance, on masks of all kinds."""
    script = (
        "import sys, numpy as np, scipy.ndimage as n\n"
        "np.Inf = np.inf; n.filters = n.morphology = n\n"
        "from surface_distance import metrics as m\n"
        "z = np.load(sys.argv[1])\n"
        "for i in range(int(sys.argv[2])):\n"
        "    a, b, s = z[f'a{i}'], z[f'b{i}'], z[f's{i}']\n"
        "    d = m.compute_surface_distances(a.transpose(2, 1, 0), b.transpose(2, 1, 0), s[::-1])\n"
        "    print(m.compute_robust_hausdorff(d, 95))\n"
    )
    arrays, mine = {}, []
    for i in range(cases):
        truth, guess, spacing = pair(4 * i + 1 + i % 2, (1, 2, 3))
        masks = [labelled > i % 3 for labelled in (truth, truth if guess is None else guess)]
        if not all(mask.any() for mask in masks):
            masks = [np.random.default_rng(i).random((9, 8, 7)) < 0.5 for _ in range(2)]
        arrays |= {f"a{i}": masks[0], f"b{i}": masks[1], f"s{i}": np.array(spacing)}
        mine.append(surfel_hd95(*masks, spacing))
    np.savez(folder / "masks.npz", **arrays)
    _, out = timed(python, "-c", script, folder / "masks.npz", str(cases))
    return max(abs(a - float(b)) for a, b in zip(mine, out.split(), strict=True))


def start_up(python, labels):
    """CPU seconds of both commands for one pair of 8^3 voxels; segbench's kernels are compiled on the way."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), 1, labels, 1)
        ours(Path(name), "gli")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in ("reference", "prediction"):
            (folder / side).mkdir()
            voxels = np.full((8, 8, 8), labels[0], np.uint8)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / side / "BraTS-XXX-00000-000.nii.gz")
        return official(python, folder, "gli", "gli")[0], ours(folder, "gli")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--python", required=True, help="python of an environment with the packages")
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--full", type=int, default=6, help="how many of them have the challenge's grid")
    parser.add_argument("--tasks", default=",".join(TASKS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        most = surfels(options.python, Path(name), 60)
    print(f"brats2023, HD95 over area: largest difference {most:.1e} mm", flush=True)
    start = start_up(options.python, (1, 2, 3))
    print(f"start-up: package {start[0]:.1f} s, segbench {start[1]:.1f} s")
    heads = ("task", "cases", "full", "numbers", "difference", "inf", "package s", "segbench s", "ratio")
    print("".join(f"{head:>12}" for head in (*heads, "a case s", "a case s", "ratio")), flush=True)
    for task in options.tasks.split(","):
        regions = load_profile(f"brats2026-{task}").regions
        labels = sorted({label for values in regions.values() for label in values})
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, options.cases, labels, options.full)
            theirs_s, theirs = official(options.python, folder, task, TASKS[task])
            ours_s, mine = ours(folder, task)
            largest, n, endless = compare(task, theirs, mine)
        each = [
            max(s - begin, 1e-3) / options.cases for s, begin in zip((theirs_s, ours_s), start, strict=True)
        ]
        row = (task, options.cases, options.full, n, f"{largest:.1e}", endless)
        cost = (f"{theirs_s:.1f}", f"{ours_s:.1f}", f"{theirs_s / ours_s:.1f}")
        more = (f"{each[0]:.2f}", f"{each[1]:.2f}", f"{each[0] / each[1]:.1f}")
        print("".join(f"{cell:>12}" for cell in (*row, *cost, *more)), flush=True)


if __name__ == "__main__":
    main()
