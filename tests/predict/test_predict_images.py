"""`segbench predict`: any images, one run's weights or the mean of several, and what is kept about it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import blosc2
import numpy as np
import preloaded
import pytest
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.core.errors import SegbenchError
from segbench.data import open_dataset
from segbench.predict.images import predict_images
from segbench.records import read_run
from segbench.volumes import read_volume


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """Two seeds of one small network on generated scans, with stored probabilities."""
    from segbench.runs.cell import Execution
    from segbench.runs.drive import run_plan
    from segbench.runs.plan import Request, make_plan

    root = tmp_path_factory.mktemp("predict")
    request = Request(
        models=["nnunet-tiny"],
        datasets=["phantom-brats"],
        results=root / "runs",
        protocol="demo",
        overrides={"budget.samples": 4, "inference.overlap": 0.0},
        seeds=(0, 1),
        data_dir=root / "data",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGBENCH_CACHE", str(root / "cache"))
        patch.setenv("SEGBENCH_THREADS", "1")
        plan = make_plan(request)
        run_plan(
            plan,
            Execution(device="cpu", data_dir=str(root / "data"), save_probabilities=True),
            in_process=True,
        )
    return root, [planned.cell.folder for planned in plan.cells]


def root_of_dataset(root: Path) -> Path:
    (folder,) = [entry for entry in (root / "data").iterdir() if entry.is_dir()]
    return folder


@pytest.mark.ci
def test_a_run_predicts_its_test_cases_as_it_did(cells: tuple[Path, list[Path]], tmp_path: Path) -> None:
    root, (cell, _) = cells
    report = predict_images(
        cell / "checkpoints" / "final.safetensors",
        [root_of_dataset(root)],
        tmp_path,
        dataset="phantom-brats",
        device="cpu",
    )
    assert not report.failures
    split = read_run(cell).split
    assert split is not None and split.test
    for case in split.test:
        again = read_volume(tmp_path / f"{case}.nii.gz").array
        np.testing.assert_array_equal(again, read_volume(cell / "predictions" / f"{case}.nii.gz").array)


def with_nnunet_names(root: Path, cell: Path, count: int, folder: Path) -> list[str]:
    """Copies of the first test cases' images, and which these are."""
    dataset, split = open_dataset("phantom-brats", path=root_of_dataset(root)), read_run(cell).split
    assert split is not None and split.test
    folder.mkdir()
    for case in split.test[:count]:
        for index, channel in enumerate(dataset.card.channels.order):
            file = dataset.case(case).images[channel]
            shutil.copy(file, folder / f"{case}_{index:04d}.nii.gz")
    return list(split.test[:count])


@pytest.mark.ci
def test_a_faster_way_than_in_training_is_said_and_recorded(
    cells: tuple[Path, list[Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, (cell, _) = cells
    with_nnunet_names(root, cell, 1, tmp_path / "images")
    said = []
    for name, way in (("plain", ""), ("fast", "inert-bias")):
        monkeypatch.setenv("SEGBENCH_FAST", way)
        weights = cell / "checkpoints" / "final.safetensors"
        predict_images(weights, [tmp_path / "images"], tmp_path / name, device="cpu")
        said.append(" ".join(capsys.readouterr().err.split()))
        noted = json.loads((tmp_path / name / "predicted-by.json").read_text())
        assert noted.get("fast") == (way or None)
    assert "SEGBENCH_FAST" not in said[0]
    assert "trained with SEGBENCH_FAST=None, predicted with inert-bias: sums round otherwise" in said[1]


def test_a_fresh_process_gives_the_runs_own_files(cells: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """Two cases under nnU-Net names; threads and determinism come from the run, nothing from this process."""
    root, (cell, _) = cells
    cases = with_nnunet_names(root, cell, 2, tmp_path / "images")
    command = ("-m", "segbench", "predict", str(tmp_path / "images"), "--run", str(cell))
    told = ("SEGBENCH_THREADS", "SEGBENCH_SCAN", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in told}
    where = ("--device", "cpu", "--output", str(tmp_path / "out"))
    preloaded.run(*command, *where, env=environment).check_returncode()
    for case in cases:
        own = (cell / "predictions" / f"{case}.nii.gz").read_bytes()
        assert (tmp_path / "out" / f"{case}.nii.gz").read_bytes() == own


@pytest.mark.ci
def test_an_ensemble_is_the_mean_of_probabilities_and_names_its_members(
    cells: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    root, folders = cells
    command = ["predict", "--run", "nnunet-tiny__*", "--results", str(root / "runs"), "--device", "cpu"]
    command += ["--dataset", "phantom-brats", "--save-probabilities", "--output", str(tmp_path)]
    done = CliRunner().invoke(build_app(), [*command, str(root_of_dataset(root))])
    assert done.exit_code == 0, done.output
    assert "training or validation cases of" in done.stderr
    notes = json.loads((tmp_path / "predicted-by.json").read_text())
    assert [member["run"] for member in notes["members"]] == [folder.name for folder in folders]
    assert len({member["weights_sha256"] for member in notes["members"]}) == 2
    split = read_run(folders[0]).split
    assert split is not None and split.test
    for case in split.test:
        own = [blosc2.open(str(f / "predictions" / f"{case}.b2nd"))[:].astype(np.float32) for f in folders]
        mean = blosc2.open(str(tmp_path / f"{case}.b2nd"))[:].astype(np.float32)
        np.testing.assert_allclose(mean, np.mean(own, axis=0), atol=2e-3)
        assert np.abs(own[0] - own[1]).max() > 0.01
        kept = json.loads((tmp_path / f"{case}.json").read_text())
        assert len(kept["outputs"]) == mean.shape[0]


def test_weights_that_do_not_belong_together_are_refused(
    cells: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    from safetensors import safe_open

    from segbench.core.atomic import atomic_write
    from segbench.networks.tensor_bytes import tensor_bytes

    _, (cell, _) = cells
    first = cell / "checkpoints" / "final.safetensors"
    with safe_open(first, framework="pt") as file:
        words = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    extra = json.loads(words["extra"])
    extra["spacing_mm"] = [2.0, 2.0, 2.0]
    other = tmp_path / "other.safetensors"
    atomic_write(other, tensor_bytes(tensors, {**words, "extra": json.dumps(extra)}))
    with pytest.raises(SegbenchError) as caught:
        predict_images([first, other], [tmp_path], tmp_path / "out", device="cpu")
    assert caught.value.code == "SB104"
    assert "spacing_mm" in caught.value.message


def test_an_unfinished_run_is_named(tmp_path: Path, cells: tuple[Path, list[Path]]) -> None:
    root, _ = cells
    done = CliRunner().invoke(
        build_app(),
        ["predict", "--run", "nothing", "--results", str(root / "runs"), "--output", "o", "x.nii.gz"],
    )
    assert done.exit_code == 2
    assert "SB101" in done.stderr
