"""What one scored case costs, ours against the field's, in CPU seconds of one thread each.

    python benchmarks/metrics.py                     the four pairs, every peer that is installed
    python benchmarks/metrics.py --pairs brats,crc --repeats 9
    python benchmarks/metrics.py --only compile      first import and import from the cache
    python benchmarks/metrics.py --only memory       peak memory beyond the two maps
    python benchmarks/metrics.py --only threads      wall time of one and two threads
    python benchmarks/metrics.py --only far          two large surfaces far apart, against a plain k-d tree
    python benchmarks/metrics.py --only command      100 cases from .nii.gz, two workers, against inflating
    the files

Ours computes all twelve metrics of all regions; a peer computes Dice and HD95 (its own definition). Masks are
in memory, peers get the boolean masks ready made, runs are interleaved in one process, medians are printed.
Peers that are not installed are named as left out; put their folder on PYTHONPATH.
"""

# ruff: noqa: E402
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("SEGBENCH_THREADS", "1")

import argparse
import contextlib
import ctypes
import gzip
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from metric_pairs import PAIRS

TARGETS = {"medpy": {"brats": 200, "crc": 800}, "monai": {"brats": 60, "crc": 90}}
BEST_OF = {"brats": 20, "crc": 15, "abdomen": 15, "airway": 15}
MILLISECONDS = {"brats": 13, "crc": 10, "abdomen": 500, "airway": 500}
SLOW = {"medpy", "monai"}


def ours(pair):
    from segbench.metrics import evaluate_case

    return lambda: evaluate_case(
        pair.reference, pair.prediction, spacing_mm=pair.spacing_mm, regions=pair.regions
    )


def masks_of(pair):
    return [
        (np.isin(pair.reference, labels), np.isin(pair.prediction, labels))
        for labels in pair.regions.values()
    ]


def medpy(pair):
    binary = importlib.import_module("medpy.metric.binary")
    masks = masks_of(pair)
    return lambda: [(binary.dc(p, r), binary.hd95(p, r, voxelspacing=pair.spacing_mm)) for r, p in masks]


def monai(pair):
    torch = importlib.import_module("torch")
    metrics = importlib.import_module("monai.metrics")
    torch.set_num_threads(1)
    r, p = (
        torch.from_numpy(np.stack(each)[None].astype(np.float32))
        for each in zip(*masks_of(pair), strict=True)
    )

    def run():
        metrics.compute_dice(p, r, include_background=True)
        metrics.compute_hausdorff_distance(
            p, r, include_background=True, percentile=95, spacing=list(pair.spacing_mm)
        )

    return run


def surface_distance(pair):
    module = importlib.import_module("surface_distance")
    masks = masks_of(pair)

    def run():
        for r, p in masks:
            module.compute_dice_coefficient(r, p)
            module.compute_robust_hausdorff(module.compute_surface_distances(r, p, pair.spacing_mm), 95)

    return run


def mikan(pair):
    module = importlib.import_module("mikan")
    x_first = tuple(reversed(pair.spacing_mm))
    if all(len(labels) == 1 for labels in pair.regions.values()):
        labels = [labels[0] for labels in pair.regions.values()]
        return lambda: (
            module.ArrayEvaluator(pair.reference, pair.prediction, x_first)
            .labels(labels)
            .metrics(["dice", "hausdorff_distance_95"])
        )
    masks = [(r.astype(np.uint8), p.astype(np.uint8)) for r, p in masks_of(pair)]
    return lambda: [
        module.ArrayEvaluator(r, p, x_first).labels(1).metrics(["dice", "hausdorff_distance_95"])
        for r, p in masks
    ]


PEERS = {"medpy": medpy, "monai": monai, "surface-distance": surface_distance, "mikan-rs": mikan}


def cpu_seconds(function):
    begin = time.process_time()
    function()
    return time.process_time() - begin


def speed(names, repeats, all_peers):
    for name in names:
        pair = PAIRS[name]()
        runners, left_out = {"ours": ours(pair)}, []
        for peer, make in PEERS.items():
            if peer in SLOW and name not in TARGETS[peer] and not all_peers:
                left_out.append(f"{peer} (minutes on this pair; --all-peers)")
                continue
            try:
                runners[peer] = make(pair)
            except ImportError as error:
                left_out.append(f"{peer} (not installed: {error.name})")
        runners["ours"]()  # kernels loaded
        taken = {runner: [] for runner in runners}
        for repeat in range(repeats):
            for runner, function in runners.items():
                if runner in SLOW and repeat >= 5:
                    continue
                # Ours is so short beside a peer that it is timed several times between two of theirs.
                for _ in range(5 if runner == "ours" else 1):
                    taken[runner].append(cpu_seconds(function))
        medians = {runner: statistics.median(times) for runner, times in taken.items()}
        mine = medians["ours"]
        shape = " x ".join(map(str, pair.reference.shape))
        print(f"{name}: {shape}, {len(pair.regions)} regions, medians of {repeats} (CPU s, one thread)")
        print(f"  {'ours, twelve metrics':24s} {mine * 1e3:10.2f} ms   target {MILLISECONDS[name]} ms")
        for runner, median in medians.items():
            if runner != "ours":
                target = TARGETS.get(runner, {}).get(name)
                note = f"   target {target}x" if target else ""
                print(f"  {runner:24s} {median * 1e3:10.1f} ms   {median / mine:7.1f}x{note}")
        fast = [medians[peer] for peer in ("surface-distance", "mikan-rs") if peer in medians]
        if fast:
            print(f"  best peer: {min(fast) / mine:.1f}x   target {BEST_OF[name]}x")
        for text in left_out:
            print(f"  left out: {text}")


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def compile_cost():
    code = (
        "import time, json; import numpy, scipy.spatial, segbench.metrics; t = time.process_time();"
        "import segbench.metrics.engine._native; print(json.dumps(time.process_time() - t))"
    )
    with tempfile.TemporaryDirectory() as folder:
        first = python(code, NUMBA_CACHE_DIR=folder)
        again = statistics.median(python(code, NUMBA_CACHE_DIR=folder) for _ in range(5))
    print(f"kernels compiled: {first:.1f} s CPU (target 15); from the cache: {again:.2f} s CPU (target 0.6)")


def memory(names):
    code = """
import json, resource, sys
import numpy as np
from segbench.metrics import evaluate_case
from segbench.metrics.engine import _native
small = np.zeros((8, 40, 40), np.uint8)
small[2:6, 5:30, 5:30] = 1
evaluate_case(small, np.roll(small, 9, 2), spacing_mm=(1, 1, 1), regions=dict(a=(1,)))
reference, prediction = np.load({maps!r} + "-r.npy"), np.load({maps!r} + "-p.npy")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluate_case(reference, prediction, spacing_mm={spacing!r}, regions={regions!r})
print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))
"""
    for name in names:
        pair = PAIRS[name]()
        with tempfile.TemporaryDirectory() as folder:
            maps = str(Path(folder) / "maps")
            np.save(maps + "-r.npy", pair.reference)
            np.save(maps + "-p.npy", pair.prediction)
            grown = python(code.format(maps=maps, spacing=pair.spacing_mm, regions=pair.regions))
        limit = pair.reference.size / 2**20 + 32
        print(f"{name}: {grown:.1f} MiB beyond the two maps (limit {limit:.0f})")


def threads():
    pair = PAIRS["abdomen"]()
    run = ours(pair)
    taken = {"1": [], "2": []}
    for _ in range(15):
        for count, times in taken.items():
            os.environ["SEGBENCH_THREADS"] = count
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
    one, two = (statistics.median(taken[count]) for count in "12")
    print(
        f"abdomen: {one * 1e3:.1f} ms on one thread, {two * 1e3:.1f} ms on two: {two / one:.2f} (target 0.65)"
    )


def far_pairs():
    """Pairs that are hard for a search of what is near: far, scattered, or with one target for all."""
    shape, rng = (220, 300, 300), np.random.default_rng(0)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]

    def ball(radius_z, radius):
        return ((z - 110) / radius_z) ** 2 + ((y - 150) / radius) ** 2 + ((x - 150) / radius) ** 2 <= 1

    lone, planes = np.zeros(shape, bool), np.zeros((2, *shape), bool)
    lone[0, 0, 0] = planes[0, 20] = planes[1, 200] = True
    scattered = rng.random(shape) < 0.002
    half = scattered.copy()
    half[:, :150] = False
    yield "a ball in a ball, 30 mm apart", ball(100, 140), ball(60, 90)
    yield "a ball inside a shell", ball(50, 70), ball(105, 140) & ~ball(100, 136)
    yield "scattered voxels against a ball", ball(50, 70), scattered
    yield "scattered voxels against half of them", scattered, half
    yield "a ball against one voxel", ball(50, 70), lone
    yield "two planes 234 mm apart", planes[0], planes[1]


def far():
    from scipy.spatial import cKDTree

    from segbench.metrics.engine import _native
    from segbench.metrics.surface import boundary

    spacing = (1.3, 0.8, 0.8)
    print("whole engine against the search of a plain k-d tree alone, CPU s (target: at most 2)")
    for name, reference, prediction in far_pairs():
        r, p = (np.argwhere(boundary(mask)) for mask in (reference, prediction))

        def tree(r=r, p=p):
            for a, b in ((p, r), (r, p)):
                cKDTree(b * spacing, balanced_tree=False, compact_nodes=False).query(a * spacing)

        def native(reference=reference, prediction=prediction):
            options = {"spacing_mm": spacing, "regions": {"it": (1,)}, "distances": True}
            _native.measure(reference, prediction, **options)

        native()
        taken = {"tree": [], "native": []}
        for _ in range(3):
            taken["tree"].append(cpu_seconds(tree))
            taken["native"].append(cpu_seconds(native))
        a, b = (statistics.median(taken[each]) for each in ("native", "tree"))
        print(f"  {name}: {len(r)} and {len(p)} boundary voxels, {a:.3f} and {b:.3f}, ratio {a / b:.2f}")


def command(cases):
    import nibabel

    pair = PAIRS["brats"]()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sub, labels in (("refs", pair.reference), ("preds", pair.prediction)):
            (folder / sub).mkdir()
            for index in range(cases):
                moved = np.roll(labels, int(rng.integers(0, 20)), axis=1)
                image = nibabel.Nifti1Image(np.ascontiguousarray(moved.T), np.eye(4))
                (folder / sub / f"case{index:03d}.nii.gz").write_bytes(gzip.compress(image.to_bytes(), 6))
        arguments = ["--region", "WT=1,2,3", "--region", "TC=1,3", "--region", "ET=3", "--no-progress"]
        start = "from segbench.cli.main import entry_point; entry_point()"
        inflate = "import sys, zlib\nfor f in sys.argv[1:]: zlib.decompress(open(f, 'rb').read(), 31)"
        files = [str(path) for path in sorted(folder.glob("*/*.nii.gz"))]
        taken = {"evaluate": [], "inflate": []}
        for attempt in range(3):
            evaluate = [
                sys.executable, "-c", start, "evaluate", "preds", "refs",
                *arguments, "--workers", "2", "--results", f"runs{attempt}",
            ]  # fmt: skip
            halves = [[sys.executable, "-c", inflate, *files[part::2]] for part in range(2)]
            taken["evaluate"].append(wall_and_cpu([evaluate], folder))
            taken["inflate"].append(wall_and_cpu(halves, folder))
    medians = {
        what: [statistics.median(each) for each in zip(*times, strict=True)] for what, times in taken.items()
    }
    print(f"{cases} cases, two workers, against inflating the {2 * cases} files with two processes")
    for index, clock in enumerate(("wall", "CPU")):
        a, b = medians["evaluate"][index], medians["inflate"][index]
        print(f"  {clock}: {a:.2f} s and {b:.2f} s, {a / b:.2f} of inflating (target 1.5)")


def wall_and_cpu(commands, folder):
    """Wall seconds of commands side by side, and CPU seconds of all they started.

    Processes that outlive the command for an instant (the one that workers are forked from) become ours, so
    that their seconds count too.
    """
    become_subreaper = 36  # PR_SET_CHILD_SUBREAPER, Linux only
    assert ctypes.CDLL(None).prctl(become_subreaper, 1, 0, 0, 0) == 0
    before, begin = os.times(), time.perf_counter()
    running = [
        subprocess.Popen(each, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for each in commands
    ]
    for process in running:
        assert process.wait() == 0
    wall = time.perf_counter() - begin
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    after = os.times()
    return wall, after[2] + after[3] - before[2] - before[3]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", default="brats,crc,abdomen,airway")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--all-peers", action="store_true")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument(
        "--only", choices=["speed", "compile", "memory", "threads", "far", "command"], default="speed"
    )
    options = parser.parse_args()
    names = options.pairs.split(",")
    {
        "speed": lambda: speed(names, options.repeats, options.all_peers),
        "compile": compile_cost,
        "memory": lambda: memory(names),
        "threads": threads,
        "far": far,
        "command": lambda: command(options.cases),
    }[options.only]()


if __name__ == "__main__":
    main()
