"""`data import scores`: a CSV table with a row per case and region, one or several models."""

import csv
import json

import pytest
from typer.testing import CliRunner

from segbench.cli import common
from segbench.cli.main import build_app
from segbench.core import console
from segbench.core.errors import SegbenchError
from segbench.report.analysis.analysis import load_results
from segbench.scoring.import_scores import import_tables, read_long_table


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch):
    """The everywhere-flags belong to a process; each test here is one."""
    monkeypatch.setattr(common, "_settings", common.Settings())
    monkeypatch.setattr(console, "output", console.Output())


def table(path, *lines, head="case,region,dice,hd95"):
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def rows_of(folder):
    with (folder / "cases.csv").open(newline="") as stream:
        return {(row["case"], row["region"]): row for row in csv.DictReader(stream)}


def test_values_come_back_as_they_stand(tmp_path):
    path = table(tmp_path / "a.csv", "p1,liver,0.9,3.5", "p1,spleen,,", "p2,liver,0.1234567890123456,0")
    (taken,) = import_tables({"a": {path: None}}, "btcv", results=tmp_path / "runs")
    rows = rows_of(taken.folder)
    assert float(rows["p1", "liver"]["hd95"]) == 3.5
    assert float(rows["p2", "liver"]["dice"]) == 0.1234567890123456
    assert (rows["p1", "spleen"]["status"], rows["p1", "spleen"]["dice"]) == ("both_empty", "")
    assert list(rows) == sorted(rows)


def test_what_another_model_has_and_this_one_lacks_counts_against_it(tmp_path):
    a = table(tmp_path / "a.csv", "p1,liver,0.9,3", "p2,liver,0.8,4")
    b = table(tmp_path / "b.csv", "p1,liver,0.95,2", "p2,liver,,")
    _, worse = import_tables({"a": {a: None}, "b": {b: None}}, "btcv", results=tmp_path / "runs")
    row = rows_of(worse.folder)["p2", "liver"]
    assert (row["status"], row["dice"], row["code"]) == ("missing", "0", "SB215")
    assert row["hd95"] == "", "the worst distance is not known without the grid; it is never 0"
    assert set(row["penalised"].split(";")) == {"dice", "hd95"}
    assert worse.mean == pytest.approx(0.475)
    (alone,) = import_tables({"b": {b: None}}, "btcv", results=tmp_path / "other")
    assert alone.run_id != worse.run_id, "another set of expected rows is another run"


def test_columns_of_other_names_and_separators(tmp_path):
    path = table(tmp_path / "a.csv", "p1;Leber;0.5", head="Patient;Organ;DSC")
    read = read_long_table(path, {"case": "patient", "dice": "dsc"})
    assert read == {"dice": {"p1": {"Leber": 0.5}}}


@pytest.mark.parametrize(
    ("head", "lines", "code", "told"),
    [
        ("case,region,score", ["p1,liver,0.9"], "SB602", "score"),
        ("case,region,dice", ["p1,liver,90"], "SB602", "between 0 and 1"),
        ("case,region,hd95", ["p1,liver,-1"], "SB602", "0 or more"),
        ("case,region,dice", ["p1,liver"], "SB602", "2 cells"),
        ("case,region,dice", ["p1,liver,0.9", "p1,liver,0.8"], "SB306", "twice"),
        ("case,region,dice", ["../p1,liver,0.9"], "SB339", "p1"),
        ("case,region,dice", [], "SB602", "no rows"),
    ],
)
def test_faults_name_what_they_found(tmp_path, head, lines, code, told):
    path = table(tmp_path / "a.csv", *lines, head=head)
    with pytest.raises(SegbenchError) as caught:
        import_tables({"a": {path: None}}, "btcv", results=tmp_path / "runs")
    error = caught.value
    assert error.code == code
    assert told in f"{error.message} {error.expected} {error.found}"
    assert not (tmp_path / "runs").exists()


def test_the_command_for_two_models(tmp_path):
    files = [
        table(tmp_path / "a.csv", "p1,liver,0.9", "p2,liver,0.8", head="id,label,DSC"),
        table(tmp_path / "b.csv", "p1,liver,0.7", "p2,liver,0.6", head="id,label,DSC"),
    ]
    words = [
        "data",
        "import",
        "scores",
        *map(str, files),
        "--dataset",
        "btcv",
        "--results",
        str(tmp_path / "r"),
    ]
    refused = CliRunner().invoke(build_app(), words)
    assert refused.exit_code == 4 and "--column dice=DSC" in refused.stderr
    done = CliRunner().invoke(build_app(), [*words, "--column", "dice=DSC", "--json"])
    assert done.exit_code == 0, done.output
    runs = json.loads(done.stdout)["runs"]
    assert [(run["model"], run["rows"]) for run in runs] == [("a", 2), ("b", 2)]
    assert [run["mean_dice"] for run in runs] == pytest.approx([0.85, 0.65])


@pytest.mark.parametrize("wrong", [["--column", "dice"], ["--name", "x", "--name", "y"], []])
def test_usage_is_told_before_anything_is_read(tmp_path, wrong):
    file = table(tmp_path / "a.csv", "p1,liver,0.9", head="case,region,dice")
    dataset = ["--dataset", "btcv"] if wrong else []
    words = ["data", "import", "scores", str(file), *dataset, *wrong, "--results", str(tmp_path / "r")]
    done = CliRunner().invoke(build_app(), words)
    assert done.exit_code == 2 and "SB104" in done.stderr


@pytest.mark.parametrize("name", ["mean", "Std", "MEDIAN"])
def test_a_row_over_all_cases_is_not_a_case(tmp_path, name):
    path = table(tmp_path / "a.csv", "p1,0.9", f"{name},0.9", head="case,dice")
    with pytest.raises(SegbenchError, match="is a row over the cases") as caught:
        read_long_table(path, {})
    assert caught.value.code == "SB602"


def test_a_case_may_be_named_by_its_file_and_headers_may_have_blanks(tmp_path):
    lines = ["/data/a b/p1.nii.gz,0.9", "C:\\x\\p2.NII.GZ,0.8", " p3 ,0.7"]
    found = read_long_table(table(tmp_path / "a.csv", *lines, head="case , dice"), {})
    assert list(found["dice"]) == ["p1", "p2", "p3"]


@pytest.mark.parametrize(
    ("cell", "mend"),
    [("91.2", "divide by 100"), ("91.2%", "divide by 100"), ("n/a", "leave the cell empty"), ("-1", "leave")],
)
def test_a_value_that_is_none_says_how_to_write_it(tmp_path, cell, mend):
    with pytest.raises(SegbenchError) as caught:
        read_long_table(table(tmp_path / "a.csv", f"p1,{cell}", head="case,dice"), {})
    assert mend in caught.value.mend
    path = tmp_path / "b.csv"
    path.write_text("case;dice\np1;0,9\n")
    with pytest.raises(SegbenchError) as caught:
        read_long_table(path, {})
    assert "write a point" in caught.value.mend


def test_rows_without_a_value_are_told_and_another_models_value_makes_them_missing(tmp_path, capsys):
    one = table(tmp_path / "a.csv", "p1,0.9", "p2,", head="case,dice")
    other = table(tmp_path / "b.csv", "p1,0.8", "p2,0.7", head="case,dice")
    results = tmp_path / "results"
    for model, path in (("a", one), ("b", other)):
        import_tables({model: {path: None}}, "msd-spleen", results=results)
    assert "1 of 2 rows have a value nowhere (p2 all): taken" in capsys.readouterr().err
    frame = load_results(results).sort_values(["model", "case"])
    assert frame["value"].tolist() == [0.9, 0.0, 0.8, 0.7]
