"""report.md: two screens, tables that GitHub draws, names that stay in their cells."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.options import make_options
from segbench.report.write.markdown import escape_markdown, files


def written(runs: Any, **options: Any) -> str:
    analysis = analyse([runs.root], make_options(resamples=200, viewer="none", **options))
    return str(files(analysis)["report.md"])


def grids(text: str) -> list[list[str]]:
    return [part.splitlines() for part in text.split("\n\n") if part.startswith("| ")]


@pytest.mark.parametrize("cells", ["mean-ci", "mean-sd", "mean"])
def test_verdict_then_tables_then_findings(runs: Any, cells: str) -> None:
    for skill, model in ((0.9, "segmamba-v2"), (0.86, "nnunet"), (0.84, "unetr")):
        for seed in (0, 1, 2):
            runs.run(model, skill=skill, seed=seed)
    text = written(runs, cells=cells)
    assert text.splitlines()[0] == "# Report"
    assert "nnU-Net is significantly worse than SegMamba-V2" in text
    first, second = grids(text)
    assert "| _Mamba_ |" in "\n".join(first)
    (best,) = (line for line in first if line.startswith("| SegMamba-V2"))
    shape = {
        "mean-ci": r"\*\*[\d.]+\*\*<br><sub>\[[\d.]+, [\d.]+\]</sub>",
        "mean-sd": r"\*\*[\d.]+\*\* \N{PLUS-MINUS SIGN} [\d.]+",
        "mean": r"\*\*[\d.]+\*\*",
    }[cells].replace("\\N{PLUS-MINUS SIGN}", "\N{PLUS-MINUS SIGN}")
    assert re.fullmatch(shape, best.strip("| ").split(" | ")[-1])
    assert [line.split(" | ")[0] for line in second[2:]] == ["| nnU-Net", "| UNETR"]
    assert text.index("**Dice, each model less SegMamba-V2.**") < text.index("**Warnings**")


@pytest.mark.ci
def test_every_row_has_as_many_cells_as_its_head_whatever_the_names(runs: Any) -> None:
    names = [
        "a|b",
        "<script>",
        "`x`",
        "*b*",
        "[l](http://x.example)",
        "# h",
        "~~s~~",
        "$x$",
        "@someone",
        "n" * 200,
    ]
    for place, name in enumerate(names):
        card = {"title": name, "short_name": name}
        runs.run(f"m{place}", cases=8, record={"model": {"slug": f"m{place}", "card": card}})
    for grid in grids(written(runs)):
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in grid} == {len(re.findall(r"\|", grid[0]))}
    text = written(runs)
    assert not re.search(r"(?<!\\)<script", text)
    assert not re.search(r"(?<!\\)\]\(", text)
    assert "@someone" not in text


def test_it_is_at_most_two_screens_of_a_large_comparison(runs: Any) -> None:
    for place in range(12):
        for seed in (0, 1):
            runs.run(f"m{place}", seed=seed, cases=10)
    text = written(runs)
    assert len(text.splitlines()) <= 100
    assert len(text.split()) < 1500


def test_one_model_has_nothing_to_compare(runs: Any) -> None:
    runs.run("nnunet")
    text = written(runs)
    assert "nothing to compare" in text
    assert len(grids(text)) == 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_one_line_without_live_markup(text: str) -> None:
    escaped = escape_markdown(text)
    assert "\n" not in escaped
    assert "\r" not in escaped
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<`*_\[]", escaped)
