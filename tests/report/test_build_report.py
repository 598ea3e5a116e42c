"""`build_report`: the files, numbers against plain computations, byte identity, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench import stats
from segbench.core.errors import SegbenchError
from segbench.core.outputs import RECORD
from segbench.report import build_report, load_results
from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.options import make_options

QUICK = {"resamples": 200, "viewer": "none", "published": False}
TEXT = "json,latex,markdown,csv"


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a report; the record of what is its own is not one of them."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: data for name, data in found.items() if name != RECORD}


def three_models(runs: Any, *, cases: int = 24, **how: Any) -> None:
    for place, name in enumerate(["alpha", "beta_2", "gamma"]):
        for seed in range(3):
            runs.run(name, seed=seed, skill=0.78 + 0.04 * place, cases=cases, run_noise=0.004, **how)


def table_of(frame: Any, model: str, region: str, metric: str) -> Any:
    """(seeds, cases) of a model from the tidy frame."""
    mine = frame.query("model == @model and region == @region and metric == @metric")
    return mine.pivot_table(index="seed", columns="case", values="value").to_numpy()


def test_every_number_of_the_analysis_against_plain_ones(runs: Any) -> None:
    """Means, intervals, comparisons and ranks from the frame, numpy and segbench.stats alone."""
    three_models(runs)
    found, frame = analyse([runs.root], make_options(reference="beta_2", **QUICK)), load_results(runs.root)
    assert len(found.columns) == 3 * 4
    for (_, region, name), column in found.columns.items():
        regions = ("TC", "WT", "ET") if region == "mean" else (region,)
        tables = {
            model: np.mean([table_of(frame, model, part, name) for part in regions], axis=0)
            for model in ("alpha", "beta_2", "gamma")
        }
        higher, span = name != "hd95", (0.0, 250.0 if name == "hd95" else 1.0)
        for model, table in tables.items():
            mean, interval = column.means[model], stats.mean_interval(table, bounds=span)
            assert mean.value == pytest.approx(table.mean(), rel=1e-12)
            assert (mean.low, mean.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
            assert mean.sd_seeds == pytest.approx(table.mean(axis=1).std(ddof=1), rel=1e-9)
            assert [value for _, value in mean.per_seed] == pytest.approx(table.mean(axis=1).tolist())
            assert (mean.n, mean.failed, mean.expected) == (24, 0, 24)
        ordered = {model: tables[model] for model in column.order}
        assert list(ordered) == sorted(tables, key=lambda m: tables[m].mean() * (-1 if higher else 1))
        expected = stats.compare_models(ordered, higher_is_better=higher, reference="beta_2", bounds=span)
        for pair, other in zip(column.comparisons, expected, strict=True):
            verdict = other.verdict if column.decided else "inconclusive"  # a single region has none
            assert (pair.a, pair.b, pair.verdict, pair.claim) == (other.a, other.b, verdict, other.claim)
            fields = ("difference", "low", "high", "p", "wins")
            for field in (*fields, "p_adjusted") if column.decided else fields:
                assert getattr(pair, field) == pytest.approx(getattr(other, field), rel=1e-6), field
        if column.ranks is not None:
            ranks = stats.rank_models(ordered, higher_is_better=higher, resamples=200)
            assert column.ranks.probability_best.tolist() == pytest.approx(ranks.probability_best.tolist())


@pytest.mark.ci
@pytest.mark.parametrize(
    "formats",
    ["json,latex,markdown,csv", pytest.param("html,latex,markdown,csv,json", marks=pytest.mark.slow)],
)
def test_the_same_records_give_the_same_bytes(
    runs: Any, factory_at: Any, tmp_path: Path, formats: str
) -> None:
    """Twice, rows shuffled, folders renamed in another order, another output, another hash seed."""
    three_models(runs, cases=6)
    options = {**QUICK, "format": formats, "metrics": "dice"}
    build_report(runs.root, tmp_path / "one", **options)
    other = factory_at(tmp_path / "elsewhere" / "runs")
    rng = np.random.default_rng(5)
    for place, name in enumerate(["alpha", "beta_2", "gamma"]):
        for seed in range(3):
            rows = runs.rows(name, seed=seed, skill=0.78 + 0.04 * place, cases=6, run_noise=0.004)
            order = rng.permutation(len(rows))
            other.write([rows[i] for i in order], folder=f"z{9 - place}-{seed}")
    script = (
        "from segbench.report import build_report\n"
        f"build_report({str(other.root)!r}, {str(tmp_path / 'a b' / 'two')!r}, **{options!r})\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, cwd=tmp_path)
    first, second = files_of(tmp_path / "one"), files_of(tmp_path / "a b" / "two")
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_only_the_asked_formats_and_every_file_is_named(runs: Any, tmp_path: Path) -> None:
    three_models(runs, cases=6)
    build_report(runs.root, tmp_path / "out", format="json", **QUICK)
    assert sorted(files_of(tmp_path / "out")) == ["report.json"]
    told: list[str] = []
    found = build_report(runs.root, tmp_path / "all", format=TEXT, progress=told.append, **QUICK)
    assert set(found.files) == {tmp_path / "all" / name for name in files_of(tmp_path / "all")}
    assert told[0] == "reading records" and "writing latex" in told
    texts = {name: data for name, data in files_of(tmp_path / "all").items() if "figures" not in name}
    text = b"".join(texts.values()).decode()
    for word in (str(tmp_path), os.environ.get("USER") or "no-such-user-name"):
        assert word not in text


def test_losing_a_case_changes_nobody_else_and_never_helps(
    runs: Any, factory_at: Any, tmp_path: Path
) -> None:
    three_models(runs, cases=8)
    other = factory_at(tmp_path / "less")
    for place, name in enumerate(["alpha", "beta_2", "gamma"]):
        for seed in range(3):
            rows = runs.rows(name, seed=seed, skill=0.78 + 0.04 * place, cases=8, run_noise=0.004)
            if name == "gamma" and seed == 1:
                hardest = min(rows, key=lambda row: row["dice"])["case"]
                rows = [row for row in rows if row["case"] != hardest]
            other.write(rows)
    whole, less = (analyse([root], make_options(**QUICK)) for root in (runs.root, other.root))
    assert (less.exit_code, whole.exit_code) == (3, 0)
    for key, column in whole.columns.items():
        after = less.columns[key]
        for model in ("alpha", "beta_2"):
            assert repr(after.means[model]) == repr(column.means[model])
        sign = 1 if column.metric.higher_is_better else -1
        before, now = column.means["gamma"], after.means["gamma"]
        assert sign * now.value <= sign * before.value
        assert now.failed == 1
        assert after.order.index("gamma") >= column.order.index("gamma")


def test_a_penalty_without_a_diagonal_is_not_guessed(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=5, diagonal=None)
    runs.write([r for r in runs.rows("beta", cases=5, diagonal=None) if r["case"] != "case-0001"])
    found = build_report(runs.root, tmp_path / "out", format="markdown", metrics="dice,hd95", **QUICK)
    column = found.analysis.column(found.analysis.blocks[0], found.analysis.metrics[1])
    assert column.means["beta"].value is None
    assert column.means["alpha"].value is not None
    assert not column.comparisons
    assert "not known" in column.left_out["beta"]
    assert "penalty-unknown" in {item.code for item in found.findings}
    assert "n/a" in (tmp_path / "out" / "report.md").read_text()


def test_intervals_end_where_the_metric_ends(runs: Any) -> None:
    values = [0.99, 0.98, 0.999, 0.2]
    rows = runs.rows("a", cases=len(values), regions=("WT",))
    runs.write([{**row, "dice": value} for row, value in zip(rows, values, strict=True)])
    mean = analyse([runs.root], make_options(metrics="dice", **QUICK)).main_columns()[0].means["a"]
    assert stats.mean_interval(values, method="t").high > 1
    assert mean.high == 1.0


def test_options_that_cannot_be(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=2)
    with pytest.raises(SegbenchError) as found:
        build_report(runs.root, tmp_path / "o", cells="best", alpha=2.0, viewer="some", format="pdf")
    assert found.value.code == "SB104"
    assert len(found.value.details) == 4
    for wrong in ({"metrics": "dise"}, {"regions": "XX"}, {"reference": "nobody"}, {"primary": "dise"}):
        with pytest.raises(SegbenchError) as found:
            build_report(runs.root, tmp_path / "o", format="json", **wrong)
        assert found.value.code == "SB101"
    with pytest.raises(TypeError, match="colour"):
        build_report(runs.root, tmp_path / "o", colour="red")


def test_a_folder_without_runs_or_that_cannot_be_written(runs: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegbenchError) as found:
        build_report(tmp_path / "empty", tmp_path / "out")
    assert (found.value.code, found.value.exit_code) == ("SB701", 4)
    runs.run("alpha", cases=2)
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises((SegbenchError, OSError)):
        build_report(runs.root, tmp_path / "out", format="json", **QUICK)
    assert (tmp_path / "out").read_text() == "a file where the folder should be"


def test_pseudonyms_hide_every_case_id(runs: Any, tmp_path: Path) -> None:
    for name, first in (("alpha", 0), ("beta", 3)):
        rows = [{**row, "case": "DOE-JANE-" + row["case"]} for row in runs.rows(name, cases=4)]
        runs.write(rows[first:])
    options = {**QUICK, "appendix": True, "metrics": "dice"}
    found = build_report(runs.root, tmp_path / "out", pseudonyms=True, format=TEXT, **options)
    assert found.exit_code == 3
    text = b"".join(files_of(tmp_path / "out").values())
    assert b"DOE-JANE" not in text
    assert b"case-001" in text
