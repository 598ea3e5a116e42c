"""One writer per run: a living holder keeps others out, a dead one is taken over at once."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from segbench.core.errors import SegbenchError
from segbench.records.lease import LEASE, Lease, lease_holder, read_lease

HOLD = """
import sys, time
from pathlib import Path
from segbench.records.lease import Lease
with Lease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_held_then_free(tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        holder = lease_holder(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()
        lease.check()
    assert lease_holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_keeps_others_out_and_a_killed_one_does_not(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(SegbenchError) as caught, Lease(tmp_path):
        pass
    assert caught.value.code == "SB603"
    assert caught.value.exit_code == 7
    assert str(child.pid) in str(caught.value.found)
    child.kill()
    child.wait()
    with Lease(tmp_path) as lease:
        assert read_lease(tmp_path) == lease.holder
        assert lease.taken_from is not None
        assert lease.taken_from.pid == child.pid


def test_a_reused_pid_is_told_apart(tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        content = json.loads((tmp_path / LEASE).read_text())
    content["process_start"] = "1"
    (tmp_path / LEASE).write_text(json.dumps(content))
    assert content["pid"] == lease.holder.pid
    assert lease_holder(tmp_path) is None
    with Lease(tmp_path):
        pass


def test_a_foreign_lease_is_stale_only_after_its_beat_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGBENCH_LEASE_STALE_S", "0.6")
    with Lease(tmp_path) as lease:
        content = {name: getattr(lease.holder, name) for name in type(lease.holder).__slots__}
    (tmp_path / LEASE).write_text(json.dumps({**content, "host": "elsewhere"}))
    stop = threading.Event()

    def beat() -> None:
        n = 0
        while not stop.wait(0.05):
            n += 1
            (tmp_path / "lease.beat").write_text(f"x {n}")

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(SegbenchError, match="another process"), Lease(tmp_path):
            pass
    finally:
        stop.set()
        thread.join()
    with Lease(tmp_path) as ours:
        assert read_lease(tmp_path) == ours.holder


def test_a_holder_notices_that_it_lost_the_run(tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        content = json.loads((tmp_path / LEASE).read_text())
        (tmp_path / LEASE).write_text(json.dumps({**content, "token": "0" * 32}))
        with pytest.raises(SegbenchError) as caught:
            lease.check()
        assert caught.value.code == "SB605"
    assert (tmp_path / LEASE).exists()  # not ours to remove


def test_many_at_once_only_one_wins(tmp_path: Path) -> None:
    won, lost = [], []
    gate = threading.Barrier(8)
    done = threading.Event()

    def contend() -> None:
        gate.wait()
        try:
            with Lease(tmp_path):
                won.append(1)
                done.wait(5)
        except SegbenchError as error:
            lost.append(error.code)
            if len(lost) == 7:
                done.set()

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert lost == ["SB603"] * 7


def test_a_clock_that_jumps_makes_no_lease_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Staleness is a heartbeat that stands still for the observer's own monotonic clock, nothing else."""
    import time

    monkeypatch.setenv("SEGBENCH_LEASE_STALE_S", "0.8")
    now = time.time()
    for jump in (-10 * 365 * 86400.0, 10 * 365 * 86400.0):
        folder = tmp_path / str(jump)
        with Lease(folder) as lease:
            content = {name: getattr(lease.holder, name) for name in type(lease.holder).__slots__}
        past = {**content, "host": "elsewhere", "created": "1999-01-01T00:00:00+00:00"}
        (folder / LEASE).write_text(json.dumps(past))
        (folder / "lease.beat").write_text("x 1")
        os.utime(folder / LEASE, (1, 1))
        os.utime(folder / "lease.beat", (1, 1))
        monkeypatch.setattr(time, "time", lambda: now + jump)  # noqa: B023 - read within the loop
        beats = threading.Event()

        def beat(folder: Path = folder, beats: threading.Event = beats) -> None:
            for n in range(100):
                if beats.wait(0.1):
                    return
                (folder / "lease.beat").write_text(f"x {n + 2}")
                os.utime(folder / "lease.beat", (1, 1))

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            with pytest.raises(SegbenchError, match="another process"), Lease(folder):
                pass
        finally:
            beats.set()
            thread.join()


@pytest.mark.ci
@pytest.mark.parametrize(
    "elsewhere",
    [
        {"host": "another"},
        {"boot_id": "another"},  # two machines of one name, or one that was started again
        {"pid_namespace": "pid:[1]"},  # two containers on one machine
        {"pid_namespace": ""},  # written by an earlier version, or where the system does not tell
    ],
)
def test_only_who_sees_the_same_processes_calls_one_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: dict[str, str]
) -> None:
    monkeypatch.setenv("SEGBENCH_LEASE_STALE_S", "0.6")
    gone = {"pid": 2**22 + 1, "process_start": "1"}
    content = asdict(Lease(tmp_path).holder) | gone
    (tmp_path / LEASE).write_text(json.dumps(content))
    assert lease_holder(tmp_path) is None  # here: no such process
    (tmp_path / LEASE).write_text(json.dumps(content | elsewhere))
    assert lease_holder(tmp_path) is not None
    with Lease(tmp_path) as lease:  # only because nothing beats
        assert lease.taken_from is not None


def test_a_lease_of_an_earlier_version_still_holds(tmp_path: Path) -> None:
    content = asdict(Lease(tmp_path).holder)
    del content["pid_namespace"]
    (tmp_path / LEASE).write_text(json.dumps(content))
    assert lease_holder(tmp_path) is not None


@pytest.mark.parametrize("text", ["abc", "", "0", "-1", "nan", "inf"])
def test_a_stale_time_that_is_none_is_said_before_anything_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SEGBENCH_LEASE_STALE_S", text)
    with pytest.raises(SegbenchError, match="SEGBENCH_LEASE_STALE_S") as caught, Lease(tmp_path):
        pass
    assert (caught.value.code, caught.value.exit_code, list(tmp_path.iterdir())) == ("SB104", 2, [])


@pytest.mark.parametrize("refused", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK])
def test_a_file_system_without_hard_links_has_leases_too(
    refused: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(refused, os.strerror(refused))

    monkeypatch.setattr(os, "link", no_links)
    with Lease(tmp_path) as first:
        assert first.still_ours()
        with pytest.raises(SegbenchError) as caught, Lease(tmp_path):
            pass
        assert caught.value.code == "SB603"
    assert not list(tmp_path.glob("lease*"))
    with Lease(tmp_path):
        pass
