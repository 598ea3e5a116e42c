"""What `segbench compare` prints: findings, one table per dataset and metric, the cases that changed most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segbench.core import console

if TYPE_CHECKING:
    from segbench.report.blocks import Block
    from segbench.report.compare import Comparison
    from segbench.report.compared import CaseChange, ComparedPair
    from segbench.report.display import MetricDisplay

MOST_NAMES = 5  # cases named on one line
ONE_RUN = "one training run on a side: about these weights only, no claim about the methods"


def print_comparison(result: Comparison) -> None:
    """Print the result to stdout, findings first."""
    for guard in result.guards:
        if guard.severity == "info":
            console.detail(f"{guard.code}: {guard.message}")
        else:
            console.emit(f"{guard.severity} {guard.code}: {guard.message}")
    for block in result.blocks:
        console.emit(_title(block))
        for line in _lacking(result, block):
            console.emit(f"  {line}")
        for metric in result.metrics:
            pairs = [
                item for item in result.pairs if item.pair.block is block and item.pair.metric == metric.name
            ]
            if pairs:
                _print_metric(pairs, metric)
        _print_cases(result, block)
    if result.published:
        _print_published(result)
    for gate in result.gates:
        console.emit(f"{'passed' if gate.passed else 'FAILED'} {gate.name}: {gate.message}")


def _title(block: Block) -> str:
    seeds = [f"{item.model} ({len(item.seeds)} seed{'s'[: len(item.seeds) - 1]})" for item in block.models]
    models = ", ".join(seeds)
    cases = len(block.cases) - len(block.dropped_cases)
    dropped = f", {len(block.dropped_cases)} left out for all" if block.dropped_cases else ""
    return f"{block.name}, protocol {block.protocol}: {cases} cases{dropped}; {models}"


def _lacking(result: Comparison, block: Block) -> list[str]:
    """Who lacks which case, one line per model."""
    lines: list[str] = []
    for model in dict.fromkeys(item.model for item in result.lacking if item.dataset == block.name):
        cases = [
            f"{item.case} {item.status}"
            for item in result.lacking
            if item.dataset == block.name and item.model == model
        ]
        more = f" and {len(cases) - MOST_NAMES} more" if len(cases) > MOST_NAMES else ""
        lines.append(f"{model} lacks {len(cases)}: {', '.join(cases[:MOST_NAMES])}{more}")
    return lines


def _print_metric(pairs: Sequence[ComparedPair], metric: MetricDisplay) -> None:
    """One metric: a row per region and pair, then the two-level rows and the power line."""
    if metric.higher_is_better is None:
        return
    arrow = "higher is better" if metric.higher_is_better else "lower is better"
    console.emit()
    first = pairs[0].pair
    several = len({(item.pair.a, item.pair.b) for item in pairs}) > 1
    which = "a - b" if several else f"{first.a} (a) - {first.b} (b)"
    console.emit(f"{metric.head}, {arrow}; difference is {which}, margin {_value(metric.margin, metric)}")
    header = ["region", "n", "mean a", "mean b", "difference", "HL shift", "p", "p Holm", "rank-bis.",
              "win/tie/loss", "verdict on a"]  # fmt: skip
    rows = [_line(item, metric) for item in pairs]
    if several:
        header = ["a", "b", *header]
        rows = [[item.pair.a, item.pair.b, *row] for item, row in zip(pairs, rows, strict=True)]
    console.emit_table(header, rows, right=range(len(header) - 10, len(header) - 1))
    _print_two_level(pairs, metric)


def _line(item: ComparedPair, metric: MetricDisplay) -> list[str]:
    """One pair in one region."""
    from segbench.report.numbers import format_p

    pair = item.pair
    return [
        pair.region,
        str(pair.n),
        _value(item.mean_a, metric),
        _value(item.mean_b, metric),
        _ranged(pair.difference, pair.interval.low, pair.interval.high, metric),
        _ranged(pair.hodges_lehmann, pair.hl_low, pair.hl_high, metric),
        format_p(pair.p_wilcoxon),
        format_p(pair.p_holm),
        "n/a" if pair.rank_biserial is None else f"{pair.rank_biserial:.2f}",
        f"{item.wins}/{item.ties}/{item.losses}",
        pair.words,
    ]


def _print_two_level(pairs: Sequence[ComparedPair], metric: MetricDisplay) -> None:
    """Seeds and cases as random: one line a pair, and how small a gain this much data can show."""
    from statistics import median

    from segbench.report.numbers import format_p

    leveled = [(item.pair, item.pair.two_level) for item in pairs if item.pair.two_level is not None]
    if leveled:
        console.emit(
            "  the table's tests and intervals are over cases; these verdicts count seeds as random:"
        )
    for pair, level in leveled:
        df = f"{level['df']:.1f}" if isinstance(level["df"], float) else "n/a"
        shown = _ranged(level["difference"], level["low"], level["high"], metric)
        console.emit(
            f"  two-level {pair.region}, {pair.a} - {pair.b}: {shown}, p {format_p(level['pvalue'])}, "
            f"p Holm {format_p(pair.p_decision)}, df {df} "
            f"({level['seeds_a']} and {level['seeds_b']} seeds, {level['cases']} cases)"
        )
    gains = [level["detectable_difference"] for _, level in leveled]
    gains = [gain for gain in gains if isinstance(gain, float)]
    if gains:
        seeds = sorted({level[side] for _, level in leveled for side in ("seeds_a", "seeds_b")})
        cases = sorted({level["cases"] for _, level in leveled})
        unit = {"%": " points", "mm": " mm"}.get(metric.unit, "")
        console.emit(
            f"  With {_span(seeds)} seeds and {_span(cases)} cases the smallest true gain found in 80 % of "
            f"repeats is {_value(median(gains), metric)}{unit}."
        )
    if len(leveled) < len(pairs):
        console.emit(f"  {ONE_RUN}")


def _print_cases(result: Comparison, block: Block) -> None:
    """The largest gains and losses of the first metric, in the mean or the last region."""
    here = [item for item in result.pairs if item.pair.block is block]
    if not here:
        return
    first = here[0].pair.metric
    metric = next(item for item in result.metrics if item.name == first)
    region = [item.pair.region for item in here if item.pair.metric == first][-1]
    for item in here:
        if (item.pair.metric, item.pair.region) != (first, region) or not (item.gains or item.drops):
            continue
        console.emit()
        who = f"{item.pair.a} gains or loses most on {item.pair.b}"
        console.emit(f"{metric.head}, {region}: cases where {who}")
        rows = [["gain", *_change(change, metric)] for change in item.gains]
        rows += [["loss", *_change(change, metric)] for change in item.drops]
        console.emit_table(["", "case", "a", "b", "difference"], rows, right=(2, 3, 4))


def _change(change: CaseChange, metric: MetricDisplay) -> list[str]:
    return [
        change.case,
        _value(change.a, metric),
        _value(change.b, metric),
        _value(change.a - change.b, metric),
    ]


def _print_published(result: Comparison) -> None:
    """Published numbers beside ours: a grade, a difference, no verdict."""
    scales = {metric.name: metric for metric in result.metrics}
    console.emit()
    console.emit("published (A same split and metric, B same metric, C anything else differs or is unknown)")
    rows: list[list[str]] = []
    beside = [row for row in result.published if row.our_value is not None]
    for row in beside:
        metric = scales[row.metric]
        rows.append(
            [
                row.grade,
                row.dataset,
                row.region,
                metric.label,
                row.model,
                _value(row.value, metric),
                _value(row.our_value, metric),
                _value(row.difference, metric),
                row.source,
                "; ".join(row.reasons),
            ]
        )
    header = ["", "dataset", "region", "metric", "model", "published", "ours", "difference", "source", "why"]
    if rows:
        console.emit_table(header, rows, right=(5, 6, 7))
    others = len(result.published) - len(beside)
    if others:
        console.emit(f"  {others} published numbers of methods not compared here: --json lists them")


def _value(value: float | None, metric: MetricDisplay) -> str:
    from segbench.report.numbers import format_number

    return "n/a" if value is None else format_number(value, scale=metric.scale, digits=2)


def _ranged(value: float | None, low: float | None, high: float | None, metric: MetricDisplay) -> str:
    text = _value(value, metric)
    return text if low is None or high is None else f"{text} [{_value(low, metric)}, {_value(high, metric)}]"


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"
