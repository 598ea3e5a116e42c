"""paper.tex, what an author pastes: escapes, layout, marks, the paragraph on statistics, compilers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latex_lint import floats, layouts, lint_latex, rows

from segbench.report.analysis.analysis import Analysis, analyse
from segbench.report.analysis.options import make_options
from segbench.report.write import paper
from segbench.report.write.latex import escape_latex, number, prose

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
]
Make = Callable[..., Analysis]


@pytest.fixture
def analysed(runs: Any) -> Make:
    """The analysis of the runs written so far."""
    return lambda **options: analyse([runs.root], make_options(resamples=200, viewer="none", **options))


def three_models(runs: Any, *, seeds: int = 3, **how: Any) -> None:
    for skill, model in ((0.9, "segmamba-v2"), (0.86, "nnunet"), (0.82, "unetr")):
        for seed in range(seeds):
            runs.run(model, skill=skill, seed=seed, run_noise=0.002, **how)


def hostile_runs(runs: Any, **how: Any) -> None:
    """Two seeds of a model for each hostile name."""
    for place, name in enumerate(HOSTILE):
        card = {"title": name, "short_name": name}
        for seed in (0, 1):
            runs.run(
                f"m{place:02d}", cases=8, skill=0.5 + 0.02 * place, seed=seed,
                record={"model": {"slug": f"m{place:02d}", "card": card}}, **how,
            )  # fmt: skip


def written(analysis: Analysis) -> str:
    text = paper.files(analysis)["paper.tex"]
    assert isinstance(text, str)
    return text


def table(text: str, number: int = 0, layout: int = 0) -> list[list[str]]:
    return rows(layouts(list(floats(text))[number])[layout])


def test_table_1_by_family_with_citations_and_marks(runs: Any, analysed: Make) -> None:
    three_models(runs)
    text = written(analysed(reference="nnunet"))
    found = table(text)
    assert [row[0] for row in found] == [
        r"\multicolumn{9}{@{}l}{\textit{Convolution}}",
        r"nnU-Net~\cite{isensee2021nnunet}",
        r"\multicolumn{9}{@{}l}{\textit{Transformer}}",
        r"UNETR~\cite{hatamizadeh2022unetr}",
        r"\multicolumn{9}{@{}l}{\textit{Mamba}}",
        r"SegMamba-V2~\cite{xing2025segmambav2}",
    ]
    means = [row[4] for row in found if len(row) > 1]
    assert re.fullmatch(r"\\segci\{\\underline\{80\.\d\d\}\}\{79\.\d\d,\\,81\.\d\d\}", means[0])
    assert means[1].startswith("\\segci{7")
    assert re.match(r"\\segci\{\\textbf\{8\d\.\d\d\}\\rlap\{\\textsuperscript\{\*\}\}\}", means[2])
    assert "{*}: significantly better than nnU-Net (adjusted $p < 0.05$)" in text
    assert text.count("phantom-brats") == 2  # the caption and the paragraph


def test_golden_structure(runs: Any, analysed: Make) -> None:
    three_models(runs, cases=20, regions=("tumour",))
    text = written(analysed(reference="nnunet", cells="mean"))
    body = text[text.index("\\begin{table}") :]
    masked = re.sub(r"\$-\$", "-", re.sub(r"\d+\.\d+", "0", body[: body.index("\\end{table}")]))
    assert masked == GOLDEN


GOLDEN = r"""\begin{table}[t]
\centering
\caption{Scores on phantom-brats: mean.}
\label{tab:segbench-scores}
\def\segwide{%
\begin{tabular}{@{}lcc@{}}
\toprule
Model & Dice (\%) $\uparrow$ & HD95 (mm) $\downarrow$ \\
\midrule
\multicolumn{3}{@{}l}{\textit{Convolution}} \\
nnU-Net~\cite{isensee2021nnunet} & \underline{0} & \underline{0} \\
\midrule
\multicolumn{3}{@{}l}{\textit{Transformer}} \\
UNETR~\cite{hatamizadeh2022unetr} & 0 & 0 \\
\midrule
\multicolumn{3}{@{}l}{\textit{Mamba}} \\
SegMamba-V2~\cite{xing2025segmambav2} & \textbf{0}\textsuperscript{*} & \textbf{0}\textsuperscript{*} \\
\bottomrule
\end{tabular}}
\let\segnarrow\segwide
\segfit
\par\smallskip{\scriptsize\raggedright $n = 20$ cases; bold: best, underlined: second; {*}: significantly better than nnU-Net (adjusted $p < 0$); training runs of each model: 3.\par}
"""  # noqa: E501 - bytes as they are


@pytest.mark.ci
@pytest.mark.parametrize(
    ("cells", "shape"),
    [
        ("mean-ci", r"\\segci\{\\textbf\{[\d.]+\}(\\rlap\{[^}]*\}\})?\}\{[\d.]+,\\,[\d.]+\}"),
        ("mean-sd", r"\\segsd\{\\textbf\{[\d.]+\}(\\textsuperscript\{\*\})?\}\{[\d.]+\}"),
        ("mean", r"\\textbf\{[\d.]+\}(\\textsuperscript\{\*\})?"),
    ],
)
def test_every_kind_of_cell(runs: Any, analysed: Make, cells: str, shape: str) -> None:
    three_models(runs)
    text = written(analysed(reference="nnunet", cells=cells))
    assert lint_latex(text) == []
    best = next(row for row in table(text) if row[0].startswith("SegMamba-V2"))
    assert re.fullmatch(shape, best[4]), best[4]


def test_failed_cases_are_a_superscript_with_a_note(runs: Any, analysed: Make) -> None:
    three_models(runs)
    lost = runs.rows("swin-unetr", seed=0)
    for row in lost[:6]:
        row.update(status="missing", dice=0.0, hd95=250.0, nsd=0.0)
    runs.write(lost)
    text = written(analysed())
    (row,) = (row for row in table(text) if row[0].startswith("SwinUNETR"))
    assert all("\\textsuperscript{(2)}" in cell for cell in row[2:])
    assert "cases without a usable prediction, scored worst (SwinUNETR 2)" in text
    assert "A case without a usable prediction has the worst value of each metric." in text


def test_table_2_is_against_the_reference_and_marks_claims_about_weights(runs: Any, analysed: Make) -> None:
    three_models(runs)
    runs.run("swin-unetr", skill=0.7)
    text = written(analysed())
    assert "\\caption{Dice, each model less SegMamba-V2.}" in text
    found = table(text, 1)
    assert [row[0] for row in found] == ["nnU-Net", "UNETR", "SwinUNETR"]
    interval = r"\\segci\{\$-\$[\d.]+\}\{\$-\$[\d.]+,\\,\$-\$[\d.]+\}"
    assert all(re.fullmatch(interval, row[1]) for row in found)
    assert found[2][-1] == r"worse $\dagger$"
    assert r"$\dagger$: one set of predictions on a side: these predictions only" in text
    assert r"adjusted for the 3 comparisons of a dataset by Holm's method~\cite{holm1979}" in text
    assert "with SegMamba-V2 as reference" in text


@pytest.mark.ci
def test_without_a_reference_all_pairs_by_shaffer_and_many_pairs_only_with_a_verdict(
    runs: Any, analysed: Make
) -> None:
    for place in range(11):
        for seed in (0, 1, 2):
            runs.run(f"m{place}", skill=0.8 + 0.05 * (place == 3), seed=seed, cases=20, regions=("r",))
    text = written(analysed(reference="none"))
    assert r"Shaffer's steps~\cite{shaffer1986} for all pairs" in text
    found = table(text, 1)
    assert len(found) < 55
    assert all(row[-1] in {"better", "worse"} for row in found)
    assert f"{55 - len(found)} inconclusive comparisons are not shown" in text


def test_one_model_is_a_table_without_comparisons(runs: Any, analysed: Make) -> None:
    runs.run("nnunet")
    text = written(analysed())
    assert lint_latex(text) == []
    assert len(list(floats(text))) == 1
    assert "\\cite{segbench}" in text
    assert "-values" not in text


def test_blocks_that_may_not_be_compared_are_tables_of_their_own(runs: Any, analysed: Make) -> None:
    three_models(runs, seeds=1)
    for seed in (0, 1):
        runs.run("uxnet", seed=seed, record={"split": {"name": "other", "digest": "f" * 64, "test": []}})
    for name in ("segmamba", "umamba-bot"):
        runs.run(name, record={"split": {"name": "one", "digest": "e" * 64, "test": []}})
    analysis = analysed()
    text = written(analysis)
    apart = sum(block.variant > 0 for block in analysis.blocks)
    assert apart >= 1
    assert text.count("\\label{tab:segbench-scores") == 1 + apart
    assert lint_latex(text) == []


@pytest.mark.ci
def test_two_datasets_stand_side_by_side_and_name_each_once(runs: Any, analysed: Make) -> None:
    three_models(runs)
    three_models(runs, dataset="phantom-crc", regions=("primary",))
    text = written(analysed())
    assert r"\multicolumn{2}{c}{phantom-brats} & \multicolumn{2}{c}{phantom-crc}" in text
    assert [len(row) for row in table(text) if len(row) > 1] == [5, 5, 5]
    assert [row[0] for row in table(text, 1) if len(row) == 1] == [
        r"\multicolumn{7}{@{}l}{\textit{phantom-brats}}".replace("7", "5"),
        r"\multicolumn{7}{@{}l}{\textit{phantom-crc}}".replace("7", "5"),
    ]


@pytest.mark.ci
def test_many_rows_are_several_floats(runs: Any, analysed: Make) -> None:
    for place in range(35):
        runs.run(f"m{place:02d}", cases=8, regions=("r",))
    text = written(analysed(reference="m00"))
    assert text.count("\\label{tab:segbench-scores") == 2
    assert text.count("(continued)") == 2
    assert len(table(text)) == paper.MOST_ROWS
    assert lint_latex(text) == []


def test_the_references_hold_what_is_cited_and_nothing_else(runs: Any, analysed: Make) -> None:
    three_models(runs)
    runs.run("segmamba-v2-tiny", skill=0.7)
    found = paper.files(analysed())
    cited = {
        key for group in re.findall(r"\\cite\{([^}]*)\}", str(found["paper.tex"])) for key in group.split(",")
    }
    keys = re.findall(r"@\w+\{([^,]*),", str(found["references.bib"]))
    assert sorted(keys) == sorted(cited)
    assert "xing2025segmambav2" in cited
    assert "{Version " in str(found["references.bib"])


def test_a_record_of_a_model_without_a_card_brings_its_own_entry(runs: Any, analysed: Make) -> None:
    three_models(runs)
    entries = {
        "mine": "@article{xing2025segmambav2, title = {Mine}, year = 2026}",  # a key that is taken
        "bad": "@article{bad, title = {\\input{/etc/passwd}}}",
    }
    for name, entry in entries.items():
        runs.run(name, record={"model": {"slug": name, "card": {"family": "mamba", "bibtex": entry}}})
    found = paper.files(analysed())
    assert "mine~\\cite{xing2025segmambav2x}" in str(found["paper.tex"])
    assert "@article{xing2025segmambav2x," in str(found["references.bib"])
    assert "passwd" not in "".join(map(str, found.values()))


@pytest.mark.ci
def test_hostile_names_stay_in_their_cells(runs: Any, analysed: Make) -> None:
    hostile_runs(runs, regions=("R",))
    text = written(analysed())
    assert lint_latex(text) == []
    assert text.isascii()
    assert sum(len(row) > 1 for row in table(text)) == len(HOSTILE)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_escaped(text: str) -> None:
    for escaped in (escape_latex(text), prose(text)):
        assert escaped.isascii()
        assert escaped.isprintable() or escaped == ""
        cell = f"\\begin{{tabular}}{{lc}}\n\\midrule\n{escaped} & b \\\\\n\\end{{tabular}}"
        assert lint_latex(cell) == []


def test_escape_examples() -> None:
    assert escape_latex("a_b & 50%") == r"a\_b \& 50\%"
    assert escape_latex("--x") == "-{}-x"
    assert escape_latex('say "no" to ("x")') == "say ``no'' to (``x'')"
    assert escape_latex("\N{GREEK SMALL LETTER BETA}\N{EN DASH}\N{MULTIPLICATION SIGN}") == "beta-x"
    assert escape_latex("na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve") == "naive"
    assert escape_latex("a\nb\x00") == "a b "
    assert prose("n = 40, 95 % from -1.00 to \N{EN DASH}, p < 0.05") == (
        r"$n = 40$, 95\,\% from $-$1.00 to --, $p < 0.05$"
    )
    assert [number(text) for text in ("-1.00", "<0.001", "-inf", "n/a", "\N{EN DASH}")] == [
        "$-$1.00", r"$<$\,0.001", r"$-\infty$", "n/a", "--",
    ]  # fmt: skip
    assert "n" * 41 not in prose("n" * 200)


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
        ("\\begin{tabular}{l|c}\na & b \\\\\n\\end{tabular}", "specification"),
    ],
)
def test_the_lint_finds_it(source: str, word: str) -> None:
    assert any(word in finding for finding in lint_latex(source)), lint_latex(source)


CLASSES = {
    "article": r"\documentclass{article}",
    "IEEEtran": r"\documentclass{IEEEtran}",
    "IEEEtran-onecolumn": r"\documentclass[onecolumn]{IEEEtran}",
    "llncs": r"\documentclass{llncs}",
}


@pytest.mark.ci
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
@pytest.mark.parametrize(
    "document",
    [
        "IEEEtran",
        "llncs",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("article", "IEEEtran-onecolumn")),
    ],
)
@pytest.mark.parametrize("kind", ["twelve", "regions", "hostile"])
def test_it_compiles_and_nothing_stands_over_the_margin(
    document: str, kind: str, runs: Any, analysed: Make, tmp_path: Path
) -> None:
    """booktabs and graphicx, -halt-on-error, no overfull box, no undefined citation."""
    name = document.partition("-")[0]
    if shutil.which("kpsewhich") is None or not _run(["kpsewhich", f"{name}.cls"], tmp_path).stdout.strip():
        pytest.skip(f"no {name}.cls in this TeX")
    _write_runs(runs, kind)
    (tmp_path / "figures").mkdir()
    for file, content in paper.files(analysed()).items():
        (tmp_path / file).write_bytes(content.encode("ascii") if isinstance(content, str) else content)
    source = f"{CLASSES[document]}\n\\usepackage{{booktabs,graphicx}}\n"
    source += "\\begin{document}\nText.\n\\input{paper}\n"
    source += "\\bibliographystyle{plain}\\bibliography{references}\\end{document}\n"
    (tmp_path / "x.tex").write_text(source, encoding="ascii")
    done = _run(["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "x.tex"], tmp_path)
    if "not loadable: Metric" in done.stdout:
        pytest.skip("the fonts of this class are not installed")
    assert done.returncode == 0, done.stdout[-2000:]
    if shutil.which("bibtex") is not None:
        assert "error" not in _run(["bibtex", "x"], tmp_path).stdout
        _run(["pdflatex", "-interaction=nonstopmode", "x.tex"], tmp_path)
        done = _run(["pdflatex", "-interaction=nonstopmode", "x.tex"], tmp_path)
        assert "undefined" not in done.stdout
    assert "Overfull" not in done.stdout
    assert "is not here" not in done.stdout


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", check=False, timeout=120
    )


def _write_runs(runs: Any, kind: str) -> None:
    twelve = (
        "segmamba-v2 segmamba bisegmamba umamba-bot nnunet resenc-l mednext-b stunet-b uxnet swin-unetr "
        "swin-unetr-v2 unetr"
    ).split()
    if kind == "hostile":
        hostile_runs(runs, regions=("R1", "a_b"))
        return
    datasets = {"phantom-brats": ("WT", "TC", "ET")}
    if kind == "twelve":
        datasets["phantom-crc"] = ("primary", "metastasis")
    for place, model in enumerate(twelve):
        for dataset, regions in datasets.items():
            for seed in range(1 if place == 4 else 2):
                runs.run(
                    model, dataset=dataset, regions=regions, cases=10, skill=0.9 - 0.01 * place, seed=seed
                )
