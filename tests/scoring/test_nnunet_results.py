"""A results folder of nnU-Net in one command: every form it takes, and what is said when it does not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_external_evaluate import blob, fresh_settings, save, segbench

from segbench.core.errors import SegbenchError
from segbench.records import read_run
from segbench.scoring.nnunet_results import find_folds

__all__ = ["fresh_settings"]

CONFIGURATION = "nnUNetTrainer_50epochs__nnUNetResEncUNetMPlans__3d_fullres"
LABELS = {"background": 0, "whole": [1, 2], "core": 2}


def dice(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> float:
    r, p = np.isin(reference, labels), np.isin(prediction, labels)
    return float(2 * (r & p).sum() / (r.sum() + p.sum()))


def fold(root: Path, number: int, cases: list[str], *, dataset: str = "Dataset007_Toy") -> Path:
    """A fold as nnUNetv2_train leaves it: label maps, summary.json, debug.json, a checkpoint."""
    folder = root / dataset / CONFIGURATION / f"fold_{number}"
    entries = []
    for shift, case in enumerate(cases):
        save(folder / "validation" / f"{case}.nii.gz", blob(shift))
        metrics = {
            str(labels if len(labels) == 1 else tuple(labels)): {"Dice": dice(blob(), blob(shift), labels)}
            for labels in ([1, 2], [2])
        }
        path = f"/nnUNet_results/validation/{case}.nii.gz"
        entries.append({"metrics": metrics, "prediction_file": path, "reference_file": path})
    (folder / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": entries}))
    (folder / "debug.json").write_text(json.dumps({"num_epochs": "50", "device": "cuda:0"}))
    (folder / "checkpoint_final.pth").write_bytes(b"weights")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two validated folds, one that still trains, fold_all, joined folders and an ensemble."""
    root = tmp_path / "nnUNet_results"
    for number in (0, 1):
        fold(root, number, [f"case{2 * number + index}" for index in range(2)])
    configuration = root / "Dataset007_Toy" / CONFIGURATION
    document = {"channel_names": {"0": "CT"}, "labels": LABELS, "regions_class_order": [1, 2],
                "file_ending": ".nii.gz", "numTraining": 4}  # fmt: skip
    (configuration / "dataset.json").write_text(json.dumps(document))
    plans = {
        "configurations": {
            "3d_fullres": {"patch_size": [96, 96, 64], "batch_size": 2, "spacing": [2.0, 1.0, 0.5],
                           "architecture": {"network_class_name": "ResidualEncoderUNet"}},
        }
    }  # fmt: skip
    (configuration / "plans.json").write_text(json.dumps(plans))
    (configuration / "fold_2").mkdir()
    (configuration / "dataset_fingerprint.json").write_text("{}")
    for place in ("fold_all/validation", "crossval_results_folds_0_1"):  # as 2.8.1 leaves them: all cases
        for index in range(4):
            save(configuration / place / f"case{index}.nii.gz", blob(index))
        (configuration / place / "summary.json").write_text('{"metric_per_case": []}')
    (configuration / "crossval_results_folds_0_1" / "postprocessing.pkl").write_bytes(b"pickle")
    save(root / "Dataset007_Toy" / "ensembles" / "ensemble___a___b___0_1" / "case0.nii.gz", blob())
    for index in range(4):
        save(tmp_path / "labelsTr" / f"case{index}.nii.gz", blob())
    return root


def taken_in(root: Path, place: Path, *more: object) -> tuple[int, str, str]:
    return segbench(
        "data", "import", "nnunet", place, "--reference", root / "labelsTr", "--results", root / "runs",
        "--no-progress", *more,
    )  # fmt: skip


@pytest.mark.ci
@pytest.mark.parametrize("below", [".", "Dataset007_Toy", f"Dataset007_Toy/{CONFIGURATION}"])
def test_every_validated_fold_is_a_run_with_its_recipe(tree, tmp_path, below):
    code, out, err = taken_in(tmp_path, tree / below, "--json")
    assert code == 0, err
    folds = json.loads(out)["folds"]
    assert [(each["fold"], each["n_expected"], each["n_failed"]) for each in folds] == [(0, 2, 0), (1, 2, 0)]
    assert [(each["compared_with_summary"], each["differing"]) for each in folds] == [(4, []), (4, [])]
    record = read_run(Path(folds[1]["run_directory"]))
    assert (record.model or {})["slug"] == CONFIGURATION
    assert record.fold == 1
    recipe = (record.external or {})["nnunet"]
    assert recipe == {
        "trainer": "nnUNetTrainer_50epochs", "plans": "nnUNetResEncUNetMPlans", "configuration": "3d_fullres",
        "patch_size": [96, 96, 64], "batch_size": 2, "spacing": [2.0, 1.0, 0.5],
        "network": "ResidualEncoderUNet", "epochs": 50,
    }  # fmt: skip


def test_one_fold_alone_and_the_table(tree, tmp_path):
    code, out, err = taken_in(tmp_path, tree / "Dataset007_Toy" / CONFIGURATION / "fold_1")
    assert code == 0, err
    assert "4 equal" in out
    assert len(list((tmp_path / "runs").glob("*/run.json"))) == 1


def test_a_dice_that_is_not_nnunets_is_named(tree, tmp_path):
    summary = tree / "Dataset007_Toy" / CONFIGURATION / "fold_0" / "validation" / "summary.json"
    document = json.loads(summary.read_text())
    metrics = document["metric_per_case"][1]["metrics"]
    metrics[next(key for key in metrics if "1" not in key)]["Dice"] = 0.123
    summary.write_text(json.dumps(document))
    code, _, err = taken_in(tmp_path, tree, "--json")
    assert code == 3
    assert "case1, core" in err
    assert "0.123" in err


def test_a_label_map_that_is_lost_is_a_missing_case(tree, tmp_path):
    (tree / "Dataset007_Toy" / CONFIGURATION / "fold_0" / "validation" / "case1.nii.gz").unlink()
    code, out, _ = taken_in(tmp_path, tree, "--json")
    assert code == 3
    (failure,) = json.loads(out)["folds"][0]["failures"]
    assert (failure["case"], failure["code"]) == ("case1", "SB215")


def test_what_is_not_a_results_folder_says_what_lies_there(tree, tmp_path):
    for place, code in ((tmp_path / "nowhere", "SB201"), (tmp_path / "labelsTr", "SB311")):
        exit_code, _, err = taken_in(tmp_path, place)
        assert exit_code == 4
        assert code in err
    assert "case0.nii.gz" in err
    (tree / "Dataset007_Toy" / CONFIGURATION / "plans.json").write_text("{broken")
    exit_code, _, err = taken_in(tmp_path, tree)
    assert exit_code == 4
    assert "plans.json" in err


def test_joined_folders_and_unfinished_folds_are_left_out(tree):
    assert [(each.fold, each.cases) for each in find_folds(tree)] == [
        (0, ("case0", "case1")),
        (1, ("case2", "case3")),
    ]


def test_each_folder_that_is_not_scored_is_told_with_its_reason(tree, tmp_path):
    code, _, err = taken_in(tmp_path, tree)
    assert code == 0, err
    told = [line.partition("not scored: ")[2] for line in err.splitlines() if "not scored: " in line]
    reasons = {name.rpartition("/")[2]: reason for name, _, reason in (line.partition(": ") for line in told)}
    assert reasons == {
        "crossval_results_folds_0_1": "the label maps of the folds once more",
        "fold_2": "no validation yet",
        "fold_all": "it was trained on the cases that it predicts",
        "ensemble___a___b___0_1": "segbench evaluate scores its label maps",
    }
    for one in ("fold_0", "fold_0/validation"):
        code, _, err = taken_in(tmp_path, tree / "Dataset007_Toy" / CONFIGURATION / one)
        assert code == 0 and "not scored" not in err, "one fold was asked for"


@pytest.mark.parametrize("place", ["fold_all", "crossval_results_folds_0_1"])
def test_a_folder_of_all_folds_is_for_evaluate(tree, tmp_path, place):
    code, _, err = taken_in(tmp_path, tree / "Dataset007_Toy" / CONFIGURATION / place)
    assert code == 4 and "SB311" in err and "segbench evaluate" in err


def renamed(tree: Path, name: str) -> None:
    """Every entry of the first fold's summary with this file, `{}` for the case."""
    path = tree / "Dataset007_Toy" / CONFIGURATION / "fold_0" / "validation" / "summary.json"
    document = json.loads(path.read_text())
    for number, entry in enumerate(document["metric_per_case"]):
        entry["prediction_file"] = entry["reference_file"] = name.format(f"case{number}")
    path.write_text(json.dumps(document))


def test_a_summary_of_a_windows_machine_names_the_same_cases(tree):
    before = find_folds(tree)
    renamed(tree, "D:\\nnUNet_results\\fold_0\\validation\\{}.nii.gz")
    assert find_folds(tree) == before


@pytest.mark.parametrize("name", ["..", "x/..nii.gz", "a\u202eb.nii.gz", ""])
def test_a_name_in_the_summary_that_is_not_a_case_is_refused(tree, name):
    renamed(tree, name)
    with pytest.raises(SegbenchError, match="SB339"):
        find_folds(tree)
