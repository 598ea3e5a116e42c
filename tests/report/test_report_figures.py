"""Figures: all of them from records, each with its words, the same bytes twice, and bearable at the
extremes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.report import build_report
from segbench.report.analysis import analyse
from segbench.report.figures import draw_figures, raincloud
from segbench.report.figures.data import limits
from segbench.report.figures.pareto import pareto_front
from segbench.report.figures.profile import wilson
from segbench.report.figures.size import running_median
from segbench.report.figures.style import COLOURS, MARKERS, SCREEN_DPI, looks, new_figure, rendered, style
from segbench.report.options import make_options

NAMES = (
    "01_raincloud", "02_critical_difference", "03_rank_blobs", "04_significance", "05_bland_altman",
        "06_size",
    "08_cost", "09_forest", "10_profile", "11_seeds",
)  # fmt: skip


def write_profile(place: Path, gmacs: float) -> None:
    row = {"status": "ok", "params": {"total": 31_200_000}, "cost": {"gmacs": gmacs}, "device": "cpu"}
    (place / "profile.json").write_text(json.dumps({"schema": "segbench.profile/1", "rows": [row]}))


def some_models(runs: Any, names: list[str], *, seeds: int = 2, cases: int = 12, **how: Any) -> None:
    for place, name in enumerate(names):
        for seed in range(seeds):
            folder = runs.run(name, seed=seed, cases=cases, skill=0.7 + 0.02 * place, run_noise=0.003, **how)
            write_profile(folder, 100.0 * (place + 1))


def analysed(runs: Any, **options: Any) -> Any:
    return analyse([runs.root], make_options(resamples=300, metrics="dice", published=False, **options))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, factory_at: Any) -> Any:
    """The figures of three models: (folder, result)."""
    root = tmp_path_factory.mktemp("figures")
    runs = factory_at(root / "runs")
    some_models(runs, ["alpha", "beta_2", "gamma"])
    options = {"format": "figures", "metrics": "dice", "resamples": 300, "published": False, "viewer": "none"}
    return root / "out" / "figures", build_report(runs.root, root / "out", **options)


def test_every_figure_is_drawn_with_its_words(drawn: Any) -> None:
    folder, result = drawn
    alt = json.loads((folder / "alt.json").read_text())
    assert sorted(alt) == sorted(NAMES)
    assert [item["figure"] for item in result.document["skipped"]] == ["07_overlays"]
    for name in NAMES:
        pdf = (folder / f"{name}.pdf").read_bytes()
        assert b"CreationDate" not in pdf
        assert b"/Type3" not in pdf  # fonts that an editor can open
        width = float(re.search(rb"/MediaBox \[ *0 0 ([0-9.]+)", pdf).group(1))  # type: ignore[union-attr]
        assert width == pytest.approx(72 * 3.5) or width == pytest.approx(72 * 7.16)
        svg = (folder / f"{name}.svg").read_text()
        assert "<text" not in svg  # letters as paths: no font is needed
        assert "<dc:date>" not in svg
        png = (folder / f"{name}.png").read_bytes()
        assert b"Software" not in png
        assert len(alt[name]) > 40
        assert "\n" not in alt[name]


def test_figures_tell_the_numbers_of_the_analysis(drawn: Any) -> None:
    folder, result = drawn
    alt = json.loads((folder / "alt.json").read_text())
    summary = {item.model: item for item in result.analysis.summaries[0, "mean", "dice"]}
    for model in ("alpha", "beta_2", "gamma"):
        assert f"{model} median {100 * summary[model].median:.2f}" in alt["01_raincloud"]
    assert "On the front: alpha, beta_2, gamma" in alt["08_cost"]
    differ = sum(pair.p_decision < 0.05 for pair in result.analysis.pairs[0, "mean", "dice"])
    assert f"{differ} of 3 pairs differ after Holm" in alt["04_significance"]


@pytest.mark.parametrize(
    ("names", "seeds", "cases", "drawn"),
    [
        (["only"], 1, 8, {"01_raincloud", "05_bland_altman", "06_size", "10_profile"}),
        (["a", "b"], 1, 1, {"01_raincloud", "08_cost", "10_profile", "06_size"}),
    ],
)
def test_what_cannot_be_drawn_is_skipped_with_a_reason(
    runs: Any, names: list[str], seeds: int, cases: int, drawn: set[str]
) -> None:
    some_models(runs, names, seeds=seeds, cases=cases)
    found, skipped = draw_figures(analysed(runs), ())
    assert {item.name for item in found} == drawn
    assert {item["figure"] for item in skipped} == {*NAMES, "07_overlays"} - drawn
    assert all(item["reason"] for item in skipped)


def test_equal_scores_can_be_drawn(runs: Any) -> None:
    for name in ("a", "b", "c"):
        runs.write([{**row, "model": name, "run_id": name, "dice": 0.5} for row in runs.rows("a", cases=6)])
    found, _ = draw_figures(analysed(runs), ())
    expected = {"01_raincloud", "02_critical_difference", "04_significance", "09_forest"}
    assert expected <= {item.name for item in found}


@pytest.mark.slow
def test_twenty_hostile_names_do_not_overlap_in_the_diagram(runs: Any) -> None:
    """The texts of the critical-difference diagram as they are laid out: no two boxes meet."""
    from segbench.report.figures import critical_difference

    names = ["A_B & 50% #1 {x} ~ ^ \\ $", "$x_1$", "n" * 200, "<b>", *(f"model_{i}" for i in range(16))]
    some_models(runs, names, seeds=1)
    analysis = analysed(runs)
    with style():
        figure = critical_difference.draw(analysis, 0).figure
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        texts = [text for text in figure.axes[0].texts if text.get_fontsize() == 7]
        boxes = [text.get_window_extent(renderer) for text in texts]
    labels = [box for box in boxes if box.width > 20]
    assert len(labels) >= 20
    for place, one in enumerate(labels):
        for other in labels[place + 1 :]:
            assert not one.overlaps(other)


@pytest.mark.parametrize("regions", [("WT",), ("TC", "WT"), ("a", "b", "c"), tuple("abcdefg")])
def test_rain_clouds_stand_in_the_order_of_the_table_whatever_the_panels(
    runs: Any, regions: tuple[str, ...]
) -> None:
    some_models(runs, ["alpha", "beta"], seeds=1, regions=regions)
    with style():
        figure = raincloud.draw(analysed(runs), 0).figure
    for axis in figure.axes:
        bottom, top = axis.get_ylim()
        assert bottom > top  # the first model, at 0, on top and its density above its line


def test_text_is_as_wide_at_any_resolution() -> None:
    with style():
        figure, axis = new_figure(3.5, 1)
        label = axis.set_title("SegMamba (V1, as released)")
        widths = []
        for dpi in (72, 100, SCREEN_DPI, 200):
            figure.set_dpi(dpi)
            widths.append(label.get_window_extent(figure.canvas.get_renderer()).width / dpi)
    assert max(widths) < 1.02 * min(widths)


@pytest.mark.filterwarnings("error")
def test_letters_that_the_font_lacks_warn_nobody() -> None:
    with style():
        figure, axis = new_figure(2, 1)
        axis.set_xlabel("\N{CJK UNIFIED IDEOGRAPH-65E5}")
        assert rendered(figure, ("svg",))["svg"].startswith(b"<?xml")


def test_colours_and_markers_are_fixed_by_the_sorted_name() -> None:
    first, second = looks(["b", "a", "c"]), looks(["c", "b", "a"])
    assert first == second
    assert first["a"].colour == COLOURS[0]
    many = looks([f"m{i:03d}" for i in range(100)])
    assert len({(look.colour, look.marker) for look in many.values()}) == 100
    assert len(set(COLOURS)) == 8
    assert len(set(MARKERS)) == 15


def test_pareto_front() -> None:
    points = {
        "cheap": (1.0, 0.5),
        "good": (5.0, 0.9),
        "worse": (6.0, 0.8),
        "best": (9.0, 0.95),
        "tie": (5.0, 0.9),
    }
    expected = ["cheap", "good", "best"]
    assert pareto_front(points, higher=True) == expected
    assert pareto_front({k: (c, -s) for k, (c, s) in points.items()}, higher=False) == expected


def test_wilson_interval_against_statsmodels() -> None:
    from statsmodels.stats.proportion import proportion_confint

    low, high = wilson(np.array([0.0, 0.2, 1.0]), 25)
    for place, count in enumerate((0, 5, 25)):
        expected = proportion_confint(count, 25, method="wilson")
        assert (low[place], high[place]) == pytest.approx(expected, abs=1e-12)


def test_kernel_density_against_scipy() -> None:
    from scipy.stats import gaussian_kde

    from segbench.report.figures.raincloud import kernel_density

    rng = np.random.default_rng(2)
    values, grid = rng.beta(5, 2, 80), np.linspace(0, 1, 40)
    assert kernel_density(values, grid) == pytest.approx(gaussian_kde(values)(grid), rel=1e-10)


def test_inline_svg_keeps_its_scales_and_loses_its_addresses() -> None:
    from segbench.report.svg import inline_svg

    source = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" width="252.123456pt">\n <metadata>who</metadata>'
        '<defs><path id="a" d="M 1.23456 -0.98765" transform="scale(0.015625)"/></defs>'
        '<use xlink:href="#a"/><g clip-path="url(#b)"/><path id="a" d=""/></svg>'
    )
    text = inline_svg(source, name="01_x", alt='"quoted" <alt>')
    assert 'transform="scale(0.015625)"' in text  # glyphs would shrink to dots
    assert 'd="M 1.23 -0.98"' in text
    assert "http" not in text
    assert "who" not in text
    assert 'id="01-x-a"' in text
    assert 'id="01-x-a-2"' in text
    assert 'href="#01-x-a"' in text
    assert "url(#01-x-b)" in text
    assert 'aria-label="&quot;quoted&quot; &lt;alt&gt;"' in text


def test_running_median() -> None:
    x, y = running_median(np.arange(1.0, 11.0), np.arange(10.0))
    assert y.tolist() == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert np.all(np.diff(x) > 0)
    assert running_median(np.array([3.0]), np.array([0.4]))[1].tolist() == [0.4]


def test_axis_limits_stay_possible() -> None:
    from segbench.report.display import display

    low, high = limits(display("dice"), 0.0, 100.0)
    assert (low, high) == (-1.0, 101.0)
    assert limits(display("hd95"), 5.0, 5.0)[0] < 5.0


def test_subgroup_tests_equal_those_of_the_statistics() -> None:
    """Ten models share one shuffle, with the p-values that each call of its own gives."""
    from segbench.report.subgroups import interactions
    from segbench.stats import subgroup_interaction

    rng = np.random.default_rng(1)
    place = rng.integers(0, 3, 50)
    differences = {f"m{i}": rng.normal(size=50) + 0.3 * i * place for i in range(3)}
    differences["holes"] = np.where(np.arange(50) < 4, np.nan, differences["m1"])
    found = interactions(differences, place, resamples=1500, seed=4)
    for model, values in differences.items():
        known = np.isfinite(values)
        alone = subgroup_interaction(values[known], place[known], resamples=1500, seed=4)
        assert found[model] == alone.pvalue
    one_bin = np.zeros(5, dtype=np.int64)
    assert interactions({"m": rng.normal(size=5)}, one_bin, resamples=100, seed=0) == {"m": None}
