"""A cell whose network two processes train: one writer, one process's numbers, a resume to the byte."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import preloaded
import pytest
import torch
from safetensors.torch import load_file

from segbench.core.hashing import sha256_file
from segbench.records import read_run
from segbench.runs.cell import Execution
from segbench.runs.drive import write_plan
from segbench.runs.plan import Request, make_plan

pytestmark = pytest.mark.slow


TWO_GPUS = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices here"),
    ],
)


def planned(results: Path, data: Path, processes: int, device: str) -> Path:
    """The folder of one small planned cell."""
    request = Request(
        models=["nnunet-tiny"],
        datasets=["phantom-brats"],
        results=results,
        protocol="demo",
        overrides={
            "budget.samples": 8,
            "optimiser.name": "sgd",
            "optimiser.lr": 0.01,
            "determinism.level": "bitwise",
        },
        data_dir=data,
    )
    plan = make_plan(request)
    write_plan(
        plan,
        Execution(
            device=device,
            data_dir=str(data),
            gpus_per_cell=processes,
            checkpoint_minutes=0,
            threads=processes,
        ),
    )
    return plan.cells[0].cell.folder


def run(cell: Path, fault: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SEGBENCH_FAULT": fault}
    return preloaded.run("-m", "segbench", "--no-progress", "cell", str(cell), env=environment)


def fingerprint(cell: Path) -> tuple[str, str]:
    assert read_run(cell).status == "complete"
    return sha256_file(cell / "checkpoints" / "final.safetensors"), sha256_file(cell / "cases.csv")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("device", ["cpu", TWO_GPUS])
def test_two_processes_give_one_processs_numbers_and_resume_to_the_byte(
    tmp_path: Path, data: Path, device: str
) -> None:
    alone, together = (planned(tmp_path / f"{count}", data, count, device) for count in (1, 2))
    assert run(alone).returncode == 0
    done = run(together)
    assert done.returncode == 0, done.stderr
    whole, shared = (load_file(cell / "checkpoints" / "final.safetensors") for cell in (alone, together))
    for name, value in whole.items():
        torch.testing.assert_close(shared[name], value, rtol=1e-4, atol=1e-6)
    for fault, code, status in (("step:3", 3, "failed"), ("step:3:term", 143, "interrupted")):
        halted = planned(tmp_path / fault.replace(":", "-"), data, 2, device)
        stopped = run(halted, fault)
        assert stopped.returncode == code, stopped.stderr
        assert read_run(halted).status == status
        assert "Traceback" not in stopped.stderr
        assert run(halted).returncode == 0
        assert fingerprint(halted) == fingerprint(together)
