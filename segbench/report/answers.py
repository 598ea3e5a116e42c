"""What the records answer, in sentences: told apart, equivalent, undecided, spread of retraining, power, and
whether the dataset can rank methods at all.

The tables hold the same numbers; a reader who takes away six sentences should take away these. Every sentence
names the test and the family behind it, and none says more than the test does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from segbench.report.analysis import Analysis, Key
from segbench.report.display import MetricDisplay
from segbench.report.numbers import format_number
from segbench.report.pairwise import Pair

WIDE_MARGIN = 0.25  # of the best mean distance: beyond, equivalence within the margin says little
MOST_PAIRS = 8  # named in a sentence; beyond, the pairwise table has them


@dataclass(frozen=True, slots=True)
class Answers:
    """The sentences of one dataset in one metric.

    Attributes:
        dataset: slug.
        protocol: name.
        title: head of the block, with its metric and region.
        region: the last region shown, the mean over regions where there are several.
        metric: column name.
        sentences: in the order of the questions.
    """

    dataset: str
    protocol: str
    title: str
    region: str
    metric: str
    sentences: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The object of report.json."""
        return {
            "dataset": self.dataset,
            "protocol": self.protocol,
            "region": self.region,
            "metric": self.metric,
            "sentences": list(self.sentences),
        }


def find_answers(analysis: Analysis) -> list[Answers]:
    """One entry per block and metric in which two models or more were compared."""
    found: list[Answers] = []
    for number, block in enumerate(analysis.blocks):
        for metric in analysis.metrics:
            key = (number, analysis.regions(number)[-1], metric.name)
            pairs = [pair for pair in analysis.pairs.get(key, ()) if pair.p_decision is not None]
            if not pairs:
                continue
            title = f"{analysis.block_title(block)}, {metric.head}, region {key[1]}"
            found.append(
                Answers(
                    block.dataset,
                    block.protocol,
                    title,
                    key[1],
                    metric.name,
                    (
                        _told_apart(analysis, metric, pairs, analysis.withheld.get(key, "")),
                        *_equivalent(analysis, metric, key, pairs),
                        *_undecided(pairs),
                        _retraining(analysis, metric, key),
                        *_power(analysis, metric, pairs),
                        _can_rank(analysis, metric, key),
                    ),
                )
            )
    return found


def _told_apart(analysis: Analysis, metric: MetricDisplay, pairs: Sequence[Pair], withheld: str) -> str:
    """Pairs that differ after Holm, the winner first; only their number where marks are withheld."""
    apart = [pair for pair in pairs if pair.stands]
    leveled = sum(pair.two_level is not None for pair in pairs)
    how = {
        len(pairs): "seeds and cases counted as random",
        0: "over cases, for these weights only",
    }.get(leveled, "seeds counted as random where both models have two")
    head = f"Told apart ({how}; Holm, {_alpha(analysis)}): {len(apart)} of {_count(len(pairs))}"
    if withheld and apart:
        return f"{head}, of which nothing is claimed here: {withheld}."
    return f"{head}. {_listed(analysis, metric, apart)}".rstrip() if apart else f"{head}."


def _listed(analysis: Analysis, metric: MetricDisplay, pairs: Sequence[Pair]) -> str:
    """Pairs as "x over y by 1.20 points [0.40, 2.00]", the largest difference first."""
    ordered = sorted(pairs, key=lambda pair: (-abs(pair.estimate[0] or 0.0), pair.a, pair.b))
    names = [_ahead(analysis, metric, pair) for pair in ordered[:MOST_PAIRS]]
    more = f"; and {len(ordered) - MOST_PAIRS} more" if len(ordered) > MOST_PAIRS else ""
    return "; ".join(names) + more + "."


def _ahead(analysis: Analysis, metric: MetricDisplay, pair: Pair) -> str:
    """The better model first, by how much, with the interval of that gain."""
    difference, low, high = pair.estimate
    sign = 1.0 if metric.higher_is_better else -1.0
    gain = sign * (difference or 0.0)
    first, second = (pair.a, pair.b) if gain >= 0 else (pair.b, pair.a)
    ends = sorted(sign * end for end in (low, high) if end is not None)
    if gain < 0:
        ends = sorted(-end for end in ends)
    bounds = f" [{_number(ends[0], metric)}, {_number(ends[1], metric)}]" if len(ends) == 2 else ""
    names = [analysis.labels.get(name, name) for name in (first, second)]
    return f"{names[0]} over {names[1]} by {_number(abs(gain), metric)}{_unit(metric)}{bounds}"


def _equivalent(
    analysis: Analysis, metric: MetricDisplay, key: Key, pairs: Sequence[Pair]
) -> tuple[str, ...]:
    """Pairs shown to be equal within the margin; nothing when there are none."""
    equal = [pair for pair in pairs if pair.verdict == "equivalent"]
    if not equal:
        return ()
    names = [
        f"{analysis.labels.get(pair.a, pair.a)} and {analysis.labels.get(pair.b, pair.b)}"
        for pair in equal[:MOST_PAIRS]
    ]
    more = f"; and {len(equal) - MOST_PAIRS} more" if len(equal) > MOST_PAIRS else ""
    margin = f"{_number(metric.margin, metric)}{_unit(metric)}"
    return (
        f"Equivalent within {margin} (each pair by itself): {len(equal)} of {_count(len(pairs))}. "
        f"{'; '.join(names)}{more}.{_wide_margin(analysis, metric, key)}",
    )


def _wide_margin(analysis: Analysis, metric: MetricDisplay, key: Key) -> str:
    """A warning where the margin of a distance is large beside the distances themselves."""
    means = [item.mean for item in analysis.summaries[key] if item.mean and not item.scores.floor]
    if metric.unit != "mm" or not means or metric.margin < WIDE_MARGIN * min(means):
        return ""
    share = round(100 * metric.margin / min(means))
    return f" The margin is {share} % of the best mean, so this says little; --margin sets a narrower one."


def _undecided(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Pairs of which neither a difference nor equality is shown."""
    open_pairs = [pair for pair in pairs if not pair.stands and pair.verdict != "equivalent"]
    if not open_pairs:
        return ()
    alone = sum(pair.verdict in {"better", "worse"} for pair in open_pairs)
    some = f" ({alone} would differ without the adjustment)" if alone else ""
    return (f"Undecided: {len(open_pairs)} of {_count(len(pairs))}{some}. Undecided is not equal.",)


def _retraining(analysis: Analysis, metric: MetricDisplay, key: Key) -> str:
    """How far a second training run moves a model's mean."""
    spreads = [item for item in analysis.seeds[key] if item.sd_seeds is not None]
    single = sum(len(item.seeds) < 2 for item in analysis.seeds[key])
    if not spreads:
        return "Retraining: one training run of each model, so its spread is not known."
    values = sorted(item.sd_seeds for item in spreads if item.sd_seeds is not None)
    runs = sorted({len(item.seeds) for item in spreads})
    span = _number(values[0], metric)
    if len(values) > 1:
        span = f"{span} to {_number(values[-1], metric)}"
    pooled = (sum(value * value for value in values) / len(values)) ** 0.5
    text = (
        f"Retraining moves the mean of a model by {span}{_unit(metric)} (SD over {_span(runs)} seeds; "
        f"pooled {_number(pooled, metric)})"
    )
    return f"{text}; {single} of {len(analysis.seeds[key])} models have one run." if single else f"{text}."


def _power(analysis: Analysis, metric: MetricDisplay, pairs: Sequence[Pair]) -> tuple[str, ...]:
    """The smallest true gain that these seeds and cases could have shown."""
    levels = [pair.two_level for pair in pairs if pair.two_level is not None]
    gains = sorted(
        level["detectable_difference"]
        for level in levels
        if isinstance(level["detectable_difference"], float)
    )
    if not gains:
        return ()
    seeds = sorted({level[side] for level in levels for side in ("seeds_a", "seeds_b")})
    cases = sorted({level["cases"] for level in levels})
    span = ""
    if len(gains) > 1:
        span = f" (median over the pairs; {_number(gains[0], metric)} to {_number(gains[-1], metric)})"
    return (
        f"Smallest detectable gain: with {_span(seeds)} seeds and {_span(cases)} cases a true gain of "
        f"{_number(median(gains), metric)}{_unit(metric)}{span} is found in 80 % of repeats, at "
        f"{_alpha(analysis)} before any adjustment; smaller ones mostly stay undecided.",
    )


def _can_rank(analysis: Analysis, metric: MetricDisplay, key: Key) -> str:
    """Spread between models against the spread of retraining."""
    item = analysis.discriminations[key]
    if item.sd_between is None or item.ratio is None or item.sd_within is None:
        return "Can this dataset rank these methods? Not known: method noise unknown."
    between, within = _number(item.sd_between, metric), _number(item.sd_within, metric)
    spread = (
        f"models differ by {between}{_unit(metric)} (SD), {item.within} of one model by {within}: "
        f"ratio {format_number(item.ratio)}"
    )
    if item.cannot_rank:
        return f"Can this dataset rank these methods? No: {spread}, below 1. Nothing is marked best."
    return f"Can this dataset rank these methods? Nothing speaks against it: {spread}."


def _number(value: float, metric: MetricDisplay) -> str:
    return format_number(value, scale=metric.scale)


def _unit(metric: MetricDisplay) -> str:
    return {"%": " points", "mm": " mm"}.get(metric.unit, "")


def _alpha(analysis: Analysis) -> str:
    return f"alpha {analysis.options.alpha:g}"


def _count(pairs: int) -> str:
    return "1 pair" if pairs == 1 else f"{pairs} pairs"


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]}-{values[-1]}"
