"""Statistics against looped scipy: CPU seconds, one thread, peers in turn in one process, medians, ratios.

Claims:
1. `rank_models` on 20 models x 3 seeds x 500 cases with 10,000 draws of seeds and cases takes at most 1/15 of
   `scipy.stats.bootstrap` looped over the 60 runs, which gives an interval of each run and no ranks.
2. Hodges-Lehmann with its interval for 100,000 pairs, which have 5,000,050,000 Walsh averages.

    OMP_NUM_THREADS=1 python benchmarks/statistics.py [--repeats 3] [--quick]

CPU seconds count every thread, so more threads would not flatter either side.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
from scipy import stats

from segbench.stats import hodges_lehmann, rank_models

if __name__ == "statistics":
    # A script of this folder that imports the standard library's `statistics` finds this file first: hand it
    # the module it means.
    spec = importlib.util.spec_from_file_location(
        __name__, Path(sysconfig.get_path("stdlib"), "statistics.py")
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[__name__] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])


def median(values: list[float]) -> float:
    return float(np.median(values))


def seconds(call) -> tuple[float, object]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def dice_like(cases: int, models: int, series: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    difficulty = rng.beta(9, 1.5, (cases, 1, series))
    skill = np.linspace(0, 0.02, models)[None, :, None]
    return np.clip(difficulty + skill + rng.laplace(0, 0.02, (cases, models, series)), 0, 1)


def looped_bootstrap(table: np.ndarray, draws: int) -> np.ndarray:
    """(2, models, series) percentile intervals, one call of scipy a series."""
    bounds = np.empty((2, *table.shape[1:]))
    for model in range(table.shape[1]):
        for series in range(table.shape[2]):
            rng = np.random.default_rng(model * table.shape[2] + series)
            interval = stats.bootstrap(
                (table[:, model, series],), np.mean, n_resamples=draws, method="percentile", rng=rng
            ).confidence_interval
            bounds[:, model, series] = interval.low, interval.high
    return bounds


def ranks(repeats: int, draws: int) -> None:
    rng = np.random.default_rng(0)
    table = dice_like(500, 20, 1)[:, :, 0]
    runs = table.T[:, None] + rng.normal(0, 0.005, (20, 3, 1)) + rng.laplace(0, 0.01, (20, 3, 500))
    scores = {str(place): run for place, run in enumerate(runs)}
    rank_models(scores, resamples=100)  # warm
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(seconds(lambda: rank_models(scores, resamples=draws))[0])
        theirs.append(seconds(lambda: looped_bootstrap(runs.transpose(2, 0, 1), draws))[0])
    print(f"1. rank_models, 20 models x 3 seeds x 500 cases, {draws:,} draws")
    print(f"   segbench {median(ours):8.3f} s   (ranks, P(best), means; seeds and cases drawn)")
    print(f"   scipy    {median(theirs):8.3f} s   (intervals only, looped over 60 runs, cases drawn)")
    print(f"   ratio {median(theirs) / median(ours):.1f} (goal 15)")


def shift(repeats: int) -> None:
    x = np.random.default_rng(1).normal(0.01, 0.1, 100_000)
    took = [seconds(lambda: hodges_lehmann(x))[0] for _ in range(repeats)]
    print(f"2. Hodges-Lehmann with interval, 100,000 pairs: {median(took):.3f} s")
    print("   peer: none at hand that does not list the 5,000,050,000 averages (40 GB)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws, one repeat")
    options = parser.parse_args()
    repeats, share = (1, 10) if options.quick else (options.repeats, 1)
    ranks(repeats, 10_000 // share)
    shift(repeats)


if __name__ == "__main__":
    main()
