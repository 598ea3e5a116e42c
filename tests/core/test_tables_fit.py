"""Terminal tables: none wider than the line, and nothing lost on the way, whatever the cells."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segbench.core import console

HEAD = ["model", "dataset", "fold", "seed", "state", "region", "cases", "Dice", "HD95 mm", "NSD"]
WORDS = st.text("abc-_ 0.", max_size=40)
ROWS = st.lists(st.lists(WORDS, min_size=len(HEAD), max_size=len(HEAD)), max_size=4)
LONG = ["segmamba-v2-bidirectional", "abdomenatlas-1.0-mini", "0", "0", "done", "gall_bladder", "20/20"]


@pytest.mark.ci
@given(ROWS)
@example([[*LONG, "0.123", "12.345", "0.123"], ["", "", "", "", "", "liver", "20/20", "0.1", "2.3", "0.1"]])
def test_no_line_is_too_wide_and_no_letter_is_lost(rows: list[list[str]]) -> None:
    lines = console.table_lines(HEAD, rows, right=range(6, len(HEAD)))
    assert max(map(len, lines)) <= 80
    shown = sorted("".join(lines).replace(" ", ""))
    for row in rows:
        for letter in set("".join(row)) - {" "}:
            assert letter in shown
    for i, name in enumerate(HEAD):
        if any(row[i].strip() for row in rows):
            assert not set(name.replace(" ", "")) - set(shown)


def test_a_sentence_goes_on_below_before_an_id_is_cut() -> None:
    run = "segmamba-v2-tiny__phantom__demo+custom__f0__s0__715421be"
    rows = [[run, "blocked", "needs a package that is absent"], [run[:-1], "done", ""]]
    lines = console.table_lines(["id", "state", "failure"], rows)
    assert all(any(run[:-1] in line and state in line for line in lines) for state in ("blocked", "done"))
    assert max(map(len, lines)) <= 80


def test_a_column_in_which_no_row_has_anything_is_left_out() -> None:
    assert console.table_lines(["name", "size", "n"], [["a", "", "1"], ["b", " ", "2"]]) == [
        "  name  n", "  a     1", "  b     2",
    ]  # fmt: skip


def test_what_every_row_says_is_said_once_above_a_wide_table() -> None:
    rows = [[f"model-{i}-with-a-long-name", *LONG[1:], "0.123", "12.345", "0.123"] for i in range(3)]
    lines = console.table_lines(HEAD, rows, right=range(6, len(HEAD)))
    assert lines[0].startswith("  dataset: abdomenatlas-1.0-mini")
    assert [line.split()[0] for line in lines[1:]] == ["model", *(row[0] for row in rows)]


def test_a_cell_that_only_a_failed_row_lacks_is_not_said_for_all() -> None:
    failed = ["another-model-of-some-length", *LONG[1:4], "failed (environment) SB505", "", "", "", "", ""]
    rows = [[*LONG, "0.123", "12.345", "0.123"], failed]
    lines = console.table_lines(HEAD, rows, right=range(6, len(HEAD)))
    assert "gall_bladder" not in lines[0]
    assert any("0.123" in line and "done" in line for line in lines)


def test_a_column_without_a_name_or_a_cell_is_no_trouble() -> None:
    assert console.table_lines(["", "a"], [["", "1"]]) == ["    a", "    1"]


def test_a_narrow_table_stays_as_it_is() -> None:
    assert console.table_lines(["a", "n"], [["x", "1"], ["x", "22"]], right=[1]) == [
        "  a   n", "  x   1", "  x  22",
    ]  # fmt: skip
