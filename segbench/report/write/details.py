"""Tables below the first screen: regions, ranks, seeds, cost, failed cases, published numbers, runs.

Scores come from `tables`; every other cell prints a field of the analysis as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence

from segbench.published.claims import chance_words
from segbench.records import facts
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import failures
from segbench.report.analysis.numbers import format_number
from segbench.report.analysis.published_beside import GRADES, published_beside
from segbench.report.analysis.sentences import where
from segbench.report.write.document import versions
from segbench.report.write.tables import DASH, Head, Row, ScoreCell, Table, score_table, table_columns

COSTS = (
    ("Parameters (M)", "parameters_m", 1),
    ("GMAC", "gmacs", 1),
    ("Peak memory (GiB)", "peak_memory_gib", 2),
    ("Inference (s per case)", "seconds_per_case", 2),
    ("Training (device hours)", "training_hours", 2),
    ("Latency (s)", "latency_s", 3),
)


def plain_table(name: str, caption: str, heads: Sequence[str], rows: Sequence[Row]) -> Table:
    """A table of at least one row without spanning heads, groups and notes."""
    words = (True, *(isinstance(cell, str) for cell in rows[0].cells))
    columns = tuple(Head(text, words=left) for text, left in zip(heads, words, strict=True))
    return Table(name, caption, columns, (("", tuple(rows)),))


def number(value: float | None, *, scale: float = 1.0, digits: int = 0) -> ScoreCell:
    """A number as a cell; a dash where there is none."""
    if value is None or value != value:
        return ScoreCell(DASH)
    return ScoreCell(format_number(value, scale=scale, digits=digits))


def region_tables(analysis: Analysis) -> list[Table]:
    """For each block and metric the scores of every region, where Table 1 does not hold them all."""
    told = {(c.block, c.metric.name, c.region) for _, columns in table_columns(analysis) for c in columns}
    found: list[Table] = []
    for place, block in enumerate(analysis.blocks):
        for metric in analysis.metrics:
            columns = [
                column
                for region in analysis.regions(place)
                if (column := analysis.column(place, metric, region)) is not None
            ]
            if not {(place, metric.name, column.region) for column in columns} <= told:
                name, caption = f"table-regions-{len(found) + 1}", f"Scores on {block.name}, by region."
                found.append(score_table(analysis, name, caption, columns, blocks=[place]))
    return found


def rank_tables(analysis: Analysis) -> list[Table]:
    """Ranks of the deciding columns with interval and P(best); only where every model has two seeds."""
    percent = f"{analysis.options.confidence * 100:g}"
    found: list[Table] = []
    for column in analysis.main_columns():
        ranks = column.ranks
        if ranks is None or not ranks.rank_low.size:
            continue
        rows: list[Row] = []
        for place, label in enumerate(column.order):
            low, high = int(ranks.rank_low[place]), int(ranks.rank_high[place])
            best = number(float(ranks.probability_best[place]), digits=2)
            cells = (number(float(ranks.ranks[place])), ScoreCell(f"{low} to {high}"), best)
            rows.append(Row(analysis.names[label].short, cells))
        caption = f"{where(analysis, column)}: ranks over {ranks.resamples} draws of seeds and {column.unit}."
        heads = ("Model", "Rank", f"{percent} % interval", "P(best)")
        found.append(plain_table(f"table-ranks-{column.block}", caption, heads, rows))
    return found


def seed_tables(analysis: Analysis) -> list[Table]:
    """The mean of every training run in the deciding columns; only where a model has two seeds."""
    found: list[Table] = []
    for column in analysis.main_columns():
        if all(len(mean.per_seed) < 2 for mean in column.means.values()):
            continue
        seeds = sorted({seed for mean in column.means.values() for seed, _ in mean.per_seed})
        rows: list[Row] = []
        for label in analysis.ordered(list(column.means)):
            mean = column.means[label]
            values: dict[int, float | None] = dict(mean.per_seed)
            shown = [*(values.get(seed) for seed in seeds), mean.sd_seeds]
            scale, digits = column.metric.scale, analysis.options.digits
            cells = tuple(number(value, scale=scale, digits=digits) for value in shown)
            rows.append(Row(analysis.names[label].short, cells))
        caption = f"{where(analysis, column)}: mean of every training run, and their standard deviation."
        heads = ("Model", *(f"Seed {seed}" for seed in seeds), "SD")
        found.append(plain_table(f"table-seeds-{column.block}", caption, heads, rows))
    return found


def cost_tables(analysis: Analysis) -> list[Table]:
    """What the records say of cost; columns that nobody has are left out."""
    costs = analysis.costs
    fields = [item for item in COSTS if any(getattr(cost, item[1]) is not None for cost in costs.values())]
    words = [
        (head, name)
        for head, name in (("GMAC counted for", "input_shape"), ("Device", "device"))
        if any(getattr(cost, name) for cost in costs.values())
    ]
    rows = [
        Row(
            analysis.names[label].short,
            (
                *(number(getattr(costs[label], name), digits=digits) for _, name, digits in fields),
                *(getattr(costs[label], name) for _, name in words),
            ),
        )
        for label in analysis.ordered(list(costs))
    ]
    heads = ("Model", *(head for head, _, _ in fields), *(head for head, _ in words))
    caption = "Cost from the records, else the model card; nothing is estimated. Times hold for the device."
    return [plain_table("table-cost", caption, heads, rows)] if fields else []


def failure_tables(analysis: Analysis) -> list[Table]:
    """Cases without a usable prediction, each once for every model."""
    rows = [
        Row(case, (analysis.names[label].short, block.name, status))
        for block in analysis.blocks
        for label, case, status in failures(block)
    ]
    heads = ("Case", "Model", "Dataset", "What happened")
    caption = "Expected cases without a usable prediction."
    return [plain_table("table-failed", caption, heads, rows)] if rows else []


def published_tables(analysis: Analysis) -> list[Table]:
    """Published numbers of the models that have runs here, beside ours: a grade, and no verdict."""
    metrics = {metric.name: metric for metric in analysis.metrics}
    rows: list[Row] = []
    for item in published_beside(analysis):
        metric = metrics.get(item.ours.metric)
        if metric is None or item.our_value is None:
            continue
        numbers = (
            number(value, scale=metric.scale, digits=analysis.options.digits)
            for value in (item.number.stored, item.our_value, item.difference)
        )
        band = item.order_wrong and [chance_words(value) for value in item.order_wrong]
        chance = ScoreCell(f"{band[0]} to {band[2]}" if band else DASH)
        place = (item.ours.block, item.ours.region, metric.head, item.grade)
        rows.append(Row(item.number.model, (*place, *numbers, chance, item.table.source.id)))
    numbers_of = ("Published", "Ours", "Ours less", "Order wrong (%)")
    heads = ("Model", "Dataset", "Region", "Metric", "Grade", *numbers_of, "Source")
    grades = "; ".join(f"{grade}: {words}" for grade, words in GRADES.items())
    caption = (
        f"Published numbers, in no test and no rank. {grades}. Order wrong: the chance that the order of the "
        "two comes from cases and retraining alone (segbench claim)."
    )
    return [plain_table("table-published", caption, heads, rows)] if rows else []


def run_table(analysis: Analysis) -> Table:
    """Every run that was found: where its numbers come from."""
    entries = {run.run_id: entry for entry in analysis.entries for run in (*entry.runs, *entry.copies)}
    rows = [
        Row(
            run.run_id,
            (
                analysis.names[entries[run.run_id].label].short if run.run_id in entries else run.model,
                run.dataset,
                run.protocol,
                number(run.fold),
                number(run.seed),
                run.problem or run.status,
                "" if run.rows is None else run.rows.digest[:12],
                facts.text(run.record.segbench, "version"),
            ),
        )
        for run in analysis.runs
    ]
    heads = ("Run", "Model", "Dataset", "Protocol", "Fold", "Seed", "State", "Digest of scores", "segbench")
    return plain_table("table-runs", "Runs, as recorded.", heads, rows)


def version_table() -> Table:
    """What computed and drew the report."""
    rows = [Row(name, (ScoreCell(version),)) for name, version in versions().items()]
    return plain_table("table-versions", "What computed and drew this report.", ("Package", "Version"), rows)
