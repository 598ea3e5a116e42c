"""Slurm without a Slurm: submitit's local executor, the lines for sbatch, and what the queue's words mean."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from segbench.core.errors import SegbenchError
from segbench.launch import Need
from segbench.launch.base import Job
from segbench.launch.command import CellCommand
from segbench.launch.slurm import FOLDER, CellJob, SlurmLauncher, sbatch_options
from segbench.records import RunRecord, write_run

pytest.importorskip("submitit", reason="submitit is not installed (pip install 'segbench[slurm]')")


def test_options_become_lines_of_sbatch() -> None:
    assert sbatch_options(["partition=gpu", "mail-user=a@b.c", "exclusive=true", "comment=a b=c"]) == {
        "partition": "gpu", "mail_user": "a@b.c", "exclusive": True, "comment": "a b=c"
    }  # fmt: skip


@pytest.mark.parametrize(
    "word", ["partition", "=x", "--partition=x", "a b=c", "k=v\nrm -rf x", "k=v\r", "KEY=x"]
)
def test_an_option_that_is_no_key_and_value_is_refused(word: str) -> None:
    with pytest.raises(SegbenchError) as caught:
        sbatch_options([word])
    assert (caught.value.code, caught.value.exit_code) == ("SB104", 2)


def test_the_batch_file_asks_for_what_the_cell_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import submitit

    monkeypatch.setattr("segbench.launch.slurm.shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("submitit.slurm.slurm.SlurmExecutor.affinity", classmethod(lambda cls: 2))
    launcher = SlurmLauncher(tmp_path, slots=7, options=["qos=low", "time=30"])
    executor = submitit.SlurmExecutor(tmp_path)
    wanted = launcher._parameters(Need(gpus=2, cores=6, hours=2.5))
    assert wanted["timeout_min"] == 150
    plain = {k.removeprefix("slurm_"): v for k, v in wanted.items()}
    plain["job_name"], plain["time"] = plain.pop("name"), plain.pop("timeout_min")
    executor.update_parameters(**plain)
    text = executor._make_submission_file_text("python job.py", "uid")
    for line in (
        "--cpus-per-task=6", "--gpus-per-node=2", "--qos=low", "--time=30",
        "--requeue", "--signal=USR2@90",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in text, text
    assert wanted["slurm_array_parallelism"] == 7
    assert "--gpus" not in str(launcher._parameters(Need()))
    assert launcher._parameters(Need())["timeout_min"] == 24 * 60  # nothing measured: a day, not five minutes


def test_the_words_of_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segbench.launch.slurm.shutil.which", lambda name: f"/bin/{name}")
    launcher = SlurmLauncher(tmp_path)
    launcher.poll_s = 0.05
    answers = ["1_0|PENDING|Resources\n1_1|RUNNING|None\n1_2|REQUEUED|BeginTime\n9_0|RUNNING|None\n"]
    monkeypatch.setattr("segbench.launch.slurm._call", lambda command: answers[0])
    jobs = [Job(tmp_path / str(i), f"1_{i}") for i in range(4)]
    states = launcher.poll(jobs)
    assert [(s.phase, s.reason) for s in states] == [
        ("pending", "resources"), ("running", ""), ("pending", "begintime"), ("pending", "not in the queue"),
    ]  # fmt: skip
    time.sleep(0.15)
    assert launcher.poll(jobs)[3].phase == "done"
    assert launcher.poll(jobs)[3].exit_code is None  # the run folder says how it ended
    answers[0] = None  # type: ignore[call-overload] - the controller is down: nothing may count as lost
    assert {state.phase for state in launcher.poll(jobs)} == {"running"}


def test_no_sbatch_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segbench.launch.slurm.shutil.which", lambda name: None)
    with pytest.raises(SegbenchError, match="sbatch") as caught:
        SlurmLauncher(tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("SB502", 5)


def fake_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> CellCommand:
    """A run folder, and a program that stands for `segbench cell`."""
    folder = tmp_path / "run"
    write_run(folder, RunRecord(schema_version=1, run_id="run", kind="trained", status="planned"))
    monkeypatch.setattr(
        "segbench.launch.slurm.popen_cell",
        lambda command, **kw: subprocess.Popen([sys.executable, "-c", body, command.folder]),
    )
    return CellCommand(str(folder), str(tmp_path))


PATIENT = """
import signal, sys, time, pathlib
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
pathlib.Path(sys.argv[1], "ready").touch()
while not asked: time.sleep(0.01)
STEP
"""


@pytest.mark.parametrize("progress", [True, False])
def test_a_pre_empted_job_is_queued_again_only_while_it_comes_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: bool
) -> None:
    import threading

    step = (
        "pathlib.Path(sys.argv[1], 'checkpoints', 'step-000000005').mkdir(parents=True)" if progress else ""
    )
    command = fake_cell(tmp_path, monkeypatch, PATIENT.replace("STEP", step))
    job = CellJob(command, retries=2, without_progress=1)
    thread = threading.Thread(target=job)
    thread.start()
    while not (tmp_path / "run" / "ready").exists():
        time.sleep(0.01)
    again = job.checkpoint()
    thread.join(10)
    assert not thread.is_alive()
    if progress:
        assert again is not None
        assert again.function.without_progress == 0
        assert again.function._child is None  # a process does not travel
    else:
        assert again is None


@pytest.mark.ci
def test_cells_run_through_submitit(tmp_path: Path) -> None:
    """The real executor of submitit on this machine; folders without a run end with the cell's own error."""
    launcher = SlurmLauncher(tmp_path, cluster="local")
    folders = [tmp_path / "a", tmp_path / "b"]
    jobs = launcher.start(folders, Need(hours=0.1))
    assert [ref.folder for ref in jobs] == folders
    assert len((tmp_path / FOLDER / "jobs.jsonl").read_text().splitlines()) == 2
    end = time.monotonic() + 60
    while any(state.phase == "running" for state in launcher.poll(jobs)):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert {state.phase for state in launcher.poll(jobs)} == {"done"}
    said = "".join(path.read_text() for path in (tmp_path / FOLDER).glob("*.err"))
    assert "SB602" in said
