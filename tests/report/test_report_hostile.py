"""Hostile inputs of the specification: a clear message or a visible mark, never a silent number."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbench.core.errors import SegbenchError
from segbench.report import build_report
from segbench.report.write.tables import score_tables

TEXT = {"resamples": 200, "viewer": "none", "published": False, "format": "json,latex,markdown,csv"}


def report(runs: Any, tmp_path: Path, **options: Any) -> Any:
    return build_report(runs.root, tmp_path / "out", **{**TEXT, **options})


def test_nan_and_inf_never_reach_a_test(runs: Any, tmp_path: Path) -> None:
    rows = runs.rows("alpha", cases=5)
    rows[0]["hd95"], rows[3]["hd95"], rows[6]["dice"] = math.inf, math.nan, math.nan
    runs.write([{k: ("inf" if v == math.inf else v) for k, v in row.items()} for row in rows])
    runs.run("beta", cases=5)
    report(runs, tmp_path, metrics="dice,hd95")
    text = (tmp_path / "out" / "report.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text


@pytest.mark.ci
def test_the_inf_policy_prints_inf_and_tests_nothing(runs: Any, tmp_path: Path) -> None:
    profile = {"metric_profile": {"name": "x", "empty_policy": "inf"}}
    rows = runs.rows("alpha", cases=5)
    for row in rows[:3]:
        row |= {"status": "prediction_empty", "dice": 0.0, "hd95": "inf", "nsd": 0.0}
    runs.write(rows, record=profile)
    runs.run("beta", cases=5, record=profile)
    result = report(runs, tmp_path, metrics="hd95")
    (column,) = result.analysis.main_columns()
    mean = column.means["alpha"]
    assert (mean.value, mean.low, mean.high) == (math.inf, None, None)
    assert not column.comparisons
    assert column.left_out == {"alpha": "infinite values"}
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    assert "inf" in next(line for line in lines if line.startswith("| alpha"))


@pytest.mark.parametrize("count", [1, 2])
def test_one_case_and_two_carry_no_verdict(runs: Any, tmp_path: Path, count: int) -> None:
    for model in ("alpha", "beta", "gamma"):
        runs.run(model, cases=count)
    result = report(runs, tmp_path)
    mean = result.analysis.main_columns()[0].means["alpha"]
    assert (mean.n, mean.sd_units is None, mean.low is None) == (count, count == 1, count == 1)
    verdicts = {pair.verdict for column in result.analysis.columns.values() for pair in column.comparisons}
    assert verdicts <= {"inconclusive"}


def test_one_model_is_reported_without_tests(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=12)
    result = report(runs, tmp_path)
    assert result.exit_code == 0
    assert not any(column.comparisons for column in result.analysis.columns.values())
    assert "**" not in (tmp_path / "out" / "report.md").read_text().split("| alpha")[1].splitlines()[0]


@pytest.mark.ci
def test_identical_models_share_the_mark_and_are_told(runs: Any, tmp_path: Path) -> None:
    rows = runs.rows("alpha", cases=10)
    runs.write(rows)
    runs.write([{**row, "model": "beta", "run_id": "beta"} for row in rows])
    result = report(runs, tmp_path)
    for column in result.analysis.main_columns():
        assert [(pair.difference, pair.verdict) for pair in column.comparisons] == [(0.0, "inconclusive")]
    assert "copied-run" in {item.code for item in result.findings}
    marks = {cell.mark for row in score_tables(result.analysis)[0].rows for cell in row.cells}
    assert marks == {"best"}


def test_constant_scores(runs: Any, tmp_path: Path) -> None:
    for model, value in (("alpha", 0.5), ("beta", 0.6)):
        runs.write([{**row, "dice": value, "hd95": 0.0, "nsd": 1.0} for row in runs.rows(model, cases=25)])
    result = report(runs, tmp_path)
    (column,) = result.analysis.main_columns()
    mean = column.means["alpha"]
    assert (mean.low, mean.value, mean.high, mean.sd_units) == (0.5, 0.5, 0.5, 0.0)
    assert "constant" in mean.note
    assert [pair.verdict for pair in column.comparisons] == ["inconclusive"]


def test_a_metric_column_missing_in_one_run(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=5)
    rows = runs.rows("beta", cases=5)
    runs.write(rows, columns=[name for name in rows[0] if name != "nsd"])
    result = report(runs, tmp_path, metrics="nsd")
    (column,) = result.analysis.main_columns()
    assert (column.means["beta"].n, column.means["beta"].value) == (0, None)
    assert column.order == ("alpha",)


def test_an_unknown_metric_is_kept_and_never_marked(runs: Any, tmp_path: Path) -> None:
    for model in ("alpha", "beta"):
        rows = [{**row, "own_score": row["dice"] * 7, "remark": "fine"} for row in runs.rows(model, cases=5)]
        runs.write(rows)
    result = report(runs, tmp_path)
    mine = [c for c in result.analysis.columns.values() if c.metric.name == "own_score"]
    assert len(mine) == 4
    assert not any(column.order or column.comparisons for column in mine)
    assert "remark" not in {metric.name for metric in result.analysis.metrics}


def test_an_empty_model_name_is_refused(runs: Any, tmp_path: Path) -> None:
    runs.write([{**row, "model": ""} for row in runs.rows("alpha", cases=2)])
    with pytest.raises(SegbenchError) as found:
        report(runs, tmp_path)
    assert found.value.code == "SB701"


def test_two_models_of_one_short_name_are_told_apart(runs: Any, tmp_path: Path) -> None:
    for model in ("net-a", "net-b"):
        card = {"title": "The Net", "short_name": "Net"}
        runs.run(model, cases=3, record={"model": {"slug": model, "card": card}})
    result = report(runs, tmp_path)
    assert {entry.short for entry in result.analysis.entries} == {"net-a", "net-b"}


def test_long_names_are_cut_and_told_apart(runs: Any, tmp_path: Path) -> None:
    for end in "ab":
        rows = runs.rows("n" * 200 + end, cases=3)
        runs.write([{**row, "run_id": f"run-{end}"} for row in rows])
    result = report(runs, tmp_path)
    names = [entry.short for entry in result.analysis.entries]
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 40


@pytest.mark.ci
def test_twenty_models_with_every_trap_in_their_names(runs: Any, tmp_path: Path) -> None:
    names = [
        "A_B & 50% #1 {x} ~ ^ \\ $", "[x]", "=cmd", "<script>", "right\N{RIGHT-TO-LEFT MARK}left",
        "n" * 200, "*star", "a\\\\b", "}", "{", "--flag", "\N{GREEK SMALL LETTER ALPHA}", "$x$", "per%cent",
        "under_score", "|pipe|", "`tick`", "new\nline", "+plus", "@at",
    ]  # fmt: skip
    for number, name in enumerate(names):
        rows = runs.rows(name, cases=4, regions=("R&D", "x_y"))
        runs.write([{**row, "run_id": f"run-{number}"} for row in rows])
    result = report(runs, tmp_path, metrics="dice")
    for path in (tmp_path / "out" / "tables").glob("*.csv"):
        for line in path.read_text().splitlines():
            assert not line.startswith(("=", "+", "-", "@")), line
    text = (tmp_path / "out" / "report.md").read_text()
    assert "<script>" not in text
    assert len(result.analysis.main_columns()[0].means) == 20
    assert len({entry.short for entry in result.analysis.entries}) == 20


@pytest.mark.slow
def test_a_hundred_thousand_cases(runs: Any, tmp_path: Path) -> None:
    rows = [
        f"r{m},{m},big,external,0,0,case-{i:06d},R,ok,{(i * 7919 + k) % 1000 / 1000}"
        for k, m in enumerate(("alpha", "beta"))
        for i in range(100_000)
    ]
    head = "run_id,model,dataset,protocol,fold,seed,case,region,status,dice"
    for k, model in enumerate(("alpha", "beta")):
        place = runs.root / model
        place.mkdir(parents=True)
        (place / "cases.csv").write_text("\n".join([head, *rows[k * 100_000 : (k + 1) * 100_000]]) + "\n")
        record = {"schema_version": 1, "run_id": f"r{model}", "kind": "external", "status": "complete"}
        (place / "run.json").write_text(json.dumps(record))
    result = report(runs, tmp_path, format="json")
    (column,) = result.analysis.main_columns()
    assert column.means["alpha"].n == 100_000
    assert column.comparisons


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=25)


@pytest.mark.ci
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    models=st.lists(NAMES.filter(lambda n: n.strip() and n[0] != "'"), min_size=1, max_size=3, unique=True),
    region=NAMES.filter(lambda n: n.strip() and n != "mean" and n[0] != "'"),
    cases=st.integers(1, 4),
    values=st.lists(st.sampled_from(["0.5", "1", "0", "", "inf", "0.123456789"]), min_size=4, max_size=4),
)
def test_any_names_and_values_give_a_report_or_an_error(
    factory_at: Any, tmp_path_factory: Any, models: list[str], region: str, cases: int, values: list[str]
) -> None:
    root = tmp_path_factory.mktemp("any")
    runs = factory_at(root / "runs")
    for number, model in enumerate(models):
        rows = runs.rows(model, cases=cases, regions=(region,))
        for place, row in enumerate(rows):
            row |= {"dice": values[place % 4], "run_id": f"run-{number}"}
        runs.write(rows)
    try:
        build_report(runs.root, root / "out", **{**TEXT, "metrics": "dice"})
    except SegbenchError as error:
        assert error.code in {"SB701", "SB705", "SB101"}
        return
    json.loads((root / "out" / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
