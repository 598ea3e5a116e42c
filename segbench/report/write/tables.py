"""The two tables that a reader takes away, as printed text: paper, page, Markdown and terminal typeset these.

Table 1 holds the scores of every entry, Table 2 each model against the reference. What a cell says and how it
is marked is decided here, once, from the columns of the analysis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from segbench.metrics.summary import MEAN_REGION
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column, Mean
from segbench.report.analysis.metric import Metric
from segbench.report.analysis.names import FAMILIES, OTHER_FAMILY
from segbench.report.analysis.numbers import format_number, format_p
from segbench.report.analysis.sentences import WEIGHTS, verdict_words

DASH = "\N{EN DASH}"
NOT_AVAILABLE = "n/a"
WEIGHTS_NOTE = "one training run on a side: these trained weights only"
MOST_REGIONS = 5  # of one dataset as columns; of more only the mean is shown
STARS = {"method": "*", "weights": "\N{DAGGER}"}
"""Sign of a significant gain over the reference, by what it is a claim about."""


@dataclass(frozen=True, slots=True)
class ScoreCell:
    """A printed score; every text may be empty.

    Attributes:
        value: the mean, a dash where the entry was not asked for it, `n/a` where it is not known.
        low, high: ends of its interval, under `--cells mean-ci`.
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
class ScoreHead:
    """What a column of Table 1 holds.

    Attributes:
        dataset: name of the block, empty where there is one dataset.
        metric: label with unit.
        arrow: in the better direction.
        region: region, or `mean`.
    """

    dataset: str
    metric: str
    arrow: str
    region: str


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A row of Table 1.

    Attributes:
        label: of the entry.
        name: as printed.
        card: slug of its model card, for the citation; empty without one.
        baseline: whether it is a predictor without learning.
        parameters: millions, as printed; empty when unknown.
        gmacs: as printed; empty when unknown.
        seeds: number of training runs, as printed: `3`, or `2-3` where datasets differ.
        cells: one per head.
    """

    label: str
    name: str
    card: str
    baseline: bool
    parameters: str
    gmacs: str
    seeds: str
    cells: tuple[ScoreCell, ...]


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Table 1: scores of comparable entries.

    Attributes:
        title: datasets in words.
        caption: one line.
        heads: columns, those of one dataset together.
        groups: (family, rows) in table order, baselines last.
        notes: what the marks mean and how many cases failed, a line each.
    """

    title: str
    caption: str
    heads: tuple[ScoreHead, ...]
    groups: tuple[tuple[str, tuple[ScoreRow, ...]], ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> tuple[ScoreRow, ...]:
        """All rows in order."""
        return tuple(row for _, rows in self.groups for row in rows)


@dataclass(frozen=True, slots=True)
class PairRow:
    """A row of Table 2: one comparison of the deciding column, all as printed.

    Attributes:
        dataset: name of the block, empty where there is one.
        model: name of the model.
        other: what it is compared with.
        difference, low, high: model less other, in printed units.
        p: adjusted for the family.
        won: share of patients won in percent, ties half.
        verdict: words of the verdict.
        claim: `method` or `weights`.
        word: the verdict alone, for tables that mark a claim about weights.
    """

    dataset: str
    model: str
    other: str
    difference: str
    low: str
    high: str
    p: str
    won: str
    verdict: str
    claim: str
    word: str


@dataclass(frozen=True, slots=True)
class PairTable:
    """Table 2: comparisons of the primary metric, one family in each dataset.

    Attributes:
        caption: one line.
        reference: printed name of the reference, empty where all pairs are compared.
        unit: of the differences.
        rows: best first.
        notes: a line each.
    """

    caption: str
    reference: str
    unit: str
    rows: tuple[PairRow, ...]
    notes: tuple[str, ...]

    def short(self, most: int) -> PairTable:
        """The table itself, or of more than `most` rows those with a verdict, the others counted."""
        kept = tuple(row for row in self.rows if row.word != "inconclusive")
        if len(self.rows) <= most or len(kept) == len(self.rows):
            return self
        lost = f"{len(self.rows) - len(kept)} inconclusive comparisons are not shown"
        return replace(self, rows=kept, notes=(*self.notes, lost))


def score_tables(analysis: Analysis) -> list[ScoreTable]:
    """Table 1 over the comparable blocks of all datasets, then one for each block that stands apart."""
    main = [number for number, block in enumerate(analysis.blocks) if block.variant == 0]
    apart = [number for number, block in enumerate(analysis.blocks) if block.variant > 0]
    return [_score_table(analysis, numbers) for numbers in ([main] if main else []) + [[n] for n in apart]]


def _score_table(analysis: Analysis, numbers: Sequence[int]) -> ScoreTable:
    columns = [column for number in numbers for column in _shown_columns(analysis, number, len(numbers))]
    several = len(numbers) > 1
    heads = tuple(
        ScoreHead(
            analysis.blocks[column.block].name if several else "",
            column.metric.head,
            column.metric.arrow,
            column.region,
        )
        for column in columns
    )
    labels = analysis.ordered(
        sorted({scores.label for number in numbers for scores in analysis.blocks[number].scores})
    )
    marks = [_marks(analysis, column) for column in columns]
    rows = [_score_row(analysis, numbers, label, columns, marks) for label in labels]
    families = (*(name for key, name in FAMILIES.items() if key != "floor"), OTHER_FAMILY, FAMILIES["floor"])
    by_family = {
        family: tuple(row for row in rows if _family(analysis, row) == family) for family in families
    }
    names = ", ".join(analysis.blocks[number].name for number in numbers)
    return ScoreTable(
        title=names,
        caption=f"Scores on {names}: {_cell_words(analysis)}.",
        heads=heads,
        groups=tuple((family, members) for family, members in by_family.items() if members),
        notes=tuple(_score_notes(analysis, columns, rows)),
    )


def _family(analysis: Analysis, row: ScoreRow) -> str:
    return FAMILIES["floor"] if row.baseline else analysis.names[row.label].family


def _shown_columns(analysis: Analysis, number: int, datasets: int) -> list[Column]:
    """Primary and boundary metric of a block; with one dataset its regions, if few, are columns too."""
    found: list[Column] = []
    for metric in (analysis.metrics[0], analysis.boundary) if analysis.metrics else ():
        if metric is None:
            continue
        regions = analysis.regions(number)
        if datasets > 1 or len(regions) > MOST_REGIONS:
            regions = (analysis.blocks[number].main_region,)
        found += [
            column for region in regions if (column := analysis.column(number, metric, region)) is not None
        ]
    return found


def _marks(analysis: Analysis, column: Column) -> dict[str, str]:
    """Best and second of a column, by the printed number; equal numbers share a mark."""
    marks: dict[str, str] = {}
    if len(column.order) < 2:
        return marks
    ranked = [label for label in column.order if not analysis.leaking(label)]
    texts = {label: _printed(analysis, column, column.means[label].value) for label in ranked}
    distinct = list(dict.fromkeys(texts[label] for label in ranked))
    for mark, text in zip(("best", "second"), distinct, strict=False):
        marks |= {label: mark for label in ranked if texts[label] == text}
    return marks


def _printed(analysis: Analysis, column: Column, value: float | None) -> str:
    if value is None or value != value:
        return NOT_AVAILABLE
    return format_number(value, scale=column.metric.scale, digits=analysis.options.digits)


def _score_row(
    analysis: Analysis,
    numbers: Sequence[int],
    label: str,
    columns: Sequence[Column],
    marks: Sequence[dict[str, str]],
) -> ScoreRow:
    cost, name = analysis.costs[label], analysis.names[label]
    scores = [item for number in numbers for item in analysis.blocks[number].scores if item.label == label]
    seeds = sorted({len(item.seeds) for item in scores})
    return ScoreRow(
        label=label,
        name=name.short,
        card=name.card,
        baseline=scores[0].baseline,
        parameters=_short_number(cost.parameters_m),
        gmacs=_short_number(cost.gmacs),
        seeds="-".join(str(count) for count in dict.fromkeys((seeds[0], seeds[-1]))),
        cells=tuple(
            _score_cell(analysis, column, label, found.get(label, ""))
            for column, found in zip(columns, marks, strict=True)
        ),
    )


def _short_number(value: float | None) -> str:
    """A count in millions or thousands of millions with two or three digits that say something."""
    if value is None:
        return ""
    return format_number(value, digits=0 if value >= 100 else 1 if value >= 1 else 2)


def _score_cell(analysis: Analysis, column: Column, label: str, mark: str) -> ScoreCell:
    mean: Mean | None = column.means.get(label)
    if mean is None:
        return ScoreCell(DASH)
    cells = analysis.options.cells
    low, high = mean.low, mean.high
    spread = mean.sd_seeds if mean.sd_seeds is not None else mean.sd_units
    interval = cells == "mean-ci" and low is not None and high is not None
    return ScoreCell(
        value=_printed(analysis, column, mean.value),
        low=_printed(analysis, column, low) if interval else "",
        high=_printed(analysis, column, high) if interval else "",
        spread=_printed(analysis, column, spread) if cells == "mean-sd" and spread is not None else "",
        mark=mark,
        star=column.star(label),
        failed=mean.failed,
        number=mean.value,
    )


def _cell_words(analysis: Analysis) -> str:
    percent = f"{analysis.options.confidence * 100:g}"
    return {
        "mean-ci": f"mean with {percent} % interval",
        "mean-sd": "mean \N{PLUS-MINUS SIGN} standard deviation",
        "mean": "mean",
    }[analysis.options.cells]


def _score_notes(analysis: Analysis, columns: Sequence[Column], rows: Sequence[ScoreRow]) -> list[str]:
    """What the marks of a table mean; only marks that stand in it are explained."""
    cells = [cell for row in rows for cell in row.cells]
    blocks = {column.block: analysis.blocks[column.block] for column in columns}
    counts = ", ".join(
        f"{block.name + ': ' if len(blocks) > 1 else ''}n = {len(block.units)} {block.unit}"
        for block in blocks.values()
    )
    notes = [counts] if counts else []
    if any(cell.mark for cell in cells):
        notes.append("bold: best, underlined: second")
    notes += star_notes(analysis, columns, cells)
    if analysis.options.cells == "mean-sd":
        notes.append(f"standard deviation over seeds; over {columns[0].unit} where there is one seed")
    lost = {row.name: max(cell.failed for cell in row.cells) for row in rows if row.cells}
    lost = {name: count for name, count in lost.items() if count}
    if lost:
        listed = ", ".join(f"{name} {count}" for name, count in lost.items())
        notes.append(f"superscript: cases without a usable prediction, scored worst ({listed})")
    if any(cell.value == DASH for cell in cells):
        notes.append(f"{DASH}: not scored on this region or dataset")
    averaged = {
        block.name: ", ".join(block.mean_regions)
        for block in (analysis.blocks[column.block] for column in columns if column.region == MEAN_REGION)
    }
    if len(set(averaged.values())) == 1:
        notes.append(f"mean: over {next(iter(averaged.values()))}")
    elif averaged:
        notes.append("mean: " + "; ".join(f"{name} over {regions}" for name, regions in averaged.items()))
    return notes


def star_notes(analysis: Analysis, columns: Sequence[Column], cells: Sequence[ScoreCell]) -> list[str]:
    """What the stars of cells mean, a line each; only those that stand in them."""
    reference = next((column.reference for column in columns if column.decided and column.reference), None)
    notes: list[str] = []
    for star, sign in STARS.items():
        if reference and any(cell.star == star for cell in cells):
            only = f", {WEIGHTS}" if star == "weights" else ""
            name = analysis.names[reference].short
            notes.append(
                f"{sign}: significantly better than {name} (adjusted p < {analysis.options.alpha:g}{only})"
            )
    return notes


def score_cell(analysis: Analysis, column: Column, label: str) -> ScoreCell:
    """The cell of one entry in one column, marked as in Table 1."""
    return _score_cell(analysis, column, label, _marks(analysis, column).get(label, ""))


def pair_table(analysis: Analysis, metric: Metric | None = None) -> PairTable | None:
    """Table 2: the comparisons of the deciding columns of a metric, by default the primary one; None where
    nothing is compared.
    """
    columns = (
        [column for column in analysis.main_columns(metric) if column.comparisons] if analysis.metrics else []
    )
    if not columns:
        return None
    several = len({column.block for column in columns}) > 1
    rows: list[PairRow] = []
    for column in columns:
        place = {label: index for index, label in enumerate(column.order)}
        for pair in sorted(column.comparisons, key=lambda pair: (place[pair.a], place[pair.b])):
            difference, low, high = (
                _printed(analysis, column, value) for value in (pair.difference, pair.low, pair.high)
            )
            rows.append(
                PairRow(
                    dataset=analysis.blocks[column.block].name if several else "",
                    model=analysis.names[pair.a].short,
                    other=analysis.names[pair.b].short,
                    difference=difference,
                    low=low,
                    high=high,
                    p=format_p(pair.p_adjusted),
                    won=format_number(pair.wins, scale=100.0, digits=0),
                    verdict=verdict_words(column, pair),
                    claim=pair.claim,
                    word=pair.verdict,
                )
            )
    references = {column.reference for column in columns}
    reference = references.pop() if len(references) == 1 else None
    shown = columns[0].metric
    against = (
        f"each model less {analysis.names[reference].short}" if reference else "all pairs, first less second"
    )
    return PairTable(
        caption=f"{shown.label}, {against}.",
        reference=analysis.names[reference].short if reference else "",
        unit=shown.difference_unit,
        rows=tuple(rows),
        notes=tuple(_pair_notes(analysis, columns)),
    )


def _pair_notes(analysis: Analysis, columns: Sequence[Column]) -> list[str]:
    percent = f"{analysis.options.confidence * 100:g}"
    sizes = sorted({len(column.comparisons) for column in columns})
    family = "-".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
    notes = [
        f"{percent} % interval of the difference, not adjusted; p adjusted for {family} "
        f"comparison{'s' if sizes[-1] > 1 else ''}; won: share of {columns[0].unit} won"
    ]
    if any(pair.claim == "weights" for column in columns for pair in column.comparisons):
        notes.append(WEIGHTS_NOTE)
    return notes
