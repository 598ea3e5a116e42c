"""Processes that only predict: the run's own bytes, from the kernel and the threads that the run recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segbench.core.hashing import sha256_file
from segbench.records import read_run

pytestmark = pytest.mark.slow  # two networks with a scan, in four processes

RUN = (
    "run", "--model", "segmamba-v2-tiny", "--dataset", "phantom-brats", "--protocol", "demo", "--set",
    "budget.samples=4", "--device", "cpu", "--retries", "0", "--no-progress",
)  # fmt: skip


def segbench(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    told = ("SEGBENCH_THREADS", "SEGBENCH_SCAN", "OMP_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in told} | variables
    command = [sys.executable, "-m", "segbench", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def maps(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.nii.gz"))}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a network with a scan, planned with two threads, killed and resumed where it only predicts."""
    root = tmp_path_factory.mktemp("again")
    flags = ("--data-dir", str(root / "data"), "--results", str(root / "runs"))
    killed = segbench(*RUN, *flags, SEGBENCH_THREADS="2", SEGBENCH_FAULT="case:1")
    assert killed.returncode == 3, killed.stderr
    again = segbench(*RUN, *flags)
    assert again.returncode == 0, again.stderr
    return root


def test_a_resumed_run_predicts_with_the_kernel_it_trained_with(root: Path) -> None:
    (run,) = (root / "runs").glob("*/run.json")
    record = read_run(run.parent).execution or {}
    assert (record["scan_backend"], record["predict_scan_backend"], record["threads"]) == (
        "numba",
        "numba",
        2,
    )


def test_predict_gives_the_runs_own_files(root: Path, tmp_path: Path) -> None:
    (run,) = (root / "runs").glob("*/run.json")
    (dataset,) = (entry for entry in (root / "data").iterdir() if entry.is_dir())
    command = (
        "predict", str(dataset), "--dataset", "phantom-brats", "--run", run.parent.name, "--results",
        str(root / "runs"), "--device", "cpu", "--no-progress", "--output",
    )  # fmt: skip
    done = segbench(*command, str(tmp_path / "as-recorded"))
    assert done.returncode == 0, done.stderr
    own, found = maps(run.parent / "predictions"), maps(tmp_path / "as-recorded")
    assert own
    assert {name: found[name] for name in own} == own
    asked = segbench(*command, str(tmp_path / "asked"), SEGBENCH_THREADS="2", SEGBENCH_SCAN="torch")
    assert asked.returncode == 0, asked.stderr
    said = "the run predicted with the scan backend numba, this command with torch: sums round otherwise"
    assert said in " ".join(asked.stderr.split())
