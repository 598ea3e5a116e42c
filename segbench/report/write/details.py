"""Tables below the first screen: regions, ranks, seeds, cost, failed cases, published numbers, runs.

Scores come from `tables`; every other cell prints a field of the analysis as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from segbench.records import facts
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import failures
from segbench.report.analysis.cost import FIELDS
from segbench.report.analysis.metric import format_number
from segbench.report.analysis.sentences import where
from segbench.report.write.document import versions
from segbench.report.write.tables import DASH, Head, Row, ScoreCell, Table, score_table, table_columns

Cell = str | ScoreCell


def details(analysis: Analysis) -> dict[str, list[Table]]:
    """The tables of each folded part of the page; a part without tables has nothing to say."""
    return {
        "regions": region_tables(analysis),
        "ranks": rank_tables(analysis),
        "seeds": seed_tables(analysis),
        "cost": cost_tables(analysis),
        "failed": failure_tables(analysis),
        "sources": source_tables(analysis),
    }


def listing(name: str, caption: str, heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> list[Table]:
    """A table without spanning heads and notes, rows by the name in their first cell; none without rows."""
    found = tuple(Row(str(first), tuple(cells)) for first, *cells in rows)
    if not found:
        return []
    words = (True, *(isinstance(cell, str) for cell in found[0].cells))
    columns = tuple(Head(text, words=left) for text, left in zip(heads, words, strict=True))
    return [Table(name, caption, columns, (("", found),))]


def number(value: float | None, *, scale: float = 1.0, digits: int = 0) -> ScoreCell:
    """A number as a cell; a dash where there is none."""
    if value is None or value != value:
        return ScoreCell(DASH)
    return ScoreCell(format_number(value, scale=scale, digits=digits))


def region_tables(analysis: Analysis) -> list[Table]:
    """For each block and metric the scores of every region, where Table 1 does not hold them all."""
    told = {column for _, columns in table_columns(analysis) for column in columns}
    found: list[Table] = []
    for block in analysis.blocks:
        for metric in analysis.metrics:
            columns = analysis.columns_of(block, [metric], analysis.regions(block))
            if not set(columns) <= told:
                name, caption = f"table-regions-{len(found) + 1}", f"Scores on {block.name}, by region."
                found.append(score_table(analysis, name, caption, columns, blocks=[block]))
    return found


def rank_tables(analysis: Analysis) -> list[Table]:
    """Ranks of the deciding columns with interval and P(best); only where every model has two seeds."""
    heads = ("Model", "Rank", f"{analysis.options.confidence * 100:g} % interval", "P(best)")
    found: list[Table] = []
    for column in analysis.main_columns():
        ranks = column.ranks
        if ranks is None or not ranks.rank_low.size:
            continue
        drawn = (ranks.ranks, ranks.rank_low, ranks.rank_high, ranks.probability_best)
        rows = [
            (analysis.short(label), number(rank), ScoreCell(f"{low:g} to {high:g}"), number(best, digits=2))
            for label, rank, low, high, best in zip(column.order, *(v.tolist() for v in drawn), strict=True)
        ]
        caption = f"{where(column)}: ranks over {ranks.resamples} draws of seeds and {column.block.unit}."
        found += listing(f"table-ranks-{column.block.number}", caption, heads, rows)
    return found


def seed_tables(analysis: Analysis) -> list[Table]:
    """The mean of every training run in the deciding columns; only where a model has two seeds."""
    found: list[Table] = []
    for column in analysis.main_columns():
        if all(len(mean.per_seed) < 2 for mean in column.means.values()):
            continue
        seeds = sorted({seed for mean in column.means.values() for seed, _ in mean.per_seed})
        rows: list[Sequence[Cell]] = []
        for label, mean in analysis.means(column):
            values = dict(mean.per_seed)
            shown = [*(values.get(seed) for seed in seeds), mean.sd_seeds]
            cells = (number(v, scale=column.metric.scale, digits=column.options.digits) for v in shown)
            rows.append((analysis.short(label), *cells))
        caption = f"{where(column)}: mean of every training run, and their standard deviation."
        heads = ("Model", *(f"Seed {seed}" for seed in seeds), "SD")
        found += listing(f"table-seeds-{column.block.number}", caption, heads, rows)
    return found


def cost_tables(analysis: Analysis) -> list[Table]:
    """What the records say of cost; columns that nobody has are left out."""
    costs = analysis.costs
    told = {name for cost in costs.values() for name, value in cost.items() if value not in (None, "")}
    known = [field for field in FIELDS if field[0] in told]
    rows = [
        (
            analysis.short(label),
            *(
                cost[name] if digits is None else number(cost[name], digits=digits)
                for name, _, digits in known
            ),
        )
        for label, cost in ((label, costs[label]) for label in analysis.ordered(list(costs)))
    ]
    caption = "Cost from the records, else the model card; nothing is estimated. Times hold for the device."
    heads = ("Model", *(head for _, head, _ in known))
    measured = any(digits is not None for _, _, digits in known)
    return listing("table-cost", caption, heads, rows if measured else ())


def failure_tables(analysis: Analysis) -> list[Table]:
    """Cases without a usable prediction, each once for every model."""
    rows = [
        (case, analysis.short(label), block.name, status)
        for block in analysis.blocks
        for label, case, status in failures(block)
    ]
    caption = "Expected cases without a usable prediction."
    return listing("table-failed", caption, ("Case", "Model", "Dataset", "What happened"), rows)


def source_tables(analysis: Analysis) -> list[Table]:
    """Every run that was found, and what computed and drew the report."""
    entries = {run.run_id: entry for entry in analysis.entries for run in (*entry.runs, *entry.copies)}
    rows = [
        (
            run.run_id,
            analysis.short(entries[run.run_id].label) if run.run_id in entries else run.model,
            run.dataset,
            run.protocol,
            number(run.fold),
            number(run.seed),
            run.problem or run.record.status,
            "" if run.rows is None else run.rows.digest[:12],
            facts.text(run.record.segbench, "version"),
        )
        for run in analysis.runs
    ]
    heads = ("Run", "Model", "Dataset", "Protocol", "Fold", "Seed", "State", "Digest of scores", "segbench")
    packages = [(name, ScoreCell(version)) for name, version in versions().items()]
    caption = "What computed and drew this report."
    return [
        *listing("table-runs", "Runs, as recorded.", heads, rows),
        *listing("table-versions", caption, ("Package", "Version"), packages),
    ]
