"""`plan.jsonl` and `segbench status`: every planned cell is seen, also those that cannot run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import preloaded
import pytest

from segbench.records import read_run
from segbench.runs.status import PLAN_FILE, read_plan, read_status

MODELS = "nnunet,mean-atlas,empty"  # the first cannot take the demo's patch on these scans


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def run(results: Path, data: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return preloaded.run(
        "-m", "segbench", "run", "--model", MODELS, "--dataset", "phantom-msd",
        "--protocol", "demo", "--seed", "0,1", "--data-dir", str(data), "--results", str(results), *flags,
    )  # fmt: skip


@pytest.mark.ci
def test_planned_and_blocked_cells_are_listed_once(tmp_path: Path, data: Path) -> None:
    for _ in range(2):  # the second time nothing is added
        done = run(tmp_path, data, "--print-jobs")
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (tmp_path / PLAN_FILE).read_text().splitlines()]
        assert len(lines) == 4
    assert {(line["model"], line["seed"], line["state"]) for line in lines} == {
        ("nnunet", 0, "blocked"), ("nnunet", 1, "blocked"), ("mean-atlas", 0, "planned"),
        ("empty", 0, "planned"),
    }  # fmt: skip
    folders = sorted(path.parent.name for path in tmp_path.glob("*/run.json"))
    assert folders == sorted(line["run_id"] for line in lines if line["state"] == "planned")
    report = read_status(tmp_path)
    assert report.totals == {"planned": 2, "blocked": 2}
    blocked = next(cell for cell in report.cells if cell.state == "blocked")
    assert "patches" in (blocked.failure or "")


@pytest.mark.ci
def test_a_printed_job_does_the_work_and_the_plan_then_counts_it_as_done(tmp_path: Path, data: Path) -> None:
    printed = run(tmp_path, data, "--print-jobs")
    jobs = printed.stdout.splitlines()
    assert len(jobs) == 2
    assert all(job.startswith("segbench cell ") for job in jobs)
    for _ in range(2):  # a line may be started any number of times
        done = preloaded.run("-m", *jobs[0].split())
        assert done.returncode == 0, done.stderr
    assert read_status(tmp_path).totals == {"done": 1, "planned": 1, "blocked": 2}
    assert len(run(tmp_path, data, "--print-jobs").stdout.splitlines()) == 1
    execution = read_run(Path(jobs[0].split()[-1])).execution
    assert execution is not None
    assert execution["launcher"] == "local"


def test_a_torn_plan_file_is_read_up_to_its_last_whole_line(tmp_path: Path, data: Path) -> None:
    run(tmp_path, data, "--print-jobs")
    plan = tmp_path / PLAN_FILE
    plan.write_bytes(plan.read_bytes()[:-30])
    assert len(read_plan(tmp_path)) == 3
    run(tmp_path, data, "--print-jobs")  # the torn line is cut off and written again
    assert len(read_plan(tmp_path)) == 4
