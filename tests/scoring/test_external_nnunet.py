"""nnU-Net's summary.json: values follow from counts, contradictions are refused and cost, files are
compared.
"""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from segbench.cards import load_dataset_card
from segbench.cli import common
from segbench.cli.main import build_app
from segbench.core import console
from segbench.core.errors import SegbenchError
from segbench.records import read_cases, read_run
from segbench.scoring.import_summary import import_summary, read_summary
from segbench.volumes import Volume, write_label_map


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch):
    """The everywhere-flags belong to a process; each test here is one."""
    monkeypatch.setattr(common, "_settings", common.Settings())
    monkeypatch.setattr(console, "output", console.Output())


CARD = "brats2023-gli"
KEYS = {"(1, 3)": "TC", "(1, 2, 3)": "WT", "3": "ET"}


def values(tp, fp, fn, **changes):
    """What nnU-Net writes for one region, by its arithmetic."""
    below = tp + fp + fn
    return {
        "Dice": 2 * tp / (2 * tp + fp + fn) if below else math.nan, "IoU": tp / below if below else math.nan,
        "TP": tp, "FP": fp, "FN": fn, "TN": 10_000, "n_pred": tp + fp, "n_ref": tp + fn,
    } | changes  # fmt: skip


def write(path, cases):
    mean = {key: {"Dice": float(np.nanmean([case[key]["Dice"] for case in cases.values()]))} for key in KEYS}
    document = {
        "foreground_mean": {"Dice": float(np.mean([part["Dice"] for part in mean.values()]))}, "mean": mean,
        "metric_per_case": [
            {
                "metrics": metrics,
                "prediction_file": f"/old/pred/{case}.nii.gz",
                "reference_file": f"/old/{case}.nii.gz",
            }
            for case, metrics in cases.items()
        ],
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def summary(tmp_path):
    cases = {
        "a": {"(1, 3)": values(80, 10, 7), "(1, 2, 3)": values(300, 3, 1), "3": values(0, 0, 0)},
        "b": {"(1, 3)": values(0, 5, 0), "(1, 2, 3)": values(0, 0, 9), "3": values(7, 0, 0)},
    }
    return write(tmp_path / "summary.json", cases)


def take(path, tmp_path, **options):
    return import_summary(path, load_dataset_card(CARD), results=tmp_path / "runs", **options)


def test_rows_have_our_statuses_and_nnunets_values(summary, tmp_path):
    taken = take(summary, tmp_path, name="nnunet", fold=2, seed=1)
    rows = {(row["case"], row["region"]): row for row in read_cases(taken.folder)}
    assert len(rows) == 6
    assert not taken.refused
    assert {key: row["status"] for key, row in rows.items()} == {
        ("a", "TC"): "ok", ("a", "WT"): "ok", ("a", "ET"): "both_empty",
        ("b", "TC"): "reference_empty", ("b", "WT"): "prediction_empty", ("b", "ET"): "ok",
    }  # fmt: skip
    assert float(rows["a", "TC"]["dice"]) == 2 * 80 / (160 + 17)
    assert rows["a", "ET"]["dice"] == "", "0/0 is not defined in nnU-Net, and not here"
    assert float(rows["b", "TC"]["dice"]) == 0.0
    assert int(rows["a", "TC"]["reference_voxels"]) == 87
    assert "hd95" not in rows["a", "TC"]
    assert {row["fold"] for row in rows.values()} == {"2"}
    record = read_run(taken.folder)
    assert (record.kind, record.status, record.model["slug"], record.seed) == (
        "external",
        "complete",
        "nnunet",
        1,
    )


def test_the_record_holds_the_regions_as_far_as_the_card_knows_them(summary, tmp_path):
    card = load_dataset_card(CARD)
    profile = read_run(take(summary, tmp_path).folder).metric_profile
    assert profile["regions"] == {name: list(card.regions[name]) for name in ("TC", "WT", "ET")}
    assert (profile["name"], profile["metrics"]) == ("nnunet", ["dice", "iou"])


def test_its_mean_stands_beside_ours(summary, tmp_path):
    taken = take(summary, tmp_path)
    for ours, theirs in taken.means.values():
        assert ours == pytest.approx(theirs, abs=1e-12)
    document = json.loads(json.dumps(taken.as_json(), allow_nan=False))
    assert next(s for s in document["summary"] if s["metric"] == "dice")["nnunet_mean"] is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"Dice": 0.95}, {"IoU": 0.5}, {"TP": 81}, {"FP": -1}, {"FN": 7.5}, {"TP": None}, {"Dice": math.nan},
        {"Dice": 2 * 80 / (160 + 17) + 1e-11},
    ],
)  # fmt: skip
def test_a_value_that_contradicts_its_counts_is_refused_and_costs(tmp_path, wrong):
    cases = {"a": {key: values(80, 10, 7) for key in KEYS}, "b": {key: values(80, 10, 7) for key in KEYS}}
    cases["a"]["3"] = values(80, 10, 7, **wrong)
    taken = take(write(tmp_path / "s.json", cases), tmp_path)
    (refusal,) = taken.refused
    assert (refusal["case"], refusal["region"]) == ("a", "ET")
    row = next(row for row in taken.rows if (row["case"], row["region"]) == ("a", "ET"))
    assert (row["code"], row["status"], row["dice"]) == ("SB217", "unreadable", 0.0)
    assert taken.means["ET"][0] == pytest.approx(0.5 * 160 / 177)


def test_a_rounding_of_the_last_digit_is_no_contradiction(tmp_path):
    cases = {"a": {key: values(80, 10, 7, Dice=2 * 80 / (160 + 17) + 2e-16) for key in KEYS}}
    assert not take(write(tmp_path / "s.json", cases), tmp_path).refused


def test_counts_are_compared_with_the_files_where_they_are(tmp_path):
    reference, prediction = np.zeros((2, 4, 5, 6), np.uint8)
    reference[1:3, 1:4, 1:4] = 3
    prediction[1:3, 1:4, 2:5] = 3
    like = Volume(reference, (1.0, 1.0, 1.0), np.eye(4))
    for name, array in (("ref", reference), ("pred", prediction)):
        write_label_map(tmp_path / name / "a.nii.gz", array, like)
    good = values(12, 6, 6)
    for metrics, refused in ((good, 0), (values(12, 6, 5), 3)):
        document = {
            "mean": {},
            "metric_per_case": [
                {
                    "metrics": dict.fromkeys(KEYS, metrics),
                    "prediction_file": str(tmp_path / "pred" / "a.nii.gz"),
                    "reference_file": str(tmp_path / "ref" / "a.nii.gz"),
                }
            ],
        }
        (tmp_path / "s.json").write_text(json.dumps(document))
        taken = take(tmp_path / "s.json", tmp_path)
        assert taken.compared == 1
        assert len(taken.refused) == refused


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"metric_per_case": [1]}', '{"metric_per_case": [{"metrics": {"x": {}}}]}']
)
def test_what_is_no_summary_is_refused(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(SegbenchError) as caught:
        take(tmp_path / "s.json", tmp_path)
    assert caught.value.code in ("SB602", "SB339")


@pytest.mark.parametrize("name", ["../../x.nii.gz", "=cmd.nii.gz", "", "a/../.nii.gz"])
def test_hostile_case_names(tmp_path, name):
    document = {"metric_per_case": [{"metrics": {"3": values(1, 1, 1)}, "prediction_file": name}]}
    (tmp_path / "s.json").write_text(json.dumps(document))
    if Path(name).name == "x.nii.gz":
        taken = take(tmp_path / "s.json", tmp_path)
        assert [row["case"] for row in taken.rows] == ["x"]
    else:
        with pytest.raises(SegbenchError) as caught:
            take(tmp_path / "s.json", tmp_path)
        assert caught.value.code == "SB339"


def test_the_command(summary, tmp_path):
    arguments = [
        "data",
        "import",
        "nnunet-summary",
        str(summary),
        "--dataset",
        CARD,
        "--results",
        str(tmp_path / "r"),
    ]
    result = CliRunner().invoke(build_app(), arguments)
    assert result.exit_code == 0, result.stderr
    assert "nnU-Net's own" in result.stdout
    cases = json.loads(summary.read_text())
    cases["metric_per_case"][0]["metrics"]["(1, 3)"]["Dice"] = 0.99
    summary.write_text(json.dumps(cases))
    result = CliRunner().invoke(build_app(), [*arguments, "--json"])
    assert result.exit_code == 3
    assert "SB217" in result.stderr
    assert json.loads(result.stdout)["runs"][0]["refused"][0]["region"] == "TC"
    assert os.path.commonpath([tmp_path, json.loads(result.stdout)["runs"][0]["run_directory"]]) == str(
        tmp_path
    )


def test_a_summary_of_nnunet_v1_gets_the_way_that_works(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"results": {"all": [{"1": {"Dice": 0.5}, "test": "a"}], "mean": {}}}))
    with pytest.raises(SegbenchError) as caught:
        read_summary(path)
    assert caught.value.code == "SB602" and "nnU-Net v1" in caught.value.message
    assert "segbench evaluate" in caught.value.mend


def test_reversed_axes_are_named_where_shapes_differ() -> None:
    from segbench.volumes import Volume
    from segbench.volumes.geometry import shape_mend

    one, other, third = (
        Volume(array=np.zeros(shape, dtype=np.uint8), spacing_mm=(1.0, 1.0, 1.0), affine=np.eye(4))
        for shape in ((2, 3, 4), (4, 3, 2), (2, 3, 5))
    )
    assert "reverse order" in (shape_mend(one, other) or "")
    assert shape_mend(one, third) is None
