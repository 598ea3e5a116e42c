"""Touchstone tables of a user's copy: statuses, missing results, faults, and runs that compare."""

import csv
import json

import pytest
from typer.testing import CliRunner

from segbench.core.errors import SegbenchError
from segbench.scoring.import_scores import import_touchstone, read_table

HEAD = "name,aorta,liver"


def write(root, model, dsc, nsd=None, test_set="totalsegmentator_results"):
    folder = root / test_set / model
    folder.mkdir(parents=True)
    (folder / "dsc.csv").write_text("\n".join([HEAD, *dsc]) + "\n")
    if nsd:
        (folder / "nsd.csv").write_text("\n".join([HEAD, *nsd]) + "\n")
    return folder


@pytest.fixture
def copy(tmp_path):
    """Three cases; the aorta of s2 is in no table, the liver of s3 in one only, s4 in one only."""
    root = tmp_path / "Touchstone"
    write(root, "MedNeXt", ["s1,0.9,0.8", "s2,nan,0.7", "s3,0.6,0.5", "s4,0.4,0.3"], ["s1,0.95,0.85"])
    write(root, "Swin UNETR and CLIP", ["s1,0.8,0.7", "s2,nan,0.6", "s3,0.5,nan"])
    write(root, "MedNeXt", ["p1,0.5,0.5"], test_set="dapatlas_results")
    return root


def rows_of(item):
    with (item.folder / "cases.csv").open(newline="") as stream:
        return {(row["case"], row["region"]): row for row in csv.DictReader(stream)}


def test_every_model_of_both_test_sets_is_a_run(copy, tmp_path):
    taken = import_touchstone(copy, results=tmp_path / "runs")
    assert [(item.dataset, item.model, len(item.rows)) for item in taken] == [
        ("touchstone-totalsegmentator", "MedNeXt", 8),
        ("touchstone-totalsegmentator", "Swin UNETR and CLIP", 8),
        ("touchstone-dapatlas", "MedNeXt", 2),
    ]
    one = import_touchstone(copy / "dapatlas_results", results=tmp_path / "runs")
    assert [item.run_id for item in one] == [taken[2].run_id]  # the same tables are the same run


def test_absent_organs_are_left_out_and_absent_results_score_worst(copy, tmp_path):
    best, clip, _ = import_touchstone(copy, results=tmp_path / "runs")
    rows = rows_of(clip)
    assert rows["s1", "aorta"]["dice"] == "0.80000000000000004"
    assert (rows["s2", "aorta"]["status"], rows["s2", "aorta"]["dice"]) == ("both_empty", "")
    for key in (("s3", "liver"), ("s4", "aorta"), ("s4", "liver")):
        assert (rows[key]["status"], rows[key]["dice"], rows[key]["code"]) == ("missing", "0", "SB215")
        assert rows[key]["penalised"] == "dice"
    assert (clip.missing, best.missing) == (3, 0)
    assert best.mean == pytest.approx(((0.9 + 0.6 + 0.4) / 3 + (0.8 + 0.7 + 0.5 + 0.3) / 4) / 2)


def test_the_record_names_licence_policy_and_expected_cases(copy, tmp_path):
    item = import_touchstone(copy, results=tmp_path / "runs")[1]
    record = json.loads((item.folder / "run.json").read_text())
    assert (record["kind"], record["status"]) == ("external", "complete")
    assert record["split"]["test"] == ["s1", "s2", "s3", "s4"]
    assert record["metric_profile"]["empty_policy"] == "nan"
    assert "NC-ND" in record["warnings"][0]


def test_imported_models_compare(copy, tmp_path):
    from segbench import compare

    import_touchstone(copy / "totalsegmentator_results", results=tmp_path / "runs")
    result = compare(
        "MedNeXt", "Swin UNETR and CLIP", runs=tmp_path / "runs", metrics=["dice"], regions=["aorta"]
    )
    analysis = result.analysis
    (pair,) = analysis.column(analysis.blocks[0], analysis.metrics[0], "aorta").comparisons
    assert pair.n == 3  # s2 has no aorta
    assert abs(pair.difference) == pytest.approx((0.1 + 0.1 + 0.4) / 3)
    assert {(case, status) for _, _, case, status in result.lacking} == {("s3", "missing"), ("s4", "missing")}


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["s1,0.9"], "SB602"),
        (["s1,0.9,1.2"], "SB602"),
        (["s1,0.9,inf"], "SB602"),
        (["s1,0.9,high"], "SB602"),
        (["s1,0.9,0.8", "s1,0.9,0.8"], "SB306"),
        (["../s1,0.9,0.8"], "SB339"),
        ([], "SB602"),
    ],
)
def test_faults_of_a_table_are_named(tmp_path, lines, code):
    folder = write(tmp_path, "Net", lines)
    with pytest.raises(SegbenchError) as caught:
        read_table(folder / "dsc.csv")
    assert (caught.value.code, caught.value.exit_code) == (code, 4)


def test_a_folder_without_tables_is_named(tmp_path):
    with pytest.raises(SegbenchError) as caught:
        import_touchstone(tmp_path)
    assert caught.value.code == "SB301"


def test_the_command_prints_a_line_per_model(copy, tmp_path):
    from segbench.cli.main import build_app

    flags = ["data", "import", "touchstone", str(copy), "--results", str(tmp_path / "runs")]
    shown = CliRunner().invoke(build_app(), flags)
    assert shown.exit_code == 0, shown.output
    assert "Swin UNETR and CLIP" in shown.stdout
    document = json.loads(CliRunner().invoke(build_app(), [*flags, "--json"]).stdout)
    assert [run["missing"] for run in document["runs"]] == [0, 3, 0]
