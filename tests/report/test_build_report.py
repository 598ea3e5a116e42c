"""`build_report`: the files, the numbers in report.json against plain computations, byte identity,
exit codes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from segbench.report.document import schema

from segbench.core.errors import SegbenchError
from segbench.core.outputs import RECORD
from segbench.report import build_report, lint_latex, load_results
from segbench.stats import mean_interval

TABLES = (
    "main",
    "pairwise",
    "ranks",
    "subgroups",
    "discrimination",
    "seeds",
    "cost",
    "missing",
    "published",
    "guards",
)
QUICK = {"resamples": 500, "viewer": "none", "published": False}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def three_models(runs: Any, *, cases: int = 24, **how: Any) -> None:
    for place, name in enumerate(["alpha", "beta_2", "gamma"]):
        for seed in range(2):
            runs.run(name, seed=seed, skill=0.78 + 0.04 * place, cases=cases, run_noise=0.004, **how)


def text_report(runs: Any, out: Path, **options: Any) -> Any:
    return build_report(runs.root, out, **{"format": "json,latex,markdown,csv", **QUICK, **options})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, factory_at: Any) -> Any:
    """One report of three models, shared by the tests that only read it: (runs, folder, result)."""
    root = tmp_path_factory.mktemp("shared")
    runs = factory_at(root / "runs")
    three_models(runs)
    return runs, root / "out", text_report(runs, root / "out")


@pytest.fixture
def result(made: Any) -> Any:
    return made[2]


@pytest.fixture
def shared(made: Any) -> Any:
    return made[0]


def test_the_named_files_are_written(made: Any) -> None:
    _, out, result = made
    assert (out / "report.json").is_file()
    assert (out / "report.md").is_file()
    for name in TABLES:
        for ending in (".tex", "_standalone.tex", ".md", ".csv"):
            assert (out / "tables" / f"{name}{ending}").is_file(), name + ending
        fragment = (out / "tables" / f"{name}.tex").read_text()
        assert lint_latex(fragment) == []
        assert fragment in (out / "tables" / f"{name}_standalone.tex").read_text()
    assert (out / "tables" / "main_hd95.tex").is_file()
    assert "Dice" in (out / "tables" / "main.tex").read_text()
    assert set(result.files) == {p for p in out.rglob("*") if p.is_file()}


def test_report_json_follows_its_schema(made: Any) -> None:
    text = (made[1] / "report.json").read_text()
    content = json.loads(text)
    jsonschema.Draft202012Validator(schema()).validate(content)
    assert text == json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    assert content["schema_version"] == 1
    for word in (str(made[1].parent), os.environ.get("USER", "no-such-user-name"), "created", "command"):
        assert word not in text


def test_summary_against_plain_numbers(result: Any, shared: Any) -> None:
    """Means, SD, quartiles and intervals from the frame with numpy and segbench.stats alone."""
    from segbench.stats import mean_interval, median_interval

    frame = load_results(shared.root)
    for row in result.document["summary"]:
        if row["region"] == "mean":
            continue
        mine = frame.query("model == @row['model'] and region == @row['region'] and metric == @row['metric']")
        table = mine.pivot_table(index="seed", columns="case", values="value").to_numpy()
        cases = table.mean(axis=0)
        assert row["n"] == row["n_expected"] == row["n_scored"] == 24
        assert row["n_seeds"] == 2
        assert row["mean"] == pytest.approx(cases.mean(), rel=1e-12)
        assert row["std"] == pytest.approx(cases.std(ddof=1), rel=1e-10)
        assert [row["q1"], row["median"], row["q3"]] == pytest.approx(
            np.percentile(cases, [25, 50, 75]).tolist()
        )
        interval = mean_interval(table)
        assert (row["mean_low"], row["mean_high"]) == pytest.approx((interval.low, interval.high), rel=1e-10)
        assert row["mean_method"] == "two_level"
        middle = median_interval(cases)
        assert (row["median_low"], row["median_high"]) == pytest.approx((middle.low, middle.high), rel=1e-10)


def test_mean_region_is_the_mean_of_region_means(result: Any) -> None:
    rows = {(r["model"], r["metric"], r["region"]): r["mean"] for r in result.document["summary"]}
    for model in ("alpha", "beta_2", "gamma"):
        means = [rows[model, "dice", region] for region in ("TC", "WT", "ET")]
        assert rows[model, "dice", "mean"] == pytest.approx(np.mean(means), rel=1e-12)


def test_ranks_and_marks(result: Any) -> None:
    for row in result.document["summary"]:
        same = [
            r for r in result.document["summary"]
            if (r["region"], r["metric"]) == (row["region"], row["metric"])
        ]  # fmt: skip
        sign = -1 if row["metric"] == "hd95" else 1
        better = sum(sign * r["mean"] > sign * row["mean"] for r in same)
        assert row["rank"] == 1 + better
        assert row["best"] == (better == 0)
        assert row["second"] == (better == 1)


def test_pairwise_against_segbench_stats(result: Any, shared: Any) -> None:
    from segbench import stats

    frame = load_results(shared.root)

    def table(model: str, region: str, metric: str) -> np.ndarray:
        mine = frame.query("model == @model and region == @region and metric == @metric")
        return mine.pivot_table(index="seed", columns="case", values="value").to_numpy()

    pairs = [p for p in result.document["pairwise"] if (p["region"], p["metric"]) == ("WT", "hd95")]
    assert [(p["a"], p["b"]) for p in pairs] == [("alpha", "beta_2"), ("alpha", "gamma"), ("beta_2", "gamma")]
    raw = []
    for pair in pairs:
        a, b = table(pair["a"], "WT", "hd95"), table(pair["b"], "WT", "hd95")
        x, y = a.mean(axis=0), b.mean(axis=0)
        test = stats.wilcoxon_signed_rank(x, y)
        raw.append(test.pvalue)
        assert pair["p_wilcoxon"] == pytest.approx(test.pvalue, rel=1e-9)
        assert pair["difference"] == pytest.approx((x - y).mean(), rel=1e-9)
        assert pair["rank_biserial"] == pytest.approx(stats.rank_biserial(x, y))
        shift = stats.hodges_lehmann(x, y)
        assert (pair["hodges_lehmann"], pair["hl_low"]) == pytest.approx(
            (shift.estimate, shift.low), rel=1e-9
        )
        interval = stats.mean_interval(x - y, resamples=500, seed=0)
        assert (pair["low"], pair["high"]) == pytest.approx((interval.low, interval.high), rel=1e-9)
        level = stats.two_level_test(a, b)
        assert pair["two_level"]["pvalue"] == pytest.approx(level.pvalue, rel=1e-9)
        verdict = stats.verdict_from_estimate(
            level.difference, level.standard_error, level.df, n=24, margin=1.0, higher_is_better=False
        )
        assert pair["verdict"] == verdict.verdict
    assert [p["p_holm"] for p in pairs] == pytest.approx(stats.holm(np.array(raw)).tolist())


def test_stability_against_segbench_stats(result: Any, shared: Any) -> None:
    from segbench.stats import rank_stability

    frame = load_results(shared.root).query("region == 'ET' and metric == 'dice'")
    table = frame.groupby(["case", "model"]).value.mean().unstack().to_numpy()
    expected = rank_stability(table, resamples=500, seed=0)
    rows = [r for r in result.document["stability"] if (r["region"], r["metric"]) == ("ET", "dice")]
    assert [r["probability_best"] for r in rows] == pytest.approx(
        np.asarray(expected.probability_best).tolist()
    )
    assert [r["rank_low"] for r in rows] == np.asarray(expected.rank_low).tolist()


def test_reference_compares_with_one_model_only(runs: Any, tmp_path: Path) -> None:
    three_models(runs)
    content = text_report(runs, tmp_path / "out", reference="beta_2", metrics="dice").document
    assert {(p["a"], p["b"]) for p in content["pairwise"]} == {("alpha", "beta_2"), ("gamma", "beta_2")}


@pytest.mark.parametrize(
    "formats",
    ["json,latex,markdown,csv", pytest.param("json,latex,markdown,csv,figures,html", marks=pytest.mark.slow)],
)
def test_the_same_records_give_the_same_bytes(
    runs: Any, factory_at: Any, tmp_path: Path, formats: str
) -> None:
    """Twice, rows shuffled, folders renamed in another order, another output, another hash seed."""
    three_models(runs, cases=12)
    options = {**QUICK, "format": formats, "metrics": "dice"}
    build_report(runs.root, tmp_path / "one", **options)
    other = factory_at(tmp_path / "elsewhere" / "runs")
    rng = np.random.default_rng(5)
    for place, name in enumerate(["alpha", "beta_2", "gamma"]):
        for seed in range(2):
            rows = runs.rows(name, seed=seed, skill=0.78 + 0.04 * place, cases=12, run_noise=0.004)
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


def test_only_the_asked_formats(runs: Any, tmp_path: Path) -> None:
    three_models(runs, cases=6)
    build_report(runs.root, tmp_path / "out", format="json", **QUICK)
    assert sorted(files_of(tmp_path / "out")) == [RECORD, "report.json"]


def test_long_form(runs: Any, tmp_path: Path) -> None:
    runs.run("=alpha", cases=3)
    build_report(runs.root, tmp_path / "out", format="csv", long=True, **QUICK)
    lines = (tmp_path / "out" / "tables" / "long.csv").read_text().splitlines()
    assert lines[0] == "dataset,protocol,model,seed,fold,case,region,metric,value,status"
    assert len(lines) == 1 + 3 * 3 * 3
    assert ",'=alpha," in lines[1]
    build_report(runs.root, tmp_path / "raw", format="csv", long=True, raw_csv=True, **QUICK)
    assert ",=alpha," in (tmp_path / "raw" / "tables" / "long.csv").read_text()


def test_a_missing_case_raises_the_exit_code(runs: Any, tmp_path: Path) -> None:
    three_models(runs, cases=6)
    rows = [row for row in runs.rows("delta", cases=6) if row["case"] != "case-0003"]
    runs.write(rows)
    found = text_report(runs, tmp_path / "out")
    assert found.exit_code == 3
    guard = next(g for g in found.guards if g.code == "missing-cases")
    assert "case-0003" in guard.message
    row = next(r for r in found.document["summary"] if (r["model"], r["metric"]) == ("delta", "dice"))
    assert (row["n"], row["n_expected"], row["n_scored"], row["n_failed"], row["n_missing"]) == (
        6,
        6,
        5,
        1,
        1,
    )
    assert row["min"] == 0.0


def test_losing_a_case_changes_nobody_else(runs: Any, factory_at: Any, tmp_path: Path) -> None:
    """The property of the missing policy on the whole report: numbers of others stay, the rank never
    improves.
    """
    three_models(runs, cases=8)
    whole = text_report(runs, tmp_path / "whole", metrics="dice,hd95").document["summary"]
    other = factory_at(tmp_path / "less")
    for place, name in enumerate(["alpha", "beta_2", "gamma"]):
        for seed in range(2):
            rows = runs.rows(name, seed=seed, skill=0.78 + 0.04 * place, cases=8, run_noise=0.004)
            if name == "gamma" and seed == 1:
                hardest = min(rows, key=lambda row: row["dice"])["case"]
                rows = [row for row in rows if row["case"] != hardest]
            other.write(rows)
    less = text_report(other, tmp_path / "out", metrics="dice,hd95").document["summary"]
    numbers = ("n", "mean", "std", "median", "mean_low", "mean_high", "n_failed")
    for before, after in zip(whole, less, strict=True):
        if before["model"] != "gamma":
            assert [before[k] for k in numbers] == [after[k] for k in numbers]
            continue
        sign = -1 if before["metric"] == "hd95" else 1
        assert sign * after["mean"] <= sign * before["mean"]
        assert after["rank"] >= before["rank"]


def test_penalty_without_a_diagonal_is_not_guessed(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=5, diagonal=None)
    runs.write([r for r in runs.rows("beta", cases=5, diagonal=None) if r["case"] != "case-0001"])
    found = text_report(runs, tmp_path / "out", metrics="dice,hd95")
    rows = {(r["model"], r["metric"]): r for r in found.document["summary"] if r["region"] == "WT"}
    lost = rows["beta", "hd95"]
    assert [lost[k] for k in ("mean", "std", "median", "rank")] == [None] * 4
    assert rows["alpha", "hd95"]["mean"] is not None
    assert rows["beta", "dice"]["mean"] is not None
    assert "penalty-unknown" in {g.code for g in found.guards}
    assert "n/a" in (tmp_path / "out" / "tables" / "main_hd95.md").read_text()
    assert not any(p["metric"] == "hd95" for p in found.document["pairwise"] if p["region"] == "WT")


def test_several_datasets_give_no_star(runs: Any, tmp_path: Path) -> None:
    for dataset in ("one", "two", "three", "four"):
        three_models(runs, cases=20, dataset=dataset)
    across = text_report(runs, tmp_path / "out", metrics="dice").document["cross_dataset"]
    assert across["pvalue"] is None
    assert across["reason"] == "4 datasets can never reach p < 0.05"
    assert across["mean_ranks"] == {"alpha": 3.0, "beta_2": 2.0, "gamma": 1.0}
    assert across["wins"]["alpha"]["win"] == 0


def test_six_datasets_give_the_smallest_possible_p(runs: Any, tmp_path: Path) -> None:
    for number in range(6):
        for name, skill in (("alpha", 0.8), ("beta", 0.9)):
            runs.run(name, dataset=f"d{number}", cases=10, skill=skill)
    across = text_report(runs, tmp_path / "out", metrics="dice").document["cross_dataset"]
    assert across["pvalue"] == pytest.approx(2 / 2**6)


def test_options_that_cannot_be(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=2)
    with pytest.raises(SegbenchError) as found:
        build_report(runs.root, tmp_path / "o", order="best", alpha=2.0, viewer="some", format="pdf")
    assert found.value.code == "SB104"
    assert len(found.value.details) == 4
    for wrong in ({"metrics": "dise"}, {"regions": "XX"}, {"reference": "nobody"}):
        with pytest.raises(SegbenchError) as found:
            build_report(runs.root, tmp_path / "o", format="json", **wrong)
        assert found.value.code == "SB101"


def test_a_folder_without_runs(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(SegbenchError) as found:
        build_report(tmp_path / "runs", tmp_path / "out")
    assert (found.value.code, found.value.exit_code) == ("SB701", 4)


def test_a_folder_that_cannot_be_written(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=2)
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises((SegbenchError, OSError)):
        build_report(runs.root, tmp_path / "out", format="json", **QUICK)
    assert (tmp_path / "out").read_text() == "a file where the folder should be"


def test_pseudonyms_hide_every_case_id(runs: Any, tmp_path: Path) -> None:
    rows = [{**row, "case": "DOE-JANE-" + row["case"]} for row in runs.rows("alpha", cases=4)]
    runs.write(rows)
    runs.write([{**row, "case": "DOE-JANE-" + row["case"]} for row in runs.rows("beta", cases=4)[3:]])
    formats = "json,latex,markdown,csv"
    found = build_report(
        runs.root, tmp_path / "out", pseudonyms=True, resamples=200, long=True, format=formats, metrics="dice"
    )
    assert found.exit_code == 3
    text = b"".join(files_of(tmp_path / "out").values())
    assert b"DOE-JANE" not in text
    assert b"case-001" in text


def test_printed_intervals_end_where_a_mean_can_be_and_stored_ones_are_those_of_stats(
    runs: Any, tmp_path: Path
) -> None:
    values = [0.99, 0.98, 0.999, 0.2]
    for model, lift in (("a", 0.0), ("b", -0.1)):
        rows = runs.rows(model, cases=len(values), regions=("WT",))
        for row, value in zip(rows, values, strict=True):
            row["dice"] = value + lift
        runs.write(rows)
    result = text_report(runs, tmp_path / "out", cell="mean-ci", digits=1, metrics="dice")
    expected = mean_interval(values)
    assert expected.high > 1
    stored = next(item for item in result.document["summary"] if item["model"] == "a")
    assert stored["mean_high"] == pytest.approx(expected.high, rel=1e-11)
    table = (tmp_path / "out/tables/main.md").read_text()
    assert f"[{100 * expected.low:.1f}, 100.0]" in table
