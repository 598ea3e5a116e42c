"""How far a claim judged from its table alone agrees with the verdict from the scores of every case.

Goal: at least 90 % agreement out of sample. Each committed board is halved by cases many times; one half is printed
as a table (mean and SD of each model), and what a table does not say comes from elsewhere:

1. one training each, retraining left out on both sides: "the order is wrong with less than 5 %" from the table
   against a one-sided paired test over the cases of that half. The correlation is (a) that of the other half, (b) the
   measured range of another benchmark, (c) that range, and the SDs are left out of the table too.
2. (d) three trainings each: the claim with the measured ranges against the one-sided two-level test on that half.

For a band the verdict may be "open": its share stands beside the agreement of the others.

    python benchmarks/claims.py [--halves 100] [--seed 0]

Pairs share models and halves share cases, so no standard error is printed. Takes about two minutes of CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from segbench.core.errors import SegbenchError
from segbench.published.claims import LEVEL, OPEN, SUPPORTED, Side, judge
from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.options import make_options
from segbench.stats import two_level_test

BOARDS = Path(__file__).resolve().parents[1] / "results" / "leaderboard"
METRIC = "dice"


def tables(board: Path) -> dict[str, dict[str, np.ndarray]]:
    """By region (and `mean`), by model: (seeds, cases)."""
    (block,) = analyse([board / "runs"], make_options(metrics=METRIC, resamples=100)).blocks
    return {
        region: {scores.label: block.per_case(scores, region, METRIC) for scores in block.models}
        for region in block.table_regions
    }


def correlation(models: dict[str, np.ndarray], cases: np.ndarray) -> float:
    """The median correlation over cases of two models, one training each."""
    runs = [(name, run[cases]) for name, table in models.items() for run in table]
    return float(np.median([np.corrcoef(a, b)[0, 1] for (x, a), (y, b) in combinations(runs, 2) if x != y]))


def side(name: str, scores: np.ndarray, *, sd: bool = True, seed_sd: float | None = None) -> Side:
    """A row of a printed table: mean, SD over cases of the mean over seeds, n."""
    cases = scores.mean(axis=0)
    spread = float(cases.std(ddof=1)) if sd else None
    return Side(name, float(cases.mean()), spread, cases.size, len(scores), seed_sd)


def single(
    models: dict[str, np.ndarray], half: np.ndarray, other: np.ndarray
) -> Iterator[list[tuple[bool, bool]]]:
    """For each pair of trainings, (open, agrees) under (a), (b) and (c)."""
    inside = correlation(models, other)
    runs = [(name, run[half]) for name, table in models.items() for run in table]
    for (x, a), (y, b) in combinations(runs, 2):
        if x != y:
            difference = a - b
            p = ndtr(-abs(difference.mean()) / (difference.std(ddof=1) / np.sqrt(half.size)))
            whole, bare = (
                [side(n, s[None], sd=sd, seed_sd=0.0) for n, s in ((x, a), (y, b))] for sd in (True, False)
            )
            claims = (
                judge(*whole, METRIC, congruence=inside),
                judge(*whole, METRIC),
                judge(*bare, METRIC, dataset="msd-hippocampus"),
            )
            yield [(claim.verdict == OPEN, (claim.verdict == SUPPORTED) == (p < LEVEL)) for claim in claims]


def several(models: dict[str, np.ndarray], half: np.ndarray) -> Iterator[tuple[bool, bool]]:
    """For each pair of models, (open, agrees) under (d)."""
    for x, y in combinations(models, 2):
        a, b = models[x][:, half], models[y][:, half]
        claim = judge(side(x, a), side(y, b), METRIC)
        p = two_level_test(a, b).pvalue / 2
        yield claim.verdict == OPEN, (claim.verdict == SUPPORTED) == (p < LEVEL)


def shares(found: list[tuple[bool, bool]]) -> str:
    """Agreement of the verdicts that are not open, and the share that is."""
    verdicts = np.array(found)
    decided = verdicts[~verdicts[:, 0], 1]
    agree = f"{decided.mean():.3f}" if decided.size else "none"
    return f"{agree} ({verdicts[:, 0].mean():.2f} open)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--halves", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    for board in sorted(path for path in BOARDS.iterdir() if (path / "runs").is_dir()):
        try:
            found = tables(board)
        except SegbenchError:
            continue
        print(f"{board.name}, {METRIC}, {options.halves} halves")
        print(
            "| region | (a) r of the other half | (b) r of elsewhere | (c) means alone | (d) three trainings |"
        )
        print("|---|---|---|---|---|")
        for region, models in found.items():
            ones, threes = [], []
            count = next(iter(models.values())).shape[1]
            for _ in range(options.halves):
                order = rng.permutation(count)
                ones += single(models, order[: count // 2], order[count // 2 :])
                threes += several(models, order[: count // 2])
            cells = [shares([pair[column] for pair in ones]) for column in range(3)]
            print(f"| {region} | {' | '.join(cells)} | {shares(threes)} |", flush=True)


if __name__ == "__main__":
    main()
