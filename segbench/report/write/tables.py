"""Tables as printed text, in the one form that page, paper, Markdown and terminal typeset.

What a cell says and how it is marked is decided here, once, from the columns of the analysis. Table 1 holds
the scores of every entry, Table 2 each model against the reference; `details` has the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from segbench.metrics.summary import MEAN_REGION
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import Block
from segbench.report.analysis.columns import Column
from segbench.report.analysis.entries import FAMILIES, OTHER_FAMILY
from segbench.report.analysis.findings import leaks
from segbench.report.analysis.metric import Metric, format_number, format_p
from segbench.report.analysis.sentences import alone

if TYPE_CHECKING:
    from segbench.stats import Comparison

DASH = "\N{EN DASH}"
READERS = "Second reader"
"""Head of the rows of other people's segmentations."""
MOST_REGIONS = 5  # of one dataset as columns; of more only the mean is shown
STARS = {"method": "*", "weights": "\N{DAGGER}"}
"""Sign of a significant gain over the reference, by what it is a claim about."""


@dataclass(frozen=True, slots=True)
class ScoreCell:
    """A printed number; every text may be empty.

    Attributes:
        value: the number, a dash where there is none to give, `n/a` where it is not known.
        low, high: ends of its interval.
        spread: standard deviation, under `--cells mean-sd`: over seeds where there are two or more.
        mark: `best`, `second` or empty.
        star: `method` or `weights` where significantly better than the reference, else empty.
        failed: expected cases without a usable prediction.
        number: the mean in stored units, for sorting; None where there is none.
    """

    value: str
    low: str = ""
    high: str = ""
    spread: str = ""
    mark: str = ""
    star: str = ""
    failed: int = 0
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """Head of a column.

    Attributes:
        text: what the column holds.
        above: head over it and its equal neighbours; empty for none.
        words: whether the column holds text, set to the left.
    """

    text: str
    above: str = ""
    words: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row.

    Attributes:
        name: what stands in the first column.
        cells: one for each other column; a text, or a number.
        label: of the entry, where the row is one.
        muted: whether it stands back, as baselines do.
    """

    name: str
    cells: tuple[str | ScoreCell, ...]
    label: str = ""
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        name: id within the report.
        caption: one line.
        heads: of every column, that of the names first.
        groups: (head or empty, rows).
        notes: what its marks mean, a line each.
        facts: columns after the first that say something about the entry and hold no score.
    """

    name: str
    caption: str
    heads: tuple[Head, ...]
    groups: tuple[tuple[str, tuple[Row, ...]], ...]
    notes: tuple[str, ...] = ()
    facts: int = 0

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows in order."""
        return tuple(row for _, rows in self.groups for row in rows)


def score_tables(analysis: Analysis, *, screen: bool = False) -> list[Table]:
    """Table 1 over the comparable blocks of all datasets, then one for each block that stands apart.

    Args:
        analysis: what is to be said.
        screen: what decides stands first, facts about the models last: a narrow window shows the answer.
    """
    found: list[Table] = []
    percent = f"{analysis.options.confidence * 100:g}"
    spreads = {"mean-ci": f" with {percent} % interval", "mean-sd": " \N{PLUS-MINUS SIGN} standard deviation"}
    for place, (blocks, columns) in enumerate(table_columns(analysis), start=1):
        if screen:  # of each metric; the order of metrics stays
            metrics = [column.metric for column in columns]
            columns = sorted(columns, key=lambda c: (c.block.number, metrics.index(c.metric), not c.decided))
        names = ", ".join(block.name for block in blocks)
        caption = f"Scores on {names}: mean{spreads.get(analysis.options.cells, '')}."
        facts, notes = _facts(analysis, blocks)
        name = f"table-scores-{place}"
        table = score_table(analysis, name, caption, columns, blocks=blocks, facts=facts, facts_last=screen)
        found.append(replace(table, notes=(*table.notes, *notes)))
    return found


def table_columns(analysis: Analysis) -> list[tuple[list[Block], list[Column]]]:
    """(blocks, columns) of each table of scores.

    A table holds the primary and the boundary metric; with one dataset its regions, if few, are columns too.
    """
    main = [block for block in analysis.blocks if block.variant == 0]
    apart = [[block] for block in analysis.blocks if block.variant > 0]
    found: list[tuple[list[Block], list[Column]]] = []
    for blocks in ([main] if main else []) + apart:
        columns: list[Column] = []
        for block in blocks:
            regions = analysis.regions(block)
            if len(blocks) > 1 or len(regions) > MOST_REGIONS:
                regions = (block.main_region,)
            columns += analysis.columns_of(block, analysis.shown_metrics, regions)
        found.append((blocks, columns))
    return found


def score_table(
    analysis: Analysis,
    name: str,
    caption: str,
    columns: Sequence[Column],
    *,
    blocks: Sequence[Block],
    facts: Mapping[str, Mapping[str, str]] | None = None,
    facts_last: bool = False,
) -> Table:
    """Scores of all entries of some blocks in some columns, by family, readers first, baselines last.

    Facts, by head and label, stand beside the scores.
    """
    apart = {scores.label: READERS for block in blocks for scores in block.readers}
    apart |= {scores.label: FAMILIES["floor"] for block in blocks for scores in block.baselines}
    groups: dict[str, list[Row]] = {
        family: [] for family in (READERS, *list(FAMILIES.values())[:-1], OTHER_FAMILY, FAMILIES["floor"])
    }
    told, cells, scored = facts or {}, [score_cells(column) for column in columns], list[Row]()

    def joined(first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, ...]:
        return (*second, *first) if facts_last else (*first, *second)

    for label in analysis.ordered(sorted({scores.label for block in blocks for scores in block.scores})):
        scores = Row(analysis.short(label), tuple(of[label] for of in cells), label, muted=label in apart)
        scored.append(scores)
        row = replace(
            scores, cells=joined([ScoreCell(of[label] or DASH) for of in told.values()], scores.cells)
        )
        groups[apart.get(label, analysis.by_label[label].family)].append(row)
    heads = Head("Model", words=True), *joined(list(map(Head, told)), _score_heads(columns))
    rows = tuple((family, tuple(rows)) for family, rows in groups.items() if rows)
    notes = tuple(_score_notes(analysis, columns, scored))
    return Table(name, caption, heads, rows, notes, 0 if facts_last else len(told))


def _score_heads(columns: Sequence[Column]) -> list[Head]:
    """Metrics below their datasets, or regions below their metrics, where there are several."""
    metrics = [f"{column.metric.head} {column.metric.arrow}".strip() for column in columns]
    if len({column.block for column in columns}) > 1:
        names = [column.block.name for column in columns]
        return [Head(metric, name) for metric, name in zip(metrics, names, strict=True)]
    if len(set(metrics)) == len(metrics):
        return [Head(metric) for metric in metrics]
    return [Head(column.region, metric) for metric, column in zip(metrics, columns, strict=True)]


def _facts(analysis: Analysis, blocks: Sequence[Block]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """What is known of every model by head and label, parameters, operations and seeds; and notes.

    Equal numbers of training runs are a note, not a column.
    """
    seeds: dict[str, str] = {}  # `3`, or `2-3` where datasets differ
    for label in {scores.label for block in blocks for scores in block.scores}:
        runs = [len(s.seeds) for block in analysis.blocks for s in block.scores if s.label == label]
        seeds[label] = "-".join(str(count) for count in dict.fromkeys((min(runs), max(runs))))
    counts = {seeds[scores.label] for block in blocks for scores in block.models}
    columns = {
        head: {label: _short_number(analysis.costs[label][field]) for label in seeds}
        for head, field in (("Params (M)", "parameters_m"), ("GMAC", "gmacs"))
    }
    columns["Seeds"] = seeds if len(counts) > 1 else {}
    known = {head: texts for head, texts in columns.items() if any(texts.values())}
    return known, [f"training runs of each model: {count}" for count in counts if len(counts) == 1]


def _short_number(value: float | None) -> str:
    """A count in millions or thousands of millions with two or three digits that say something."""
    digits = 0 if value is None or value >= 100 else 1 if value >= 1 else 2
    return "" if value is None else format_number(value, digits=digits)


def score_cells(column: Column) -> Mapping[str, ScoreCell]:
    """The cell of every entry in one column, best and second marked; a dash for one without scores there.

    Marks go by the printed number: equal numbers share one.
    """
    leaking = {scores.label for scores in column.block.scores if leaks(scores.entry)}
    ranked = [label for label in column.order if label not in leaking] if column.order[1:] else []
    texts = {label: column.number(column.means[label].value) for label in ranked}
    marks = dict(zip(dict.fromkeys(texts.values()), ("best", "second"), strict=False))
    found: dict[str, ScoreCell] = defaultdict(lambda: ScoreCell(DASH))
    for label, mean in column.means.items():
        interval = column.options.cells == "mean-ci" and mean.low is not None and mean.high is not None
        spread = mean.sd_seeds if mean.sd_seeds is not None else mean.sd_units
        spread = spread if column.options.cells == "mean-sd" else None
        found[label] = ScoreCell(
            value=column.number(mean.value),
            low=column.number(mean.low) if interval else "",
            high=column.number(mean.high) if interval else "",
            spread="" if spread is None else column.number(spread),
            mark=marks.get(texts.get(label, ""), ""),
            star=column.star(label),
            failed=mean.failed,
            number=mean.value,
        )
    return found


def _score_notes(analysis: Analysis, columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """What the marks of a table mean; only marks that stand in it are explained."""
    cells = [cell for row in rows for cell in row.cells if isinstance(cell, ScoreCell)]
    blocks = list(dict.fromkeys(column.block for column in columns))
    counts = ", ".join(f"{block.name + ': ' if len(blocks) > 1 else ''}n = {block.count}" for block in blocks)
    notes = [counts] if counts else []
    words = {"best": "bold: best", "second": "underlined: second"}
    marks = [text for mark, text in words.items() if any(cell.mark == mark for cell in cells)]
    notes += [", ".join(marks)] if marks else []
    notes += star_notes(columns, cells)
    if analysis.options.cells == "mean-sd":
        notes.append(f"standard deviation over seeds; over {columns[0].block.unit} where there is one seed")
    lost = {
        row.name: max((cell.failed for cell in row.cells if isinstance(cell, ScoreCell)), default=0)
        for row in rows
    }
    if any(lost.values()):
        listed = ", ".join(f"{name} {count}" for name, count in lost.items() if count)
        notes.append(f"superscript: cases without a usable prediction, scored worst ({listed})")
    if any(cell.value == DASH for cell in cells):
        notes.append(f"{DASH}: not scored on this region or dataset")
    averaged = {
        column.block.name: ", ".join(column.block.mean_regions)
        for column in columns
        if column.region == MEAN_REGION
    }
    if len(set(averaged.values())) == 1:
        notes.append(f"mean: over {next(iter(averaged.values()))}")
    elif averaged:
        notes.append("mean: " + "; ".join(f"{name} over {regions}" for name, regions in averaged.items()))
    return [*notes, *floor_notes(columns)]


def floor_notes(columns: Sequence[Column]) -> list[str]:
    """How large a difference the grid of a dataset makes by itself, a line for each metric with a floor."""
    several = len({column.block for column in columns}) > 1
    found = {
        f"{column.block.name + ', ' if several else ''}{column.metric.label}: the grid alone makes a "
        f"difference of {format_number(column.floor, digits=1)} mm; smaller ones are not called better"
        for column in columns
        if column.floor
    }
    return sorted(found)


def star_notes(columns: Sequence[Column], cells: Sequence[ScoreCell]) -> list[str]:
    """What the stars of cells mean, a line each; only those that stand in them."""
    against = next((column for column in columns if column.decided and column.reference), None)
    notes: list[str] = []
    for star, sign in STARS.items():
        if against and any(cell.star == star for cell in cells):
            only = f", {alone(against.block.models)[1]} only" if star == "weights" else ""
            better = f"significantly better than {against.block.short(against.reference or '')}"
            notes.append(f"{sign}: {better} (adjusted p < {against.options.alpha:g}{only})")
    return notes


def pair_tables(analysis: Analysis, *, most: int | None = None) -> list[Table]:
    """Table 2: the comparisons of the primary metric, then of each other metric that has some.

    Each dataset is a family of its own; rows come best first. Of more than `most` comparisons in a table
    only those with a verdict stand in it, the others are counted.
    """
    found: list[Table] = []
    for place, metric in enumerate(analysis.metrics):
        columns = [column for column in analysis.main_columns(metric) if column.comparisons]
        if columns:
            name = f"table-pairs-{place}" if place else "table-pairs"
            found.append(_pair_table(analysis, name, metric, columns, most))
    return found


def _pair_table(
    analysis: Analysis, name: str, metric: Metric, columns: Sequence[Column], most: int | None
) -> Table:
    several = len({column.block for column in columns}) > 1
    references = {column.reference for column in columns}
    reference = next(iter(references)) if len(references) == 1 else None
    groups = [(column.block.name if several else "", _pair_rows(column, reference)) for column in columns]
    notes = _pair_notes(analysis, columns)
    decided = [(head, [row for row in rows if row.cells[-1] != "inconclusive"]) for head, rows in groups]
    total, kept = (sum(len(rows) for _, rows in found) for found in (groups, decided))
    if most is not None and kept < total > most:
        groups = decided
        notes.append(f"{total - kept} inconclusive comparisons are not shown")
    against = f"each model less {analysis.short(reference)}" if reference else "all pairs, first less second"
    heads = (
        Head("Model", words=True),
        *([] if reference else [Head("Against", words=True)]),
        Head(f"Difference ({metric.difference_unit})" if metric.difference_unit else "Difference"),
        Head("Adjusted p"),
        Head("Won (%)"),
        Head("Verdict", words=True),
    )
    shown = tuple((head, tuple(rows)) for head, rows in groups if rows)
    return Table(name, f"{metric.label}, {against}.", heads, shown, tuple(notes))


def _pair_rows(column: Column, reference: str | None) -> list[Row]:
    return [
        Row(
            column.block.short(pair.a),
            (
                *([] if reference else [column.block.short(pair.b)]),
                ScoreCell(
                    column.number(pair.difference),
                    column.number(pair.low),
                    column.number(pair.high),
                    number=pair.difference,
                ),
                ScoreCell(format_p(pair.p_adjusted)),
                ScoreCell(format_number(pair.wins, scale=100.0, digits=0)),
                pair.verdict + (f" {STARS['weights']}" if limited(pair) else ""),
            ),
        )
        for pair in column.best_first
    ]


def limited(pair: Comparison) -> bool:
    """Whether a verdict holds for these weights only."""
    return pair.claim == "weights" and pair.verdict != "inconclusive"


def _pair_notes(analysis: Analysis, columns: Sequence[Column]) -> list[str]:
    percent = f"{analysis.options.confidence * 100:g}"
    sizes = sorted({len(column.comparisons) for column in columns})
    family = "-".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
    notes = [
        f"{percent} % interval of the difference, not adjusted; p adjusted for {family} "
        f"comparison{'s' if sizes[-1] > 1 else ''}; won: share of {columns[0].block.unit} won, ties half"
    ]
    if any(limited(pair) for column in columns for pair in column.comparisons):
        once, only = alone(scores for column in columns for scores in column.block.models)
        notes.append(f"{STARS['weights']}: one {once} on a side: {only} only")
    return notes
