"""Tables that are wider than a text: panels of whole columns that fit, in every class, with nothing lost."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.report import Cell, Column, Row, Table, lint_latex, with_marks
from segbench.report.build import MOST_FLOATS, latex_text
from segbench.report.options import make_options
from segbench.report.panels import TEXT_POINTS, panels, table_points
from segbench.report.tables.collect import TableSet

NAMES = ["SegMamba-V2 (as released)", "nnU-Net ResEnc L", "a_model_with_many_under_scores_in_it", "UNETR"]


def wide_table(datasets: dict[str, int], *, names: list[str] = NAMES, label: str = "tab:main") -> Table:
    """Mean and SD of as many regions of each dataset, marked."""
    rng = np.random.default_rng(3)
    columns = tuple(
        Column((name, f"region_{place}"), True, 100)
        for name, count in datasets.items()
        for place in range(count)
    )
    rows = tuple(
        Row(name, tuple(Cell(float(rng.random()), 0.0345, dagger=True, single=True) for _ in columns))
        for name in names
    )
    return with_marks(Table("main", "Dice", columns, rows, notes=("A note.",), label=label, corner="Model"))


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1),
    st.sampled_from([150.0, 250.0, TEXT_POINTS, 516.0]),
    st.sampled_from(["scriptsize", "footnotesize", "normalsize"]),
)
def test_panels_fit_and_lose_no_column(datasets: dict[str, int], limit: float, font: str) -> None:
    table = wide_table(datasets)
    parts = panels(table, font, limit)
    assert tuple(column for part in parts for column in part.columns) == table.columns
    for row, *others in zip(table.rows, *(part.rows for part in parts), strict=True):
        assert tuple(cell for other in others for cell in other.cells) == row.cells
        assert all(other.label == row.label for other in others)
    assert all(table_points(part, font) <= limit or len(part.columns) == 1 for part in parts)
    if table_points(table, font) <= limit:
        assert parts == [table]


def test_columns_under_one_head_stay_together_where_they_fit() -> None:
    parts = panels(wide_table({"one": 3, "two": 3}), "footnotesize", 450.0)
    assert [[column.header[0] for column in part.columns] for part in parts] == [["one"] * 3, ["two"] * 3]


def test_panels_stand_in_one_float_with_one_caption_and_the_notes_once() -> None:
    text = latex_text(TableSet("main", "main", (), (wide_table({"one": 3, "two": 3}),)), make_options())
    assert lint_latex(text) == []
    assert text.count("\\begin{tabular}") == 2
    assert text.count("\\caption{") == text.count("A note.") == text.count("\\label{") == 1


def test_a_table_that_is_a_little_too_wide_is_a_size_smaller() -> None:
    table = wide_table({"one": 4}, names=["nnU-Net", "UNETR"])
    assert table_points(table, "footnotesize") > TEXT_POINTS > table_points(table, "scriptsize")
    text = latex_text(TableSet("main", "main", (), (table,)), make_options())
    assert "\\scriptsize" in text
    assert text.count("\\begin{tabular}") == 1


def test_two_columns_of_a_journal_hold_more() -> None:
    tables = (wide_table({"one": 3, "two": 2}),)
    single, double = (
        latex_text(TableSet("main", "main", (), tables), make_options(column=column)).count(
            "\\begin{tabular}"
        )
        for column in ("single", "double")
    )
    assert (single, double) == (2, 1)


def test_more_floats_than_latex_can_hold_leave_the_tables_over_all_regions() -> None:
    tables = tuple(wide_table({"one": 2}, label=f"tab:{number}") for number in range(MOST_FLOATS + 1))
    text = latex_text(TableSet("pairwise", "pairwise", tables, tables, frozenset({"tab:7"})), make_options())
    assert text.count("\\begin{table") == 1
    assert "\\label{tab:7}" in text
    assert "Other regions stand in pairwise.csv" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
@pytest.mark.parametrize("name", ["article", "IEEEtran", "llncs"])
def test_nothing_stands_over_the_margin_or_below_the_page(name: str, tmp_path: Path) -> None:
    found = subprocess.run(["kpsewhich", f"{name}.cls"], capture_output=True, text=True, check=False)
    if not found.stdout.strip():
        pytest.skip(f"no {name}.cls in this TeX")
    tables = tuple(
        wide_table(datasets, names=names, label=f"tab:{number}")
        for number, (datasets, names) in enumerate(
            [
                ({"brats": 4, "crc": 2, "a_dataset_with_a_long_name_2026": 1, "atlas": 10}, NAMES),
                ({"brats": 4}, ["nnU-Net", "UNETR"]),
                ({"one": 2}, ["W" * 60, "m" * 34]),
            ]
        )
    )
    long = replace(
        wide_table({"brats": 3}, names=[f"model_{number}" for number in range(60)], label="tab:long"),
        caption="A caption states the test, its family, the missing policy and the recipe. " * 9,
        notes=("A note of about one line, which says what a mark in the table stands for.",) * 6,
    )
    fragment = latex_text(TableSet("main", "main", (), (*tables, long)), make_options())
    (tmp_path / "fragment.tex").write_text(fragment, encoding="ascii")
    (tmp_path / "x.tex").write_text(
        f"\\documentclass{{{name}}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\nText.\n"
        "\\input{fragment}\n\\end{document}\n",
        encoding="ascii",
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "x.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False, timeout=120,
    )  # fmt: skip
    if "not loadable: Metric" in done.stdout:
        pytest.skip("the fonts of this class are not installed")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
    assert "Float too large" not in done.stdout
