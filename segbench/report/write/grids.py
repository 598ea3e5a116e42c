"""Every table of the page in one form, which one macro typesets.

A grid holds printed text only. Scores, marks and verdicts come from `tables`; the other cells print a field
of the analysis as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import failures
from segbench.report.analysis.columns import Column
from segbench.report.analysis.numbers import format_number
from segbench.report.analysis.sentences import where
from segbench.report.read import facts
from segbench.report.write.tables import (
    DASH,
    PairTable,
    ScoreCell,
    ScoreHead,
    ScoreRow,
    ScoreTable,
    score_cell,
    score_tables,
    star_notes,
)

Cell = str | ScoreCell
"""Text, or a printed number."""
Heads = tuple[tuple[str, int], ...]
"""(text, columns that it spans)."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row: its name, its cells, and whether it stands back (a baseline)."""

    name: str
    cells: tuple[Cell, ...]
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of the page.

    Attributes:
        name: id of the element.
        caption: one line.
        above: lines of spanning heads, over all columns but the first.
        heads: head of every column, that of the row names first.
        groups: (head of the group or empty, rows).
        notes: lines below.
        link: what the names of rows lead to, with the number of the row after it; empty for none.
    """

    name: str
    caption: str
    above: tuple[Heads, ...]
    heads: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]
    notes: tuple[str, ...] = ()
    link: str = ""

    @property
    def texts(self) -> tuple[bool, ...]:
        """Of every column but the first, whether it holds text."""
        lines = [line for _, members in self.groups for line in members]
        return tuple(isinstance(cell, str) for cell in lines[0].cells) if lines else ()


def plain_grid(name: str, caption: str, heads: Sequence[str], rows: Iterable[Line]) -> Grid:
    """A table without spanning heads, groups and notes."""
    return Grid(name, caption, (), tuple(heads), (("", tuple(rows)),))


def score_grid(table: ScoreTable, number: int) -> Grid:
    """Table 1, or one like it of entries that stand apart: scores first, then what is known of each model."""
    lines = _head_lines(table.heads)
    known = [
        (head, name)
        for head, name in (("Seeds", "seeds"), ("Parameters (M)", "parameters"), ("GMAC", "gmacs"))
        if any(getattr(row, name) for row in table.rows)
    ]

    def line(row: ScoreRow) -> Line:
        return Line(
            row.name, (*row.cells, *(number_cell(getattr(row, name)) for _, name in known)), row.baseline
        )

    return Grid(
        f"table-scores-{number}",
        table.caption,
        tuple((*_spans(texts), ("", len(known))) for texts in lines[:-1]),
        ("Model", *lines[-1], *(head for head, _ in known)),
        tuple((family, tuple(map(line, members))) for family, members in table.groups),
        table.notes,
    )


def _head_lines(heads: Sequence[ScoreHead]) -> list[list[str]]:
    """Dataset, metric and region of the columns, a line each; a line that says nothing is left out."""
    datasets = [head.dataset for head in heads]
    metrics = [f"{head.metric} {head.arrow}".strip() for head in heads]
    regions = [head.region for head in heads]
    several = len(set(zip(datasets, metrics, strict=True))) < len(heads)
    return [line for line, told in ((datasets, any(datasets)), (metrics, True), (regions, several)) if told]


def _spans(line: Sequence[str]) -> Heads:
    found: list[tuple[str, int]] = []
    for text in line:
        if found and found[-1][0] == text:
            found[-1] = (text, found[-1][1] + 1)
        else:
            found.append((text, 1))
    return tuple(found)


def number_cell(text: str) -> ScoreCell:
    """A number that was printed elsewhere, as a cell."""
    return ScoreCell(text or DASH)


def pair_grid(table: PairTable, name: str) -> Grid:
    """Table 2, or one like it of a secondary metric."""
    datasets = any(row.dataset for row in table.rows)
    pairs = not table.reference
    heads = [
        "Model",
        *(["Less"] if pairs else []),
        *(["Dataset"] if datasets else []),
        f"Difference ({table.unit})" if table.unit else "Difference",
        "Interval",
        "Adjusted p",
        "Won (%)",
        "Verdict",
    ]
    rows = [
        Line(
            row.model,
            (
                *([row.other] if pairs else []),
                *([row.dataset] if datasets else []),
                number_cell(row.difference),
                number_cell(f"[{row.low}, {row.high}]"),
                number_cell(row.p),
                number_cell(row.won),
                row.verdict,
            ),
        )
        for row in table.rows
    ]
    return Grid(name, table.caption, (), tuple(heads), (("", tuple(rows)),), table.notes)


def region_grids(analysis: Analysis) -> list[Grid]:
    """For each block and metric the scores of every region, where Table 1 does not hold them all."""
    found: list[Grid] = []
    told = {
        (head.dataset or table.title, head.metric, head.region)
        for table in score_tables(analysis)
        for head in table.heads
    }
    for number, block in enumerate(analysis.blocks):
        for metric in analysis.metrics:
            columns = [
                column
                for region in analysis.regions(number)
                if (column := analysis.column(number, metric, region)) is not None
            ]
            if {(block.name, metric.head, column.region) for column in columns} <= told:
                continue
            labels = analysis.ordered([scores.label for scores in block.scores])
            muted = {scores.label for scores in block.baselines}
            rows = [
                Line(
                    analysis.names[label].short,
                    tuple(score_cell(analysis, column, label) for column in columns),
                    label in muted,
                )
                for label in labels
            ]
            head = f"{metric.head} {metric.arrow}".strip()
            cells = [cell for row in rows for cell in row.cells if isinstance(cell, ScoreCell)]
            notes = ["bold: best, underlined: second"] if any(cell.mark for cell in cells) else []
            notes += star_notes(analysis, columns, cells)
            grid = plain_grid(
                f"table-regions-{len(found) + 1}",
                f"{head} on {block.name}, by region.",
                ("Model", *(column.region for column in columns)),
                rows,
            )
            found.append(replace(grid, notes=tuple(notes)))
    return found


def rank_grids(analysis: Analysis) -> list[Grid]:
    """Ranks of the deciding columns with interval and P(best); only where every model has two seeds."""
    found: list[Grid] = []
    for column in _decided(analysis):
        ranks = column.ranks
        if ranks is None or not np.asarray(ranks.rank_low).size:
            continue
        percent = f"{analysis.options.confidence * 100:g}"
        rows: list[Line] = []
        for label in column.order:
            place = column.compared.index(label)
            best = float(ranks.probability_best[place])
            rows.append(
                Line(
                    analysis.names[label].short,
                    (
                        number_cell(str(int(ranks.ranks[place]))),
                        number_cell(f"{int(ranks.rank_low[place])} to {int(ranks.rank_high[place])}"),
                        number_cell(format_number(best, digits=2)),
                    ),
                )
            )
        found.append(
            plain_grid(
                f"table-ranks-{column.block}",
                f"{where(analysis, column)}: order over {ranks.resamples} draws of seeds and {column.unit}.",
                ("Model", "Rank", f"{percent} % interval", "P(best)"),
                rows,
            )
        )
    return found


def seed_grids(analysis: Analysis) -> list[Grid]:
    """The mean of every training run in the deciding columns; only where a model has two seeds."""
    found: list[Grid] = []
    digits = analysis.options.digits
    for column in _decided(analysis):
        labels = analysis.ordered(list(column.means))
        if all(len(mean.per_seed) < 2 for mean in column.means.values()):
            continue
        seeds = sorted({seed for mean in column.means.values() for seed, _ in mean.per_seed})
        rows: list[Line] = []
        for label in labels:
            mean = column.means[label]
            values: dict[int, float | None] = dict(mean.per_seed)
            shown = [values.get(seed) for seed in seeds] + [mean.sd_seeds]
            texts = [
                DASH if value is None else format_number(value, scale=column.metric.scale, digits=digits)
                for value in shown
            ]
            rows.append(Line(analysis.names[label].short, tuple(map(number_cell, texts))))
        found.append(
            plain_grid(
                f"table-seeds-{column.block}",
                f"{where(analysis, column)}: mean of every training run, and their standard deviation.",
                ("Model", *(f"Seed {seed}" for seed in seeds), "SD"),
                rows,
            )
        )
    return found


def _decided(analysis: Analysis) -> list[Column]:
    return analysis.main_columns() if analysis.metrics else []


COSTS = (
    ("Parameters (M)", "parameters_m", 1),
    ("GMAC", "gmacs", 1),
    ("Peak memory (GiB)", "peak_memory_gib", 2),
    ("Inference (s per case)", "seconds_per_case", 2),
    ("Training (device hours)", "training_hours", 2),
    ("Latency (s)", "latency_s", 3),
)


def cost_grid(analysis: Analysis) -> Grid | None:
    """What the records say of cost; columns that nobody has are left out."""
    labels = analysis.ordered(list(analysis.costs))
    fields = [
        item for item in COSTS if any(getattr(cost, item[1]) is not None for cost in analysis.costs.values())
    ]
    words = [
        item
        for item in (("GMAC counted for", "input_shape"), ("Device", "device"))
        if any(getattr(cost, item[1]) for cost in analysis.costs.values())
    ]
    if not fields:
        return None
    rows: list[Line] = []
    for label in labels:
        cost = analysis.costs[label]
        numbers = [(getattr(cost, name), digits) for _, name, digits in fields]
        texts = [DASH if value is None else format_number(value, digits=digits) for value, digits in numbers]
        rows.append(
            Line(
                analysis.names[label].short,
                (*map(number_cell, texts), *(getattr(cost, name) for _, name in words)),
            )
        )
    heads = ("Model", *(head for head, _, _ in fields), *(head for head, _ in words))
    caption = "Cost from the records, else the model card; nothing is estimated. Times hold for the device."
    return plain_grid("table-cost", caption, heads, rows)


def failure_grid(analysis: Analysis) -> Grid | None:
    """Cases without a usable prediction, each once for every model; None where there are none."""
    rows = [
        Line(case, (analysis.names[label].short, block.name, status))
        for block in analysis.blocks
        for label, case, status in failures(block)
    ]
    heads = ("Case", "Model", "Dataset", "What happened")
    caption = "Expected cases without a usable prediction."
    return plain_grid("table-failed", caption, heads, rows) if rows else None


def run_grid(analysis: Analysis) -> Grid:
    """Every run that was found: where its numbers come from."""
    entries = {run.run_id: entry for entry in analysis.entries for run in (*entry.runs, *entry.copies)}
    rows = [
        Line(
            run.run_id,
            (
                analysis.names[entries[run.run_id].label].short if run.run_id in entries else run.model,
                run.dataset,
                run.protocol,
                number_cell(str(run.fold)),
                number_cell(str(run.seed)),
                run.problem or run.status,
                "" if run.rows is None else run.rows.digest[:12],
                facts.text(run.record.segbench, "version"),
            ),
        )
        for run in analysis.runs
    ]
    heads = ("Run", "Model", "Dataset", "Protocol", "Fold", "Seed", "State", "Digest of scores", "segbench")
    return plain_grid("table-runs", "Runs, as recorded.", heads, rows)
