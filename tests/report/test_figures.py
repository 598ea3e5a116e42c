"""Figures: drawn from the columns of the analysis, in words too, the same bytes twice, at the extremes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from segbench.report.analysis.analysis import Analysis, analyse
from segbench.report.analysis.metric import metric
from segbench.report.analysis.options import make_options
from segbench.report.write.figures import (
    REFERENCE,
    SOFT,
    draw,
    figure_files,
    limits,
    new_figure,
    rendered,
    style,
)

HOSTILE = ("A_B-50%-#1", "$x_1$", "n" * 200, "<b>", "\\frac{1}{2}")


def some_models(runs: Any, names: Any, *, seeds: int = 2, cases: int = 10, **how: Any) -> None:
    for place, name in enumerate(names):
        for seed in range(seeds):
            runs.run(name, seed=seed, cases=cases, skill=0.6 + 0.05 * place, run_noise=0.003, **how)


def analysed(runs: Any, **options: Any) -> Analysis:
    return analyse([runs.root], make_options(resamples=100, metrics="dice", **options))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, factory_at: Any) -> Analysis:
    runs = factory_at(tmp_path_factory.mktemp("figures") / "runs")
    some_models(runs, ("alpha", "beta", "gamma"), seeds=3)
    runs.run("atlas", cases=10, skill=0.3, kind="floor")
    return analysed(runs, reference="alpha", appendix=True)


@pytest.fixture(scope="module")
def drawn(three: Analysis) -> Mapping[str, bytes]:
    return figure_files(three)[1]


def test_figure_1_is_two_files(drawn: Mapping[str, bytes]) -> None:
    assert set(drawn) == {"figures/models.pdf", "figures/models.svg"}


def analyse_again(analysis: Analysis, **options: Any) -> Analysis:
    folders = [run.folder for run in analysis.runs if run.folder]
    return analyse(folders, make_options(resamples=100, metrics="dice", reference="alpha", **options))


def test_files_hold_no_date_and_letters_that_need_no_font(drawn: Mapping[str, bytes]) -> None:
    for name, content in drawn.items():
        if name.endswith(".pdf"):
            assert b"CreationDate" not in content
            assert b"/Type3" not in content  # fonts that an editor can open
            width = float(re.search(rb"/MediaBox \[ *0 0 ([0-9.]+)", content).group(1))  # type: ignore[union-attr]
            assert width in (pytest.approx(72 * 3.5), pytest.approx(72 * 7.16))
        else:
            assert b"<text" not in content
            assert b"<dc:date>" not in content


def test_the_same_records_give_the_same_bytes(three: Analysis, drawn: Mapping[str, bytes]) -> None:
    again = figure_files(analyse_again(three, appendix=True))[1]
    assert [name for name in drawn if again.get(name) != drawn[name]] == []


def test_figure_1_shows_the_means_the_seeds_and_the_baseline(three: Analysis) -> None:
    """What stands in the axes, read back from the drawing, is what the column says."""
    with style():
        sketch = draw(three)
    column = three.main_columns()[0]
    lines = [line for axis in sketch.figure.axes for line in axis.get_lines()]
    shown = sorted(round(float(x), 9) for line in lines for x in line.get_xdata())
    for label in ("alpha", "beta", "gamma"):
        mean = column.means[label]
        assert mean.value is not None
        values = [mean.value, mean.low, mean.high, *(value for _, value in mean.per_seed)]
        assert {round(100 * value, 9) for value in values if value is not None} <= set(shown)
        assert f"{three.short(label)} {100 * mean.value:.2f} [" in sketch.alt
    drawn = [line for line in lines if line.get_color() == REFERENCE and line.get_marker() == "D"]
    assert [float(line.get_xdata()[0]) for line in drawn] == [100 * (column.means["alpha"].value or 0)]
    ticks = [text.get_text() for text in sketch.figure.axes[0].get_yticklabels()]
    assert ticks == ["gamma", "beta", "alpha", "atlas"]
    baseline = 100 * (column.means["atlas"].value or 0)
    noted = [text for text in sketch.figure.axes[0].texts if text.get_color() == SOFT]
    assert [text.get_text() for text in noted] == [f"\N{LEFTWARDS ARROW} {baseline:.2f}"]


def test_figure_1_stars_exactly_what_the_column_stars(three: Analysis) -> None:
    column = three.main_columns()[0]
    with style():
        sketch = draw(three)
    axis = sketch.figure.axes[0]
    names = [text.get_text() for text in axis.get_yticklabels()]
    starred = {names[round(text.xy[1])] for text in axis.texts if text.get_text() == "*"}  # type: ignore[attr-defined]
    assert starred == {pair.a for pair in column.comparisons if pair.verdict == "better"}
    assert starred


def test_a_baseline_within_the_models_range_is_a_line(runs: Any) -> None:
    some_models(runs, ("alpha", "beta"))
    runs.run("atlas", cases=10, skill=0.62, kind="floor")
    with style():
        sketch = draw(analysed(runs))
    dashed = [line for line in sketch.figure.axes[0].get_lines() if line.get_linestyle() == "--"]
    assert len(dashed) == 1


def test_twelve_hostile_names_on_three_datasets_do_not_touch(runs: Any) -> None:
    names = (*HOSTILE, *(f"model-{place}" for place in range(7)))
    for dataset in ("one", "two", "three"):
        some_models(runs, names, seeds=1, cases=4, dataset=dataset, regions=("A",))
    analysis = analysed(runs)
    with style():
        sketch = draw(analysis)
        sketch.figure.draw_without_rendering()
    page = sketch.figure.bbox
    for axis in sketch.figure.axes:
        boxes = [text.get_window_extent() for text in axis.get_yticklabels() if text.get_text()]
        for above, below in pairwise(boxes):
            assert above.y0 >= below.y1 - 1
        assert all(box.x0 >= page.x0 - 1 for box in boxes)
    assert "$x_1$" in "".join(text.get_text() for text in sketch.figure.axes[0].get_yticklabels())


@pytest.mark.ci
@pytest.mark.parametrize(("names", "cases"), [(["only"], 3), (["a", "b"], 1)])
def test_small_reports_have_a_figure(runs: Any, names: list[str], cases: int) -> None:
    some_models(runs, names, seeds=1, cases=cases)
    first, files = figure_files(analysed(runs))
    assert first is not None
    assert first.alt.count("[") == (len(names) if cases > 1 else 0)
    assert files["figures/models.svg"]


def test_nothing_to_draw_is_no_figure(runs: Any) -> None:
    runs.write([{**row, "status": "missing", "dice": ""} for row in runs.rows("a", cases=3)])
    analysis = analyse([runs.root], make_options(metrics="hd95", resamples=100))
    drawn = figure_files(analysis)[0]
    assert drawn is None or "a" in drawn.alt


def test_limits_stay_in_the_range_of_a_metric() -> None:
    low, high = limits(metric("dice"), [0.0, 100.0])
    assert -2 < low < 0
    assert 100 < high < 102
    assert limits(metric("hd95"), [0.0, 10.0])[0] > -1
    assert limits(metric("dice"), [50.0, 50.0])[0] < 50


def test_a_figure_leaves_no_setting_behind(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with style():
        figure, _ = new_figure(2.0, 1.0)
        (tmp_path / "a.svg").write_bytes(rendered(figure, "a")["a.svg"])
    assert dict(mpl.rcParams) == before
