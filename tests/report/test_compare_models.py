"""`segbench compare`: what may be a side, what is computed, which gates hold, what is printed."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats
from typer.testing import CliRunner

from segbench import stats
from segbench.core.errors import SegbenchError
from segbench.report.compare import compare


def column(rows, metric, region):
    """(cases,) values of one run in case order."""
    return np.array(
        [row[metric] for row in sorted(rows, key=lambda row: row["case"]) if row["region"] == region]
    )


@pytest.fixture
def two(runs):
    """Two models with one run each: the rows and the folders."""
    rows = {name: runs.rows(name, skill=skill) for name, skill in (("alpha", 0.86), ("beta", 0.82))}
    return rows, {name: runs.write(part) for name, part in rows.items()}


def find(result, region, metric, a=None):
    return next(
        item
        for item in result.pairs
        if item.pair.region == region and item.pair.metric == metric and a in (None, item.pair.a)
    )


def test_numbers_are_those_of_the_statistics(two):
    rows, folders = two
    result = compare(folders["alpha"], folders["beta"])
    item = find(result, "WT", "dice")
    x, y = column(rows["alpha"], "dice", "WT"), column(rows["beta"], "dice", "WT")
    assert (item.pair.a, item.pair.b, item.pair.n) == ("alpha", "beta", 30)
    assert item.mean_a == pytest.approx(x.mean())
    assert item.mean_b == pytest.approx(y.mean())
    assert item.pair.difference == pytest.approx((x - y).mean())
    peer = scipy_stats.wilcoxon(x, y, method="approx", correction=True)
    assert item.pair.p_wilcoxon == pytest.approx(peer.pvalue, rel=1e-9)
    assert item.pair.hodges_lehmann == pytest.approx(stats.hodges_lehmann(x, y).estimate)
    assert item.pair.rank_biserial == pytest.approx(stats.rank_biserial(x, y))
    assert (item.wins, item.ties, item.losses) == ((x > y).sum(), (x == y).sum(), (x < y).sum())
    assert item.pair.verdict == stats.equivalence_test(x, y, margin=0.01).verdict == "better"
    assert item.pair.two_level is None


def test_direction_of_a_distance_is_turned_in_wins_and_gains(two):
    rows, folders = two
    item = find(compare(folders["alpha"], folders["beta"], metrics=["hd95"]), "WT", "hd95")
    x, y = column(rows["alpha"], "hd95", "WT"), column(rows["beta"], "hd95", "WT")
    assert item.wins == (x < y).sum()
    best = max(item.gains, key=lambda change: change.gain)
    assert best.gain == pytest.approx((y - x).max())
    assert item.gains[0] == best
    assert item.pair.verdict == "better"


def test_largest_changes_are_five_at_most_and_in_order(two):
    rows, folders = two
    item = find(compare(folders["alpha"], folders["beta"]), "ET", "dice")
    x, y = column(rows["alpha"], "dice", "ET"), column(rows["beta"], "dice", "ET")
    order = np.argsort(-(x - y))
    assert [change.case for change in item.gains] == [f"case-0{c:03d}" for c in order[:5]]
    assert [change.case for change in item.drops] == [f"case-0{c:03d}" for c in order[::-1] if x[c] < y[c]][
        :5
    ]


def test_seeds_give_the_two_level_verdict(runs):
    rows = {(m, s): runs.rows(m, seed=s, run_noise=0.02) for m in ("alpha", "beta") for s in range(3)}
    for part in rows.values():
        runs.write(part)
    result = compare("alpha", "beta", runs=runs.root, metrics=["dice"])
    item = find(result, "TC", "dice")
    tables = [np.stack([column(rows[m, s], "dice", "TC") for s in range(3)]) for m in ("alpha", "beta")]
    level = stats.two_level_test(*tables)
    assert item.pair.two_level["pvalue"] == pytest.approx(level.pvalue)
    assert item.pair.two_level["df"] == pytest.approx(level.df)
    verdict = stats.verdict_from_estimate(
        level.difference, level.standard_error, level.df, n=level.cases, margin=0.01
    )
    assert item.pair.verdict == verdict.verdict
    assert (item.low, item.high) == pytest.approx((verdict.low, verdict.high))


def test_sides_keep_the_order_given(runs):
    for name in ("zeta", "alpha", "mid"):
        runs.run(name)
    result = compare("zeta", "alpha", "mid", runs=runs.root, metrics=["dice"], regions=["WT"])
    assert result.sides == ("zeta", "alpha", "mid")
    assert [(i.pair.a, i.pair.b) for i in result.pairs] == [
        ("zeta", "alpha"),
        ("zeta", "mid"),
        ("alpha", "mid"),
    ]
    raw = [item.pair.p_wilcoxon for item in result.pairs]
    assert [item.pair.p_holm for item in result.pairs] == pytest.approx(list(stats.holm(raw)))


def test_folders_files_and_labels_are_the_same_side(two, runs):
    _, folders = two
    by_label = compare("alpha", "beta", runs=runs.root)
    by_folder = compare(folders["alpha"], folders["beta"])
    by_file = compare(folders["alpha"] / "cases.csv", folders["beta"] / "cases.csv")
    documents = [json.dumps(result.as_json(), sort_keys=True) for result in (by_label, by_folder, by_file)]
    assert documents[0] == documents[1] == documents[2]


def test_a_bare_csv_without_a_record_is_a_side(two, tmp_path):
    _, folders = two
    bare = tmp_path / "elsewhere.csv"
    bare.write_bytes((folders["beta"] / "cases.csv").read_bytes())
    result = compare(folders["alpha"], bare, metrics=["dice"])
    assert result.sides == ("alpha", "beta")
    assert find(result, "WT", "dice").pair.n == 30


def test_two_runs_of_one_model_are_told_apart_by_their_folders(runs):
    first, second = runs.run("alpha", seed=0), runs.run("alpha", seed=1)
    result = compare(first, second, metrics=["dice"])
    assert result.sides == (first.name, second.name)


def test_a_run_against_itself_is_equivalent_with_p_one(runs):
    folder = runs.run("alpha")
    result = compare(folder, folder, metrics=["dice"], no_worse_than=0.0)
    assert len(set(result.sides)) == 2
    for item in result.pairs:
        assert (item.pair.p_wilcoxon, item.pair.verdict, item.ties) == (1.0, "equivalent", 30)
    assert result.exit_code == 0


def test_a_missing_case_is_named_and_scored_worst(runs):
    rows = runs.rows("alpha")
    runs.write([row for row in rows if row["case"] != "case-0007"])
    runs.run("beta")
    result = compare("alpha", "beta", runs=runs.root, metrics=["dice"])
    assert [(item.model, item.case, item.status) for item in result.lacking] == [
        ("alpha", "case-0007", "missing")
    ]
    item = find(result, "WT", "dice")
    assert item.pair.n == 30
    assert item.drops[0].case == "case-0007"
    assert item.drops[0].a == 0.0
    assert result.exit_code == 3
    dropped = compare("alpha", "beta", runs=runs.root, metrics=["dice"], missing="drop-case")
    assert find(dropped, "WT", "dice").pair.n == 29
    with pytest.raises(SegbenchError) as caught:
        compare("alpha", "beta", runs=runs.root, missing="error")
    assert caught.value.exit_code == 4


def test_sides_of_different_protocols_meet_when_named(runs):
    runs.run("alpha", protocol="standard")
    runs.run("beta", protocol="external")
    result = compare("alpha", "beta", runs=runs.root, metrics=["dice"], regions=["WT"])
    assert [block.protocol for block in result.blocks] == ["external | standard"]
    assert len(result.pairs) == 1


def test_a_shared_protocol_keeps_the_others_apart(runs):
    for protocol in ("standard", "quick"):
        runs.run("alpha", protocol=protocol)
    runs.run("beta", protocol="standard")
    result = compare("alpha", "beta", runs=runs.root, metrics=["dice"], regions=["WT"])
    assert [block.protocol for block in result.blocks] == ["standard"]


def test_contradicting_metric_profiles_are_not_tested(runs):
    for name, digest in (("alpha", "1" * 64), ("beta", "2" * 64)):
        runs.run(name, record={"metric_profile": {"name": name, "digest": digest}})
    result = compare("alpha", "beta", runs=runs.root)
    assert result.pairs == ()
    assert "profile-differs" in {guard.code for guard in result.guards if guard.severity == "error"}
    assert result.exit_code == 3


def test_sides_without_a_common_dataset_are_refused(runs):
    runs.run("alpha", dataset="phantom-brats")
    runs.run("beta", dataset="acdc")
    with pytest.raises(SegbenchError) as caught:
        compare("alpha", "beta", runs=runs.root)
    assert (caught.value.code, caught.value.exit_code) == ("SB705", 4)


def test_sides_without_a_common_case_are_refused(runs):
    runs.write([row for row in runs.rows("alpha") if row["case"] < "case-0010"])
    runs.write([row for row in runs.rows("beta") if row["case"] >= "case-0010"])
    with pytest.raises(SegbenchError) as caught:
        compare("alpha", "beta", runs=runs.root)
    assert caught.value.code == "SB705"


@pytest.mark.parametrize(
    ("bound", "passed"),
    [({"dice": 0.70}, True), ({"dice": 0.95}, False), ({"hd95": 30.0}, True), ({"hd95": 1.0}, False)],
)
def test_fail_under_judges_the_mean_of_the_first_side(two, bound, passed):
    _, folders = two
    result = compare(folders["alpha"], folders["beta"], fail_under=bound)
    assert [gate.passed for gate in result.gates] == [passed]
    assert result.exit_code == (0 if passed else 6)
    assert "(mean) of alpha" in result.gates[0].message


def test_no_worse_than_needs_an_interval_that_excludes_the_loss(two):
    rows, folders = two
    worse = [folders["beta"], folders["alpha"]]
    x = column(rows["beta"], "dice", "WT") - column(rows["alpha"], "dice", "WT")
    low = stats.equivalence_test(x, margin=0.01).low  # one-sided 95 % bound of the difference
    for margin, passed in ((-low + 1e-6, True), (-low - 1e-6, False), (-x.mean(), False)):
        result = compare(*worse, metrics=["dice"], regions=["WT"], no_worse_than=margin)
        assert [gate.passed for gate in result.gates] == [passed]
    better = compare(folders["alpha"], folders["beta"], metrics=["dice"], no_worse_than={"dice": 0.0})
    assert better.exit_code == 0


def test_no_worse_than_turns_with_the_direction(two):
    _, folders = two
    assert compare(folders["alpha"], folders["beta"], no_worse_than={"hd95": 0.0}).exit_code == 0
    assert compare(folders["beta"], folders["alpha"], no_worse_than={"hd95": 0.0}).exit_code == 6


def test_a_failed_gate_outweighs_a_finding(runs):
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
def test_what_cannot_be_is_refused(two, how, code):
    _, folders = two
    with pytest.raises(SegbenchError) as caught:
        compare(folders["alpha"], folders["beta"], **how)
    assert caught.value.code == code


def test_unknown_sides_are_named_with_suggestions(runs):
    runs.run("segmamba-v2")
    with pytest.raises(SegbenchError) as caught:
        compare("segmamba-v2", "segmamba2", runs=runs.root)
    assert (caught.value.code, caught.value.exit_code) == ("SB101", 2)
    with pytest.raises(SegbenchError) as caught:
        compare("segmamba-v2", "./nowhere", runs=runs.root)
    assert caught.value.code == "SB701"
    with pytest.raises(SegbenchError) as caught:
        compare(runs.root / "..", "segmamba-v2", runs=runs.root / "empty")
    assert caught.value.code in {"SB701", "SB101"}


def test_a_folder_of_several_models_is_no_side(runs):
    runs.run("alpha")
    runs.run("beta")
    with pytest.raises(SegbenchError) as caught:
        compare(runs.root, "alpha", runs=runs.root)
    assert caught.value.code == "SB104"


def test_broken_and_unfinished_runs_are_no_side(runs):
    good = runs.run("alpha")
    unfinished = runs.write(runs.rows("beta"), status="running")
    with pytest.raises(SegbenchError) as caught:
        compare(good, unfinished)
    assert caught.value.code == "SB701"
    cut = runs.run("gamma")
    text = (cut / "cases.csv").read_text()
    (cut / "cases.csv").write_text(text[: len(text) // 2])
    with pytest.raises(SegbenchError) as caught:
        compare(good, cut)
    assert caught.value.code == "SB701"


def test_published_numbers_stand_beside_with_a_grade(runs):
    runs.run("segmamba-v2", dataset="brats2023-gli")
    runs.run("nnunet", dataset="brats2023-gli")
    result = compare("segmamba-v2", "nnunet", runs=runs.root, metrics=["dice"], published=True)
    rows = [row for row in result.published if row.source == "sparkseg" and row.our_model == "segmamba-v2"]
    assert {row.region for row in rows} == {"WT", "TC", "ET", "mean"}
    assert {row.grade for row in rows} == {"C"}
    own = next(row for row in rows if row.region == "ET")
    assert own.value == pytest.approx(0.883)
    assert own.difference == pytest.approx(own.our_value - 0.883)


@pytest.mark.parametrize(
    "name", ["A_B & 50% #1 {x} ~ ^ \\ $", "[x]", "=cmd", "<script>", "x" * 200, "\u202eevil"]
)
def test_hostile_names_reach_every_output(runs, name):
    runs.run(name)
    runs.run("beta")
    result = CliRunner().invoke(app(), ["compare", name, "beta", "--runs", str(runs.root)])
    assert result.exit_code == 0, result.output
    assert "\u202e" not in result.stdout
    document = compare(name, "beta", runs=runs.root).as_json()
    assert document["sides"] == [name, "beta"]


def app():
    from segbench.cli.main import build_app

    return build_app()


def invoke(*arguments):
    return CliRunner().invoke(app(), ["compare", *map(str, arguments)])


def test_terminal_shows_verdict_counts_and_cases(two, runs):
    result = invoke("alpha", "beta", "--runs", runs.root, "--metrics", "dice")
    assert result.exit_code == 0, result.output
    for part in (
        "win/tie/loss",
        "HL shift",
        "p Holm",
        "rank-bis.",
        "better",
        "these weights only",
        "gain",
        "30",
    ):
        assert part in result.stdout


def test_json_holds_the_pairwise_objects_of_the_report(two, runs, tmp_path):
    from segbench.report import build_report

    result = invoke("alpha", "beta", "--runs", runs.root, "--json", "-q")
    document = json.loads(result.stdout)
    assert document["schema_version"] == 1
    report = build_report(runs.root, tmp_path / "out", formats=("json",), published=False)
    theirs = {(p["region"], p["metric"]): p for p in report.document["pairwise"]}
    ours = {(p["region"], p["metric"]): p for p in document["pairwise"]}
    assert ours == theirs


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
    ],
)
def test_exit_codes_of_the_command(two, runs, flags, code):
    result = invoke("alpha", "beta", "--runs", runs.root, *flags)
    assert result.exit_code == code, result.output


def test_one_side_is_a_usage_error(runs):
    runs.run("alpha")
    assert invoke("alpha", "--runs", runs.root).exit_code == 2


def test_one_case_is_compared_without_a_test(runs):
    for name in ("alpha", "beta"):
        runs.run(name, cases=1)
    result = compare("alpha", "beta", runs=runs.root, metrics=["dice"], no_worse_than=1.0)
    item = find(result, "WT", "dice")
    assert item.pair.p_wilcoxon is None
    assert item.pair.note
    assert [gate.passed for gate in result.gates] == [False]  # not knowing is not passing
    assert invoke("alpha", "beta", "--runs", runs.root).exit_code == 0


def test_infinite_values_are_not_tested(runs):
    rows = runs.rows("alpha")
    rows[0] = rows[0] | {"hd95": float("inf"), "status": "prediction_empty"}
    profile = {"metric_profile": {"name": "infinite", "empty_policy": "inf"}}
    runs.write(rows, record=profile)
    runs.run("beta", record=profile)
    result = compare("alpha", "beta", runs=runs.root, metrics=["hd95"])
    assert find(result, "TC", "hd95").pair.p_wilcoxon is None
    json.dumps(result.as_json(), allow_nan=False)


def test_the_result_does_not_depend_on_the_order_of_rows(runs, tmp_path, factory_at):
    shuffled = factory_at(tmp_path / "other")
    rng = np.random.default_rng(0)
    for name in ("alpha", "beta"):
        rows = runs.rows(name)
        runs.write(rows)
        shuffled.write([rows[i] for i in rng.permutation(len(rows))])
    one = compare("alpha", "beta", runs=runs.root).as_json()
    other = compare("alpha", "beta", runs=shuffled.root).as_json()
    assert json.dumps(one) == json.dumps(other)


def test_no_torch_is_needed(two, runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert invoke("alpha", "beta", "--runs", runs.root).exit_code == 0


def test_gates_are_frozen(two):
    _, folders = two
    gate = compare(folders["alpha"], folders["beta"], fail_under={"dice": 0.1}).gates[0]
    assert replace(gate, passed=False) != gate
