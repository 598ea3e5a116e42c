"""Driving cells: what was lost is started again while it comes further, what failed by itself is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from segbench.core.interrupt import Interrupted
from segbench.launch.base import Job, Need
from segbench.launch.drive import drive
from segbench.records import RunRecord, read_run, write_run
from segbench.records.lease import Lease


class Scripted:
    """A launcher whose jobs end as the test says: one word a start."""

    name, detached, poll_s = "scripted", False, 0.0

    def __init__(self, act: Callable[[Path, int], Job | tuple[str, int | None]], slots: int = 2) -> None:
        self.act, self.slots = act, slots
        self.starts: list[str] = []
        self.most = 0
        self.groups: list[tuple[Need, int]] = []
        self.cancelled: list[Job] = []

    def start(self, cells: Sequence[Path], need: Need) -> list[Job]:
        self.groups.append((need, len(cells)))
        self.starts += [folder.name for folder in cells]
        return [Job(folder, folder.name) for folder in cells]

    def poll(self, jobs: Sequence[Job]) -> list[Job]:
        self.most = max(self.most, len(jobs))
        states = []
        for job in jobs:
            phase, code = self.act(job.folder, self.starts.count(job.name))
            states.append(job.now(phase, "its node is gone" if phase == "lost" else "", code))
        return states

    def cancel(self, jobs: Sequence[Job]) -> None:
        self.cancelled += jobs


def planned(results: Path, *names: str) -> list[Path]:
    for name in names:
        write_run(results / name, RunRecord(schema_version=1, run_id=name, kind="trained", status="planned"))
    return [results / name for name in names]


def end(folder: Path, status: str, failure: str | None = None) -> None:
    record = read_run(folder).model_dump(mode="json", by_alias=True, exclude_none=True) | {"status": status}
    record.pop("failure", None)
    if failure:
        record["failure"] = {"class": failure, "message": "x"}
    (folder / "run.json").write_text(json.dumps(record))


def finish(folder: Path, attempt: int) -> tuple[str, int | None]:
    end(folder, "complete")
    return "done", 0


def test_all_cells_end_within_the_slots_and_in_groups_of_equal_need(tmp_path: Path) -> None:
    cells = planned(tmp_path, *"abcde")
    launcher = Scripted(finish, slots=3)
    ended = drive(launcher, cells, need=lambda folder: Need(gpus=int(folder.name in "ab")))
    assert ended == dict.fromkeys(cells, "complete")
    assert launcher.starts == list("abcde")
    assert launcher.most == 3
    assert launcher.groups == [(Need(gpus=1), 2), (Need(), 1), (Need(), 2)]


def test_a_lost_cell_that_comes_further_is_started_again_without_limit(tmp_path: Path) -> None:
    (cell,) = planned(tmp_path, "a")

    def act(folder: Path, attempt: int) -> tuple[str, int | None]:
        if attempt > 9:
            return finish(folder, attempt)
        (folder / "checkpoints" / f"step-{attempt:09d}").mkdir(parents=True)
        return "lost", None

    launcher = Scripted(act)
    assert drive(launcher, [cell], retries=2) == {cell: "complete"}
    assert len(launcher.starts) == 10


@pytest.mark.parametrize("retries", [1, 3])
def test_a_lost_cell_without_progress_ends_as_no_progress(tmp_path: Path, retries: int) -> None:
    lost, good = planned(tmp_path, "lost", "good")
    launcher = Scripted(lambda folder, n: ("lost", -9) if folder == lost else finish(folder, n))
    assert drive(launcher, [lost, good], retries=retries) == {lost: "failed", good: "complete"}
    assert launcher.starts.count("lost") == retries
    failure = read_run(lost).failure
    assert failure is not None
    assert (failure.failure_class, failure.code) == ("no_progress", "SB503")
    assert f"lost {retries} times in a row" in failure.message
    assert "its node is gone" in failure.message  # the cause is named


def test_without_retries_a_lost_cell_stays_resumable(tmp_path: Path) -> None:
    (cell,) = planned(tmp_path, "a")
    assert drive(Scripted(lambda folder, n: ("lost", -9)), [cell], retries=0) == {cell: "interrupted"}
    record = read_run(cell)
    assert record.status == "interrupted"
    assert record.failure is not None and record.failure.failure_class == "lost"


@pytest.mark.parametrize("failure", ["oom", "diverged", "data", "bug"])
def test_what_failed_by_itself_is_a_result_and_not_tried_again(tmp_path: Path, failure: str) -> None:
    cells = planned(tmp_path, "a", "b")

    def act(folder: Path, attempt: int) -> tuple[str, int | None]:
        end(folder, "failed", failure)
        return "done", 3

    launcher = Scripted(act, slots=1)
    assert drive(launcher, cells) == dict.fromkeys(cells, "failed")
    assert launcher.starts == ["a", "b"]


@pytest.mark.parametrize(("code", "failure"), [(3, "environment"), (5, None)])
def test_a_broken_environment_stops_further_starts(tmp_path: Path, code: int, failure: str | None) -> None:
    cells = planned(tmp_path, *"abc")

    def act(folder: Path, attempt: int) -> tuple[str, int | None]:
        if failure:
            end(folder, "failed", failure)
        return "done", code

    launcher = Scripted(act, slots=1)
    ended = drive(launcher, cells)
    assert launcher.starts == ["a"]
    assert ended == {
        cells[0]: "failed" if failure else "environment", cells[1]: "not started", cells[2]: "not started"
    }  # fmt: skip


def test_a_cell_held_by_another_process_is_passed_over(tmp_path: Path) -> None:
    cells = planned(tmp_path, "held", "free")
    with Lease(cells[0]):
        launcher = Scripted(lambda folder, n: finish(folder, n) if folder.name == "free" else ("done", 7))
        assert drive(launcher, cells) == {cells[0]: "locked", cells[1]: "complete"}


@pytest.mark.ci
@pytest.mark.parametrize("other_finishes", [True, False])
def test_waiting_for_a_held_cell(tmp_path: Path, other_finishes: bool) -> None:
    (cell,) = planned(tmp_path, "held")
    lease = Lease(cell)
    lease.__enter__()

    def act(folder: Path, attempt: int) -> tuple[str, int | None]:
        if attempt > 1:
            return finish(folder, attempt)
        if other_finishes:
            end(folder, "complete")
        lease.__exit__(None, None, None)
        return "done", 7

    launcher = Scripted(act)
    assert drive(launcher, [cell], wait=True) == {cell: "complete"}
    assert len(launcher.starts) == (1 if other_finishes else 2)


def test_a_job_that_vanished_without_a_word_is_lost(tmp_path: Path) -> None:
    (cell,) = planned(tmp_path, "a")
    end(cell, "failed", "bug")  # of an earlier command; it must not pass for this one's end

    def act(folder: Path, attempt: int) -> tuple[str, int | None]:
        return ("done", None) if attempt == 1 else (finish(folder, attempt)[0], None)

    launcher = Scripted(act)
    assert drive(launcher, [cell]) == {cell: "complete"}
    assert len(launcher.starts) == 2


@pytest.mark.parametrize("detached", [True, False])
def test_a_signal_stops_cells_of_this_machine_and_leaves_those_elsewhere(
    tmp_path: Path, detached: bool
) -> None:
    import os
    import signal

    cells = planned(tmp_path, *"ab")

    def act(folder: Path, attempt: int) -> tuple[str, int | None]:
        if folder.name == "b":
            os.kill(os.getpid(), signal.SIGUSR1)
        return ("done", 143) if launcher.cancelled else ("running", None)

    launcher = Scripted(act)
    launcher.detached = detached
    with pytest.raises(Interrupted) as caught:
        drive(launcher, cells)
    assert caught.value.told is not detached  # a cell of this machine has said it: it is not said twice
    assert [job.name for job in launcher.cancelled] == ([] if detached else ["a", "b"])


def test_a_fault_in_the_data_ends_the_cells_that_would_meet_it(tmp_path: Path) -> None:
    cells = planned(tmp_path, "bad-1", "bad-2", "bad-held", "good-1")

    def act(folder: Path, attempt: int) -> tuple[str, int | None]:
        if folder.name.startswith("good"):
            return finish(folder, attempt)
        end(folder, "failed", "data")
        return "done", 3

    launcher = Scripted(act, slots=1)
    with Lease(cells[2]):  # another process works on it: it is offered, and not written
        ended = drive(launcher, cells, same_data=lambda folder: folder.name.partition("-")[0])
        assert read_run(cells[2]).status == "failed"  # by its own start here
    assert launcher.starts == ["bad-1", "bad-held", "good-1"]
    assert ended == {**dict.fromkeys(cells[:3], "failed"), cells[3]: "complete"}
    spared = read_run(cells[1])
    assert spared.failure is not None
    assert (spared.status, spared.failure.failure_class) == ("failed", "data")
    assert spared.failure.message == "x (found by bad-1; not started)"


def test_every_start_is_told_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = planned(tmp_path, "a", "b")
    drive(Scripted(finish, slots=1), cells)
    assert capsys.readouterr().err.splitlines() == ["cell 1 of 2: a", "cell 2 of 2: b"]
