"""Tables about pairs and orders: pairwise tests, ranks and their stability, subgroups."""

from __future__ import annotations

import numpy as np

from segbench.report.analysis import Analysis, Key
from segbench.report.display import MetricDisplay
from segbench.report.numbers import format_number, format_p
from segbench.report.pairwise import Pair
from segbench.report.ranking import OTHER_DRAWS, SCHEMES, STABILITY_SCHEME, ColumnRanks
from segbench.report.table import Cell, Column, Row, Table
from segbench.report.tables import words
from segbench.report.tables.paper import grouped_rows, numbered_pairs

SCHEME_HEADS = {
    "mean_then_rank": ("Aggregate, then rank", "mean"),
    "median_then_rank": ("Aggregate, then rank", "median"),
    "rank_then_mean": ("Rank, then aggregate", "mean"),
    "rank_then_median": ("Rank, then aggregate", "median"),
    "test_then_rank_none": ("Test, then rank", "raw"),
    "test_then_rank_holm": ("Test, then rank", "Holm"),
}
BANNER = "These weights only: with one training run a test says nothing about the method."


def pairwise_table(analysis: Analysis, metric: MetricDisplay, key: Key) -> Table | None:
    """All tests of one column; None when nothing was compared."""
    pairs = analysis.pairs[key]
    if not pairs:
        return None
    block, digits = analysis.blocks[key[0]], analysis.options.digits
    unit = f" ({metric.unit})" if metric.unit else ""

    def plain(*header: str) -> Column:
        return Column(header, None)

    def scaled(*header: str) -> Column:
        return Column(header, None, scale=metric.scale, digits=digits)

    levels = any(pair.two_level is not None for pair in pairs)
    columns = (
        plain("", "n"),
        scaled("Difference", f"mean [CI]{unit}"),
        scaled("Difference", f"HL [CI]{unit}"),
        plain("Wilcoxon", "p"),
        plain("Wilcoxon", "p Holm"),
        plain("Wilcoxon", "r"),
        *(
            (plain("Two-level", "p"), plain("Two-level", "p Holm"), plain("Two-level", "df"))
            if levels
            else ()
        ),
        plain("", "Verdict"),
    )
    rows = tuple(Row(_pair_label(analysis, pair), _pair_cells(pair, levels=levels)) for pair in pairs)
    level = f"{100 * analysis.options.confidence:g} %"
    margin = f"{format_number(metric.margin, scale=metric.scale)} {metric.unit}".rstrip()
    over = "over seeds and cases where seeds allow, else over cases" if levels else "over cases"
    family = words.pair_count(len(pairs))
    caption = (
        f"Pairwise comparison: {metric.head}, {block.name}, region {key[1]}. Difference first minus second "
        f"model; {level} intervals of the mean difference {over}, of the Hodges-Lehmann shift (HL) over "
        f"cases; {words.TEST_WORDS}; r: matched-pairs rank-biserial correlation; Holm over {family}, no "
        f"correction across metrics and regions. Verdict at alpha {analysis.options.alpha:g} with the margin "
        f'{margin}, from the two-level test where seeds allow, else over cases; "not after Holm": the pair '
        "alone differs, the family does not bear it out; undecided is not equal."
    )
    suffix = "" if metric == analysis.metrics[0] else f"_{metric.name}"
    return Table(
        name=f"pairwise{suffix}",
        caption=caption,
        columns=columns,
        rows=rows,
        notes=_pair_notes(analysis, metric, pairs),
        label=f"tab:pairwise-{block.name}-{block.protocol}-{key[1]}-{metric.name}",
        corner="Pair",
    )


def _pair_label(analysis: Analysis, pair: Pair) -> str:
    return " vs ".join(_names(analysis, pair))


def _names(analysis: Analysis, pair: Pair) -> tuple[str, str]:
    return analysis.labels.get(pair.a, pair.a), analysis.labels.get(pair.b, pair.b)


def pairwise_for_paper(analysis: Analysis, table: Table, key: Key) -> Table:
    """The pairwise table with numbers in place of names that would not fit the page."""
    pairs = analysis.pairs[key]
    models = analysis.ordered(sorted({name for pair in pairs for name in (pair.a, pair.b)}))
    order = [analysis.labels.get(model, model) for model in models]
    return numbered_pairs(table, [_names(analysis, pair) for pair in pairs], order)


def _pair_cells(pair: Pair, *, levels: bool) -> tuple[Cell, ...]:
    """Cells of one pair; the two-level columns only where some pair of the table has such a test."""
    level = pair.two_level
    over_seeds = (
        Cell(None if level is None else level["pvalue"], text=format_p(level["pvalue"]) if level else "n/a"),
        Cell(pair.p_decision if level else None, text=format_p(pair.p_decision) if level else "n/a"),
        Cell(None, text=_df(level["df"]) if level else "n/a"),
    )
    biserial = "n/a" if pair.rank_biserial is None else format_number(pair.rank_biserial)
    difference, low, high = pair.estimate
    return (
        Cell(None, text=str(pair.n)),
        Cell(difference, low=low, high=high),
        Cell(pair.hodges_lehmann, low=pair.hl_low, high=pair.hl_high),
        Cell(pair.p_wilcoxon, text=format_p(pair.p_wilcoxon)),
        Cell(pair.p_holm, text=format_p(pair.p_holm)),
        Cell(pair.rank_biserial, text=biserial),
        *(over_seeds if levels else ()),
        Cell(None, text=pair.words),
    )


def _df(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else "n/a"


def _pair_notes(analysis: Analysis, metric: MetricDisplay, pairs: tuple[Pair, ...]) -> tuple[str, ...]:
    """Power line with two-level results, banner without them, then one omnibus line for three models and
    more.
    """
    notes: list[str] = []
    gains = [pair.two_level["detectable_difference"] for pair in pairs if pair.two_level is not None]
    gains = [gain for gain in gains if isinstance(gain, float)]
    if gains:
        seeds = sorted(
            {pair.two_level[side] for pair in pairs if pair.two_level for side in ("seeds_a", "seeds_b")}
        )
        cases = sorted({pair.two_level["cases"] for pair in pairs if pair.two_level})
        gain = format_number(float(np.median(gains)), scale=metric.scale, digits=2)
        unit = {"%": "points", "mm": "mm"}.get(metric.unit, "")
        notes.append(
            f"With {_span(seeds)} seeds and {_span(cases)} cases the smallest true gain found in 80 % of "
            "repeats is "
            f"{gain} {unit}".rstrip()
            + " (median over the pairs)."
        )
    if any(pair.two_level is None for pair in pairs):
        notes.append(BANNER)
    omnibus = _omnibus(analysis, metric, pairs)
    return (*notes, *omnibus)


def _omnibus(analysis: Analysis, metric: MetricDisplay, pairs: tuple[Pair, ...]) -> tuple[str, ...]:
    """Friedman, Iman-Davenport and Nemenyi's critical difference for three models and more."""
    from segbench.stats import friedman, nemenyi

    table = complete_table(analysis, pairs)
    if table is None or table.shape[1] < 3 or table.shape[0] < 2:
        return ()
    higher = bool(metric.higher_is_better)
    test = friedman(table, higher_is_better=higher)
    post = nemenyi(table, alpha=analysis.options.alpha, higher_is_better=higher)
    return (
        f"Over cases, for these weights only: Friedman chi-square {test.statistic:.2f}, p "
        f"{format_p(test.pvalue)}; Iman-Davenport F {_finite(test.iman_davenport)}, p "
        f"{format_p(test.iman_davenport_pvalue)}; n = {test.n}, k = {test.k}; Nemenyi critical difference "
        f"{post.critical_difference:.3f} mean ranks at alpha {analysis.options.alpha:g}.",
    )


def _finite(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "inf"


def complete_table(analysis: Analysis, pairs: tuple[Pair, ...]) -> np.ndarray | None:
    """(cases, models) of the models in these pairs, cases complete for all; None without any."""
    if not pairs:
        return None
    block, region, metric = pairs[0].block, pairs[0].region, pairs[0].metric
    names = sorted({name for pair in pairs for name in (pair.a, pair.b)})
    scores = {item.model: item for item in block.ranked}
    table = np.stack([block.per_case(scores[name], region, metric) for name in names], axis=1)
    table = table[np.all(np.isfinite(table), axis=1)]
    return table if table.size else None


def _span(values: list[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]}-{values[-1]}"


def ranks_table(analysis: Analysis, metric: MetricDisplay, key: Key) -> Table | None:
    """Rank under every scheme with its stability; None where models cannot be ranked."""
    ranks = analysis.ranks.get(key)
    if ranks is None:
        return None
    block = analysis.blocks[key[0]]
    heads = [SCHEME_HEADS[scheme] for scheme in SCHEMES]
    heads += [("Bootstrap", "P(best)"), ("Bootstrap", "rank interval")]
    columns = tuple(Column(head, None) for head in heads)
    order = {model: place for place, model in enumerate(ranks.models)}
    rows = []
    for model in analysis.ordered(list(ranks.models)):
        place = order[model]
        cells = [Cell(float(ranks.schemes[s][place]), text=str(ranks.schemes[s][place])) for s in SCHEMES]
        share = float(ranks.probability_best[place])
        cells.append(Cell(share, text=format_number(share)))
        low, high = int(ranks.rank_low[place]), int(ranks.rank_high[place])
        cells.append(Cell(None, text=str(low) if low == high else f"{low} to {high}"))
        rows.append(Row(analysis.labels.get(model, model), tuple(cells)))
    tau = "n/a" if ranks.kendall_tau is None else format_number(ranks.kendall_tau)
    changes = "n/a" if ranks.winner_changes is None else str(ranks.winner_changes)
    level = f"{100 * analysis.options.confidence:g} %"
    suffix = "" if metric == analysis.metrics[0] else f"_{metric.name}"
    return Table(
        name=f"ranks{suffix}",
        caption=(
            f"Ranks under {len(SCHEMES)} schemes: {metric.head}, {block.name}, region {key[1]}, n = "
            f"{ranks.n} cases. "
            f"Bootstrap of {_units(ranks)} ({analysis.options.resamples} draws) under "
            f"{STABILITY_SCHEME.replace('_', ' ')}; "
            f"{level} rank intervals are not simultaneous over models. Cases are drawn again, training runs "
            "are not: retraining can change the order further than this table shows."
        ),
        columns=columns,
        rows=tuple(rows),
        notes=(
            f"Mean Kendall tau-b of the draws against the full data {tau}; leaving one case out changes the "
            "winner "
            f"in {changes} of {ranks.n} cases.",
            *_schemes_note(analysis, ranks),
        ),
        label=f"tab:ranks-{block.name}-{block.protocol}-{key[1]}-{metric.name}",
        corner="Model",
    )


def _schemes_note(analysis: Analysis, ranks: ColumnRanks) -> tuple[str, ...]:
    """Who is first most often under each scheme, and in which share of the draws."""
    if not ranks.best_by_scheme:
        return ()
    parts: list[str] = []
    for scheme in SCHEMES:
        shares = ranks.best_by_scheme[scheme]
        first = max(range(len(shares)), key=lambda place: (shares[place], -place))
        model = ranks.models[first]
        name = scheme.replace("_", " ")
        parts.append(f"{name} {analysis.labels.get(model, model)} {format_number(shares[first])}")
    draws = min(analysis.options.resamples, OTHER_DRAWS)
    return (
        "Most often first, with the share of draws (ties count for each): "
        f"{'; '.join(parts)} ({draws} draws but for the first scheme).",
    )


def _units(ranks: ColumnRanks) -> str:
    return "cases" if ranks.n_patients == ranks.n else f"{ranks.n_patients} whole patients"


def subgroups_table(analysis: Analysis, metric: MetricDisplay, key: Key) -> Table | None:
    """Means and differences by size of the structure, with one interaction test per model."""
    found = analysis.subgroups.get(key)
    if found is None:
        return None
    block, digits = analysis.blocks[key[0]], analysis.options.digits
    against = analysis.labels.get(found.against, found.against)
    columns = (
        Column(("Cases",), None, digits=0),
        Column(("Mean",), None, scale=metric.scale, digits=digits),
        Column(("Difference [CI]",), None, scale=metric.scale, digits=digits),
        Column(("Interaction p",), None),
        Column(("Spearman",), None),
    )
    rows: list[Row] = []
    for model in analysis.ordered(list(found.models)):
        for number, label in enumerate(found.labels):
            value = float(found.means[number, found.models.index(model)])
            cells = [Cell(None, text=str(found.counts[number])), Cell(value)]
            if model in found.differences:
                interval = found.intervals[model][number]
                cells.append(Cell(found.differences[model][number], low=interval.low, high=interval.high))
            else:
                cells.append(Cell(None))
            first = number == 0 and model in found.differences
            p, rho = found.interaction.get(model), found.spearman.get(model)
            cells.append(Cell(p if first else None, text=format_p(p) if first else ""))
            cells.append(Cell(rho if first else None, text=_rho(rho) if first else ""))
            rows.append(Row(f"{analysis.labels.get(model, model)}: {label}", tuple(cells)))
    suffix = "" if metric == analysis.metrics[0] else f"_{metric.name}"
    return Table(
        name=f"subgroups{suffix}",
        caption=(
            f"By reference volume: {metric.head}, {block.name}, region {key[1]}. Difference to {against}. "
            "Bins are fixed by the reference alone; one permutation test of the interaction per model, no "
            "test per bin; Spearman's correlation of the difference with the logarithm of the volume."
        ),
        columns=columns,
        rows=tuple(rows),
        label=f"tab:subgroups-{block.name}-{block.protocol}-{key[1]}-{metric.name}",
        corner="Model and volume",
    )


def subgroups_for_paper(analysis: Analysis, table: Table, key: Key) -> Table:
    """The table of subgroups with each model's name once, above its bins."""
    found = analysis.subgroups[key]
    groups = [
        (analysis.labels.get(model, model), label)
        for model in analysis.ordered(list(found.models))
        for label in found.labels
    ]
    return grouped_rows(table, groups)


def _rho(value: float | None) -> str:
    return "n/a" if value is None else format_number(value)
