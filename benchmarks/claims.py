"""How far a claim judged from its table alone agrees with the verdict from the scores of every case.

Goal: at least 90 % agreement, strictly out of sample. Each committed board is halved by cases many times. One half is
printed as a table (mean and SD of each model), and the verdict on its cases is what the claim must agree with. What the
table does not say, correlation over cases and spread of retraining, never comes from that half nor from the ranges that
`segbench claim` has built in:

1. one training each, retraining left out on both sides, against a one-sided paired test over the cases of the half:
   (a) the correlation's quartiles in the other half, (b) those of Touchstone's nine models, another benchmark.
2. (c) all trainings of the models that have several, quartiles and spread of retraining of the other half, against the
   one-sided two-level test.

For a band the verdict may be "open": its share stands beside the agreement of the others, which carries the 95 %
interval of a bootstrap over pairs of models (pairs share models, so it is a little too narrow).

Folders of runs, as `segbench data import scores` makes them of other tools' scores, are judged in place of the boards;
there (b) is the range that `segbench claim` has built in, from our board and Touchstone.

    python benchmarks/claims.py [FOLDER ...] [--halves 100] [--seed 0]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from unittest import mock

import numpy as np
from scipy.special import ndtr

from segbench.core.errors import SegbenchError
from segbench.published import claims
from segbench.published.claims import LEVEL, OPEN, SUPPORTED, Band, Side, judge
from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.options import make_options
from segbench.stats import two_level_test

BOARDS = Path(__file__).resolve().parents[1] / "results" / "leaderboard"
METRIC = "dice"
TOUCHSTONE = Band(0.784, 0.826, 0.868, "nine models of Touchstone on 529 public cases: quartiles and median")
Found = tuple[tuple[str, str], bool, bool]
"""Models of a pair, whether the verdict is open, whether it agrees."""


def tables(runs: Path) -> dict[str, dict[str, np.ndarray]]:
    """By region (and `mean`), by model: (seeds, cases)."""
    (block,) = analyse([runs], make_options(metrics=METRIC, resamples=100)).blocks
    return {
        region: {scores.label: block.per_case(scores, region, METRIC) for scores in block.models}
        for region in block.table_regions
    }


def correlations(models: dict[str, np.ndarray], cases: np.ndarray) -> Band:
    """Quartiles of the correlation over cases of two models, one training each."""
    runs = [(name, run[cases]) for name, table in models.items() for run in table]
    found = [np.corrcoef(a, b)[0, 1] for (x, a), (y, b) in combinations(runs, 2) if x != y]
    return Band(*map(float, np.nanpercentile(found, (25, 50, 75))), "the other half")


def retraining(models: dict[str, np.ndarray], cases: np.ndarray) -> Band:
    """Smallest, middle and largest spread of a model's mean over its trainings."""
    found = [table[:, cases].mean(axis=1).std(ddof=1) for table in models.values()]
    return Band(*map(float, np.percentile(found, (0, 50, 100))), "the other half")


@contextmanager
def assuming(congruence: Band, seed_sd: Band) -> Iterator[None]:
    """Judge with these ranges in place of those that are built in."""
    with mock.patch.multiple(claims, CONGRUENCE=congruence, SEED_SD={METRIC: seed_sd}):
        yield


def side(name: str, scores: np.ndarray, *, seed_sd: float | None = None) -> Side:
    """A row of a printed table: mean, SD over cases of the mean over seeds, n."""
    cases = scores.mean(axis=0)
    spread = float(cases.std(ddof=1))
    return Side(name, float(cases.mean()), spread, cases.size, len(scores), seed_sd)


def single(models: dict[str, np.ndarray], half: np.ndarray, congruence: Band) -> Iterator[Found]:
    """Each pair of trainings of two models, judged under a range of the correlation."""
    runs = [(name, run[half]) for name, table in models.items() for run in table]
    with assuming(congruence, Band(0.0, 0.0, 0.0, "")):
        for (x, a), (y, b) in combinations(runs, 2):
            if x != y:
                difference = a - b
                p = ndtr(-abs(difference.mean()) / (difference.std(ddof=1) / np.sqrt(half.size)))
                claim = judge(*(side(n, s[None], seed_sd=0.0) for n, s in ((x, a), (y, b))), METRIC)
                yield (x, y), claim.verdict == OPEN, (claim.verdict == SUPPORTED) == (p < LEVEL)


def several(models: dict[str, np.ndarray], half: np.ndarray, other: np.ndarray) -> Iterator[Found]:
    """Each pair of models with several trainings, under the ranges of the other half."""
    models = {name: table for name, table in models.items() if len(table) > 1}
    if len(models) < 2:
        return
    with assuming(correlations(models, other), retraining(models, other)):
        for x, y in combinations(models, 2):
            a, b = models[x][:, half], models[y][:, half]
            claim = judge(side(x, a), side(y, b), METRIC)
            p = two_level_test(a, b).pvalue / 2
            yield (x, y), claim.verdict == OPEN, (claim.verdict == SUPPORTED) == (p < LEVEL)


def shares(found: list[Found], rng: np.random.Generator) -> str:
    """Agreement of the verdicts that are not open with its interval, and the share that is open."""
    if all(is_open for _, is_open, _ in found):
        return "all open" if found else "one training each"
    pairs = sorted({pair for pair, _, _ in found})
    counts = np.array(
        [
            [
                sum(not o for p, o, _ in found if p == pair),
                sum(not o and agrees for p, o, agrees in found if p == pair),
            ]
            for pair in pairs
        ]
    )
    drawn = counts[rng.integers(0, len(pairs), (2000, len(pairs)))].sum(axis=1)
    low, high = np.nanpercentile(drawn[:, 1] / drawn[:, 0], (2.5, 97.5))
    open_share = np.mean([is_open for _, is_open, _ in found])
    agreed = counts[:, 1].sum() / counts[:, 0].sum()
    return f"{agreed:.3f} ({low:.3f} to {high:.3f}), {open_share:.2f} open"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="of runs; default: the boards"
    )
    parser.add_argument("--halves", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    np.seterr(invalid="ignore")  # scores that are all the same have no correlation: NaN, left out
    borrowed, whose = (claims.CONGRUENCE, "built in") if options.folders else (TOUCHSTONE, "of Touchstone")
    for runs in options.folders or sorted(BOARDS.glob("*/runs")):
        try:
            found = tables(runs)
        except SegbenchError as error:
            print(f"{runs}: {error.message}")
            continue
        if any(len(models) < 2 for models in found.values()):
            continue
        count = next(iter(next(iter(found.values())).values())).shape[1]
        print(f"{runs}, {METRIC}, {options.halves} halvings of {count} cases")
        print(f"| region | r | (a) r of the other half | (b) r {whose} | (c) several trainings |")
        print("|---|---|---|---|---|")
        for region, models in found.items():
            columns: list[list[Found]] = [[], [], []]
            for _ in range(options.halves):
                half, other = np.split(rng.permutation(count), [count // 2])
                columns[0] += single(models, half, correlations(models, other))
                columns[1] += single(models, half, borrowed)
                columns[2] += several(models, half, other)
            r = correlations(models, np.arange(count))
            print(
                f"| {region} | {r.low:.2f} to {r.high:.2f} | {' | '.join(shares(each, rng) for each in columns)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
