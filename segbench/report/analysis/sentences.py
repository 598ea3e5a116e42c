"""What may be said of a comparison, in words: one wording for page, paper, table and terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segbench.metrics.summary import MEAN_REGION
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column
from segbench.report.analysis.metric import Metric
from segbench.report.analysis.numbers import format_number, format_p

if TYPE_CHECKING:
    from segbench.stats import Comparison

MOST_NAMES = 6
MOST_REASONS = 3  # why verdicts are withheld; each names its models
MOST_SENTENCES = 2  # decided pairs that have a sentence each; more are listed
WEIGHTS = "these trained weights only"


def difference_words(column: Column, pair: Comparison, *, digits: int = 2) -> str:
    """The difference of a pair with its interval and unit, such as `+0.85 points [0.49, 1.21]`."""
    metric = column.metric
    value = format_number(pair.difference, scale=metric.scale, digits=digits)
    sign = "" if value.startswith("-") or not value.strip("0.") else "+"
    unit = f" {metric.difference_unit}" if metric.difference_unit else ""
    if pair.low != pair.low:  # no interval: a single patient
        return f"{sign}{value}{unit}"
    low, high = (format_number(end, scale=metric.scale, digits=digits) for end in (pair.low, pair.high))
    return f"{sign}{value}{unit} [{low}, {high}]"


def where(analysis: Analysis, column: Column) -> str:
    """Dataset, metric and region of a column in words."""
    block = analysis.blocks[column.block]
    region = "mean over regions" if column.region == MEAN_REGION else column.region
    return f"{block.name}, {column.metric.label}, {region}"


def pair_sentence(analysis: Analysis, column: Column, pair: Comparison) -> str:
    """One pair as a sentence: names, verdict, difference, adjusted p, what it rests on, and its note."""
    a, b = analysis.names[pair.a].short, analysis.names[pair.b].short
    count = f"{pair.n} {column.unit}"
    basis = f"{_seeds(pair)}, {count}"
    numbers = f"{difference_words(column, pair, digits=analysis.options.digits)}, "
    if pair.p_adjusted == pair.p_adjusted and pair.verdict != "equivalent":  # withheld: the note says why
        numbers += f"adjusted p {format_p(pair.p_adjusted)}, "
    if pair.verdict == "equivalent":
        text = f"{a} and {b} are equivalent within the {_margin(analysis, column)}: {numbers}{basis}"
    elif pair.verdict in {"better", "worse"}:
        text = f"{a} is significantly {pair.verdict} than {b}: {numbers}{basis}"
    else:
        text = f"{a} against {b} is inconclusive: {numbers}{basis}"
    if pair.claim == "weights":
        text += f"; {WEIGHTS}"
    note = f" {_named(analysis, column, pair)}" if pair.note else ""
    return f"{text}.{note}"


def margin_words(metric: Metric, margin: float, *, digits: int = 2) -> str:
    """An equivalence margin with its unit, such as `1.00 points`."""
    return f"{format_number(margin, scale=metric.scale, digits=digits)} {metric.difference_unit}".rstrip()


def _margin(analysis: Analysis, column: Column) -> str:
    words = margin_words(column.metric, column.margin or 0.0, digits=analysis.options.digits)
    return f"declared margin of {words}"


def _named(analysis: Analysis, column: Column, pair: Comparison) -> str:
    """The note of a pair with printed names in place of labels, and its margin with its unit."""
    note = pair.note.replace("within the margin.", f"within the {_margin(analysis, column)}.")
    for label in sorted((pair.a, pair.b), key=len, reverse=True):
        note = note.replace(label, analysis.names[label].short)
    return note if note.endswith(".") else f"{note}."


def _seeds(pair: Comparison) -> str:
    if pair.seeds_a == pair.seeds_b:
        return f"{pair.seeds_a} seed{'s' if pair.seeds_a > 1 else ''} each"
    return f"{pair.seeds_a} against {pair.seeds_b} seeds"


def excluded_words(column: Column, pair: Comparison, *, digits: int = 2) -> str:
    """What the interval of a pair excludes: said in place of equality where no margin was declared."""
    higher = bool(column.metric.higher_is_better)
    gain, loss = (pair.high, -pair.low) if higher else (-pair.low, pair.high)
    least, most = column.metric.bounds(math.nan)
    parts = [
        f"a {word} of more than {format_number(value, scale=column.metric.scale, digits=digits)} "
        f"{column.metric.difference_unit}".rstrip()
        for word, value in (("gain", gain), ("loss", loss))
        if 0 < value < most - least  # nobody doubts that a difference stays within the range
    ]
    return f"{' and '.join(parts)} {'are' if len(parts) > 1 else 'is'} excluded" if parts else ""


def answers(analysis: Analysis, column: Column) -> list[str]:
    """What the records answer in a deciding column: a few sentences, the verdicts first."""
    return [*verdicts(analysis, column), *context(analysis, column)]


def verdicts(analysis: Analysis, column: Column) -> list[str]:
    """The verdicts of a family: decided pairs in a sentence each, best model first; the others counted."""
    if len(column.order) < 2:
        return [_nothing_to_compare(analysis, column)]
    place = {label: index for index, label in enumerate(column.order)}
    decided = sorted(
        (pair for pair in column.comparisons if pair.verdict != "inconclusive"),
        key=lambda pair: (place[pair.a], place[pair.b]),
    )
    open_pairs = [pair for pair in column.comparisons if pair.verdict == "inconclusive"]
    total, notes = len(column.comparisons), list[str]()
    if total == 1 and open_pairs:
        return [pair_answer(analysis, column, open_pairs[0])]
    if len(decided) > MOST_SENTENCES:
        lines = _verdict_lists(analysis, column, decided)
        notes = [_named(analysis, column, pair) for pair in decided if pair.note]
    else:
        lines = [pair_sentence(analysis, column, pair) for pair in decided]
    if open_pairs:
        before = sum(pair.p < analysis.options.alpha for pair in open_pairs if not withheld(pair))
        extra = f" ({before} significant before correction only)" if before else ""
        lines.append(
            f"{len(open_pairs)} of {total} comparisons are inconclusive{extra}; "
            "inconclusive does not mean equal."
        )
        reasons = [_named(analysis, column, pair) for pair in open_pairs if withheld(pair)]
        lines += list(dict.fromkeys(reasons))[:MOST_REASONS]
    return lines + notes


def withheld(pair: Comparison) -> bool:
    """Whether too few runs or patients keep a pair from a verdict; its note says which."""
    return pair.p_adjusted != pair.p_adjusted


def context(analysis: Analysis, column: Column) -> list[str]:
    """What stands behind the verdicts: the null check, whether models differ at all, what would be found."""
    lines: list[str] = []
    if column.null is not None and column.null.pairs:
        pairs = "1 pair" if column.null.pairs == 1 else f"{column.null.pairs} pairs"
        lines.append(
            f"Of {pairs} of retrainings of one and the same network, the usual one-run paired test "
            f"calls {column.null.significant} different."
        )
    whole = not all(pair.degenerate for pair in column.comparisons)  # else no error could be estimated
    if column.omnibus is not None and len(column.order) > 2 and whole:
        what = "the models" if column.omnibus.claim == "method" else "these trained weights"
        shows = "show" if column.omnibus.p < analysis.options.alpha else "do not show"
        lines.append(f"The data {shows} that {what} differ (p {format_p(column.omnibus.p)}).")
    lines += ceiling_sentences(analysis, column)
    least, most = column.metric.bounds(analysis.blocks[column.block].diagonal_mm)
    gains = sorted(pair.detectable_difference for pair in column.comparisons if _finite(pair))
    gain = gains[len(gains) // 2] if gains else math.inf
    if gain <= most - least and math.isfinite(gain):  # no difference is larger than the metric's range
        middle = format_number(gain, scale=column.metric.scale, digits=analysis.options.digits)
        lines.append(
            f"A true difference of {middle} {column.metric.difference_unit}".rstrip()
            + " would be found in 80 % of repeats (first step of the correction, estimated from these data)."
        )
    return lines


def ceiling_sentences(analysis: Analysis, column: Column) -> list[str]:
    """How far the best model is on the way from the best baseline to each second reader."""
    block, sign = analysis.blocks[column.block], 1.0 if column.metric.higher_is_better else -1.0
    reached = {label: mean.value for label, mean in column.means.items() if mean.value is not None}
    models = [scores.label for scores in block.models if scores.label in reached]
    floors = [scores.label for scores in block.baselines if scores.label in reached]
    lines: list[str] = []
    for reader in (scores.label for scores in block.readers if scores.label in reached and models):
        best = max(models, key=lambda label: sign * reached[label])
        name, ceiling = analysis.names[best].short, analysis.names[reader].short
        mean = column.means[reader]
        value, low, high = (
            ""
            if end is None
            else format_number(end, scale=column.metric.scale, digits=analysis.options.digits)
            for end in (mean.value, mean.low, mean.high)
        )
        ends = f" [{low}, {high}]" if low and high else ""
        lines.append(f"Readers agree at {value}{ends} ({ceiling}, {mean.n} {column.unit})")
        floor = max(floors, key=lambda label: sign * reached[label], default=None)
        way = sign * (reached[reader] - reached[floor]) if floor is not None else 0.0
        if floor is not None and way > 0:
            share = format_number(sign * (reached[best] - reached[floor]) / way, scale=100.0, digits=0)
            lines[-1] += f": {name} is {share} % of the way from {analysis.names[floor].short} to {ceiling}"
        lines[-1] += "."
    return lines


def _finite(pair: Comparison) -> bool:
    value = pair.detectable_difference
    testable = pair.p_adjusted == pair.p_adjusted  # else no verdict may be given, and the note says why
    return testable and 0 < value < float("inf") and not pair.degenerate


def _nothing_to_compare(analysis: Analysis, column: Column) -> str:
    count = sum(1 for scores in analysis.blocks[column.block].models if scores.label in column.means)
    return f"{count} model{'' if count == 1 else 's'} with scores: nothing to compare."


def _verdict_lists(analysis: Analysis, column: Column, decided: Sequence[Comparison]) -> list[str]:
    """Many decided pairs: a sentence for each verdict that lists its pairs."""
    lines: list[str] = []
    heads = {"better": "Significantly better", "worse": "Significantly worse", "equivalent": "Equivalent"}
    for verdict, head in heads.items():
        pairs = [pair for pair in decided if pair.verdict == verdict]
        if not pairs:
            continue
        than = "to" if verdict == "equivalent" else "than"
        items: list[str] = []
        for pair in pairs[:MOST_NAMES]:
            a, b = analysis.names[pair.a].short, analysis.names[pair.b].short
            numbers = difference_words(column, pair, digits=analysis.options.digits)
            only = f"; {WEIGHTS}" if pair.claim == "weights" else ""
            adjusted = "" if verdict == "equivalent" else f", adjusted p {format_p(pair.p_adjusted)}"
            items.append(f"{a if column.reference else f'{a} {than} {b}'} ({numbers}{adjusted}{only})")
        more = f" and {len(pairs) - MOST_NAMES} more" if len(pairs) > MOST_NAMES else ""
        other = f" {than} {analysis.names[column.reference].short}" if column.reference else ""
        lines.append(f"{head}{other}: {', '.join(items)}{more}.")
    return lines


def pair_answer(analysis: Analysis, column: Column, pair: Comparison) -> str:
    """One pair as a sentence; where it is inconclusive, also what the interval excludes."""
    sentence = pair_sentence(analysis, column, pair)
    excluded = excluded_words(column, pair, digits=analysis.options.digits)
    if pair.verdict != "inconclusive" or withheld(pair) or not excluded:
        return sentence
    if pair.low <= 0 <= pair.high:
        return f"{sentence} The interval leaves open which is better; {excluded}."
    return f"{sentence} Significant before correction only; {excluded}."


def rank_sentence(analysis: Analysis, column: Column) -> str:
    """How often each model is first when seeds and patients are drawn again; empty without ranks."""
    ranks = column.ranks
    if ranks is None:
        return ""
    first = dict(zip(column.order, ranks.probability_best.tolist(), strict=True))
    if any(value != value for value in first.values()):
        return (
            "With one training run of a model there is only the order of these weights, no chance of ranks."
        )
    shares = ", ".join(
        f"{analysis.names[label].short} {format_number(first[label], scale=100.0, digits=0)} %"
        for label in sorted(first, key=lambda label: (-first[label], label))[:MOST_NAMES]
    )
    return f"Share of draws of seeds and {column.unit} in which a model is first: {shares}."


def headline(analysis: Analysis) -> list[tuple[str, Sequence[str]]]:
    """(where, sentences) for the deciding column of each block: what a reader sees first."""
    return [(where(analysis, column), answers(analysis, column)) for column in analysis.main_columns()]
