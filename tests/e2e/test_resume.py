"""A cell killed at any stage and started again ends in the same bytes as an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import preloaded
import pytest

from segbench.core.hashing import sha256_file
from segbench.records import read_run

RUN = [
    "-m", "segbench", "run", "--model", "nnunet-tiny", "--dataset", "phantom-brats",
    "--protocol", "demo",
    "--set", "budget.samples=8", "--device", "cpu", "--retries", "0",
]  # fmt: skip


def run(folder: Path, data: Path, *flags: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    """`segbench run` of one small cell, with a fault injected into the cell's process."""
    environment = {**os.environ, "SEGBENCH_THREADS": "1", "SEGBENCH_FAULT": fault}
    return preloaded.run(*RUN, "--data-dir", str(data), "--results", str(folder), *flags, env=environment)


def fingerprint(folder: Path) -> dict[str, str]:
    """Digests of the weights, the predictions and the scores of the only run in a folder."""
    (cell,) = folder.iterdir()
    assert read_run(cell).status == "complete"
    files = [
        cell / "checkpoints" / "final.safetensors",
        cell / "cases.csv",
        *sorted((cell / "predictions").glob("*.gz")),
    ]
    assert len(files) > 3
    return {path.relative_to(cell).as_posix(): sha256_file(path) for path in files}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("reference")
    done = run(folder, data)
    assert done.returncode == 0, done.stderr
    return fingerprint(folder)


@pytest.mark.slow
def test_a_start_from_weights_resumes_in_the_same_bytes(tmp_path: Path, data: Path) -> None:
    assert run(tmp_path / "first", data).returncode == 0
    (weights,) = (tmp_path / "first").glob("*/checkpoints/final.safetensors")
    start = ("--init", str(weights), "--checkpoint-minutes", "0")
    assert run(tmp_path / "once", data, *start).returncode == 0
    assert run(tmp_path / "killed", data, *start, fault="step:3").returncode != 0
    first = fingerprint(tmp_path / "first")
    weights.unlink()  # the run keeps what it starts from
    (kept,) = (tmp_path / "killed").glob("*/init.safetensors")
    assert run(tmp_path / "killed", data, "--init", str(kept), *start[2:], "--acknowledge").returncode == 0
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "once")
    assert fingerprint(tmp_path / "once") != first


@pytest.mark.ci
@pytest.mark.parametrize(
    ("fault", "flags"),
    [
        ("step:3", ("--checkpoint-minutes", "0")),  # in training, after two checkpoints
        pytest.param(  # between the files of a checkpoint
            "checkpoint:2", ("--checkpoint-minutes", "0"), marks=pytest.mark.slow
        ),
        pytest.param("case:2", (), marks=pytest.mark.slow),  # in prediction
        ("case:4", ()),  # in evaluation, after one scored case
    ],
)
def test_killed_and_started_again(
    tmp_path: Path, data: Path, undisturbed: dict[str, str], fault: str, flags: tuple[str, ...]
) -> None:
    killed = run(tmp_path, data, *flags, fault=fault)
    assert killed.returncode == 3, killed.stderr
    (cell,) = tmp_path.iterdir()
    assert read_run(cell).status == "interrupted"
    assert not (cell / "cases.csv").exists()
    again = run(tmp_path, data, *flags)
    assert again.returncode == 0, again.stderr
    assert fingerprint(tmp_path) == undisturbed
    if fault == "step:3":  # the first step after two that are kept is the third of four
        assert ": 6/8 samples" in next(line for line in again.stderr.splitlines() if "samples" in line)
    lines = (cell / "cases.jsonl").read_text().splitlines()
    assert len(lines) == len({line[: line.index(",")] for line in lines})  # no case was scored twice


@pytest.mark.ci
def test_a_finished_run_does_nothing_again(tmp_path: Path, data: Path, undisturbed: dict[str, str]) -> None:
    assert run(tmp_path, data).returncode == 0
    (cell,) = tmp_path.iterdir()
    before = {path: path.stat().st_mtime_ns for path in cell.rglob("*") if path.is_file()}
    again = run(tmp_path, data)
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in cell.rglob("*") if path.is_file()} == before
    assert fingerprint(tmp_path) == undisturbed


@pytest.mark.ci
def test_sigterm_checkpoints_and_says_how_to_go_on(
    tmp_path: Path, data: Path, undisturbed: dict[str, str]
) -> None:
    stopped = run(tmp_path, data, fault="step:2:term")
    (cell,) = tmp_path.iterdir()
    assert read_run(cell).status == "interrupted"
    assert len(list((cell / "checkpoints").glob("step-*"))) == 1
    assert stopped.returncode in {3, 128 + signal.SIGTERM}
    assert "goes on from here" in stopped.stderr
    assert run(tmp_path, data).returncode == 0
    assert fingerprint(tmp_path) == undisturbed
