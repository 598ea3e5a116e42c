"""Slurm through submitit: one array job for cells of equal need, each of which runs `segbench cell`.

A job that is pre-empted or out of time gets SIGUSR2 from Slurm 90 s before its end: the cell writes a
checkpoint, and the job is put back into the queue, without limit while it comes further. The driver only
looks: what a cell has done stands in its run folder, so accounting (`sacct`) is not needed.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from segbench.core.atomic import append_line, read_lines
from segbench.core.errors import BackendUnavailable, SegbenchError
from segbench.core.foreign import parse_json
from segbench.launch.base import UNLIMITED, Job, Need
from segbench.launch.command import CellCommand, ask_to_stop, cell_command, popen_cell, wait_for_cell
from segbench.records.progress import progress_of

FOLDER = ".slurm"
"""In the results folder, on the shared disk: submitit's files and the list of submitted jobs."""
JOBS = "jobs.jsonl"
_HOURS_UNKNOWN = 24.0
_STOP_S = 75.0  # Slurm gives 90 s between the signal and the end
_ALIVE = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}


class CellJob:
    """What a Slurm job runs: the cell as a child process, and a checkpoint when Slurm takes the node away."""

    def __init__(self, command: CellCommand, *, retries: int, without_progress: int = 0) -> None:
        self.command = command
        self.retries = retries
        self.without_progress = without_progress
        self._child: subprocess.Popen[bytes] | None = None
        self._progress: tuple[int, ...] = ()

    def __call__(self) -> int:
        """Run the cell; its exit status."""
        self._progress = progress_of(Path(self.command.folder))
        self._child = popen_cell(self.command, launcher="slurm", job=_job_id(), node=socket.gethostname())
        return wait_for_cell(self._child)

    def checkpoint(self) -> Any:
        """Called by submitit on the signal: let the cell stop, and say what is to be queued again.

        Returns:
            A new submission, or None when starts no longer bring the cell further (then nothing is requeued).
        """
        from submitit.helpers import DelayedSubmission

        folder = Path(self.command.folder)
        if self._child is not None:
            ask_to_stop(self._child)
            _wait_without_reaping(self._child.pid, _STOP_S)
        without_progress = 0 if progress_of(folder) > self._progress else self.without_progress + 1
        if without_progress >= max(1, self.retries):
            return None
        return DelayedSubmission(
            CellJob(self.command, retries=self.retries, without_progress=without_progress)
        )

    def __getstate__(self) -> dict[str, Any]:
        """The child stays where it runs."""
        return {**self.__dict__, "_child": None}


class SlurmLauncher:
    """Array jobs on a Slurm cluster.

    Args:
        results: Folder of runs, on a disk that all nodes see.
        slots: Cells of an array that run at a time; None: as many as Slurm lets.
        retries: Starts without progress after which a job is not requeued.
        options: Extra `#SBATCH` lines, `KEY=VALUE`.
        arguments: Further arguments of `segbench cell`.
        cluster: "slurm"; "local" runs submitit's own processes instead, for tests.

    Raises:
        BackendUnavailable: SB502 when submitit or sbatch is not here.
        SegbenchError: SB104 for an option that is not `KEY=VALUE`.
    """

    name = "slurm"
    detached = True
    poll_s = 5.0
    slots = UNLIMITED
    """Everything may be submitted at once; an array's own limit throttles it."""

    def __init__(
        self,
        results: Path,
        *,
        slots: int | None = None,
        retries: int = 3,
        options: Sequence[str] = (),
        arguments: Sequence[str] = (),
        cluster: str = "slurm",
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise BackendUnavailable(
                "--launcher slurm needs submitit, which is not installed",
                mend="pip install 'segbench[slurm]', or use --print-jobs and submit the commands yourself",
            ) from error
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise BackendUnavailable(
                "--launcher slurm needs sbatch, which is not on the PATH",
                mend="start the command on a machine that submits to Slurm, or use --launcher local",
            )
        self._options = sbatch_options(options)
        self._folder = results.resolve() / FOLDER
        self._make: Callable[[], Any] = lambda: submitit.AutoExecutor(folder=self._folder, cluster=cluster)
        self._cluster = cluster
        self._at_a_time = slots
        self._retries = retries
        self._arguments = tuple(arguments)
        self._jobs: dict[str, Any] = {}
        self._missing_since: dict[str, float] = {}
        if cluster == "local":
            self.poll_s = 0.2

    def start(self, cells: Sequence[Path], need: Need) -> list[Job]:
        """Submit one array; cells whose job of an earlier command is still queued are not submitted again."""
        known = self._submitted()
        queued = self._queue(list(known.values())) if known else {}
        adopted = [Job(folder, known[folder.name]) for folder in cells if known.get(folder.name) in queued]
        new = [folder for folder in cells if known.get(folder.name) not in queued]
        if not new:
            return adopted
        executor = self._make()
        executor.update_parameters(**self._parameters(need))
        with executor.batch():
            jobs = [
                executor.submit(
                    CellJob(
                        cell_command(folder, self._arguments, threads=need.threads), retries=self._retries
                    )
                )
                for folder in new
            ]
        refs = [Job(folder, str(job.job_id)) for folder, job in zip(new, jobs, strict=True)]
        self._jobs |= {ref.name: job for ref, job in zip(refs, jobs, strict=True)}
        for ref in refs:
            append_line(self._folder / JOBS, {"run_id": ref.folder.name, "job": ref.name})
        return adopted + refs

    def poll(self, jobs: Sequence[Job]) -> list[Job]:
        """What the queue says; a job that has left it is done, and its run folder says how."""
        queued = self._queue([job.name for job in jobs])
        return [self._looked_at(job, queued) for job in jobs]

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Take the jobs out of the queue; running cells get SIGTERM and write a checkpoint."""
        if self._cluster != "slurm":
            for job in jobs:
                self._jobs[job.name].cancel()
        elif jobs:
            _call(["scancel", *(job.name for job in jobs)])

    def _parameters(self, need: Need) -> dict[str, Any]:
        minutes = ceil((need.hours or _HOURS_UNKNOWN) * 60)
        parameters: dict[str, Any] = {
            "name": "segbench",
            "timeout_min": max(10, minutes),
            "cpus_per_task": need.cores,
        }
        if need.gpus:
            parameters["gpus_per_node"] = need.gpus
        if self._cluster != "slurm":
            return parameters
        extra = dict(self._options)
        if self._at_a_time:
            parameters["slurm_array_parallelism"] = self._at_a_time
        # submitit counts the time-outs of a job down; here progress decides, see CellJob.checkpoint
        return {**parameters, "slurm_additional_parameters": {"requeue": True, **extra}}

    def _submitted(self) -> dict[str, str]:
        """The last job of each run, as earlier commands wrote it down."""
        return {
            str(line["run_id"]): str(line["job"]) for line in read_lines(self._folder / JOBS, repair=True)
        }

    def _queue(self, jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
        """State and reason of the jobs that are in the queue."""
        if self._cluster != "slurm":
            return {j: ("RUNNING", "") for j in jobs if j in self._jobs and not self._jobs[j].done()}
        if not jobs:
            return {}
        user = ["--user", str(os.getuid())] if hasattr(os, "getuid") else []
        done = _call(["squeue", "--noheader", "--array", "--format=%i|%T|%r", *user])
        if done is None:  # the controller does not answer: nobody knows, so nothing is lost yet
            return {job: ("RUNNING", "squeue does not answer") for job in jobs}
        rows = [line.strip().split("|", 2) for line in done.splitlines() if line.count("|") >= 2]
        wanted = set(jobs)
        return {job: (state, reason) for job, state, reason in rows if job in wanted}

    def _looked_at(self, job: Job, queued: dict[str, tuple[str, str]]) -> Job:
        if job.name in queued:
            self._missing_since.pop(job.name, None)
            state, reason = queued[job.name]
            phase = "running" if state in _ALIVE else "pending"
            return job.now(phase, "" if reason == "None" else reason.lower())
        # A job between two states, and a record that a shared disk has not shown yet, get a moment.
        since = self._missing_since.setdefault(job.name, time.monotonic())
        if self._cluster == "slurm" and time.monotonic() - since < 2 * self.poll_s and not _final(job.folder):
            return job.now("pending", "not in the queue")
        return job.now("done", "the job has left the queue without finishing the cell")


def sbatch_options(options: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` words as parameters of sbatch; `exclusive=true` becomes a bare `--exclusive`.

    Raises:
        SegbenchError: SB104 when a word has another form.
    """
    found: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z0-9_-]*", key) or "\n" in value or "\r" in value:
            raise SegbenchError(
                "SB104",
                f"--slurm {option!r} is not KEY=VALUE",
                mend="write an option of sbatch without its dashes, such as --slurm partition=gpu",
            )
        found[key.replace("-", "_")] = True if value.lower() in {"", "true"} else value
    return found


def _job_id() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def _wait_without_reaping(pid: int, seconds: float) -> None:
    """Wait for a child's end inside a signal handler, where the interrupted program may hold its lock."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
        except ChildProcessError:
            return
        time.sleep(0.1)


def _call(command: Sequence[str]) -> str | None:
    """What a Slurm command prints, None when it fails or does not answer within a minute."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _final(folder: Path) -> bool:
    try:
        return parse_json((folder / "run.json").read_text(encoding="utf-8"))["status"] in {
            "complete",
            "failed",
        }
    except (OSError, ValueError, KeyError, TypeError):
        return False
