"""Marks: computed on unrounded values, ties share, missing cells never, the same in every format."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.report import Cell, Column, Row, Table, render, with_marks

VALUES = st.one_of(
    st.none(),
    st.just(math.nan),
    st.sampled_from([0.5, 0.7, 0.9, 0.9 + 1e-14]),
    st.floats(-2, 2, allow_nan=False),
)


def one_column(values: list[float | None], *, higher: bool | None = True, **column: object) -> Table:
    head = Column(("D", "WT"), higher, **column)  # type: ignore[arg-type]
    return Table("t", "caption", (head,), tuple(Row(f"m{i}", (Cell(v),)) for i, v in enumerate(values)))


def marks(table: Table) -> list[str]:
    return [row.cells[0].mark for row in with_marks(table).rows]


def test_best_and_second() -> None:
    assert marks(one_column([0.8, 0.9, 0.7])) == ["second", "best", ""]
    assert marks(one_column([0.8, 0.9, 0.7], higher=False)) == ["second", "", "best"]


def test_ties_share_and_leave_no_second() -> None:
    assert marks(one_column([0.9, 0.9, 0.7])) == ["best", "best", ""]
    assert marks(one_column([0.9, 0.8, 0.8])) == ["best", "second", "second"]
    assert marks(one_column([0.5, 0.5, 0.5])) == ["best", "best", "best"]


def test_printed_equal_is_not_equal() -> None:
    """Two values that print alike are told apart; float noise beyond the 12th decimal is not."""
    assert marks(one_column([0.912341, 0.912342, 0.1])) == ["second", "best", ""]
    assert marks(one_column([0.1 + 0.2, 0.3, 0.1])) == ["best", "best", ""]


def test_missing_and_single_values_are_never_marked() -> None:
    assert marks(one_column([None, 0.9, math.nan])) == ["", "", ""]
    assert marks(one_column([None, 0.9, 0.8])) == ["", "best", "second"]
    assert marks(one_column([])) == []


def test_columns_without_rank() -> None:
    assert marks(one_column([0.8, 0.9], higher=None)) == ["", ""]
    assert marks(one_column([0.8, 0.9], rankable=False)) == ["", ""]


def test_old_marks_are_replaced() -> None:
    table = Table(
        "t", "", (Column(("x",), True),), (Row("a", (Cell(1.0, mark="best"),)), Row("b", (Cell(2.0),)))
    )
    assert marks(table) == ["second", "best"]


def test_infinite_values_take_part() -> None:
    assert marks(one_column([math.inf, 3.0, 4.0], higher=False)) == ["", "best", "second"]


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, min_size=0, max_size=8), st.sampled_from([True, False, None]))
def test_marks_agree_with_a_plain_definition(values: list[float | None], higher: bool | None) -> None:
    """Best: nobody is better; second: only one is better, and best is alone; equal in every format."""
    table = with_marks(one_column(values, higher=higher))
    rounded = [None if v is None or math.isnan(v) else round(v, 12) for v in values]
    known = [v for v in rounded if v is not None]
    expected: list[str] = []
    for value in rounded:
        if value is None or higher is None or len(known) < 2:
            expected.append("")
            continue
        better = [other for other in known if (other > value if higher else other < value)]
        tied_best = known.count(max(known) if higher else min(known)) > 1
        expected.append("best" if not better else "second" if len(set(better)) == 1 and not tied_best else "")
    assert [row.cells[0].mark for row in table.rows] == expected
    assert marks_in_latex(render(table, "latex"), len(values)) == expected
    assert marks_in_markdown(render(table, "markdown"), len(values)) == expected
    assert marks_in_html(render(table, "html"), len(values)) == expected
    cells = [row["cells"][0] for row in json.loads(render(table, "json"))["rows"]]
    assert [cell["mark"] for cell in cells] == expected


def _word(line: str, best: str, second: str) -> str:
    return "best" if best in line else "second" if second in line else ""


def marks_in_latex(text: str, rows: int) -> list[str]:
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == rows
    return [_word(line, "\\textbf{", "\\underline{") for line in body]


def marks_in_markdown(text: str, rows: int) -> list[str]:
    lines = [line for line in text.splitlines() if re.match(r"\| m\d", line)]
    assert len(lines) == rows
    return [_word(line, "**", "<u>") for line in lines]


def marks_in_html(text: str, rows: int) -> list[str]:
    lines = re.findall(r'<tr><th scope="row">.*', text)
    assert len(lines) == rows
    return [_word(line, "<strong>", "<u>") for line in lines]


def test_ragged_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="2 cells for 1 columns"):
        Table("t", "", (Column(("x",), True),), (Row("a", (Cell(1.0), Cell(2.0))),))


@pytest.mark.parametrize(
    ("value", "digits", "scale", "printed"),
    [
        (0.91235, 2, 100, "91.24"),  # half to even on the decimal string, not on the binary value
        (0.91245, 2, 100, "91.24"),
        (2.675, 2, 1, "2.68"),
        (-0.0001, 2, 1, "0.00"),
        (-0.0, 0, 1, "0"),
        (1e-9, 3, 1, "0.000"),
        (123456789.125, 2, 1, "123456789.12"),
        (math.inf, 2, 100, "inf"),
    ],
)
def test_printed_numbers(value: float, digits: int, scale: float, printed: str) -> None:
    column = Column(("x",), None, scale=scale, digits=digits)
    text = render(Table("t", "", (column,), (Row("a", (Cell(value),)),)), "markdown")
    assert f"| a | {printed} |" in text


def test_csv_holds_exact_numbers() -> None:
    column = Column(("D", "WT"), True, scale=100)
    table = Table(
        "t", "", (column,), (Row("=cmd", (Cell(0.1 + 0.2, spread=1 / 3),)), Row("b", (Cell(None),)))
    )
    lines = render(table, "csv").splitlines()
    assert lines[0].startswith("row,head_1,head_2,value,spread")
    assert lines[1].startswith("'=cmd,D,WT,0.30000000000000004,0.33333333333333331,")
    assert lines[2].startswith("b,D,WT,,,")


def test_p_values_are_never_zero() -> None:
    from segbench.report.numbers import format_p

    assert [format_p(p) for p in (0.0, 0.0009999, 0.001, 0.0495, 1.0, None)] == [
        "<0.001",
        "<0.001",
        "0.001",
        "0.050",
        "1.000",
        "n/a",
    ]
