"""Slurm proved on a real one: the same bytes as on this machine, and a job that is interrupted resumes."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from launch_matrix import fingerprint, start_matrix

from segbench.launch import Need
from segbench.launch.slurm import FOLDER, SlurmLauncher
from segbench.records.progress import last_step

pytest.importorskip("submitit", reason="submitit is not installed (pip install 'segbench[slurm]')")
pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(1200)]
LAUNCH = ("--launcher", "slurm", "--slurm", "partition=p")


def squeue() -> list[str]:
    line = ["squeue", "--noheader", "--array", "--format=%i %T"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()


def training(results: Path) -> Path | None:
    """A run whose training has left a checkpoint and goes on."""
    for path in results.glob("nnunet-tiny*/run.json"):
        if json.loads(path.read_text())["status"] == "running" and last_step(path.parent) > 0:
            return path.parent
    return None


def test_an_interrupted_job_is_requeued_and_ends_in_the_same_bytes(
    tmp_path: Path, slurm: Path, launch_data: Path, reference: dict[str, dict[str, str]]
) -> None:
    results = tmp_path / "runs"
    process = start_matrix(results, launch_data, *LAUNCH)
    while (folder := training(results)) is None:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    job = json.loads((folder / "run.json").read_text())["execution"]["job"]
    # what Slurm itself sends before it takes a node away: SIGUSR2 to every process of the job's steps
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output
    assert fingerprint(results) == reference
    log = "".join(path.read_text() for path in (results / FOLDER).glob("*.err"))
    log += "".join(path.read_text() for path in (results / FOLDER).glob("*.out"))
    assert "Caught signal SIGUSR2" in log
    record = json.loads((folder / "run.json").read_text())
    assert record["execution"]["launcher"] == "slurm"
    assert record["execution"]["job"] == job  # the same job ran again, no new one was submitted
    assert len((results / FOLDER / "jobs.jsonl").read_text().splitlines()) == 4
    assert squeue() == []


def test_a_killed_job_is_started_again_and_the_next_command_adopts_what_runs(
    tmp_path: Path, slurm: Path, launch_data: Path, reference: dict[str, dict[str, str]]
) -> None:
    results = tmp_path / "runs"
    first = start_matrix(results, launch_data, *LAUNCH)
    while (folder := training(results)) is None:
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    first.kill()  # the driver dies; its jobs go on
    first.wait()
    job = json.loads((folder / "run.json").read_text())["execution"]["job"]
    subprocess.run(["scancel", "--signal=KILL", job], check=True)
    second = start_matrix(results, launch_data, *LAUNCH)
    output = second.communicate(timeout=900)[0]
    assert second.returncode == 0, output
    assert fingerprint(results) == reference
    submitted = [json.loads(line) for line in (results / FOLDER / "jobs.jsonl").read_text().splitlines()]
    again = [line["run_id"] for line in submitted]
    assert again.count(folder.name) == 2
    assert len(again) == 5, "jobs that were still queued were submitted twice"


def test_cancel_takes_jobs_out_of_the_queue(tmp_path: Path, slurm: Path, launch_data: Path) -> None:
    results = tmp_path / "runs"
    planned = start_matrix(results, launch_data, "--print-jobs")
    assert planned.wait(120) == 0
    launcher = SlurmLauncher(results, options=["partition=p", "begin=now+1hour"], slots=2)
    jobs = launcher.start(sorted(p.parent for p in results.glob("*/run.json")), Need(hours=0.5))
    assert [state.phase for state in launcher.poll(jobs)] == ["pending"] * 4
    end = time.monotonic() + 60
    while {state.reason for state in launcher.poll(jobs)} != {"begintime"}:  # Slurm's word for why they wait
        assert time.monotonic() < end
        time.sleep(0.5)
    launcher.cancel(jobs)
    end = time.monotonic() + 30
    while squeue():
        assert time.monotonic() < end
        time.sleep(0.5)
