"""The main table: models by datasets and regions, one table per metric, split where it would not fit."""

from __future__ import annotations

from itertools import groupby

from segbench.report import facts, guards
from segbench.report.analysis import Analysis, Key
from segbench.report.block import Block
from segbench.report.display import MetricDisplay
from segbench.report.summary import Summary
from segbench.report.table import Cell, Column, Row, Table, with_marks
from segbench.report.tables import words

MOST_COLUMNS = 12  # more than this do not fit a text width: the table is split between datasets or regions
CAPTION_GUARDS = frozenset(
    {
        "recipe-differs",
        "split-differs",
        "profile-differs",
        "cases-differ",
        "leak",
        "below-floor",
        "cannot-rank",
        "few-cases",
        "inference-differs",
        "budget-differs",
        "missing-cases",
        "penalty-unknown",
        "demo-data",
    }
)
SINGLE_NOTE = "1: one training run: no claim about the method."
DEGRADED_NOTE = "2: training was rolled back after non-finite values."


def main_tables(analysis: Analysis, metric: MetricDisplay) -> list[Table]:
    """The main table of one metric, in as many parts as fit a page width."""
    keys = analysis.columns(metric)
    parts = _split(analysis, keys)
    return [_table(analysis, metric, part, number, len(parts)) for number, part in enumerate(parts)]


def _split(analysis: Analysis, keys: list[Key]) -> list[list[Key]]:
    """Columns in groups of at most `MOST_COLUMNS`: whole blocks together where possible."""
    parts: list[list[Key]] = []
    for _, group in groupby(keys, key=lambda key: key[0]):
        members = list(group)
        if parts and len(parts[-1]) + len(members) <= MOST_COLUMNS:
            parts[-1] += members
            continue
        parts += [members[start : start + MOST_COLUMNS] for start in range(0, len(members), MOST_COLUMNS)]
    return parts


def _table(analysis: Analysis, metric: MetricDisplay, keys: list[Key], part: int, parts: int) -> Table:
    blocks = list(dict.fromkeys(analysis.blocks[key[0]] for key in keys))
    columns = tuple(_column(analysis, metric, key) for key in keys)
    models = analysis.ordered(sorted({scores.model for block in blocks for scores in block.models}))
    floors = {scores.model for block in blocks for scores in block.floors}
    rows = tuple(
        Row(_label(analysis, model, floors), tuple(_cell(analysis, metric, key, model) for key in keys))
        for model in models
    )
    counts = Row("n", tuple(Cell(None, text=_count(analysis, key)) for key in keys), kind="head")
    marked = with_marks(Table("main", "", columns, (counts, *rows)))
    daggered = _with_daggers(analysis, marked, keys, models)
    name = "main" if metric == analysis.metrics[0] else f"main_{metric.name}"
    if parts > 1:
        name += f"_{part + 1}"
    return Table(
        name=name,
        caption=_caption(analysis, metric, blocks, part, parts),
        columns=columns,
        rows=daggered,
        notes=_notes(analysis, metric, blocks, daggered, keys),
        corner="Model",
    )


def _column(analysis: Analysis, metric: MetricDisplay, key: Key) -> Column:
    return Column(
        header=(analysis.block_title(analysis.blocks[key[0]]), key[1]),
        higher_is_better=metric.higher_is_better,
        scale=metric.scale,
        digits=analysis.options.digits,
        rankable=not analysis.withheld[key],
        spread="paren" if analysis.options.cell == "median-iqr" else "pm",
    )


def _label(analysis: Analysis, model: str, floors: set[str]) -> str:
    label = analysis.labels.get(model, model)
    return f"{label} (floor)" if model in floors else label


def _summary(analysis: Analysis, key: Key, model: str) -> Summary | None:
    return next((item for item in analysis.summaries[key] if item.model == model), None)


def _cell(analysis: Analysis, metric: MetricDisplay, key: Key, model: str) -> Cell:
    """One cell: numbers by the asked form, or the state of a model that has none."""
    item = _summary(analysis, key, model)
    if item is None:
        return Cell(None, text=absence(analysis, analysis.blocks[key[0]], model), eligible=False)
    if item.mean is None:
        return Cell(None, text="n/a" if item.note else None, eligible=False)
    runs = item.scores.runs
    eligible = not item.scores.floor and not guards.leaks(item.scores)
    single = item.n_seeds == 1 and not item.scores.floor
    note = "2" if any(facts.degraded(run) for run in runs) else ""
    form = analysis.options.cell
    if form == "median-iqr":
        spread = None if item.q1 is None or item.q3 is None else item.q3 - item.q1
        return Cell(item.median, spread=spread, single=single, note=note, eligible=eligible)
    if form == "mean-ci":
        low, high = metric.within(item.mean_interval.low), metric.within(item.mean_interval.high)
        return Cell(item.mean, low=low, high=high, single=single, note=note, eligible=eligible)
    return Cell(item.mean, spread=item.std, single=single, note=note, eligible=eligible)


def absence(analysis: Analysis, block: Block, model: str) -> str | None:
    """What stands where a model has no number: its failure class, or nothing (an en dash)."""
    states: set[str] = set()
    for run in analysis.runs:
        if (run.model, run.dataset, run.protocol) != (model, block.dataset, block.protocol):
            continue
        if run.status == "failed":
            kind = str(facts.table_of(run.record, "failure").get("class") or "failed")
            memory = facts.gpu_memory_gib(run)
            oom = f"OOM ({memory} GiB)" if memory else "OOM"
            states.add({"oom": oom, "diverged": "diverged", "data": "blocked"}.get(kind, "failed"))
    return ", ".join(sorted(states)) or None


def _count(analysis: Analysis, key: Key) -> str:
    """Cases behind a column: one number, or the range over models."""
    counts = sorted({item.n for item in analysis.summaries[key]})
    if not counts:
        return "0"
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _with_daggers(analysis: Analysis, table: Table, keys: list[Key], models: list[str]) -> tuple[Row, ...]:
    """Rows with daggers where a mark of the mean stands in the column."""
    from dataclasses import replace

    if analysis.options.cell == "median-iqr":
        return table.rows
    rows = [table.rows[0]]
    for model, row in zip(models, table.rows[1:], strict=True):
        cells = []
        for key, cell in zip(keys, row.cells, strict=True):
            standing = analysis.standings[key].get(model)
            dagger = standing is not None and standing.not_different_from_best
            cells.append(replace(cell, dagger=dagger and cell.value is not None))
        rows.append(replace(row, cells=tuple(cells)))
    return tuple(rows)


def _caption(analysis: Analysis, metric: MetricDisplay, blocks: list[Block], part: int, parts: int) -> str:
    sizes = [len(block.ranked) for block in blocks]
    largest = max(sizes, default=0)
    pairs = largest * (largest - 1) // 2
    if analysis.options.reference is not None:
        pairs = max(largest - 1, 0)
    dagger = words.dagger_words(analysis, pairs) if pairs and analysis.options.cell != "median-iqr" else ""
    if analysis.options.cell == "median-iqr" and largest > 1:
        dagger = "Best bold, second underlined."
    more = f" Part {part + 1} of {parts}." if parts > 1 else ""
    return (
        f"{metric.head}, {words.cell_words(analysis)}; {words.n_words(blocks)}.{more} {dagger} "
        f"{words.policy_words(analysis, blocks)}"
    ).replace("  ", " ")


def _notes(
    analysis: Analysis, metric: MetricDisplay, blocks: list[Block], rows: tuple[Row, ...], keys: list[Key]
) -> tuple[str, ...]:
    cells = [cell for row in rows for cell in row.cells]
    notes = [SINGLE_NOTE] if any(cell.single for cell in cells) else []
    notes += [DEGRADED_NOTE] if any(cell.note == "2" for cell in cells) else []
    reasons = {analysis.withheld[key] for key in keys if analysis.withheld[key]}
    if reasons:
        notes.append("No marks where: " + "; ".join(sorted(reasons)) + ".")
    notes += [
        f"{item.block.name}, {item.metric}: {analysis.labels.get(item.model, item.model)}: {item.note}."
        for key in keys
        for item in analysis.summaries[key]
        if item.note
    ]
    undefined = [
        f"{item.block.name} {item.region}: {analysis.labels.get(item.model, item.model)} {item.n_undefined}"
        for key in keys
        for item in analysis.summaries[key]
        if item.n_undefined and item.mean is not None
    ]
    if undefined:
        notes.append("Cases without a defined value, left out of the mean: " + "; ".join(undefined) + ".")
    return (*notes, *words.guard_notes(analysis, blocks, metric, codes=CAPTION_GUARDS))
