"""Whether the interval of "how often are retrainings called different" holds: simulated null boards.

Claim: the 95 % interval of `share_interval` covers the true share in at least 0.92 of boards, for the one-run
test and for the two-level test of sets of runs, although comparisons of a board share its runs.

A board is R training runs of one network on 40 cases: a score is run N(0, seed SD) + residual N(0, 0.75), in
points, as on the hippocampus board (seed SD about 0.2). The truth of a share comes from comparisons that share
nothing. For comparison stands the coverage of the binomial interval that takes all comparisons for independent.

    OMP_NUM_THREADS=1 python benchmarks/retraining_shares.py [--boards 300] [--draws 1000] [--sizes 1,2,3,5] [--seed 0]

Prints one line a setting: truth, mean share, coverage of the interval and of the binomial one, mean width.
Takes about 2 CPU minutes by default.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy.special import betaincinv

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from retraining import disjoint_sets, model_pvalues, share_interval, wilcoxon_pvalues

ALPHA, CASES, NOISE = 0.05, 40, 0.75
TRUTH = 20_000  # comparisons that share nothing


def drawn(rng: np.random.Generator, runs: int, seed_sd: float) -> np.ndarray:
    return rng.normal(0, seed_sd, (runs, 1)) + rng.normal(0, NOISE, (runs, CASES))


def pvalues(values: np.ndarray, sets: np.ndarray, test: str) -> np.ndarray:
    return (wilcoxon_pvalues if test == "wilcoxon" else model_pvalues)(values, sets)


def truth(rng: np.random.Generator, size: int, seed_sd: float, test: str) -> float:
    apart = np.arange(TRUTH * 2 * size).reshape(TRUTH, 2, size)
    return float((pvalues(drawn(rng, apart.size, seed_sd), apart, test) < ALPHA).mean())


def binomial(share: float, trials: int) -> tuple[float, float]:
    hits = share * trials
    low = betaincinv(hits, trials - hits + 1, 0.025) if hits else 0.0
    return low, betaincinv(hits + 1, trials - hits, 0.975) if hits < trials else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--boards", type=int, default=300)
    parser.add_argument("--draws", type=int, default=1000, help="comparisons of a board, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", default="1,2,3,5", help="runs a side")
    asked = parser.parse_args()
    sizes = {int(size) for size in asked.sizes.split(",")}
    rng, started = np.random.default_rng(asked.seed), time.process_time()
    print("test      size  runs  seed SD   truth   share   covers  binomial  width")
    lowest = 1.0
    for test, size in (("wilcoxon", 1), ("model", 1), ("model", 2), ("model", 3), ("model", 5)):
        if size not in sizes:
            continue
        for seed_sd in (0.0, 0.2, 0.5) if size == 1 else (0.2,):
            true = truth(rng, size, seed_sd, test)
            for runs in (8, 12, 16, 24) if size == 1 else (8, 12, 24):
                if runs < 2 * size + 2:
                    continue
                sets = disjoint_sets(runs, size, most=asked.draws)
                rows = []
                for _ in range(asked.boards):
                    called = pvalues(drawn(rng, runs, seed_sd), sets, test) < ALPHA
                    found = share_interval(called, sets, runs)
                    low, high = binomial(found.estimate, len(sets))
                    rows.append(
                        (
                            found.estimate,
                            found.low <= true <= found.high,
                            low <= true <= high,
                            found.high - found.low,
                        )
                    )
                share, covers, naive, width = np.array(rows, dtype=float).mean(axis=0)
                lowest = min(lowest, covers)
                print(
                    f"{test:<9} {size:>4}  {runs:>4}  {seed_sd:>7.1f}  {true:6.3f}  {share:6.3f}  {covers:7.3f}  {naive:8.3f}  {width:5.2f}",
                    flush=True,
                )
    print(f"lowest coverage {lowest:.3f}; {time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
