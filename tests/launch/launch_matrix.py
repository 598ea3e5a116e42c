"""A small matrix that each launcher runs, and what must be equal afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segbench.core.hashing import sha256_file
from segbench.records import read_run

FLAGS = (
    "run", "--model", "nnunet-tiny,mean-atlas,empty", "--dataset", "phantom-msd", "--protocol", "demo",
    "--set", "budget.samples=12", "--seed", "0,1", "--device", "cpu", "--checkpoint-minutes", "0",
)  # fmt: skip


def start_matrix(results: Path, data: Path, *flags: str, **variables: str) -> subprocess.Popen[str]:
    """Start `segbench run` of four small cells."""
    results.parent.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k not in {"SEGBENCH_THREADS", "OMP_NUM_THREADS"}}
    environment |= variables  # nobody says how many threads: that is the plan's business
    line = [
        sys.executable,
        "-m",
        "segbench",
        *FLAGS,
        "--data-dir",
        str(data),
        "--results",
        str(results),
        *flags,
    ]
    return subprocess.Popen(
        line, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=results.parent
    )


def fingerprint(results: Path) -> dict[str, dict[str, str]]:
    """Digests of scores, weights and predictions of every run; all must be complete."""
    prints: dict[str, dict[str, str]] = {}
    for folder in sorted(path.parent for path in results.glob("*/run.json")):
        assert read_run(folder).status == "complete", folder.name
        files = [folder / "cases.csv", *folder.glob("checkpoints/final.*"), *folder.glob("predictions/*.gz")]
        prints[folder.name] = {p.relative_to(folder).as_posix(): sha256_file(p) for p in sorted(files)}
    assert len(prints) == 4
    return prints


@pytest.fixture(scope="session")
def launch_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of generated scans that all matrices share."""
    return tmp_path_factory.mktemp("launch-data")


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, launch_data: Path) -> dict[str, dict[str, str]]:
    """What an undisturbed run of the matrix on this machine leaves."""
    results = tmp_path_factory.mktemp("reference") / "runs"
    process = start_matrix(results, launch_data)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return fingerprint(results)
