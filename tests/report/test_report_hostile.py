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
from segbench.report import build_report, lint_latex

TEXT = {"resamples": 200, "viewer": "none", "published": False, "format": "json,latex,markdown,csv"}


def report(runs: Any, tmp_path: Path, **options: Any) -> Any:
    return build_report(runs.root, tmp_path / "out", **{**TEXT, **options})


def rows_of(result: Any, **where: Any) -> list[dict[str, Any]]:
    return [
        row for row in result.document["summary"] if all(row[key] == value for key, value in where.items())
    ]


def test_nan_and_inf_never_reach_a_test(runs: Any, tmp_path: Path) -> None:
    rows = runs.rows("alpha", cases=5)
    rows[0]["hd95"], rows[3]["hd95"], rows[6]["dice"] = math.inf, math.nan, math.nan
    runs.write([{k: ("inf" if v == math.inf else v) for k, v in row.items()} for row in rows])
    runs.run("beta", cases=5)
    result = report(runs, tmp_path, metrics="dice,hd95")
    text = (tmp_path / "out" / "report.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    worst = rows_of(result, model="alpha", metric="hd95", region="TC")[0]
    assert worst["max"] == 250.0  # an `ok` row without a finite distance is scored worst


def test_the_inf_policy_prints_inf_and_tests_nothing(runs: Any, tmp_path: Path) -> None:
    profile = {"metric_profile": {"name": "x", "empty_policy": "inf"}}
    rows = runs.rows("alpha", cases=5)
    for row in rows[:3]:
        row |= {"status": "prediction_empty", "dice": 0.0, "hd95": "inf", "nsd": 0.0}
    runs.write(rows, record=profile)
    runs.run("beta", cases=5, record=profile)
    result = report(runs, tmp_path, metrics="hd95")
    row = rows_of(result, model="alpha", metric="hd95", region="WT")[0]
    assert (row["mean"], row["std"], row["mean_low"]) == ("inf", None, None)
    assert row["median"] < 250
    pair = next(p for p in result.document["pairwise"] if p["region"] == "WT")
    assert (pair["p_wilcoxon"], pair["verdict"], pair["note"]) == (
        None,
        "undecided",
        "infinite values: no test",
    )
    lines = (tmp_path / "out" / "tables" / "main.md").read_text().splitlines()
    assert "inf" in next(line for line in lines if line.startswith("| alpha"))


@pytest.mark.parametrize("count", [1, 2])
def test_one_case(runs: Any, tmp_path: Path, count: int) -> None:
    for model in ("alpha", "beta", "gamma"):
        runs.run(model, cases=count)
    result = report(runs, tmp_path)
    row = rows_of(result, model="alpha", metric="dice", region="WT")[0]
    assert (row["n"], row["std"] is None, row["mean_low"] is None) == (count, count == 1, count == 1)
    tested = [pair for pair in result.document["pairwise"] if pair["p_wilcoxon"] is not None]
    assert bool(tested) == (count == 2)


def test_one_model_is_reported_without_tests(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=12)
    result = report(runs, tmp_path)
    assert result.exit_code == 0
    assert result.document["pairwise"] == []
    assert not any(row["best"] for row in result.document["summary"])
    assert rows_of(result, metric="dice", region="mean")[0]["mean_method"] == "t"


def test_identical_models_are_equivalent(runs: Any, tmp_path: Path) -> None:
    rows = runs.rows("alpha", cases=10)
    runs.write(rows)
    runs.write([{**row, "model": "beta", "run_id": "beta"} for row in rows])
    result = report(runs, tmp_path)
    for pair in result.document["pairwise"]:
        assert (pair["p_wilcoxon"], pair["verdict"], pair["difference"], pair["zeros"]) == (
            1.0,
            "equivalent",
            0.0,
            10,
        )
    assert all(row["best"] for row in result.document["summary"])  # ties share the mark
    assert not any(row["second"] for row in result.document["summary"])


def test_constant_scores(runs: Any, tmp_path: Path) -> None:
    for model, value in (("alpha", 0.5), ("beta", 0.6)):
        runs.write([{**row, "dice": value, "hd95": 0.0, "nsd": 1.0} for row in runs.rows(model, cases=25)])
    result = report(runs, tmp_path)
    row = rows_of(result, model="alpha", metric="dice", region="TC")[0]
    assert (row["mean_low"], row["mean"], row["mean_high"], row["std"]) == (0.5, 0.5, 0.5, 0.0)
    assert "constant" in row["note"]


def test_a_metric_column_missing_in_one_run(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=5)
    rows = runs.rows("beta", cases=5)
    runs.write(rows, columns=[name for name in rows[0] if name != "nsd"])
    result = report(runs, tmp_path)
    row = rows_of(result, model="beta", metric="nsd", region="mean")[0]
    assert (row["n"], row["mean"], row["n_undefined"], row["rank"]) == (0, None, 5, None)
    line = next(
        x for x in (tmp_path / "out" / "tables" / "main_nsd.md").read_text().splitlines() if "| beta" in x
    )
    assert line.count("\N{EN DASH}") == 4


def test_an_unknown_metric_is_kept_and_never_marked(runs: Any, tmp_path: Path) -> None:
    for model in ("alpha", "beta"):
        rows = [{**row, "own_score": row["dice"] * 7, "remark": "fine"} for row in runs.rows(model, cases=5)]
        runs.write(rows)
    result = report(runs, tmp_path)
    mine = rows_of(result, metric="own_score")
    assert len(mine) == 8
    assert not any(row["best"] or row["rank"] for row in mine)
    assert not rows_of(result, metric="remark")
    assert "direction unknown" in (tmp_path / "out" / "tables" / "main_own_score.md").read_text()


def test_an_empty_model_name_is_refused(runs: Any, tmp_path: Path) -> None:
    runs.write([{**row, "model": ""} for row in runs.rows("alpha", cases=2)])
    with pytest.raises(SegbenchError) as found:
        report(runs, tmp_path)
    assert found.value.code == "SB701"


def test_two_models_of_one_title_are_told_apart(runs: Any, tmp_path: Path) -> None:
    for model in ("net-a", "net-b"):
        runs.run(model, cases=3, record={"model": {"slug": model, "card": {"title": "The Net"}}})
    report(runs, tmp_path)
    text = (tmp_path / "out" / "tables" / "main.md").read_text()
    assert "The Net (net-a)" in text
    assert "The Net (net-b)" in text


def test_long_names_are_cut_and_told_apart(runs: Any, tmp_path: Path) -> None:
    for end in "ab":
        runs.run("n" * 200 + end, cases=3)
    report(runs, tmp_path)
    labels = [
        line.split("|")[1].strip()
        for line in (tmp_path / "out" / "tables" / "main.md").read_text().splitlines()
        if line.startswith("|")
    ]
    long = [label for label in labels if label.startswith("nnn")]
    assert len(set(long)) == 2
    assert max(map(len, long)) <= 64


def test_twenty_models_with_every_trap_in_their_names(runs: Any, tmp_path: Path) -> None:
    names = [
        "A_B & 50% #1 {x} ~ ^ \\ $", "[x]", "=cmd", "<script>", "right\N{RIGHT-TO-LEFT MARK}left",
        "n" * 200, "*star", "a\\\\b", "}", "{", "--flag", "\N{GREEK SMALL LETTER ALPHA}", "$x$", "per%cent",
        "under_score", "|pipe|", "`tick`", "new\nline", "+plus", "@at",
    ]  # fmt: skip
    for name in names:
        runs.run(name, cases=4, regions=("R&D", "x_y"))
    result = report(runs, tmp_path, metrics="dice")
    tables = tmp_path / "out" / "tables"
    for path in tables.glob("*.tex"):
        assert lint_latex(path.read_text()) == [], path.name
    for path in tables.glob("*.csv"):
        for line in path.read_text().splitlines():
            assert not line.startswith(("=", "+", "-", "@")), line
    assert len(rows_of(result, region="mean", metric="dice")) == 20


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
    assert rows_of(result, model="alpha")[0]["n"] == 100_000
    assert result.document["pairwise"][0]["p_wilcoxon"] is not None


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=25)


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
    for path in (root / "out" / "tables").glob("*.tex"):
        assert lint_latex(path.read_text()) == []
