"""LaTeX: golden bytes, escapes, the lint, and a real compiler where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.report import Cell, Column, Row, Table, escape_latex, lint_latex, render, with_marks

HOSTILE = [
    "A_B & 50% #1 {x} ~ ^ \\ $",
    "[x]",
    "*star",
    "=cmd",
    "<script>",
    "a\\\\b",
    "}",
    "{",
    "--flag---x",
    "right\N{RIGHT-TO-LEFT OVERRIDE}left",
    "\N{GREEK SMALL LETTER ALPHA}-UNet \N{PLUS-MINUS SIGN} \N{CJK UNIFIED IDEOGRAPH-4E2D}",
    "n" * 200,
    "?`!`",
    "\"quoted\" 'single'",
    "tab\tnew\nline\r%",
    "|pipe|",
    "\\end{tabular}",
    "",
]


def small_table() -> Table:
    columns = (
        Column(("BraTS2023", "WT"), True, 100),
        Column(("BraTS2023", "ET"), True, 100),
        Column(("CRC", "HD95"), False),
    )
    rows = (
        Row("V_2", (Cell(0.91235, 0.03), Cell(0.8, single=True), Cell(3.2, low=-1.0, high=4.0))),
        Row("nnU-Net", (Cell(0.911, 0.02, dagger=True), Cell(None), Cell(2.9, low=2.0, high=3.5))),
    )
    return with_marks(
        Table("main", "Dice & HD95 of 5 % of cases", columns, rows, notes=("[x] note",), corner="Model")
    )


GOLDEN = r"""\begin{table}[t]
\centering
\caption{Dice \& HD95 of 5 \% of cases}
\label{tab:main}
\footnotesize
\setlength{\tabcolsep}{5pt}
\begin{tabular}{lccc}
\toprule
 & \multicolumn{2}{c}{BraTS2023} & \multicolumn{1}{c}{CRC} \\
\cmidrule(lr){2-3}\cmidrule(lr){4-4}
Model & WT $\uparrow$ & ET $\uparrow$ & HD95 $\downarrow$ \\
\midrule
V\_2 & \textbf{91.24 $\pm$ 3.00} & \textit{80.00}\textsuperscript{1} & \underline{3.20 [$-$1.00, 4.00]} \\
nnU-Net & \underline{91.10 $\pm$ 2.00}\textsuperscript{\dag} & -- & \textbf{2.90 [2.00, 3.50]} \\
\bottomrule
\end{tabular}
\par\smallskip
{[}x] note\par
\end{table}
"""


def test_golden_bytes() -> None:
    assert render(small_table(), "latex") == GOLDEN


def test_standalone_holds_the_bytes_of_the_fragment() -> None:
    whole = render(small_table(), "latex", standalone=True)
    assert GOLDEN in whole
    assert whole.startswith("\\documentclass{article}\n\\usepackage{booktabs}\n")
    assert "\\input" not in whole


def test_wide_and_long_tables() -> None:
    wide = Table("w", "", tuple(Column((f"c{i}",), True) for i in range(9)), ())
    assert "\\begin{table*}" in render(wide, "latex")
    assert "\\begin{table*}" in render(small_table(), "latex", column="double")
    long = Table("l", "cap", (Column(("c",), None),), tuple(Row(f"r{i}", (Cell(1.0),)) for i in range(100)))
    text = render(long, "latex")
    assert text.count("\\begin{tabular}") == 3
    assert text.count("(continued)") == 2
    assert lint_latex(text) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_pass_the_lint(name: str) -> None:
    table = Table(
        name, name, (Column((name, name), True), Column((name, "b"), False)),
        (Row(name, (Cell(1.0, text=name), Cell(0.5, note="2"))), Row("b", (Cell(None), Cell(float("inf"))))),
        notes=(name,), corner=name,
    )  # fmt: skip
    for standalone in (False, True):
        text = render(with_marks(table), "latex", standalone=standalone)
        assert lint_latex(text) == []
        assert text.isascii()


def test_a_line_break_in_a_name_is_a_space() -> None:
    table = Table("t", "", (Column(("c",), None),), (Row("two\nlines", (Cell(1.0),)),))
    assert "two lines & 1.00 \\\\" in render(table, "latex")


def test_a_word_longer_than_a_line_is_cut_where_tex_could_not_break_it() -> None:
    table = Table("t", "c" * 90, (Column(("c",), None),), (), notes=("n" * 90,))
    text = render(table, "latex")
    assert "c" * 41 not in text
    assert "..." in text
    assert "n" * 41 not in text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_escaped(text: str) -> None:
    escaped = escape_latex(text)
    assert escaped.isascii()
    assert escaped.isprintable() or escaped == ""
    table = Table("t", text, (Column((text,), True),), (Row(text, (Cell(1.0, text=text),)),), notes=(text,))
    assert lint_latex(render(table, "latex")) == []


def test_escape_examples() -> None:
    assert escape_latex("a_b & 50%") == r"a\_b \& 50\%"
    assert escape_latex("--x") == "-{}-x"
    assert escape_latex("\N{GREEK SMALL LETTER BETA}\N{EN DASH}\N{MULTIPLICATION SIGN}") == "beta-x"
    assert escape_latex("na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve") == "naive"
    assert escape_latex("a\nb\x00") == "a b "


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("\\begin{tabular}{lc}\na & b & c \\\\\n\\end{tabular}", "3 cells for 2"),
        ("\\begin{tabular}{lc}\n[x] & b \\\\\n\\end{tabular}", "begins with"),
        ("\\resizebox{1cm}{x}", "resizebox"),
        ("a_b", "subscript"),
        ("50% off", "comment"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "not ASCII"),
        ("{a", "not closed"),
        ("a}", "closing brace"),
        ("$x^2$", "is not allowed"),
        ("$\\pm", "odd number"),
        ("\\begin{longtable}{l}\\end{longtable}", "longtable"),
        ("\\begin{table}", "not closed"),
        ("a < b", "less-than"),
        ("\\begin{tabular}{l|c}a & b \\\\\\end{tabular}", "more than l, c, r"),
    ],
)
def test_the_lint_finds_it(source: str, word: str) -> None:
    assert any(word in finding for finding in lint_latex(source)), lint_latex(source)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
@pytest.mark.parametrize("document", ["article", "IEEEtran", "llncs", "standalone"])
def test_it_compiles(document: str, tmp_path: Path) -> None:
    """Fragments in three classes and the stand-alone file, hostile names and long tables, -halt-on-error."""
    if document not in {"article", "standalone"}:
        found = subprocess.run(["kpsewhich", f"{document}.cls"], capture_output=True, text=True, check=False)
        if not found.stdout.strip():
            pytest.skip(f"no {document}.cls in this TeX")
    rows = tuple(
        Row(name, (Cell(0.5 + i / 100, 0.1, single=True), Cell(None, text=name)))
        for i, name in enumerate(HOSTILE)
    )
    columns = (Column(("[x]", "a_b"), True), Column(("[x]", "*"), None))
    table = with_marks(Table("main", " ".join(HOSTILE[:-1]), columns, rows * 3, notes=tuple(HOSTILE)))
    if document == "standalone":
        source = render(table, "latex", standalone=True)
    else:
        (tmp_path / "fragment.tex").write_text(render(table, "latex"), encoding="ascii")
        body = "\\begin{document}\nText.\n\\input{fragment}\n\\end{document}\n"
        source = f"\\documentclass{{{document}}}\n\\usepackage{{booktabs}}\n{body}"
    (tmp_path / "x.tex").write_text(source, encoding="ascii")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "x.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False, timeout=120,
    )  # fmt: skip
    if "not loadable: Metric" in done.stdout:
        pytest.skip("the fonts of this class are not installed")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "x.pdf").stat().st_size > 1000
