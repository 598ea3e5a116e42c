"""The main job on real scans: a floor on every case, and each kind of damage named with nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import preloaded
import pytest

from segbench.records import read_cases

pytestmark = pytest.mark.real_data
NAME = "Task04_Hippocampus"


def segbench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return preloaded.run("-m", "segbench", *arguments, env={**os.environ, "SEGBENCH_THREADS": "1"})


def run(data: Path, results: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return segbench(
        "run", "--model", "mean-atlas", "--dataset", "msd-hippocampus", "--protocol", "demo", "--no-progress",
        "--data-dir", str(data), "--results", str(results), *flags,
    )  # fmt: skip


def copy_of_twelve(real: Path, target: Path) -> Path:
    """A dataset of the first twelve cases in MSD layout."""
    source, root = real / NAME, target / NAME
    listing = json.loads((source / "dataset.json").read_text())
    listing["training"] = listing["training"][:12]
    listing |= {"numTraining": 12, "test": [], "numTest": 0}
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    for entry in listing["training"]:
        for kind in ("image", "label"):
            shutil.copy(source / entry[kind], root / entry[kind])
    (root / "dataset.json").write_text(json.dumps(listing))
    return root


@pytest.mark.ci
def test_the_floor_on_two_hundred_cases(real_data: Path, tmp_path: Path) -> None:
    done = run(real_data, tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    (cell,) = (tmp_path / "runs").iterdir()
    rows = read_cases(cell)
    assert len(rows) == 40 * 3
    dice = {
        region: np.mean([float(row["dice"]) for row in rows if row["region"] == region])
        for region in ("anterior", "posterior")
    }
    assert 0.62 < dice["anterior"] < 0.76
    assert 0.56 < dice["posterior"] < 0.70
    for row in rows:
        assert row["status"] == "ok"
        assert float(row["hd95"]) <= float(row["hd"])
    report = segbench(
        "report",
        "--runs",
        str(tmp_path / "runs"),
        "--output",
        str(tmp_path / "report"),
        "--format",
        "latex,markdown,csv",
    )
    assert report.returncode in {0, 3}, report.stderr
    assert "\\toprule" in (tmp_path / "report" / "paper.tex").read_text()


@pytest.mark.ci
@pytest.mark.parametrize(
    ("damage", "code"),
    [("cut", "SB204"), ("flipped", "SB205"), ("label", "SB315"), ("moved", "SB309")],
)
def test_damaged_data_stop_the_cell_and_are_named(
    real_data: Path, tmp_path: Path, damage: str, code: str
) -> None:
    root = copy_of_twelve(real_data, tmp_path / "data")
    entry = json.loads((root / "dataset.json").read_text())["training"][3]
    image, label = root / entry["image"], root / entry["label"]
    data = image.read_bytes()
    if damage == "cut":
        image.write_bytes(data[:-3000])
    elif damage == "flipped":
        image.write_bytes(data[:5000] + bytes([data[5000] ^ 4]) + data[5001:])
    else:
        volume = nib.load(label)
        voxels, affine = np.asarray(volume.dataobj).astype(np.uint8), volume.affine.copy()
        if damage == "label":
            voxels[5, 5, 5] = 7
        else:
            affine[0, 3] += 20
        nib.save(nib.Nifti1Image(voxels, affine), label)
    done = run(tmp_path / "data", tmp_path / "runs")
    assert done.returncode in {3, 4}, done.stderr
    assert code in done.stderr or (damage == "flipped" and "SB204" in done.stderr)
    assert "hippocampus_008" in done.stderr
    assert "fix:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_listed_file_that_is_absent_is_named_and_its_case_is_in_no_part(
    real_data: Path, tmp_path: Path
) -> None:
    root = copy_of_twelve(real_data, tmp_path / "data")
    (root / json.loads((root / "dataset.json").read_text())["training"][3]["image"]).unlink()
    done = run(tmp_path / "data", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "SB303" in done.stderr
    assert "found 11 of 12 expected cases" in done.stderr
    (cell,) = (tmp_path / "runs").iterdir()
    split = json.loads((cell / "run.json").read_text())["split"]
    assert "hippocampus_008" not in {*split["train"], *split["validation"], *split["test"]}


@pytest.mark.ci
def test_the_rest_of_a_dataset_goes_on_when_only_a_test_prediction_is_lost(
    real_data: Path, tmp_path: Path
) -> None:
    copy_of_twelve(real_data, tmp_path / "data")
    assert run(tmp_path / "data", tmp_path / "runs").returncode == 0
    (cell,) = (tmp_path / "runs").iterdir()
    victim = sorted((cell / "predictions").glob("*.nii.gz"))[0]
    victim.write_bytes(victim.read_bytes()[:-40])
    again = run(tmp_path / "data", tmp_path / "runs", "--check-outputs")
    assert again.returncode == 0, again.stderr
    rows = read_cases(cell)
    assert {row["status"] for row in rows} == {"ok"}  # the cut file was predicted again, not scored
