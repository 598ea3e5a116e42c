"""The report and a comparison as lines of a terminal: the answer, tables within 80 columns, findings.

Nothing here prints and nothing is computed: lines are typeset from the analysis, its tables and sentences.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from segbench.core import console
from segbench.core.text import count
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import Block
from segbench.report.analysis.columns import Column
from segbench.report.analysis.findings import SEVERITY_WORDS, Finding, gathered
from segbench.report.analysis.metric import format_p
from segbench.report.analysis.published_beside import GRADES, beside_sentence
from segbench.report.analysis.sentences import alone, difference_words, headline
from segbench.report.write.tables import STARS, ScoreCell, floor_notes, limited, score_cells, star_notes

if TYPE_CHECKING:
    from segbench.report.analysis.compare import ComparedPair, CompareResult

WIDTH = 80  # of a line at most; a narrower terminal has narrower ones
LEAST_NAME = 10  # characters that a name keeps however little room there is
PLACES = {"best": "1", "second": "2"}
_ASCII = str.maketrans("\N{DAGGER}\N{EN DASH}", "+-")
"""Signs of tables as a terminal without UTF-8 shows them too."""


def report_lines(analysis: Analysis, *, wide: bool = False) -> list[str]:
    """The answer, then the scores of every entry, a line for each model and dataset.

    Args:
        analysis: what is to be said.
        wide: also every region and every metric, without a limit on the width.
    """
    lines = _answers(analysis)
    for block in analysis.blocks:
        lines += ["", *_scores(analysis, block, wide=wide)]
    return lines


def compare_lines(result: CompareResult, *, wide: bool = False) -> list[str]:
    """The answer, scores, comparisons, published numbers."""
    lines = report_lines(result.analysis, wide=wide)
    for metric in result.analysis.metrics:
        for column in result.analysis.main_columns(metric):
            pairs = [item for item in result.pairs if item.column is column]
            if pairs:
                lines += ["", *_comparisons(column, pairs, wide=wide)]
    return [*lines, *_published(result)]


def finding_lines(findings: Iterable[Finding]) -> list[str]:
    """One finding a paragraph, its severity first: `error: [leak] ...`; an empty line before the first."""
    lines = [
        line
        for item in gathered(findings)
        for line in _wrapped(f"{SEVERITY_WORDS[item.severity]}: [{item.code}] {item.message}", "  ")
    ]
    return ["", *lines] if lines else []


def _width() -> int:
    return min(WIDTH, max(40, console.line_width()))


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, _width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _answers(analysis: Analysis) -> list[str]:
    lines: list[str] = []
    for where, sentences in headline(analysis):
        lines += ["", where] if lines else [where]
        for sentence in sentences:
            lines += _wrapped(f"- {sentence}", "  ")
    return lines


def _scores(analysis: Analysis, block: Block, *, wide: bool) -> list[str]:
    """The table of one block: primary metric with interval, boundary metric, seeds, n, failed, mark."""
    columns = _shown(analysis, block, wide=wide)
    if not columns:
        return [f"{block.name}: no metric to show"]
    cells, main = [score_cells(column) for column in columns], block.main_region
    heads = [
        column.metric.head if column.region == main else f"{column.metric.label} {column.region}"
        for column in columns
    ]
    seeds = {scores.label: str(len(scores.seeds)) for scores in block.scores}
    rows: list[list[str]] = []
    for label in analysis.ordered(list(seeds)):
        first = cells[0][label]
        shown = [_score(of[label], interval=wide or place == 0) for place, of in enumerate(cells)]
        n = str(columns[0].means[label].n) if label in columns[0].means else "0"
        failed = str(max(of[label].failed for of in cells))
        mark = PLACES.get(first.mark, "") + STARS.get(first.star, "").translate(_ASCII)
        rows.append([analysis.short(label), mark, *shown, seeds[label], n, failed])
    title = f"{block.name}: {block.count}, {columns[0].region_words}"
    table = _table(["model", "", *heads, "seeds", "n", "failed"], rows, left=2, wide=wide)
    return [*_wrapped(title), *table, *_legend(columns, list(cells[0].values()))]


def _shown(analysis: Analysis, block: Block, *, wide: bool) -> list[Column]:
    metrics = analysis.metrics if wide else analysis.shown_metrics
    others = [region for region in analysis.regions(block) if region != block.main_region] if wide else []
    return analysis.columns_of(block, metrics) + analysis.columns_of(block, metrics, others)


def _score(cell: ScoreCell, *, interval: bool) -> str:
    if interval and cell.low:
        return f"{cell.value} [{cell.low}, {cell.high}]"
    return cell.value.translate(_ASCII) + (f" +- {cell.spread}" if cell.spread else "")


def _legend(columns: Sequence[Column], first: Sequence[ScoreCell]) -> list[str]:
    notes = ["1, 2: best and second by the printed mean"] if any(cell.mark for cell in first) else []
    notes += [note.translate(_ASCII) for note in star_notes(columns[:1], first)] + floor_notes(columns)
    if any(cell.failed for cell in first):
        notes.append("failed: cases without a usable prediction, scored worst")
    return [line for note in notes for line in _wrapped(f"  {note}", "    ")]


def _comparisons(column: Column, pairs: Sequence[ComparedPair], *, wide: bool) -> list[str]:
    """One family: a row for each pair, with the adjusted p that decides."""
    short = column.block.short
    against = f"less {short(column.reference)}" if column.reference else "all pairs, a less b"
    role = "" if column.role == "primary" else ", secondary metric, corrected by itself"
    rows = [
        [
            short(item.pair.a),
            *([] if column.reference else [short(item.pair.b)]),
            difference_words(column, item.pair, unit=False),
            format_p(item.pair.p_adjusted),
            f"{item.wins}/{item.ties}/{item.losses}",
            item.pair.verdict + (" +" if limited(item.pair) else ""),
        ]
        for item in pairs
    ]
    names = ["model"] if column.reference else ["a", "b"]
    name = f"{column.block.name}, {column.metric.head}, {column.region_words}"
    title = f"{name}: {against}{role}; {count(len(pairs), 'comparison')}"
    head = [*names, "difference", "p adj.", "w/t/l", "verdict"]
    lines = [*_wrapped(title), *_table(head, rows, left=len(names), wide=wide)]
    lines += _wrapped("  p adjusted for these comparisons; w/t/l: cases won, tied, lost", "    ")
    if any(limited(item.pair) for item in pairs):
        lines += _wrapped("  +: one {} on a side: {} only".format(*alone(column.block.models)), "    ")
    return lines


def _published(result: CompareResult) -> list[str]:
    """Published numbers beside ours: a grade and a difference, no verdict."""
    if not result.published:
        return []
    title = f"published: {'; '.join(f'{grade}: {words}' for grade, words in GRADES.items())}"
    said = (line for row in result.published for line in _wrapped(f"- {beside_sentence(row)}", "  "))
    return ["", *_wrapped(title, "  "), *said]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int, wide: bool = False) -> list[str]:
    """Aligned columns; names are shortened until the table fits, unless it may be wide.

    Args:
        head: heads of the columns.
        rows: cells.
        left: number of columns aligned to the left, from the first on.
        wide: leave every name as it is.
    """
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    over = 2 + sum(widths) + 2 * (len(widths) - 1) - _width()
    if over > 0 and not wide:
        yielding = [0, 1] if head[0] == "a" else [0]
        room = max(LEAST_NAME, (sum(widths[place] for place in yielding) - over) // len(yielding))
        for place in yielding:
            short = shortened([row[place] for row in cells], room)
            for row, text in zip(cells, short, strict=True):
                row[place] = text
    right = [place for place in range(left, len(head)) if head[place] != "verdict"]
    return console.table_lines(cells[0], cells[1:], right=right, width=sys.maxsize if wide else _width())


def shortened(names: Sequence[str], room: int) -> list[str]:
    """Names of at most `room` characters, the middle left out; different ones stay different."""
    taken: dict[str, str] = {}
    for name in dict.fromkeys(names):
        tail = room // 2
        short, number = name, 2
        while len(short) > room or short in taken.values():
            end = name[-tail:] if number == 2 else f"{name[-tail + 2 :]}{number}"
            short = f"{name[: room - len(end) - 1]}~{end}"
            number += 1
        taken[name] = short
    return [taken[name] for name in names]
