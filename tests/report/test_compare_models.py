"""`segbench compare`: what may be a side, what is computed, which gates hold, what is printed."""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import segbench
from segbench import stats
from segbench.core.errors import SegbenchError
from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.compare import compare
from segbench.report.analysis.options import make_options
from segbench.report.write import terminal
from segbench.report.write.terminal import compare_lines, report_lines

REPORT_SCHEMA = json.loads(
    resources("segbench.report").joinpath("schema", "report.schema.json").read_text(encoding="utf-8")
)


def column(rows: Any, metric: str, region: str) -> Any:
    """(cases,) values of one run in case order."""
    return np.array(
        [row[metric] for row in sorted(rows, key=lambda row: row["case"]) if row["region"] == region]
    )


def over_regions(rows: Any, metric: str) -> Any:
    """(cases,) means over the three regions, all of which count: none is known to be a union."""
    return np.mean([column(rows, metric, region) for region in ("TC", "WT", "ET")], axis=0)


@pytest.fixture
def two(runs: Any) -> Any:
    """Two models with one run each: the rows and the folders."""
    rows = {name: runs.rows(name, skill=skill) for name, skill in (("alpha", 0.86), ("beta", 0.82))}
    return rows, {name: runs.write(part) for name, part in rows.items()}


def pair_of(result: Any, metric: str = "dice") -> Any:
    return next(item for item in result.pairs if item.column.metric.name == metric)


def test_numbers_are_those_of_the_statistics(two: Any) -> None:
    rows, folders = two
    item = pair_of(compare(folders["alpha"], folders["beta"]))
    x, y = over_regions(rows["alpha"], "dice"), over_regions(rows["beta"], "dice")
    assert (item.pair.a, item.pair.b, item.pair.n) == ("beta", "alpha", 30)  # the first side is the reference
    (expected,) = stats.compare_models(
        {"alpha": x[None], "beta": y[None]}, reference="alpha", bounds=(0.0, 1.0)
    )
    for name in ("difference", "low", "high", "p", "p_adjusted", "wins"):
        assert getattr(item.pair, name) == pytest.approx(getattr(expected, name), rel=1e-12)
    assert item.pair.verdict == expected.verdict == "worse"
    assert (item.wins, item.ties, item.losses) == ((y > x).sum(), (x == y).sum(), (y < x).sum())
    assert "these predictions only" in item.sentence


def test_direction_of_a_distance_is_turned_in_wins_and_gains(two: Any) -> None:
    rows, folders = two
    item = pair_of(compare(folders["beta"], folders["alpha"], metrics=["hd95"]), "hd95")
    x, y = over_regions(rows["alpha"], "hd95"), over_regions(rows["beta"], "hd95")
    assert (item.pair.a, item.pair.verdict) == ("alpha", "better")
    assert item.wins == (x < y).sum()
    assert item.gains[0].gain == pytest.approx((y - x).max()) == max(change.gain for change in item.gains)


def test_largest_changes_are_five_at_most_and_in_order(two: Any) -> None:
    rows, folders = two
    item = pair_of(compare(folders["beta"], folders["alpha"]))
    x, y = over_regions(rows["alpha"], "dice"), over_regions(rows["beta"], "dice")
    order = np.argsort(-(x - y))
    assert [change.case for change in item.gains] == [f"case-0{c:03d}" for c in order[:5]]
    worse = [c for c in order[::-1] if x[c] < y[c]][:5]
    assert [change.case for change in item.drops] == [f"case-0{c:03d}" for c in worse]


def test_seeds_make_it_a_claim_about_the_method(runs: Any) -> None:
    for model, skill in (("alpha", 0.8), ("beta", 0.9)):
        for seed in range(3):
            runs.run(model, seed=seed, skill=skill, run_noise=0.002)
    item = pair_of(compare("alpha", "beta", runs=runs.root))
    assert (item.pair.claim, item.pair.seeds_a, item.pair.verdict) == ("method", 3, "better")
    assert "weights" not in item.sentence


def test_the_reference_is_the_first_side_or_the_one_named_or_none(runs: Any) -> None:
    for name in ("zeta", "alpha", "mid"):
        runs.run(name)

    def pairs(**how: Any) -> set[tuple[str, str]]:
        result = compare("zeta", "alpha", "mid", runs=runs.root, metrics=["dice"], **how)
        assert result.sides == ("zeta", "alpha", "mid")
        return {(item.pair.a, item.pair.b) for item in result.pairs}

    assert pairs() == {("alpha", "zeta"), ("mid", "zeta")}
    assert pairs(reference="mid") == {("alpha", "mid"), ("zeta", "mid")}
    assert len(pairs(reference="none")) == 3
    with pytest.raises(SegbenchError, match="nobody"):
        pairs(reference="nobody")


def test_folders_files_and_labels_are_the_same_side(two: Any, runs: Any) -> None:
    _, folders = two
    by_label = compare("alpha", "beta", runs=runs.root)
    by_folder = compare(folders["alpha"], folders["beta"])
    by_file = compare(folders["alpha"] / "cases.csv", folders["beta"] / "cases.csv")
    documents = [json.dumps(result.as_json(), sort_keys=True) for result in (by_label, by_folder, by_file)]
    assert documents[0] == documents[1] == documents[2]


def test_a_csv_without_a_record_is_not_a_side(two: Any, tmp_path: Any) -> None:
    _, folders = two
    bare = tmp_path / "elsewhere.csv"
    bare.write_bytes((folders["beta"] / "cases.csv").read_bytes())
    with pytest.raises(SegbenchError, match="no usable run") as caught:
        compare(folders["alpha"], bare, metrics=["dice"])
    assert "segbench data import scores" in " ".join(caught.value.details)


def test_two_runs_of_one_model_are_told_apart_by_their_folders(runs: Any) -> None:
    first, second = runs.run("alpha", seed=0), runs.run("alpha", seed=1)
    result = compare(first, second, metrics=["dice"])
    assert result.sides == (first.name, second.name)
    assert pair_of(result).pair.n == 30


def test_two_recipes_of_one_model_are_two_rows_and_one_has_to_be_named(runs: Any) -> None:
    for rate in (0.01, 0.02):
        rows = [{**row, "run_id": f"alpha-{rate}"} for row in runs.rows("alpha")]
        record = {"protocol": {"name": "external", "optimiser": {"lr": rate}}}
        runs.write(rows, record={**record, "run_id": f"alpha-{rate}"})
    runs.run("beta")
    with pytest.raises(SegbenchError) as caught:
        compare("alpha", "beta", runs=runs.root)
    assert caught.value.details == ("alpha (lr 0.01)", "alpha (lr 0.02)")
    result = compare("alpha (lr 0.01)", "beta", runs=runs.root)
    assert len(result.sides) == 2
    both = compare("beta", "alpha", runs=runs.root, metrics=["dice"])
    assert {item.pair.a for item in both.pairs} == {"alpha (lr 0.01)", "alpha (lr 0.02)"}


def test_a_run_against_itself_differs_nowhere(runs: Any) -> None:
    folder = runs.run("alpha")
    result = compare(folder, folder, metrics=["dice"], no_worse_than=0.0)
    assert len(set(result.sides)) == 2
    item = pair_of(result)
    assert (item.pair.difference, item.pair.verdict, item.ties) == (0.0, "inconclusive", 30)
    assert "copied-run" in {finding.code for finding in result.findings}
    assert result.exit_code == 0


def test_a_missing_case_is_named_and_scored_worst(runs: Any) -> None:
    rows = runs.rows("alpha")
    runs.write([row for row in rows if row["case"] != "case-0007"])
    runs.run("beta")
    result = compare("beta", "alpha", runs=runs.root, metrics=["dice"])
    assert [item[1:] for item in result.lacking] == [("alpha", "case-0007", "missing")]
    item = pair_of(result)
    assert item.pair.n == 30
    assert (item.drops[0].case, item.drops[0].a) == ("case-0007", 0.0)
    assert result.exit_code == 3
    dropped = compare("alpha", "beta", runs=runs.root, metrics=["dice"], missing="drop-case")
    assert pair_of(dropped).pair.n == 29
    with pytest.raises(SegbenchError) as caught:
        compare("alpha", "beta", runs=runs.root, missing="error")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("field", "values", "word"),
    [
        ("metric_profile", [{"name": "x", "digest": d * 64} for d in "12"], "metric profile"),
        ("split", [{"name": "x", "digest": d * 64} for d in "12"], "split"),
        ("metric_profile", [{"nsd_tolerance": t} for t in (1.0, 3.0)], "NSD tolerance"),
        ("references", [{"case-0000": d * 64} for d in "12"], "reference"),
    ],
)
def test_what_is_not_comparable_is_named_and_not_tested(
    runs: Any, field: str, values: Any, word: str
) -> None:
    for name, value in zip(("alpha", "beta"), values, strict=True):
        runs.run(name, record={field: value})
    result = compare("alpha", "beta", runs=runs.root, no_worse_than=1.0)
    assert result.pairs == ()
    message = next(item.message for item in result.findings if item.code == "not-comparable")
    assert word in message and "alpha" in message and "beta" in message
    assert [gate.passed for gate in result.gates] == [False]  # not knowing is not passing
    assert compare("alpha", "beta", runs=runs.root).exit_code == 3


def test_sides_without_a_common_dataset_or_case_are_refused(runs: Any) -> None:
    runs.run("alpha", dataset="phantom-brats")
    runs.run("beta", dataset="acdc")
    with pytest.raises(SegbenchError) as caught:
        compare("alpha", "beta", runs=runs.root)
    assert (caught.value.code, caught.value.exit_code) == ("SB705", 4)
    runs.write([row for row in runs.rows("gamma") if row["case"] < "case-0010"])
    runs.write([row for row in runs.rows("delta") if row["case"] >= "case-0010"])
    with pytest.raises(SegbenchError) as caught:
        compare("gamma", "delta", runs=runs.root)
    assert caught.value.code == "SB705"


@pytest.mark.parametrize(
    ("bound", "passed"),
    [({"dice": 0.70}, True), ({"dice": 0.95}, False), ({"hd95": 30.0}, True), ({"hd95": 1.0}, False)],
)
def test_fail_under_judges_the_mean_of_the_first_side(two: Any, bound: Any, passed: bool) -> None:
    _, folders = two
    result = compare(folders["alpha"], folders["beta"], fail_under=bound)
    assert [gate.passed for gate in result.gates] == [passed]
    assert result.exit_code == (0 if passed else 6)
    assert "(mean over regions) of alpha" in result.gates[0].message


def test_no_worse_than_needs_a_one_sided_bound_that_excludes_the_loss(two: Any) -> None:
    rows, folders = two
    worse = [folders["beta"], folders["alpha"]]
    x = over_regions(rows["alpha"], "dice") - over_regions(rows["beta"], "dice")
    high = stats.mean_interval(x, method="t", confidence=0.9).high  # the one-sided 95 % bound of the loss
    for margin, passed in ((high + 1e-6, True), (high - 1e-6, False), (x.mean(), False)):
        result = compare(*worse, metrics=["dice"], no_worse_than=margin)
        assert [gate.passed for gate in result.gates] == [passed], result.gates
    better = compare(folders["alpha"], folders["beta"], metrics=["dice"], no_worse_than={"dice": 0.0})
    assert better.exit_code == 0


def test_a_gate_does_not_pass_where_no_verdict_is_given(runs: Any) -> None:
    """Two cases that differ little have a narrow interval, and show nothing."""
    for name, values in (("one", (0.80, 0.90)), ("two", (0.805, 0.905))):
        rows = runs.rows(name, cases=2, regions=("WT",))
        runs.write([row | {"dice": value} for row, value in zip(rows, values, strict=True)])
    result = compare("one", "two", runs=runs.root, metrics=["dice"], no_worse_than={"dice": 0.01})
    (gate,) = result.gates
    assert not gate.passed
    assert "not tested (2 cases: no verdict below 6 cases" in gate.message
    assert result.exit_code == 6


def test_no_worse_than_turns_with_the_direction(two: Any) -> None:
    _, folders = two
    assert compare(folders["alpha"], folders["beta"], no_worse_than={"hd95": 0.0}).exit_code == 0
    assert compare(folders["beta"], folders["alpha"], no_worse_than={"hd95": 0.0}).exit_code == 6


def test_the_gate_is_the_same_whatever_the_reference(runs: Any) -> None:
    for name, skill in (("alpha", 0.86), ("beta", 0.82), ("gamma", 0.84)):
        runs.run(name, skill=skill)
    gates = [
        compare("alpha", "beta", "gamma", runs=runs.root, reference=reference, no_worse_than=0.01).gates
        for reference in (None, "beta", "none")
    ]
    assert gates[0] == gates[1] == gates[2]
    assert len(gates[0]) == 2


def test_a_failed_gate_outweighs_a_finding(runs: Any) -> None:
    runs.write([row for row in runs.rows("alpha") if row["case"] != "case-0001"])
    runs.run("beta")
    assert compare("alpha", "beta", runs=runs.root, fail_under={"dice": 0.99}).exit_code == 6
    assert compare("alpha", "beta", runs=runs.root, fail_under={"dice": 0.1}).exit_code == 3


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"metrics": ["dise"]}, "SB101"),
        ({"regions": ["XX"]}, "SB101"),
        ({"margin": {"dise": 0.1}}, "SB101"),
        ({"fail_under": {"dise": 0.1}}, "SB104"),
        ({"metrics": ["dice"], "fail_under": {"hd95": 3.0}}, "SB104"),
        ({"alpha": 2.0}, "SB104"),
        ({"missing": "ignore"}, "SB104"),
        ({"margin": {"dice": -1.0}}, "SB104"),
    ],
)
def test_what_cannot_be_is_refused(two: Any, how: Any, code: str) -> None:
    _, folders = two
    with pytest.raises(SegbenchError) as caught:
        compare(folders["alpha"], folders["beta"], **how)
    assert caught.value.code == code


def test_unknown_sides_are_named_with_suggestions(runs: Any) -> None:
    runs.run("segmamba-v2")
    with pytest.raises(SegbenchError) as caught:
        compare("segmamba-v2", "segmamba2", runs=runs.root)
    assert (caught.value.code, caught.value.exit_code) == ("SB101", 2)
    assert caught.value.message == "no run of a model called 'segmamba2'"
    assert "--cards" not in caught.value.mend
    with pytest.raises(SegbenchError) as caught:
        compare("segmamba-v2", "./nowhere", runs=runs.root)
    assert caught.value.code == "SB701"


def test_a_folder_of_several_models_is_no_side(runs: Any) -> None:
    runs.run("alpha")
    runs.run("beta")
    with pytest.raises(SegbenchError) as caught:
        compare(runs.root, "alpha", runs=runs.root)
    assert caught.value.code == "SB104"


def test_broken_and_unfinished_runs_are_no_side(runs: Any) -> None:
    good = runs.run("alpha")
    unfinished = runs.write(runs.rows("beta"), status="running")
    cut = runs.run("gamma")
    text = (cut / "cases.csv").read_text()
    (cut / "cases.csv").write_text(text[: len(text) // 2])
    for bad in (unfinished, cut):
        with pytest.raises(SegbenchError) as caught:
            compare(good, bad)
        assert caught.value.code == "SB701"


def test_a_baseline_that_is_named_is_compared(runs: Any) -> None:
    runs.run("alpha", skill=0.9)
    runs.run("atlas", skill=0.6, kind="floor")
    item = pair_of(compare("alpha", "atlas", runs=runs.root))
    assert (item.pair.a, item.pair.verdict) == ("atlas", "worse")
    assert not analyse([runs.root], make_options(resamples=100)).main_columns()[0].comparisons


def test_one_run_of_a_baseline_stands_for_each_seed(runs: Any, factory_at: Any, tmp_path: Path) -> None:
    """It draws no random number, so three runs would hold the same rows: the verdict is the same."""
    often = factory_at(tmp_path / "often")
    rows = runs.rows("atlas", skill=0.6)
    for factory, seeds in ((runs, (0,)), (often, (0, 1, 2))):
        for seed in (0, 1, 2):
            factory.run("alpha", skill=0.9, seed=seed, run_noise=0.05)
        for seed in seeds:
            name = rows[0]["run_id"].replace("__s0__", f"__s{seed}__")
            factory.write([row | {"seed": seed, "run_id": name} for row in rows], kind="floor")
    once, thrice = (pair_of(compare("alpha", "atlas", runs=each.root)).pair for each in (runs, often))
    assert repr(once) == repr(thrice)  # fields that are not a number are not equal to themselves
    assert once.seeds_a == once.seeds_b == 3


def _is_ours(row: Any) -> bool:
    return row.table.source.id == "sparkseg" and row.number.our_model == "segmamba-v2"


def test_published_numbers_stand_beside_with_a_grade(runs: Any) -> None:
    runs.run("segmamba-v2", dataset="brats2023-gli")
    runs.run("nnunet", dataset="brats2023-gli")
    result = compare("segmamba-v2", "nnunet", runs=runs.root, metrics=["dice"], published=True)
    rows = [row for row in result.published if _is_ours(row)]
    assert {row.column.region for row in rows} == {"WT", "TC", "ET", "mean"}
    assert {row.grade for row in rows} == {"C"}
    own = next(row for row in rows if row.column.region == "ET")
    assert own.number.stored == pytest.approx(0.883)
    assert own.difference == pytest.approx(own.our_value - 0.883)
    assert any("sparkseg" in line for line in compare_lines(result))


def app() -> Any:
    from segbench.cli.main import build_app

    return build_app()


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(app(), ["compare", *map(str, arguments)])


@pytest.mark.ci
@pytest.mark.parametrize(
    "name",
    ["A_B & 50% #1 {x} ~ ^ \\ $", "[x]", "=cmd", "<script>", "x" * 200, "\N{RIGHT-TO-LEFT OVERRIDE}evil"],
)
def test_hostile_names_reach_every_output(runs: Any, name: str) -> None:
    runs.run(name)
    runs.run("beta")
    result = invoke(name, "beta", "--runs", runs.root)
    assert result.exit_code == 0, result.output
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in result.stdout
    json.dumps(compare(name, "beta", runs=runs.root).as_json(), allow_nan=False)


def test_scores_of_cases_are_headed_by_the_names_of_the_sides(runs: Any) -> None:
    long = "a-very-long-name-of-a-model-for-a-column"
    for name, skill in (("alpha", 0.8), (long, 0.9)):
        runs.run(name, skill=skill, cases=8)
    lines = invoke("alpha", long, "--runs", runs.root).stdout.splitlines()
    (head,) = (line.split() for line in lines if line.split()[:1] == ["case"])
    assert head[2:] == ["alpha", "difference"]
    assert len(head[1]) == 24 and head[1].startswith("a-very-long") and head[1].endswith("a-column")


def test_lines_are_as_narrow_as_the_terminal(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a-rather-long-name-of-a-model", "another-rather-long-name"):
        runs.run(name, skill=0.8)
    result = compare(*("a-rather-long-name-of-a-model", "another-rather-long-name"), runs=runs.root)
    monkeypatch.setattr(terminal.console, "line_width", lambda: 40)
    lines = [*terminal.compare_lines(result), *terminal.finding_lines(result.findings)]
    assert max(map(len, lines)) <= 40, max(lines, key=len)


def test_terminal_fits_80_columns_and_says_what_its_marks_mean(runs: Any) -> None:
    names = [f"a-very-long-model-name-{end}-of-the-family" for end in ("one", "two", "three", "four")]
    for number, name in enumerate(names):
        runs.run(name, skill=0.8 + 0.03 * number)
    runs.write([row for row in runs.rows("with-a-hole", skill=0.7) if row["case"] != "case-0003"])
    for reference in ("none", names[0]):
        result = invoke(*names, "with-a-hole", "--runs", runs.root, "--reference", reference)
        assert result.exit_code == 3, result.output
        # A run id that is longer than a line stands on a line of its own, whole, to be copied.
        lines = [line for line in result.stdout.splitlines() if " " in line.strip()]
        assert max(map(len, lines)) <= 80, max(lines, key=len)
        for words in ("w/t/l: cases won, tied, lost", "1, 2: best and second", "failed: cases without"):
            assert words in result.stdout
        assert "+: one set of predictions on a side: these predictions only" in result.stdout
        assert "error: [missing-cases]" in result.stdout
        assert "warning: [single-seed]" in result.stdout


def test_json_holds_the_report_of_the_same_runs(two: Any, runs: Any) -> None:
    from segbench.report.write.document import document

    result = invoke("alpha", "beta", "--runs", runs.root, "--json", "-q")
    content = json.loads(result.stdout)
    options = make_options(reference="alpha", baselines=True, published=False)
    assert content["report"]["columns"] == document(analyse([runs.root], options))["columns"]
    assert content["sides"] == ["alpha", "beta"]


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--fail-under", "dice=0.5"], 0),
        (["--fail-under", "dice=0.99"], 6),
        (["--no-worse-than", "0.01"], 0),
        (["--no-worse-than", "dice=0.01,hd95=1"], 0),
        (["--fail-under", "dice"], 2),
        (["--fail-under", "dice=high"], 2),
        (["--no-worse-than", "-1"], 2),
        (["--margin", "dice"], 2),
        (["--metrics", "dise"], 2),
        (["--missing", "sometimes"], 2),
    ],
)
def test_exit_codes_of_the_command(two: Any, runs: Any, flags: list[str], code: int) -> None:
    result = invoke("alpha", "beta", "--runs", runs.root, *flags)
    assert result.exit_code == code, result.output


def test_one_side_is_a_usage_error(runs: Any) -> None:
    runs.run("alpha")
    assert invoke("alpha", "--runs", runs.root).exit_code == 2


def test_one_case_is_compared_without_a_test(runs: Any) -> None:
    for name in ("alpha", "beta"):
        runs.run(name, cases=1)
    result = compare("alpha", "beta", runs=runs.root, metrics=["dice"], no_worse_than=1.0)
    assert not result.pairs or pair_of(result).pair.verdict == "inconclusive"
    assert [gate.passed for gate in result.gates] == [False]  # not knowing is not passing
    assert invoke("alpha", "beta", "--runs", runs.root).exit_code == 0


def test_infinite_values_are_not_tested(runs: Any) -> None:
    rows = runs.rows("alpha")
    rows[0] = rows[0] | {"hd95": float("inf"), "status": "prediction_empty"}
    profile = {"metric_profile": {"name": "infinite", "empty_policy": "inf"}}
    runs.write(rows, record=profile)
    runs.run("beta", record=profile)
    result = compare("alpha", "beta", runs=runs.root, metrics=["hd95"], no_worse_than=1.0)
    assert result.pairs == ()
    assert not any(gate.passed for gate in result.gates)
    json.dumps(result.as_json(), allow_nan=False)


def test_the_result_does_not_depend_on_the_order_of_rows(runs: Any, tmp_path: Any, factory_at: Any) -> None:
    shuffled = factory_at(tmp_path / "other")
    rng = np.random.default_rng(0)
    for name in ("alpha", "beta"):
        rows = runs.rows(name)
        runs.write(rows)
        shuffled.write([rows[i] for i in rng.permutation(len(rows))])
    one = compare("alpha", "beta", runs=runs.root).as_json()
    other = compare("alpha", "beta", runs=shuffled.root).as_json()
    assert json.dumps(one) == json.dumps(other)


def test_no_torch_is_needed(two: Any, runs: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert invoke("alpha", "beta", "--runs", runs.root).exit_code == 0


def test_it_is_a_function_of_the_package(two: Any) -> None:
    assert segbench.compare is compare


@pytest.mark.ci
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    models=st.lists(
        st.tuples(st.floats(0.6, 0.9), st.integers(1, 3), st.integers(0, 2)), min_size=2, max_size=4
    ),
    cases=st.integers(3, 12),
    margin=st.sampled_from([None, 0.02]),
)
def test_compare_and_report_of_the_same_runs_say_the_same(
    factory_at: Any, tmp_path_factory: Any, models: Any, cases: int, margin: Any
) -> None:
    """Every number, and the set of better models, in every output that there is."""
    runs = factory_at(tmp_path_factory.mktemp("same") / "runs")
    names = [f"m{number}" for number in range(len(models))]
    for name, (skill, seeds, lost) in zip(names, models, strict=True):
        for seed in range(seeds):
            rows = runs.rows(name, skill=skill, seed=seed, cases=cases, run_noise=0.01)
            gone = {f"case-0{number:03d}" for number in range(lost)}
            runs.write([row for row in rows if row["case"] not in gone] or rows)
    how = {"margin": {"dice": margin} if margin else {}, "resamples": 100}
    result = compare(*names, runs=runs.root, **how)
    report = analyse([runs.root], make_options(reference=names[0], published=False, **how))
    for key, column in report.columns.items():
        mine = result.analysis.columns[key]
        assert repr(mine.means) == repr(column.means)
        assert repr(mine.comparisons) == repr(column.comparisons)
    assert result.exit_code == report.exit_code
    text = " ".join(" ".join(compare_lines(result)).split())
    shown = report_lines(report)
    assert [line for line in compare_lines(result) if line in shown][: len(shown)] == shown
    for item in result.pairs:
        decided = f"{item.pair.a} is significantly {item.pair.verdict} than {item.pair.b}" in text
        if item.column.role == "primary" and len(models) < 4:
            assert decided == (item.pair.verdict in {"better", "worse"})


def test_the_document_keeps_to_its_schema(runs: Any) -> None:
    folder = files("segbench.cli") / "schema"
    validator = jsonschema.Draft202012Validator(json.loads((folder / "compare.schema.json").read_text()))
    validator.check_schema(validator.schema)
    rows = runs.rows("alpha")
    runs.write([{**rows[0], "status": "missing", "dice": "", "hd95": "", "nsd": ""}, *rows[1:]])
    runs.run("beta", skill=0.8)
    content = compare("alpha", "beta", runs=runs.root, fail_under={"dice": 0.5}, resamples=100).as_json()
    validator.validate(json.loads(json.dumps(content, allow_nan=False)))
    jsonschema.Draft202012Validator(REPORT_SCHEMA).validate(content["report"])
    assert content["cases"]
    assert content["lacking"]
    assert content["gates"]
    assert not validator.is_valid({**content, "pairwise": []})
    for key in content:
        assert not validator.is_valid({name: value for name, value in content.items() if name != key})
    for key in ("cases", "lacking", "gates"):
        for field in content[key][0]:
            broken = {name: value for name, value in content[key][0].items() if name != field}
            assert not validator.is_valid({**content, key: [broken]})
