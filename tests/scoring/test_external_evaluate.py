"""`segbench evaluate`: what a user sees of whole runs: rows, exit codes, resume, hostile names."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import preloaded
import pytest
from typer.testing import CliRunner

from segbench.cli import common
from segbench.cli.main import build_app
from segbench.core import console
from segbench.metrics import evaluate_case
from segbench.records import read_cases, read_run
from segbench.volumes import Volume, write_label_map


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch):
    """The everywhere-flags belong to a process; each test here is one."""
    monkeypatch.setattr(common, "_settings", common.Settings())
    monkeypatch.setattr(console, "output", console.Output())


SPACING = (2.0, 1.0, 0.5)
SHAPE = (10, 18, 16)


def volume(array, spacing=SPACING, origin=(0.0, 0.0, 0.0)):
    affine = np.diag([*spacing[::-1], 1.0])
    affine[:3, 3] = origin
    return Volume(array, spacing, affine)


def save(path, array, like=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_label_map(path, array, like if like is not None else volume(array))


def blob(shift=0, shape=SHAPE):
    array = np.zeros(shape, np.uint8)
    array[2:8, 4:12, 3 + shift : 10 + shift] = 1
    array[4:6, 6:10, 5 + shift : 8 + shift] = 2
    return array


@pytest.fixture
def folders(tmp_path):
    for index in range(5):
        save(tmp_path / "refs" / f"case{index}.nii.gz", blob())
        save(tmp_path / "preds" / f"case{index}.nii.gz", blob(index))
    return tmp_path


def segbench(*arguments, cwd=None):
    """Run the command in this process: exit code, stdout, stderr."""
    here = Path.cwd()
    os.chdir(cwd or here)
    try:
        result = CliRunner().invoke(build_app(), [str(a) for a in arguments])
    finally:
        os.chdir(here)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def evaluate(root, *more, regions=("whole=1,2", "core=2")):
    flags = [part for region in regions for part in ("--region", region)]
    base = [
        "evaluate",
        root / "preds",
        root / "refs",
        "--results",
        root / "runs",
    ]
    return segbench(*base, *flags, *more)


def run_folder(root):
    (folder,) = [path for path in (root / "runs").iterdir() if not path.name.startswith(".")]
    return folder


def test_rows_equal_evaluate_case(folders):
    code, out, _ = evaluate(folders)
    assert code == 0
    assert "whole: 5 expected, 5 scored" in out
    rows = read_cases(run_folder(folders))
    assert [(row["case"], row["region"]) for row in rows[:3]] == [
        ("case0", "core"), ("case0", "whole"), ("case1", "core"),
    ]  # fmt: skip
    for row in rows:
        index = int(row["case"][-1])
        scores = evaluate_case(
            blob(), blob(index), spacing_mm=SPACING, regions={"whole": (1, 2), "core": (2,)}
        )[row["region"]]
        for name, value in scores.items():
            assert float(row[name]) == value
        assert row["status"] == "ok"
        assert row["model"] == "preds"
        assert row["dataset"] == "refs"
        assert row["protocol"] == "external"
        assert float(row["reference_volume_ml"]) == pytest.approx(scores.reference_voxels / 1000)
    record = read_run(run_folder(folders))
    assert (record.kind, record.status) == ("external", "complete")
    assert record.split.test == tuple(f"case{i}" for i in range(5))


def test_json_document(folders):
    (folders / "preds" / "case2.nii.gz").unlink()
    save(folders / "preds" / "extra.nii.gz", blob())
    code, out, err = evaluate(folders, "--json")
    assert code == 3
    document = json.loads(out)
    assert set(document) == {
        "schema_version", "kind", "run_id", "run_directory", "profile", "empty_policy",
        "n_expected", "n_scored", "n_failed", "extra_predictions", "failures", "summary",
    }  # fmt: skip
    assert (document["n_expected"], document["n_scored"], document["n_failed"]) == (5, 4, 1)
    assert document["extra_predictions"] == ["extra.nii.gz"]
    assert document["failures"][0]["case"] == "case2"
    assert document["failures"][0]["status"] == "missing"
    assert document["failures"][0]["code"] == "SB215"
    assert "case2" in err
    assert "extra.nii.gz" in err
    dice = next(s for s in document["summary"] if (s["region"], s["metric"]) == ("whole", "dice"))
    others = [
        evaluate_case(blob(), blob(i), spacing_mm=SPACING, regions={"w": (1, 2)})["w"]["dice"]
        for i in (0, 1, 3, 4)
    ]
    assert dice["mean"] == pytest.approx(sum(others) / 5, abs=1e-12)
    assert dice["worst_case"] == "case2"
    assert {s["region"] for s in document["summary"]} == {"whole", "core", "mean"}


def test_the_same_command_scores_only_what_changed(folders):
    evaluate(folders)
    folder = run_folder(folders)
    before = (folder / "cases.csv").read_bytes()
    lines = (folder / "cases.jsonl").read_bytes().count(b"\n")
    assert evaluate(folders)[0] == 0
    assert (folder / "cases.jsonl").read_bytes().count(b"\n") == lines
    assert (folder / "cases.csv").read_bytes() == before
    # Touched, but the same bytes: a new stamp, the same rows.
    os.utime(folders / "preds" / "case1.nii.gz", (1, 1))
    assert evaluate(folders)[0] == 0
    assert (folder / "cases.csv").read_bytes() == before
    save(folders / "preds" / "case1.nii.gz", blob())
    assert evaluate(folders)[0] == 0
    rows = {row["case"]: row for row in read_cases(folder) if row["region"] == "whole"}
    assert float(rows["case1"]["dice"]) == 1.0


def test_fresh_scores_all_again(folders):
    evaluate(folders)
    lines = (run_folder(folders) / "cases.jsonl").read_bytes().count(b"\n")
    assert evaluate(folders, "--fresh", "evaluate")[0] == 0
    assert (run_folder(folders) / "cases.jsonl").read_bytes().count(b"\n") == lines


@pytest.mark.ci
def test_a_mended_prediction_is_scored_again(folders):
    path = folders / "preds" / "case3.nii.gz"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert evaluate(folders)[0] == 3
    code, _, err = evaluate(folders)
    assert code == 3
    assert "case3" in err, "a failure is named again when nothing was to be done"
    path.write_bytes(data)
    assert evaluate(folders)[0] == 0


@pytest.mark.ci
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_and_started_again_gives_the_same_bytes(folders, workers, tmp_path):
    command = (
        "-m", "segbench", "evaluate", "preds", "refs", "--region", "whole=1,2",
        "--workers", str(workers), "--no-progress",
    )  # fmt: skip

    def run(results, fault=None):
        environment = {**os.environ, "SEGBENCH_NO_NUMBA": "1"}
        if fault:
            environment["SEGBENCH_FAULT"] = fault
        return preloaded.run(*command, "--results", results, cwd=folders, env=environment).returncode

    assert run("whole") == 0
    assert run("cut", "case:3") == -signal.SIGKILL
    (cut,) = (folders / "cut").iterdir()
    done = (cut / "cases.jsonl").read_bytes().count(b"\n") if (cut / "cases.jsonl").exists() else 0
    assert done < 5
    assert not (cut / "cases.csv").exists()
    assert run("cut") == 0
    (whole,) = (folders / "whole").iterdir()
    assert whole.name == cut.name
    assert (whole / "cases.csv").read_bytes() == (cut / "cases.csv").read_bytes()


@pytest.mark.slow
def test_a_killed_worker_is_named_and_its_case_scored_worst(folders):
    command = [
        sys.executable, "-c", "from segbench.cli.main import entry_point; entry_point()", "evaluate",
        "preds", "refs", "--region", "whole=1,2", "--workers", "2",
        "--no-progress", "--cases", "one.txt", "--results", "runs", "--json",
    ]  # fmt: skip
    (folders / "one.txt").write_text("case0\ncase1\n")
    done = subprocess.run(
        command,
        cwd=folders,
        env={**os.environ, "SEGBENCH_NO_NUMBA": "1", "SEGBENCH_FAULT": "worker:1:kill"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert {f["case"]: (f["status"], f["code"]) for f in document["failures"]} == {
        "case0": ("unreadable", "SB503"),
        "case1": ("unreadable", "SB503"),
    }
    assert "SIGKILL" in done.stderr
    assert "case0" in done.stderr


def test_a_torn_last_line_is_dropped(folders):
    evaluate(folders)
    folder = run_folder(folders)
    before = (folder / "cases.csv").read_bytes()
    lines = folder / "cases.jsonl"
    lines.write_bytes(lines.read_bytes()[:-40])
    assert evaluate(folders)[0] == 0
    assert (folder / "cases.csv").read_bytes() == before


def test_on_error_stop_ends_at_the_first(folders):
    for name in ("case1", "case3"):
        (folders / "preds" / f"{name}.nii.gz").unlink()
    code, _, err = evaluate(folders, "--on-error", "stop")
    assert code == 4
    assert "case1" in err
    assert "case3" not in err
    assert not (run_folder(folders) / "cases.csv").exists()
    assert read_run(run_folder(folders)).status == "failed"


def test_damaged_references_are_all_listed_and_nothing_is_scored(folders):
    for name in ("case1", "case3"):
        path = folders / "refs" / f"{name}.nii.gz"
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    code, out, err = evaluate(folders)
    assert code == 4
    assert "case1" in err
    assert "case3" in err
    assert "dice" not in out.lower()
    assert not (run_folder(folders) / "cases.csv").exists()


def test_two_files_for_one_case_are_refused(folders):
    save(folders / "preds" / "case1.nii", blob())
    code, _, err = evaluate(folders)
    assert code == 4
    assert "SB216" in err
    assert "case1.nii " in err or "case1.nii\n" in err
    assert "case1.nii.gz" in err


def test_no_case_is_an_error(tmp_path):
    (tmp_path / "refs").mkdir()
    (tmp_path / "preds").mkdir()
    code, _, err = evaluate(tmp_path)
    assert code == 4
    assert "SB311" in err


def test_endings_in_capital_letters_count(folders):
    """A prediction that is there must not be scored as missing because of how its name is spelt."""
    _, before, _ = evaluate(folders, "--json")
    for folder in ("preds", "refs"):
        path = folders / folder / "case1.nii.gz"
        path.rename(path.with_name("case1.NII.GZ"))
    code, after, _ = evaluate(folders, "--json")
    assert code == 0
    assert json.loads(after)["summary"] == json.loads(before)["summary"]


def test_hidden_files_are_no_cases(folders):
    (folders / "refs" / "._case9.nii.gz").write_bytes(b"resource fork")
    (folders / "refs" / ".case8.nii.gz").write_bytes(b"")
    (folders / "preds" / "._case0.nii.gz").write_bytes(b"resource fork")
    code, _, err = evaluate(folders)
    assert code == 0
    assert "resource" not in err
    assert "._case0" not in err


@pytest.mark.parametrize("name", ["=cmd()", "a*b", "a..b", "ä\u200b", "-x", "con\u202e"])
def test_names_that_are_no_ids_are_refused(folders, name):
    save(folders / "plain.nii.gz", blob())
    (folders / "refs" / f"{name}.nii.gz").write_bytes((folders / "plain.nii.gz").read_bytes())
    code, _, err = evaluate(folders)
    assert code == 4
    assert "SB339" in err
    assert "\u202e" not in err


def test_names_that_are_no_ids_are_counted(folders):
    save(folders / "plain.nii.gz", blob())
    for number in range(12):
        (folders / "refs" / f"a*b{number}.nii.gz").write_bytes((folders / "plain.nii.gz").read_bytes())
    assert "and 2 more" in evaluate(folders)[2]


def test_hostile_region_and_model_names_stay_text(folders):
    code, out, _ = evaluate(folders, "--name", "=cmd|' /C calc'!A0", regions=("=1+1=1", "<b>&=2"))
    assert code == 0
    text = (run_folder(folders) / "cases.csv").read_text()
    for row in read_cases(run_folder(folders)):
        assert row["model"].startswith("'=")
        assert not row["region"].startswith("=")
    assert "<b>&" in text
    assert (folders / "runs").resolve() in run_folder(folders).resolve().parents
    assert "=1+1" in out


def test_without_a_region_every_label_found_is_scored(folders):
    code, out, err = evaluate(folders, "--json", regions=())
    assert code == 0, err
    assert "1, 2" in err
    assert {each["region"] for each in json.loads(out)["summary"]} == {"1", "2", "mean"}
    named = evaluate(folders, "--labels", "1=edema,2=core", "--json", regions=())[1]
    of_both = {
        each["region"]: each["mean"] for each in json.loads(named)["summary"] if each["metric"] == "dice"
    }
    as_named = json.loads(evaluate(folders, "--json", regions=("edema=1", "core=2"))[1])["summary"]
    assert of_both == {each["region"]: each["mean"] for each in as_named if each["metric"] == "dice"}
    code, _, err = evaluate(folders, "--labels", "9=liver", regions=())
    assert code == 2
    assert "9" in err


def test_the_two_folders_may_be_named_by_place(folders):
    base = ("evaluate", folders / "preds", folders / "refs", "--results", folders / "runs", "--no-progress")
    code, out, err = segbench(*base, "--region", "whole=1,2", "--json")
    assert code == 0, err
    assert (
        json.loads(out)["run_id"]
        == json.loads(evaluate(folders, "--json", regions=("whole=1,2",))[1])["run_id"]
    )
    for wrong in ((*base, "--prediction", folders / "preds"), ("evaluate",), (*base, folders / "third")):
        code, _, err = segbench(*wrong)
        assert code == 2, err


@pytest.mark.ci
@pytest.mark.parametrize(
    "flags",
    [
        ("--empty-policy", "kind"), ("--geometry", "loose"), ("--on-error", "drop"),
        ("--other-labels", "ignore"), ("--fresh", "train"), ("--nsd-tolerance", "-1"),
        ("--nsd-tolerance", "liver=2"), ("--fail-under", "dice"), ("--fail-under", "dicee=0.5"),
        ("--split", "official"), ("--profile", "honnest"), ("--region", "core=0"), ("--region", "core"),
        ("--region", "mean=1"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_usage_errors_before_anything_is_scored(folders, flags):
    code, _, err = evaluate(folders, *flags)
    assert code == 2, err
    assert not (folders / "runs").exists()


def test_gate(folders):
    assert evaluate(folders, "--fail-under", "dice=0.2")[0] == 0
    code, _, err = evaluate(folders, "--fail-under", "dice=0.99,hd95=100")
    assert code == 6
    assert "dice" in err
    assert evaluate(folders, "--fail-under", "hd95=0.1")[0] == 6


def test_cases_file_takes_a_subset_and_makes_nothing_superfluous(folders):
    (folders / "list.txt").write_text("# two of them\ncase3\ncase1  # again\n")
    code, out, err = evaluate(folders, "--cases", folders / "list.txt", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["n_expected"] == 2
    assert document["extra_predictions"] == []
    (folders / "list.txt").write_text("case3\ncase77\n")
    code, _, err = evaluate(folders, "--cases", folders / "list.txt")
    assert code == 4
    assert "case77" in err


def test_dataset_json_of_nnunet_with_regions_and_ignore(folders):
    (folders / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "CT"},
                "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
                "regions_class_order": [1, 2], "numTraining": 5, "file_ending": ".nii.gz", "name": "Toy",
            }
        )
    )  # fmt: skip
    reference = blob()
    reference[0, :, :] = 3
    save(folders / "refs" / "case0.nii.gz", reference)
    prediction = blob()
    prediction[0, 0, 0] = 1
    save(folders / "preds" / "case0.nii.gz", prediction)
    code, out, err = evaluate(folders, "--dataset", folders / "dataset.json", "--json", regions=())
    assert code == 0, err
    document = json.loads(out)
    assert {s["region"] for s in document["summary"]} == {"whole", "core", "mean"}
    rows = {(r["case"], r["region"]): r for r in read_cases(Path(document["run_directory"]))}
    assert float(rows["case0", "whole"]["dice"]) == 1.0, "what lies under the ignore label is not scored"
    assert rows["case0", "whole"]["dataset"] == "Toy"


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "whole": [1, 2], "core": 2},
        {"background": 0, "edge": 1, "core": 2},
        {"0": "background", "1": "edge", "2": "core"},
    ],
)
def test_a_dataset_json_of_labels_alone_is_enough_to_score(folders, labels):
    (folders / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nrrd"}))
    code, out, err = evaluate(folders, "--dataset", folders / "dataset.json", regions=())
    assert code == 0, err
    assert "core: 5 expected, 5 scored" in out


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "{", '{"labels": {}}', '{"labels": {"background": 0, "a": "x"}}', '{"labels": {"a": 1}}'],
)
def test_a_dataset_json_without_usable_labels_is_refused(folders, text):
    (folders / "dataset.json").write_text(text)
    code, _, err = evaluate(folders, "--dataset", folders / "dataset.json", regions=())
    assert code == 4
    assert "SB331" in err


def test_tolerance_per_region(folders):
    evaluate(folders, "--nsd-tolerance", "whole=0.4", "--nsd-tolerance", "core=5")
    rows = [row for row in read_cases(run_folder(folders)) if row["case"] == "case2"]
    regions = {"whole": (1, 2), "core": (2,)}
    expected = evaluate_case(
        blob(), blob(2), spacing_mm=SPACING, regions=regions, nsd_tolerance_mm={"whole": 0.4, "core": 5}
    )
    assert {row["region"]: float(row["nsd"]) for row in rows} == {r: s["nsd"] for r, s in expected.items()}


def test_release_profile_is_in_voxels_and_paper_policy(folders):
    save(folders / "preds" / "case4.nii.gz", np.zeros(SHAPE, np.uint8))
    evaluate(folders, "--profile", "segmamba-v2-release")
    rows = {(row["case"], row["region"]): row for row in read_cases(run_folder(folders))}
    assert (rows["case4", "whole"]["dice"], rows["case4", "whole"]["hd95"]) == ("0", "50")
    expected = evaluate_case(blob(), blob(2), spacing_mm=(1, 1, 1), regions={"w": (1, 2)})["w"]["hd95"]
    assert float(rows["case2", "whole"]["hd95"]) == expected
    assert "nsd" not in rows["case2", "whole"]


def test_a_reference_held_by_another_process_is_not_written(folders):
    evaluate(folders)
    from segbench.records.lease import Lease

    with Lease(run_folder(folders)):
        code, _, err = evaluate(folders, "--fresh", "evaluate")
    assert code == 7
    assert "SB603" in err


@pytest.mark.ci
def test_torch_and_pandas_are_not_needed(folders):
    script = (
        "import sys\n"
        "for name in ('torch', 'monai', 'pandas'): sys.modules[name] = None\n"
        "from segbench.cli.main import entry_point\n"
        "entry_point()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "evaluate", "preds", "refs",
         "--region", "whole=1,2", "--workers", "1"],
        cwd=folders, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_labels_that_no_region_names(folders):
    code, _, err = evaluate(folders, regions=("core=2",))
    assert code == 4, "the references hold label 1, which nobody declared"
    assert "SB213" in err
    assert "--other-labels background" in err
    code, out, _ = evaluate(folders, "--other-labels", "background", "--json", regions=("core=2",))
    assert code == 0
    assert json.loads(out)["n_scored"] == 5


def test_results_that_cannot_be_written_are_no_internal_error(folders):
    blocked = folders / "file"
    blocked.write_text("no folder")
    code, _, told = evaluate(folders, "--results", blocked)
    assert code == 5
    assert "SB505" in told
    assert str(blocked) in told.replace("\n", "")


def test_results_inside_the_predictions_are_no_predictions(folders):
    for _ in range(2):  # the second time the runs are there already
        code, _, told = evaluate(folders, "--results", folders / "preds")
        assert code == 0
        assert "not scored" not in told
        code, _, _ = evaluate(folders, "--results", folders / "preds" / "runs", "--fresh", "evaluate")
        assert code == 0


def test_intervals_of_few_cases_stay_where_a_mean_can_be(folders):
    for index in range(3, 5):
        (folders / "preds" / f"case{index}.nii.gz").unlink()
    code, table, _ = evaluate(folders)
    assert code == 3
    rows = [line.split() for line in table.splitlines() if line.strip().startswith(("Dice", "HD95", "NSD"))]
    assert rows
    for row in rows:
        low, high = (float(row[row.index("to") + step]) for step in (-1, 1))
        assert low >= 0
        assert high <= 1 or row[0] == "HD95"
