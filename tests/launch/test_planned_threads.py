"""The threads of a cell are fixed when it is planned: any launcher, on any cores, gives equal bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segbench.core.environment import MOST_THREADS, planned_threads, threads_note
from segbench.core.hashing import sha256_file
from segbench.launch import LauncherChoice
from segbench.launch.drive import drive
from segbench.launch.slurm import SlurmLauncher
from segbench.records import read_run
from segbench.runs.cell import Execution, Plan
from segbench.runs.drive import run_plan, write_plan
from segbench.runs.forecast import needs_of
from segbench.runs.plan import Request, make_plan

ON_ONE_CORE = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from segbench.core import console
console.output = console.Output(quiet=True, progress=False)
from pathlib import Path
from segbench.runs.runner import run_cell
for folder in sys.argv[1:]:
    run_cell(Path(folder))
"""
BACKENDS = {"nnunet-tiny": None, "segmamba-v2-tiny": "numba"}
"""A network of convolutions alone, and one of convolutions and a scan: what the run predicts with."""


def plan_of(results: Path, data: Path, *models: str) -> Plan:
    request = Request(
        models=models,
        datasets=["phantom-msd"],
        results=results,
        protocol="demo",
        overrides={"budget.samples": 2, "inference.overlap": 0.0},
        limit=1,
        data_dir=data,
    )
    return make_plan(request)


def execution(data: Path) -> Execution:
    return Execution(device="cpu", data_dir=str(data))


def fingerprint(plan: Plan) -> list[str]:
    """Digests of the weights, the label maps and the scores of every cell; all must be complete."""
    prints: list[str] = []
    for folder in (planned.cell.folder for planned in plan.cells):
        record = read_run(folder)
        assert record.status == "complete"
        assert (record.execution or {})["threads"] == 2
        files = [folder / "checkpoints" / "final.safetensors", folder / "cases.csv"]
        prints += [sha256_file(path) for path in (*files, *sorted((folder / "predictions").glob("*.gz")))]
    return prints


@pytest.mark.ci
@pytest.mark.parametrize("model", ["segmamba-v2-tiny", pytest.param("nnunet-tiny", marks=pytest.mark.slow)])
def test_launchers_and_cores_change_no_byte(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed (pip install 'segbench[slurm]')")
    data = tmp_path / "data"
    plans = {name: plan_of(tmp_path / name, data, model) for name in ("local", "here", "one-core", "slurm")}
    monkeypatch.setenv("SEGBENCH_THREADS", "2")
    for plan in plans.values():
        write_plan(plan, execution(data))
    monkeypatch.delenv("SEGBENCH_THREADS")  # nobody is told any more
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)

    run_plan(plans["local"], execution(data), launcher=LauncherChoice(max_parallel=2))
    run_plan(plans["here"], execution(data), in_process=True)
    folders = [str(planned.cell.folder) for planned in plans["one-core"].cells]
    done = subprocess.run(
        [sys.executable, "-c", ON_ONE_CORE, *folders],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    slurm = SlurmLauncher(tmp_path / "slurm-jobs", cluster="local")
    folders = [planned.cell.folder for planned in plans["slurm"].cells]
    need = needs_of(plans["slurm"].cells, execution(data))
    assert set(drive(slurm, folders, need=need).values()) == {"complete"}

    prints = {name: fingerprint(plan) for name, plan in plans.items()}
    assert prints == dict.fromkeys(plans, prints["local"])
    for planned in plans["one-core"].cells if hasattr(os, "sched_setaffinity") else ():
        said = [w for w in read_run(planned.cell.folder).warnings if "planned with 2 threads" in w]
        assert len(said) == 1
        assert "1 core here" in said[0]
    records = [read_run(planned.cell.folder).execution or {} for planned in plans["here"].cells]
    assert [record.get("predict_scan_backend") for record in records] == [BACKENDS[model]]


def test_the_number_is_in_the_record_and_in_what_launchers_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    plan = plan_of(tmp_path / "runs", data, "mean-atlas")
    (folder,) = (planned.cell.folder for planned in plan.cells)
    monkeypatch.setenv("SEGBENCH_THREADS", "3")
    write_plan(plan, execution(data))
    identity = read_run(folder).run_id
    monkeypatch.delenv("SEGBENCH_THREADS")
    write_plan(plan, Execution(device="cpu", data_dir=str(data), workers=1))
    record = read_run(folder)
    assert ((record.execution or {})["threads"], (record.execution or {})["workers"]) == (3, 1)
    need = needs_of(plan.cells, Execution(workers=1))(folder)
    assert (need.threads, need.cores) == (3, 4)
    monkeypatch.setenv("SEGBENCH_THREADS", "5")  # said to the command that plans: it counts
    write_plan(plan, execution(data))
    assert (read_run(folder).execution or {})["threads"] == 5
    assert read_run(folder).run_id == identity == plan.cells[0].cell.run_id


def test_a_large_machine_plans_no_more_than_workers_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGBENCH_THREADS", raising=False)
    monkeypatch.setattr("segbench.core.environment.physical_cores", lambda: 64)
    assert planned_threads() == MOST_THREADS
    monkeypatch.setenv("SEGBENCH_THREADS", "16")
    assert planned_threads() == 16


def test_a_number_that_cannot_be_kept_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segbench.core.environment.usable_cores", lambda: 2)
    for variable in ("OMP_THREAD_LIMIT", "OMP_DYNAMIC"):
        monkeypatch.delenv(variable, raising=False)
    assert threads_note(2) is None
    assert "2 cores here: kept" in (threads_note(4) or "")
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    assert "OMP_THREAD_LIMIT=1 lowers them here: sums round otherwise" in (threads_note(2) or "")
