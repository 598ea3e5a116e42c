"""The page, tables and figure of a null board: retrainings of one network, where every claim is false."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from board import (
    Board,
    Files,
    drawn,
    figure_digest,
    machine_words,
    pipe_table,
    profile_words,
    recipe_words,
    split_words,
)
from numpy.typing import NDArray
from retraining import disjoint_sets, model_pvalues, share_interval, wilcoxon_pvalues
from scipy.stats import chi2

from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.metric import Metric, format_number, format_p
from segbench.report.analysis.options import make_options
from segbench.stats import Interval
from segbench.stats.family import pair_tests

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALPHA = 0.05
CASES = (10, 20, 40)  # test cases of a comparison, as far as the board has them
DRAWS = 50  # of smaller sets of test cases
SIZES = (2, 3, 5)  # training runs a side of the two-level test
SELECTED = (2, 3, 5, 10)  # runs of which the best is published
SEED = 0
DASH = "\N{EN DASH}"
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Retrainings:
    """The scores of the retrainings in one metric.

    Attributes:
        metric: how it is shown.
        seeds: of the rows.
        values: (runs, cases), mean over regions, stored units.
        pairs: (pairs, 2, 1) all pairs of runs.
        wilcoxon, student: (pairs,) p of the two usual one-run tests on all cases.
        differences: (pairs,) of the runs' means, stored units.
    """

    metric: Metric
    seeds: tuple[int, ...]
    values: Array
    pairs: NDArray[np.int64]
    wilcoxon: Array
    student: Array
    differences: Array

    @property
    def means(self) -> Array:
        """(runs,) mean over the cases."""
        return self.values.mean(axis=1)

    @property
    def gains(self) -> Array:
        """(runs,) means, turned so that larger is better."""
        return self.means if self.metric.higher_is_better else -self.means


@dataclass(frozen=True, slots=True)
class Share:
    """How often retrainings are called different.

    Attributes:
        metric: label.
        test: `Wilcoxon`, `paired t` or `two-level`.
        runs: a side.
        cases: test cases.
        comparisons: pairs of sets behind it.
        share: with its interval over retrainings.
    """

    metric: str
    test: str
    runs: int
    cases: int
    comparisons: int
    share: Interval


def retrainings(folders: Sequence[Path]) -> list[Retrainings]:
    """The scores of some runs by metric, the primary one first.

    Raises:
        SystemExit: more than one model, recipe, split or dataset: these are no retrainings.
    """
    analysis = analyse(folders, make_options(reference="none", resamples=100))
    if len(analysis.blocks) != 1 or len(analysis.entries) != 1:
        names = ", ".join(entry.short for entry in analysis.entries)
        raise SystemExit(f"{folders[0].parent}: a null board has retrainings of one network, found {names}")
    block = analysis.blocks[0]
    (scores,) = block.scores
    found: list[Retrainings] = []
    for metric in analysis.metrics:
        values = block.per_patient(scores, block.main_region, metric.name)
        if not np.isfinite(values).all():
            raise SystemExit(f"{folders[0].parent}: {metric.label} has no value on some case")
        pairs = disjoint_sets(len(values), 1) if len(values) > 1 else np.zeros((0, 2, 1), dtype=np.int64)
        means = values.mean(axis=1)
        found.append(
            Retrainings(
                metric,
                scores.seeds,
                values,
                pairs,
                wilcoxon_pvalues(values, pairs) if len(pairs) else np.zeros(0),
                model_pvalues(values, pairs) if len(pairs) else np.zeros(0),
                means[pairs[:, 0, 0]] - means[pairs[:, 1, 0]],
            )
        )
    return found


def one_run_shares(runs: Retrainings) -> list[Share]:
    """How often the usual tests call two runs different, for several numbers of test cases."""
    count, cases = runs.values.shape
    found: list[Share] = []
    for test, pvalues in (("Wilcoxon", wilcoxon_pvalues), ("paired t", model_pvalues)):
        for number in sorted({min(number, cases) for number in CASES}):
            draws = DRAWS if number < cases else 1
            rng = np.random.default_rng(SEED)
            called = np.mean(
                [
                    pvalues(runs.values[:, rng.permutation(cases)[:number]], runs.pairs) < ALPHA
                    for _ in range(draws)
                ],
                axis=0,
            )
            share = share_interval(called, runs.pairs, count)
            found.append(Share(runs.metric.label, test, 1, number, len(runs.pairs), share))
    return found


def two_level_shares(runs: Retrainings) -> list[Share]:
    """How often `compare_models` calls two disjoint sets of runs different, as far as there are runs."""
    count, cases = runs.values.shape
    found: list[Share] = []
    for size in SIZES:
        if count >= 2 * size:
            sets = disjoint_sets(count, size, seed=SEED)
            called = model_pvalues(runs.values, sets) < ALPHA
            share = share_interval(called, sets, count)
            found.append(Share(runs.metric.label, "two-level", size, cases, len(sets), share))
    return found


def best_of(gains: Array, number: int) -> float:
    """Expected gain of the best of `number` runs over a run taken at random, without replacement."""
    ordered = np.sort(gains)
    weights = [comb(place, number - 1) / comb(ordered.size, number) for place in range(ordered.size)]
    return float(ordered @ np.array(weights) - ordered.mean())


def beaten_by_the_best(runs: Retrainings, pvalues: Array) -> float:
    """Share of the other runs than which the best one is significantly better."""
    best = int(runs.gains.argmax())
    partners = (runs.pairs[:, :, 0] == best).any(axis=1)
    return float((pvalues[partners] < ALPHA).mean())


def files(board: Board, pages: Path) -> tuple[Files, list[str]]:
    """Page, figure and tables of a null board, and what it says; nothing before its first run."""
    if not board.records:
        return {}, []
    metrics = retrainings(board.runs)
    shares: list[Share] = []
    wanted: Files = {board.folder / "tables" / "runs.csv": _runs_csv(metrics)}
    if len(metrics[0].seeds) > 1:
        shares = [share for runs in metrics for share in (*one_run_shares(runs), *two_level_shares(runs))]
        place = pages / f"{board.name}.png"
        digest = figure_digest({runs.metric.name: runs.values for runs in metrics[:1]})
        wanted[place] = drawn(lambda: _figure(metrics[0]), digest, place)
        wanted[board.folder / "tables" / "shares.csv"] = _shares_csv(shares)
    said = [*answers(metrics, shares, board.reproduce["planned"]), *_elsewhere_words(board, metrics[0])]
    wanted[pages / f"{board.name}.md"] = page(board, metrics, shares, said)
    return wanted, said


def page(board: Board, metrics: Sequence[Retrainings], shares: Sequence[Share], said: Sequence[str]) -> str:
    """The page of a null board in Markdown."""
    records = board.records
    hours = sum(sum(record["durations"].values()) for record in records) / 3600
    count, planned = len(metrics[0].seeds), board.reproduce["planned"]
    more = f" of {planned} planned; the others are taken in as they finish" if count < planned else ""
    runs = "1 training run" if count == 1 else f"{count} training runs"
    facts = (
        f"{runs}{more}. Seeds: {', '.join(map(str, metrics[0].seeds))}; {hours:.2f} hours in all.",
        split_words(records[0]),
        recipe_words(records[0]["protocol"]),
        profile_words(records[0]),
        machine_words(records),
    )
    folder = f"../../results/leaderboard/{board.name}"
    parts = [
        f"# {board.title}",
        f"Generated by `make leaderboard` from the records in [results/leaderboard/{board.name}]({folder}); "
        "every number below is computed from them.",
        *board.introduction,
        "## In short",
        "\n".join(f"- {line}" for line in said),
        *([f"![{_alt(metrics[0])}]({board.name}.png)"] if count > 1 else []),
        "## What was run",
        "\n".join(f"- {fact}" for fact in facts),
        *(_pair_sections(metrics, shares) if count > 1 else []),
        *_elsewhere(board, metrics),
        "## What others have found",
        "\n".join(f"- {line}" for line in board.related),
        "## Method",
        METHOD,
        "## What this does not say",
        "\n".join(f"- {line}" for line in board.limits),
        "## Regenerate, check, extend",
        f"`make leaderboard` makes this page, its figure and the [tables]({folder}/tables) from the records; "
        f"[REPRODUCE.md]({folder}/REPRODUCE.md) has the command that made the records.",
    ]
    return "\n\n".join(parts) + "\n"


def _pair_sections(metrics: Sequence[Retrainings], shares: Sequence[Share]) -> list[str]:
    """What two runs or more can show."""
    return [
        "## One run against one run: how often the usual test calls them different",
        f"Share of pairs with p < {ALPHA:g}, with its 95 % interval over retrainings. An honest test: 5 %.",
        _one_run_table(metrics, shares),
        "## Several runs against several runs: the two-level test",
        f"Share of pairs of disjoint sets of runs with p < {ALPHA:g} in `segbench.stats.compare_models`, "
        f"which takes runs and cases for random. All {metrics[0].values.shape[1]} test cases.",
        _two_level_table(metrics, shares),
        "## How wide the spread of retraining is",
        _spread_table(metrics),
        "The last two columns are why the usual test errs: two runs differ by chance as much as the one "
        "says, and the paired test over cases takes them to differ as little as the other says (median over "
        "pairs).",
        "## What a paper with one run per model could have claimed",
        *_claims(metrics),
    ]


def _elsewhere_words(board: Board, own: Retrainings) -> list[str]:
    """One sentence for each seed that was also run elsewhere."""
    if not board.runs_elsewhere:
        return []
    (there, *_), lines = retrainings(board.runs_elsewhere), list[str]()
    for place, seed in enumerate(there.seeds):
        both = np.stack([own.values[own.seeds.index(seed)], there.values[place]])
        here, far = both.mean(axis=1).tolist()
        unit = f" {own.metric.difference_unit}".rstrip()
        p = format_p(float(wilcoxon_pvalues(both, disjoint_sets(2, 1))[0]))
        lines.append(
            f"Seed {seed} made elsewhere, with the same run id, differs by "
            f"{_number(own, abs(here - far))}{unit} "
            f"of {own.metric.label}; the usual one-run test: p {p}."
        )
    return lines


def _elsewhere(board: Board, metrics: Sequence[Retrainings]) -> list[str]:
    """Runs of the same run id that another machine made: a seed fixes the result on one machine only."""
    if not board.runs_elsewhere:
        return []
    there = retrainings(board.runs_elsewhere)
    records = [json.loads((run / "run.json").read_text(encoding="utf-8")) for run in board.runs_elsewhere]
    rows = []
    for own, other in zip(metrics, there, strict=True):
        for place, seed in enumerate(other.seeds):
            both = np.stack([own.values[own.seeds.index(seed)], other.values[place]])
            here, far = both.mean(axis=1).tolist()
            pair = disjoint_sets(2, 1)
            pvalues = (model_pvalues(both, pair)[0], wilcoxon_pvalues(both, pair)[0])
            numbers = [_number(own, value) for value in (here, far, here - far)]
            rows.append([own.metric.head, str(seed), *numbers, *(format_p(float(p)) for p in pvalues)])
    heads = ["metric", "seed", "here", "there", "difference", "p, paired t", "p, Wilcoxon"]
    return [
        "## The same seed, made elsewhere",
        "The same run id, so the same network, recipe, data and seed. The weights are not the same: across "
        "processors, numbers of threads and commits a seed is one more retraining.",
        f"- Here: {_place(board.records)}.\n- There: {_place(records)}.",
        pipe_table(heads, rows),
    ]


def _place(records: Sequence[Mapping[str, Any]]) -> str:
    """Where runs were made, as far as it may decide their last bits."""
    return " and ".join(
        sorted(
            {
                f"{record['machine']['cpu']}, threads: {record['execution'].get('threads', 'unknown')}, "
                f"segbench at {record['segbench']['git']['commit'][:12]}"
                for record in records
            }
        )
    )


METHOD = (
    "The score of a case is its mean over regions. One-run tests: Wilcoxon's signed rank (exact) and the "
    "paired t-test "
    f"over cases, two-sided, not adjusted. Smaller numbers of test cases are {DRAWS} random draws of the "
    "cases, the "
    "same for all pairs, and a pair counts as often as it is called different. Sets of runs: all pairs of "
    "disjoint "
    "sets, or 10,000 random ones. Pairs share runs (R runs make R(R-1)/2 pairs and no more information "
    "than R runs "
    "have), so each interval takes its variance from the jackknife over runs and turns it into a number of "
    "independent "
    "trials for Clopper and Pearson's interval (Korn and Graubard 1998), with at least as many trials as "
    "there are "
    "comparisons without a common run. `python benchmarks/retraining_shares.py` simulates boards whose "
    "truth is known "
    "and prints how often these intervals cover it."
)


def answers(metrics: Sequence[Retrainings], shares: Sequence[Share], planned: int) -> list[str]:
    """What the board says, in a few sentences."""
    first, lines = metrics[0], list[str]()
    cases = first.values.shape[1]
    if len(first.seeds) < 2:
        return [f"1 of {planned} runs has finished: there is no pair to compare yet."]
    for runs in metrics:
        (share,) = _picked(shares, runs, "Wilcoxon", cases=cases)
        called = int((runs.wilcoxon < ALPHA).sum())
        lines.append(
            f"{runs.metric.label}: of {_pairs(len(runs.pairs))} of retrainings of one and the same network "
            "the usual "
            f"one-run paired test (Wilcoxon, {cases} cases) calls {called} different, "
            f"{_percent(share.share)}."
        )
    sets = [share for runs in metrics[:1] for share in _picked(shares, runs, "two-level")]
    if sets:
        told = ", ".join(f"{_percent(share.share)} with {share.runs} runs a side" for share in sets)
        lines.append(
            f"{first.metric.label}: the two-level test of this suite calls sets of runs different in {told}."
        )
    unit = f" {first.metric.difference_unit}".rstrip()
    lines.append(
        f"The mean {first.metric.label} of a run moves by a standard deviation of "
        f"{_number(first, float(first.means.std(ddof=1)))}{unit} from one retraining to the next; the "
        "largest difference "
        f"of two retrainings is {_number(first, float(np.ptp(first.means)))}{unit}."
    )
    if len(first.seeds) < planned:
        lines.append(f"{len(first.seeds)} of {planned} runs have finished: the intervals will narrow.")
    return lines


def _picked(
    shares: Sequence[Share], runs: Retrainings, test: str, *, cases: int | None = None
) -> list[Share]:
    return [
        share
        for share in shares
        if share.metric == runs.metric.label and share.test == test and cases in (None, share.cases)
    ]


def _percent(share: Interval) -> str:
    """A share with its interval, such as `12 % [4, 31]`."""
    text = f"{format_number(share.estimate, scale=100, digits=1)} %"
    if np.isnan(share.low):
        return f"{text} (too few runs for an interval)"
    low, high = (format_number(end, scale=100, digits=1) for end in (share.low, share.high))
    return f"{text} [{low}, {high}]"


def _cell(share: Share) -> str:
    return _percent(share.share).replace(" (too few runs for an interval)", "")


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"


def _number(runs: Retrainings, value: float, digits: int = 2) -> str:
    return format_number(value, scale=runs.metric.scale, digits=digits)


def _one_run_table(metrics: Sequence[Retrainings], shares: Sequence[Share]) -> str:
    rows = []
    for runs in metrics:
        wilcoxon, student = (_picked(shares, runs, test) for test in ("Wilcoxon", "paired t"))
        rows += [
            [one.metric, str(one.cases), _cell(one), _cell(other)]
            for one, other in zip(wilcoxon, student, strict=True)
        ]
    return pipe_table(["metric, mean over regions", "test cases", "Wilcoxon", "paired t"], rows)


def _two_level_table(metrics: Sequence[Retrainings], shares: Sequence[Share]) -> str:
    rows = []
    for runs in metrics:
        found = {share.runs: share for share in _picked(shares, runs, "two-level")}
        rows.append([runs.metric.label, *(_cell(found[size]) if size in found else DASH for size in SIZES)])
    heads = ["metric, mean over regions", *(f"{size} against {size}" for size in SIZES)]
    dashed = any(DASH in row for row in rows)
    note = f"\n\n{DASH}: the board has not enough runs yet for two disjoint sets." if dashed else ""
    return pipe_table(heads, rows) + note


def _spread_table(metrics: Sequence[Retrainings]) -> str:
    rows = []
    for runs in metrics:
        count, sd = len(runs.seeds), float(runs.means.std(ddof=1))
        ends = [sd * float(np.sqrt((count - 1) / chi2.ppf(level, count - 1))) for level in (0.975, 0.025)]
        error = float(np.median(np.sqrt(_case_variances(runs))))
        rows.append(
            [
                runs.metric.head,
                _number(runs, float(runs.means.mean())),
                f"{_number(runs, sd)} [{_number(runs, ends[0])}, {_number(runs, ends[1])}]",
                f"{_number(runs, float(runs.means.min()))} to {_number(runs, float(runs.means.max()))}",
                _number(runs, sd * float(np.sqrt(2))),
                _number(runs, error),
            ]
        )
    heads = [
        "metric, mean over regions",
        "mean of the runs",
        "SD of the runs' means [95 %]",
        "lowest to highest",
        "SD of a difference of two runs",
        "its standard error by the paired test",
    ]
    return pipe_table(heads, rows)


def _case_variances(runs: Retrainings) -> Array:
    """(pairs,) squared standard error of each difference over the cases, as the paired test has it."""
    apart = runs.values[runs.pairs[:, 0, 0]] - runs.values[runs.pairs[:, 1, 0]]
    return np.asarray(apart.var(axis=1, ddof=1) / apart.shape[1])


def _claims(metrics: Sequence[Retrainings]) -> list[str]:
    """The most impressive false claims that these runs allow."""
    rows = []
    for runs in metrics:
        place = int(np.abs(runs.differences).argmax())
        pair = runs.pairs[place, :, 0]
        models = [runs.values[run][None] for run in pair]
        test = pair_tests(models, [(0, 1)], floor=0.0)[0]
        half, difference = float(test.reach(0.025)[0]), abs(float(runs.differences[place]))
        unit = f" {runs.metric.difference_unit}".rstrip()
        rows.append(
            [
                runs.metric.label,
                f"{_number(runs, difference)}{unit} [{_number(runs, difference - half)}, "
                f"{_number(runs, difference + half)}]",
                " and ".join(str(runs.seeds[run]) for run in pair),
                format_p(float(runs.student[place])),
                format_p(float(runs.wilcoxon[place])),
                f"{format_number(beaten_by_the_best(runs, runs.wilcoxon), scale=100, digits=0)} %",
            ]
        )
    heads = [
        "metric",
        "largest difference of two runs [95 % of the paired test]",
        "seeds",
        "p, paired t",
        "p, Wilcoxon",
        "other runs that the best one beats (Wilcoxon)",
    ]
    first = metrics[0]
    possible = [number for number in SELECTED if number <= len(first.seeds)]
    rows_best = [
        [runs.metric.head, *(f"{_number(runs, best_of(runs.gains, number))}" for number in possible)]
        for runs in metrics
    ]
    return [
        pipe_table(heads, rows),
        "Who trains several times and publishes the best run gains, on average over one run taken at random:",
        pipe_table(["metric", *(f"best of {number}" for number in possible)], rows_best),
    ]


def _alt(runs: Retrainings) -> str:
    share = format_number(float((runs.wilcoxon < ALPHA).mean()), scale=100, digits=0)
    return (
        f"p-values of all pairs of retrainings: {share} % lie below 0.05 in the usual one-run test; and "
        "the mean "
        f"{runs.metric.label} of every run"
    )


def _figure(runs: Retrainings) -> Figure:
    """Left: cumulative share of p-values, one-run tests and two-level; right: the runs' means."""
    from segbench.report.write.figures import INK, MODEL, REFERENCE, SOFT, new_figure

    figure, (left, right) = new_figure(6.4, 2.7, 1, 2, gridspec_kw={"width_ratios": [1.5, 1]})
    count = len(runs.seeds)
    lines: list[tuple[str, Array, dict[str, Any]]] = [
        ("1 against 1, Wilcoxon", runs.wilcoxon, {"color": REFERENCE}),
        ("1 against 1, paired t", runs.student, {"color": REFERENCE, "linestyle": "--"}),
    ]
    for size, style in zip((3, 5), ("-", "--"), strict=True):
        if count >= 2 * size:
            p = model_pvalues(runs.values, disjoint_sets(count, size, seed=SEED))
            lines.append((f"{size} against {size}, two-level", p, {"color": MODEL, "linestyle": style}))
    for label, p, look in lines:
        ordered = np.sort(p)
        left.step(
            np.r_[0, ordered, 1],
            np.r_[0, np.arange(1, p.size + 1), p.size] / p.size,
            where="post",
            label=label,
            **look,
        )
    left.plot([0, 1], [0, 1], color=SOFT, linewidth=0.6, label="honest test")
    left.axvline(ALPHA, color=SOFT, linewidth=0.6, linestyle=":")
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="p", ylabel="share of comparisons up to p")
    left.legend(frameon=False, loc="lower right")
    left.set_title(f"{count} retrainings of one network, {runs.metric.label}", loc="left")
    means = np.sort(runs.means) * runs.metric.scale
    right.plot(means, np.arange(1, count + 1), "o", ms=3, color=MODEL)
    right.axvline(float(means.mean()), color=INK, linewidth=0.6)
    right.set(xlabel=f"{runs.metric.head}, mean of a run", ylabel="runs, in order", yticks=[])
    right.grid(axis="x")
    return figure


def _shares_csv(shares: Sequence[Share]) -> str:
    heads = ["metric", "test", "runs a side", "cases", "comparisons", "share", "low", "high"]
    rows = [
        [share.metric, share.test, share.runs, share.cases, share.comparisons]
        + [
            "" if np.isnan(value) else f"{value:.6g}"
            for value in (share.share.estimate, share.share.low, share.share.high)
        ]
        for share in shares
    ]
    return _csv(heads, rows)


def _runs_csv(metrics: Sequence[Retrainings]) -> str:
    means = [runs.means for runs in metrics]
    rows = [[seed, *(f"{mean[place]:.9g}" for mean in means)] for place, seed in enumerate(metrics[0].seeds)]
    return _csv(["seed", *(runs.metric.name for runs in metrics)], rows)


def _csv(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([heads, *rows])
    return stream.getvalue()
