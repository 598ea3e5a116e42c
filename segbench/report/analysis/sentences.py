"""What may be said of a comparison, in words: one wording for page, paper, table and terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from segbench.core.text import count
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import Scores
from segbench.report.analysis.columns import Column
from segbench.report.analysis.metric import format_number, format_p

if TYPE_CHECKING:
    from segbench.stats import Comparison

MOST_NAMES = 6
MOST_REASONS = 3  # why verdicts are withheld; each names its models
MOST_SENTENCES = 2  # decided pairs that have a sentence each; more are listed


def headline(analysis: Analysis) -> list[tuple[str, Sequence[str]]]:
    """(where, sentences) for the deciding column of each block: what a reader sees first."""
    return [(where(column), [*verdicts(column), *context(column)]) for column in analysis.main_columns()]


def where(column: Column) -> str:
    """Dataset, metric and region of a column in words."""
    return f"{column.block.name}, {column.metric.label}, {column.region_words}"


# ---- one pair


def difference_words(column: Column, pair: Comparison, *, unit: bool = True) -> str:
    """The difference of a pair with its interval and unit, such as `+0.85 points [0.49, 1.21]`."""
    value = column.words(pair.difference) if unit else column.number(pair.difference)
    sign = "" if value.startswith("-") or not value.partition(" ")[0].strip("0.") else "+"
    return f"{sign}{value}{column.interval(pair)}"


def pair_sentence(column: Column, pair: Comparison) -> str:
    """One pair as a sentence: names, verdict, difference, adjusted p, what it rests on, and its note."""
    a, b, verdict = column.block.short(pair.a), column.block.short(pair.b), pair.verdict
    if verdict == "equivalent":
        text = f"{a} and {b} are equivalent within the {_margin(column)}"
    else:
        decided = verdict != "inconclusive"
        text = f"{a} is significantly {verdict} than {b}" if decided else f"{a} against {b} is inconclusive"
    numbers = [difference_words(column, pair)]
    if verdict != "equivalent" and not withheld(pair):  # the note says why
        numbers.append(f"adjusted p {format_p(pair.p_adjusted)}")
    note = f" {note_words(column, pair)}" if pair.note else ""
    return f"{text}: {', '.join(numbers)}, {rests_on(column, pair)}.{note}"


def rests_on(column: Column, pair: Comparison) -> str:
    """Seeds and cases behind a pair, such as `3 seeds each, 15 cases`."""
    same = pair.seeds_a == pair.seeds_b
    seeds = f"{count(pair.seeds_a, 'seed')} each" if same else f"{pair.seeds_a} against {pair.seeds_b} seeds"
    return f"{seeds}, {pair.n} {column.block.unit}{_only(column, pair)}"


def alone(members: Iterable[Scores]) -> tuple[str, str]:
    """What one run of these models is, and what its numbers hold for: trained weights, or predictions."""
    external = [scores.entry.identity.kind == "external" for scores in members]
    if external and all(external):
        return "set of predictions", "these predictions"
    return "training run", f"these trained weights{' and predictions' if any(external) else ''}"


def _only(column: Column, pair: Comparison) -> str:
    sides = [scores for scores in column.block.scores if scores.label in {pair.a, pair.b}]
    return f"; {alone(sides)[1]} only" if pair.claim == "weights" else ""


def pair_answer(column: Column, pair: Comparison) -> str:
    """One pair as a sentence; where it is inconclusive, also what the interval excludes."""
    sentence, excluded = pair_sentence(column, pair), excluded_words(column, pair)
    if pair.verdict != "inconclusive" or withheld(pair) or not excluded:
        return sentence
    early = lost_by_correction(column, pair)
    opened = "Significant before correction only" if early else "The interval leaves open which is better"
    return f"{sentence} {opened}; {excluded}."


def withheld(pair: Comparison) -> bool:
    """Whether too few runs or patients keep a pair from a verdict; its note says which."""
    return pair.p_adjusted != pair.p_adjusted


def lost_by_correction(column: Column, pair: Comparison) -> bool:
    """Whether a pair is inconclusive only because p is adjusted over all pairs."""
    return pair.verdict == "inconclusive" and not withheld(pair) and pair.p < column.options.alpha


def excluded_words(column: Column, pair: Comparison) -> str:
    """What the interval of a pair excludes: said in place of equality where no margin was declared."""
    gain, loss = (pair.high, -pair.low) if column.metric.higher_is_better else (-pair.low, pair.high)
    least, most = column.metric.bounds(math.nan)
    parts = [
        f"a {word} of more than {column.words(value)}"
        for word, value in (("gain", gain), ("loss", loss))
        if 0 < value < most - least  # nobody doubts that a difference stays within the range
    ]
    return f"{' and '.join(parts)} {'are' if len(parts) > 1 else 'is'} excluded" if parts else ""


def _margin(column: Column) -> str:
    return f"declared margin of {column.words(column.margin or 0.0)}"


def note_words(column: Column, pair: Comparison) -> str:
    """The note of a pair with printed names in place of labels, and its margin with its unit."""
    note = pair.note.replace("within the margin.", f"within the {_margin(column)}.")
    for label in sorted((pair.a, pair.b), key=len, reverse=True):
        note = note.replace(label, column.block.short(label))
    return note if note.endswith(".") else f"{note}."


# ---- a family


def verdicts(column: Column) -> list[str]:
    """The verdicts of a family: decided pairs in a sentence each, best model first; the others counted."""
    if len(column.order) < 2:
        scored = sum(1 for scores in column.block.models if scores.label in column.means)
        return [f"{count(scored, 'model')} with scores: nothing to compare."]
    decided = [pair for pair in column.best_first if pair.verdict != "inconclusive"]
    undecided = [pair for pair in column.comparisons if pair.verdict == "inconclusive"]
    total, notes = len(column.comparisons), list[str]()
    if total == 1 and undecided:
        return [pair_answer(column, undecided[0])]
    if len(decided) > MOST_SENTENCES:
        lines = _verdict_lists(column, decided)
        notes = [note_words(column, pair) for pair in decided if pair.note]
    else:
        lines = [pair_sentence(column, pair) for pair in decided]
    if undecided:
        before = sum(lost_by_correction(column, pair) for pair in undecided)
        extra = f" ({before} significant before correction only)" if before else ""
        lines.append(
            f"{len(undecided)} of {total} comparisons are inconclusive{extra}; "
            "inconclusive does not mean equal."
        )
        reasons = [note_words(column, pair) for pair in undecided if withheld(pair)]
        shared = min(reasons, key=len, default="")  # too few patients: the same for every pair, said once
        parts = [shared, *(reason.removeprefix(f"{shared} ") for reason in reasons)] if reasons else []
        lines += list(dict.fromkeys(parts))[:MOST_REASONS]
    return lines + notes


def _verdict_lists(column: Column, decided: Sequence[Comparison]) -> list[str]:
    """Many decided pairs: a sentence for each verdict that lists its pairs."""
    lines: list[str] = []
    heads = {"better": "Significantly better", "worse": "Significantly worse", "equivalent": "Equivalent"}
    for verdict, head in heads.items():
        pairs = [pair for pair in decided if pair.verdict == verdict]
        than, items = "to" if verdict == "equivalent" else "than", list[str]()
        for pair in pairs[:MOST_NAMES]:
            a, b = column.block.short(pair.a), column.block.short(pair.b)
            adjusted = "" if verdict == "equivalent" else f", adjusted p {format_p(pair.p_adjusted)}"
            who = a if column.reference else f"{a} {than} {b}"
            items.append(f"{who} ({difference_words(column, pair)}{adjusted}{_only(column, pair)})")
        more = f" and {len(pairs) - MOST_NAMES} more" if len(pairs) > MOST_NAMES else ""
        other = f" {than} {column.block.short(column.reference)}" if column.reference else ""
        lines += [f"{head}{other}: {', '.join(items)}{more}."] if pairs else []
    return lines


def context(column: Column) -> list[str]:
    """What stands behind the verdicts: the null check, whether models differ at all, what would be found."""
    lines: list[str] = []
    if column.null is not None and column.null.pairs:
        lines.append(
            f"Of {count(column.null.pairs, 'pair')} of retrainings of one and the same network, the usual "
            f"one-run paired test calls {column.null.significant} different."
        )
    # without an estimated error, or with too few patients or runs for a verdict, nothing is said of the whole
    whole = not all(pair.degenerate or withheld(pair) for pair in column.comparisons)
    if column.omnibus is not None and len(column.order) > 2 and whole:
        what = "the models" if column.omnibus.claim == "method" else alone(column.block.models)[1]
        unclear = not column.omnibus.p < column.options.alpha
        shows, end = ("do not show", ": their ranking is not reliable") if unclear else ("show", "")
        # a pair that is told apart shows more than the test of all at once can take back
        if not (unclear and any(pair.verdict in ("better", "worse") for pair in column.comparisons)):
            lines.append(f"The data {shows} that {what} differ (p {format_p(column.omnibus.p)}){end}.")
    lines += ceiling_sentences(column)
    least, most = column.metric.bounds(column.block.diagonal_mm)
    gains = sorted(
        pair.detectable_difference
        for pair in column.comparisons
        if not withheld(pair) and not pair.degenerate and 0 < pair.detectable_difference < math.inf
    )
    gain = gains[len(gains) // 2] if gains else math.inf
    if gain <= most - least and math.isfinite(gain):  # no difference is larger than the metric's range
        lines.append(
            f"A true difference of {column.words(gain)} would be found in 80 % of repeats "
            "(first step of the correction, estimated from these data)."
        )
    return lines


def ceiling_sentences(column: Column) -> list[str]:
    """How far the best model is on the way from the best baseline to each second reader."""
    block, lines = column.block, list[str]()
    values = {label: mean.value for label, mean in column.means.items()}
    turned = {label: column.sign * value for label, value in values.items() if value is not None}
    models, floors, readers = (
        [scores.label for scores in part if scores.label in turned]
        for part in (block.models, block.baselines, block.readers)
    )
    best = max(models, key=turned.__getitem__, default=None)
    floor = max(floors, key=turned.__getitem__, default=None)
    for reader in readers if best is not None else ():
        mean, ceiling = column.means[reader], column.block.short(reader)
        agreed = f"{column.number(mean.value)}{column.interval(mean)}"
        text = f"Readers agree at {agreed} ({ceiling}, {mean.n} {column.block.unit})"
        if best is not None and floor is not None and turned[reader] > turned[floor]:
            way = (turned[best] - turned[floor]) / (turned[reader] - turned[floor])
            share = format_number(way, scale=100.0, digits=0)
            name, least = column.block.short(best), column.block.short(floor)
            text += f": {name} is {share} % of the way from {least} to {ceiling}"
        lines.append(f"{text}.")
    return lines
