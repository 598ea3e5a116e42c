"""How often a comparison of models claims what is not so, and how often it finds what is: simulated tables.

Claims:
1. Family-wise error of `compare_models` at 0.05 is at most 0.07 in every scenario below, beyond Monte Carlo error.
2. Its power is about that of the plain two-level test with Holm's correction, which errs more; with two seeds a
   side, where the plain test errs most, it is far less.
3. Where `rank_models` gives a model P(best) of at least 0.95, it is truly the best in at least 0.8 of the tables.

Each table holds models that differ in nothing (error) or of which the first is better (power, over its pairs).
A score is 85 + gain + seed N(0, seed SD) + model-by-case noise + residual noise, in points; cases are shared,
and their difficulty cancels in all pairs. Seed SDs are equal, graded (0.4 to 1.6 times) or equal but one that is
four times the others'. `2 to 5` seeds are shared out in turn, few seeds to the noisiest model.

    OMP_NUM_THREADS=1 python benchmarks/false_claims.py [--tables 1000] [--seed 0] [--only claims|best]

Both rules run through the package's own functions on the same tables. The Monte Carlo standard error of each
share is printed. Claims 1 and 2 take about 2 CPU minutes at 1,000 tables a scenario, claim 3 about 4.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from segbench.stats import holm, rank_models
from segbench.stats.comparison import adjusted_pvalues
from segbench.stats.family import decide, interaction_variance, pair_tests, seed_variance, too_few_seeds
from segbench.stats.laws import student_tail
from segbench.stats.two_level import combined_variance

ALPHA, LIMIT = 0.05, 0.07
SURE, RIGHT = 0.95, 0.8  # a printed P(best), and how often the model named must be the best
DRAWS = 1000  # of the ranks of one table
BLOCK = 100  # tables at a time: bounds the memory
FLOOR = 1e-10
SPREADS = ("equal", "graded", "one noisy")


@dataclass(frozen=True)
class Scenario:
    models: int
    seeds: str  # a number, or "2 to 5" or "3 to 5"
    cases: int
    spread: str
    seed_sd: float = 0.5
    noise: tuple[float, float] = (2.0, 2.0)  # SD of model by case, and of the residual
    tails: str = "normal"  # or "t3", or "zeros": 2 % of the scores are 0
    gain: float = 0.0
    truth: str = "one"  # who differs: the first model, "steps" (evenly apart), or "drawn" anew for each table

    def seed_sds(self) -> np.ndarray:
        factors = {
            "equal": np.ones(self.models),
            "graded": np.linspace(0.4, 1.6, self.models),
            "one noisy": np.r_[np.ones(self.models - 1), 4.0],
        }
        return self.seed_sd * factors[self.spread]

    def numbers(self) -> list[int]:
        if self.seeds.isdigit():
            return [int(self.seeds)] * self.models
        fewest = int(self.seeds[0])
        return [5 - place % (6 - fewest) for place in range(self.models - 1)] + [fewest]

    def true_means(self, rng: np.random.Generator, tables: int) -> np.ndarray:
        """(tables, models) what each model would score on average."""
        if self.truth == "drawn":
            return rng.normal(0, self.gain, (tables, self.models))
        steps = np.arange(self.models)[::-1] if self.truth == "steps" else np.arange(self.models) == 0
        return np.tile(self.gain * steps, (tables, 1))

    def draw(self, rng: np.random.Generator, means: np.ndarray) -> list[np.ndarray]:
        tables, models = len(means), []
        for place, (number, sd) in enumerate(zip(self.numbers(), self.seed_sds(), strict=True)):
            by_case = self.noise[0] * self.standard(rng, (tables, 1, self.cases))
            rest = self.noise[1] * self.standard(rng, (tables, number, self.cases))
            scores = (
                85 + by_case + rest + rng.normal(0, sd, (tables, number, 1)) + means[:, place, None, None]
            )
            if self.tails == "zeros":
                scores[rng.random(scores.shape) < 0.02] = 0.0
            models.append(scores)
        return models

    def standard(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_t(3, shape) / np.sqrt(3) if self.tails == "t3" else rng.standard_normal(shape)


def plain_pvalues(models: list[np.ndarray], pairs: list[tuple[int, int]]) -> np.ndarray:
    """(tables, pairs) p of `two_level_test`, which the comparisons used before."""
    seeds = [model.shape[1] for model in models]
    errors = [(seed_variance(m) / s, np.asarray(s - 1.0)) for m, s in zip(models, seeds, strict=True)]
    shared = [interaction_variance(model) for model in models]
    pvalues = []
    for a, b in pairs:
        per_case = models[a].mean(axis=1) - models[b].mean(axis=1)
        cases = per_case.shape[1]
        case = (per_case.var(axis=1, ddof=1) / cases, cases - 1.0)
        variance, df = combined_variance(errors[a], errors[b], case, shared[a] + shared[b], FLOOR)
        pvalues.append(2 * student_tail(df, np.abs(per_case.mean(axis=1)) / np.sqrt(variance)))
    return np.stack(pvalues, axis=1)


def shares(scenario: Scenario, tables: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Share of tables with a false claim, and share of the true differences found; (plain, segbench) each."""
    pairs = list(combinations(range(scenario.models), 2))
    true = np.array([scenario.gain != 0 and 0 in pair for pair in pairs])
    silent = np.array([too_few_seeds(scenario.numbers(), pair) for pair in pairs])
    wrong, found = np.zeros((2, tables)), np.zeros((2, tables))
    for start in range(0, tables, BLOCK):
        models = scenario.draw(rng, scenario.true_means(rng, min(BLOCK, tables - start)))
        plain = plain_pvalues(models, pairs)
        p = np.where(silent, 1.0, decide(*pair_tests(models, pairs, floor=FLOOR))[1])
        for row in range(p.shape[0]):
            ours = adjusted_pvalues(p[row], pairs, scenario.models, all_pairs=True)
            for rule, adjusted in enumerate((holm(plain[row]), ours)):
                claimed = adjusted < ALPHA
                wrong[rule, start + row] = claimed[~true].any()
                found[rule, start + row] = claimed[true].mean() if true.any() else np.nan
    return wrong.mean(axis=1), found.mean(axis=1)


def scenarios() -> list[Scenario]:
    """Every size of table with every spread of the seeds; then tails, partly true nulls, and power."""
    small = (0.7, 0.9)
    error = [
        Scenario(models, seeds, cases, spread)
        for models in (2, 3, 6, 10)
        for seeds in ("2", "3", "5", "2 to 5", "3 to 5")
        if seeds != "2" or models == 2  # among three models or more two seeds never get a verdict
        for cases in (40, 250)
        for spread in SPREADS
    ]
    error += [
        Scenario(models, seeds, 40, "equal", tails=tails)
        for models in (2, 6)
        for seeds in ("2", "3")
        if seeds != "2" or models == 2
        for tails in ("t3", "zeros")
    ]
    power = [
        Scenario(2, "2", 250, "equal", 0.2, gain=1.0),
        Scenario(2, "3", 250, "equal", 0.2, gain=1.0),
        Scenario(3, "3", 250, "equal", 0.3, gain=1.0),
        Scenario(6, "3", 250, "equal", 0.2, gain=1.0),
        Scenario(6, "3", 40, "equal", 0.2, small, gain=1.0),
        Scenario(6, "5", 250, "equal", 0.5, gain=1.0),
        Scenario(10, "3", 250, "equal", 0.2, gain=1.0),
        Scenario(6, "3", 250, "one noisy", 0.2, gain=1.0),
        Scenario(6, "3", 250, "graded", 0.3, gain=1.0),
        Scenario(6, "3 to 5", 250, "equal", 0.2, gain=1.0),
        Scenario(6, "3", 40, "equal", 0.2, small, tails="zeros", gain=10.0),
    ]
    return error + power


def sure_and_right(scenario: Scenario, tables: int, rng: np.random.Generator) -> tuple[int, int]:
    """Tables in which a model has P(best) of at least 0.95, and those of them in which it is the best."""
    sure = right = 0
    for start in range(0, tables, BLOCK):
        means = scenario.true_means(rng, min(BLOCK, tables - start))
        models = scenario.draw(rng, means)
        for row in range(len(means)):
            table = {str(place): model[row] for place, model in enumerate(models)}
            best = rank_models(table, resamples=DRAWS, seed=start + row).probability_best
            if best.max() >= SURE:
                sure += 1
                right += int(means[row, best.argmax()] == means[row].max())
    return sure, right


def best_scenarios() -> list[Scenario]:
    """Tables in which a model is the best, from gains within the noise to gains far beyond it."""
    found = [
        Scenario(models, "3", cases, "equal", 0.5, gain=gain, truth="drawn")
        for models in (3, 6, 10)
        for cases in (40, 250)
        for gain in (0.5, 1.0, 2.0, 4.0)
    ]
    found += [Scenario(6, "5", 250, "equal", 0.5, gain=gain, truth="drawn") for gain in (0.5, 1.0, 2.0)]
    found += [Scenario(6, "3", 250, spread, 0.5, gain=2.0, truth="drawn") for spread in SPREADS[1:]]
    found += [Scenario(2, "3", 250, "equal", 0.5, gain=gain, truth="drawn") for gain in (1.0, 2.0)]
    found += [Scenario(6, "3", 250, "equal", 0.5, gain=gain, truth="steps") for gain in (0.1, 0.5, 1.0)]
    return found + [Scenario(6, "3", 250, "equal", 0.5, gain=gain) for gain in (1.0, 2.0, 4.0)]


def print_best(tables: int, rng: np.random.Generator) -> None:
    """Claim 3, a line for each scenario: how often P(best) reaches 0.95, and how often it is right then."""
    print(f"P(best) of at least {SURE}: {tables} tables a scenario, {DRAWS} draws each")
    print("| models | seeds | cases | seed SD | truth | gain | said in | right (SE) |")
    print("|---|---|---|---|---|---|---|---|")
    start, said, held = time.process_time(), 0, 0
    for scenario in best_scenarios():
        sure, right = sure_and_right(scenario, tables, rng)
        share = f"{right} of {sure}: {right / sure:.3f} ({error_of(right / sure, sure):.3f})" if sure else ""
        print(
            f"| {scenario.models} | {scenario.seeds} | {scenario.cases} | {scenario.seed_sd:g} {scenario.spread} "
            f"| {scenario.truth} | {scenario.gain:g} | {sure / tables:.3f} | {share} |",
            flush=True,
        )
        said, held = said + sure, held + right
    print(f"over all: said {said} times, right in {held / max(said, 1):.3f}; asked for: {RIGHT}")
    print(f"{time.process_time() - start:.0f} CPU seconds")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("claims", "best"), help="claims 1 and 2, or claim 3")
    options = parser.parse_args()
    if options.only != "best":
        print_claims(options.tables, np.random.default_rng(options.seed))
    if options.only != "claims":
        print_best(options.tables, np.random.default_rng(options.seed))


def print_claims(tables: int, rng: np.random.Generator) -> None:
    """Claims 1 and 2, a line for each scenario."""
    print(f"{tables} tables a scenario; standard error of .05: {error_of(0.05, tables):.4f}")
    print("| models | seeds | cases | seed SD | noise | gain | error plain | error | power plain | power |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    start, worst = time.process_time(), (0.0, "")
    for scenario in scenarios():
        wrong, found = shares(scenario, tables, rng)
        tails = "" if scenario.tails == "normal" else f" {scenario.tails}"
        line = (
            f"| {scenario.models} | {scenario.seeds} | {scenario.cases} | {scenario.seed_sd:g} {scenario.spread} "
            f"| {scenario.noise[0]:g}, {scenario.noise[1]:g}{tails} | {scenario.gain:g} "
        )
        power = f"| {found[0]:.2f} | {found[1]:.2f} |" if scenario.gain else "| | |"
        print(f"{line}| {wrong[0]:.3f} | {wrong[1]:.3f} {power}", flush=True)
        worst = max(worst, (float(wrong[1]), line))
    margin = 2 * error_of(LIMIT, tables)
    print(
        f"largest error {worst[0]:.3f} in {worst[1]}|; allowed {LIMIT} + {margin:.3f} (two standard errors)"
    )
    print(f"{time.process_time() - start:.0f} CPU seconds")


def error_of(share: float, tables: int) -> float:
    """Monte Carlo standard error of a share."""
    return float(np.sqrt(share * (1 - share) / tables))


if __name__ == "__main__":
    main()
