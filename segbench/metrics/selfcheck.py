"""`segbench doctor --metrics`: the engine against hand-derived numbers, its oracle and other libraries, here
and now.

Every comparison has a limit: 0 between the two engines, 0 or 1e-12 to medpy, 1e-5 to MONAI's float32 (1e-4 to
its percentile). A limit that is passed is a failure. What is not installed is said to be left out, never
silently skipped. medpy is GPL-3: it is called, and nothing of it is copied.
"""

from __future__ import annotations

import importlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.metrics.engine import _plain
from segbench.metrics.engine.choice import compiled_engine_wanted
from segbench.metrics.engine.measure import measured_values
from segbench.metrics.registry import DEFAULT_METRICS
from segbench.metrics.surface import TIE, hd95_max, masd, nsd

Labels = NDArray[np.uint8]
Spacing = tuple[float, float, float]
Scores = dict[str, float]
Engine = Callable[[Labels, Labels, Spacing, float], Scores]
Row = tuple[str, str, str]

PAIRS = 60
GOLDEN_LIMIT = 1e-12
EXACT = ("dice", "iou", "precision", "recall", "hd", "hd95", "hd95_max", "nsd")
TIMED_SHAPE = (64, 96, 96)


@dataclass
class SelfCheck:
    """What the self-check found.

    Attributes:
        comparisons: one per (against, metric): largest difference, limit, and whether it holds.
        timings: CPU seconds of one case per implementation.
        left_out: implementation -> why it was not checked.
        kernels: how the compiled kernels came: `compiled`, `from the cache`, or why there are none.
        seconds: wall time of the whole check.
    """

    comparisons: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    timings: dict[str, float] = field(default_factory=dict[str, float])
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    kernels: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Tell whether no limit was passed."""
        return all(comparison["ok"] for comparison in self.comparisons)

    @property
    def rows(self) -> list[Row]:
        """Return what, state and detail of each finding, for a table."""
        rows: list[Row] = [("kernels", self.kernels, "")]
        for entry in self.comparisons:
            state = "ok" if entry["ok"] else "FAILED"
            detail = f"largest difference {entry['difference']:.2g}, limit {entry['limit']:g}"
            rows.append((f"{entry['metric']} against {entry['against']}", state, detail))
        ours = self.timings.get("ours")
        for name, seconds in self.timings.items():
            ratio = f"{seconds / ours:.1f} times ours" if ours and name != "ours" else ""
            rows.append((f"time of {name}", f"{seconds * 1e3:.1f} ms", ratio))
        rows += [(name, "left out", why) for name, why in self.left_out.items()]
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return the findings as plain values, for `--json`."""
        return {
            "schema_version": 1,
            "ok": self.ok,
            "kernels": self.kernels,
            "comparisons": self.comparisons,
            "timings_s": self.timings,
            "left_out": self.left_out,
            "seconds": round(self.seconds, 3),
        }


def run_selfcheck() -> SelfCheck:
    """Return the findings of golden cases, random pairs and timings against whatever is installed."""
    begin = time.perf_counter()
    check = SelfCheck()
    engine, check.kernels = _native_engine()
    others = {"the plain engine": engine_scores(_plain)}
    if engine is None:
        check.left_out["native engine"] = check.kernels
        engine = _plain
    ours = engine_scores(engine)
    for name, peer in PEERS.items():
        try:
            others[name] = peer()
        except ImportError as error:
            check.left_out[name] = f"cannot be imported: {error}"
    for name, reference, prediction, spacing_mm, tolerance_mm, expected in golden_cases():
        found = ours(reference, prediction, spacing_mm, tolerance_mm)
        worst = max(abs(found[metric] - value) for metric, value in expected.items())
        _note(check, f"the hand-derived {name}", "all", worst, GOLDEN_LIMIT)
    pairs = list(random_pairs(PAIRS))
    mine = [ours(*pair) for pair in pairs]
    for name, other in others.items():
        theirs = [other(*pair) for pair in pairs]
        for metric in theirs[0]:
            found = zip(mine, theirs, strict=True)
            # Beyond 1, relative: float32 holds seven digits, whatever the unit.
            gaps = [abs(a[metric] - b[metric]) / max(1.0, abs(a[metric])) for a, b in found]
            _note(check, name, metric, max(gaps), limit_of(name, metric))
    _time(check, {"ours": ours, **others})
    check.seconds = time.perf_counter() - begin
    return check


def limit_of(name: str, metric: str) -> float:
    """Return the largest difference to another implementation that is not a fault."""
    if name == "monai":
        # It interpolates its percentile in float32 too: the position in a long list is rounded, not only the
        # values.
        return 1e-4 if metric == "hd95_max" else 1e-5
    return 1e-12 if name == "medpy" and metric not in EXACT else 0.0


def _native_engine() -> tuple[ModuleType | None, str]:
    """Return the compiled engine and how its kernels came, or None and why there is none."""
    if not compiled_engine_wanted():
        return None, "switched off by SEGBENCH_NO_NUMBA"
    try:
        native = importlib.import_module("segbench.metrics.engine._native")
    except ImportError as error:
        return None, f"numba cannot be imported: {error}"
    kernels = importlib.import_module("segbench.metrics.engine._kernels")
    hits = sum(sum(kernel.stats.cache_hits.values()) for kernel in (kernels.sweep, kernels.split))
    return native, "from the cache" if hits else "compiled"


def engine_scores(module: ModuleType) -> Engine:
    """Return a function that scores one region by an engine, whatever the size of the maps."""

    def score(reference: Labels, prediction: Labels, spacing_mm: Spacing, tolerance_mm: float) -> Scores:
        found = module.measure(
            reference, prediction, spacing_mm=spacing_mm, regions={"it": (1,)}, distances=True
        )
        return measured_values(found["it"], DEFAULT_METRICS, tolerance_mm)

    return score


def medpy_scores() -> Engine:
    """Return medpy's own functions, and hd95_max, masd and nsd of its surface distances."""
    binary: Any = importlib.import_module("medpy.metric.binary")
    overlaps = {"dice": "dc", "iou": "jc", "precision": "precision", "recall": "recall"}

    def score(reference: Labels, prediction: Labels, spacing_mm: Spacing, tolerance_mm: float) -> Scores:
        r, p = reference == 1, prediction == 1
        values = {name: float(getattr(binary, theirs)(p, r)) for name, theirs in overlaps.items()}
        for name in ("hd", "hd95", "assd"):
            values[name] = float(getattr(binary, name)(p, r, voxelspacing=spacing_mm))
        distances = getattr(binary, "__surface_distances")
        d1, d2 = (np.asarray(distances(a, b, spacing_mm, 1)) for a, b in ((p, r), (r, p)))
        return values | {"hd95_max": hd95_max(d1, d2), "masd": masd(d1, d2), "nsd": nsd(d1, d2, tolerance_mm)}

    return score


def monai_scores() -> Engine:
    """Return MONAI's functions: distances in float32, so they agree to about 1e-5, not to the bit."""
    torch: Any = importlib.import_module("torch")
    metrics: Any = importlib.import_module("monai.metrics")

    def score(reference: Labels, prediction: Labels, spacing_mm: Spacing, tolerance_mm: float) -> Scores:
        p, r = (torch.from_numpy(labels == 1)[None, None].float() for labels in (prediction, reference))
        near = {"include_background": True, "spacing": list(spacing_mm)}
        # MONAI compares float32 distances with the tolerance: leave room for their rounding, as for ours.
        limit = [tolerance_mm * TIE + 1e-5]
        with warnings.catch_warnings():
            # MONAI warns of arguments that its own functions pass to each other.
            warnings.simplefilter("ignore", FutureWarning)
            found = {
                "dice": metrics.compute_dice(p, r, include_background=True),
                "iou": metrics.compute_iou(p, r, include_background=True),
                "hd": metrics.compute_hausdorff_distance(p, r, **near),
                "hd95_max": metrics.compute_hausdorff_distance(p, r, percentile=95, **near),
                "assd": metrics.compute_average_surface_distance(p, r, symmetric=True, **near),
                "nsd": metrics.compute_surface_dice(p, r, limit, **near),
            }
        return {name: float(value) for name, value in found.items()}

    return score


PEERS: dict[str, Callable[[], Engine]] = {"medpy": medpy_scores, "monai": monai_scores}
"""Other libraries that are compared where they are installed."""


def golden_cases() -> Iterator[tuple[str, Labels, Labels, Spacing, float, Scores]]:
    """Yield hand-derived cases: name, maps, spacing, tolerance, expected values. Derivations stand in the
    tests.
    """
    reference, prediction = np.zeros((2, 8, 8, 9), dtype=np.uint8)
    reference[2:6, 2:6, 2:6] = 1
    prediction[2:6, 2:6, 3:7] = 1
    shifted = {
        "dice": 0.75,
        "iou": 0.6,
        "hd": 1.0,
        "hd95": 1.0,
        "assd": 20 / 56,
        "masd": 20 / 56,
        "nsd": 36 / 56,
    }
    yield "shifted cube", reference, prediction, (1.0, 1.0, 1.0), 0.5, shifted
    reference, prediction = np.zeros((2, 5, 9, 9), dtype=np.uint8)
    reference[1, 2, 1] = prediction[3, 5, 7] = 1
    length = math.sqrt(154.0)
    distances = dict.fromkeys(("hd", "hd95", "hd95_max", "assd", "masd"), length)
    yield "two voxels", reference, prediction, (0.5, 1.0, 2.0), 1.0, {"dice": 0.0, "nsd": 0.0, **distances}
    reference, prediction = np.zeros((2, 3, 3, 24), dtype=np.uint8)
    reference[1, 1, 2] = 1
    prediction[1, 1, 2:22] = 1
    line = {"hd": 19.0, "hd95": 18.0, "hd95_max": 18.05, "assd": 190 / 21, "masd": 4.75}
    yield "voxel and line", reference, prediction, (1.0, 1.0, 1.0), 1.0, line


def random_pairs(count: int) -> Iterator[tuple[Labels, Labels, Spacing, float]]:
    """Yield seeded pairs of smooth blobs on anisotropic grids, some with a far island, both non-empty."""
    ndimage: Any = importlib.import_module("scipy.ndimage")
    rng = np.random.default_rng(20240531)
    made = 0
    while made < count:
        shape = tuple(int(n) for n in rng.integers(6, 28, 3))
        sigma, cut = float(rng.uniform(0.4, 2.5)), float(rng.uniform(0.3, 0.9))
        fields = [ndimage.gaussian_filter(rng.random(shape), sigma) for _ in range(2)]
        fields[1] = 0.6 * fields[0] + 0.4 * fields[1]
        reference, prediction = ((f > np.quantile(f, cut)).astype(np.uint8) for f in fields)
        if made % 5 == 0:
            prediction[-1, -1, -1] = 1
        if reference.any() and prediction.any():
            made += 1
            z, y, x = rng.uniform(0.2, 4.0, 3)
            yield reference, prediction, (float(z), float(y), float(x)), float(rng.uniform(0.2, 3.0))


def _note(check: SelfCheck, against: str, metric: str, difference: float, limit: float) -> None:
    check.comparisons.append(
        {
            "against": against,
            "metric": metric,
            "difference": difference,
            "limit": limit,
            "ok": difference <= limit,
        }
    )


def _time(check: SelfCheck, engines: dict[str, Engine]) -> None:
    """Time one case of ordinary size: CPU seconds, the best of three, which is the least disturbed one."""
    grid: Any = np.ogrid[tuple(slice(0, n) for n in TIMED_SHAPE)]
    balls: list[Any] = [
        sum(((axis - n * place) / (n * 0.28)) ** 2 for axis, n in zip(grid, TIMED_SHAPE, strict=True)) <= 1
        for place in (0.5, 0.53)
    ]
    reference, prediction = (ball.astype(np.uint8) for ball in balls)
    for name, engine in engines.items():
        taken: list[float] = []
        for _ in range(3):
            begin = time.process_time()
            engine(reference, prediction, (2.0, 0.8, 0.8), 1.0)
            taken.append(time.process_time() - begin)
        check.timings[name] = min(taken)
