"""A file under its final name is whole or absent; a torn line is cut off; a broken one is an error."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segbench.core import atomic, faults
from segbench.core.atomic import append_line, atomic_folder, atomic_write, atomic_write_json, read_lines
from segbench.core.errors import SegbenchError


def test_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "a" / "x.json"
    atomic_write(target, "old")
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new"
    assert [p.name for p in target.parent.iterdir()] == ["x.json"]


def test_a_failing_writer_keeps_the_old_file(tmp_path: Path) -> None:
    target = atomic_write(tmp_path / "x", "old")

    def fails(stream: object) -> None:
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        atomic_write(target, fails)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_sb505(tmp_path: Path, number: int) -> None:
    def full(stream: object) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(SegbenchError) as caught:
        atomic_write(tmp_path / "x", full)
    assert caught.value.code == "SB505"
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []


def test_json_has_no_nan_and_sorted_keys(tmp_path: Path) -> None:
    path = atomic_write_json(tmp_path / "x.json", {"b": 1.5, "a": [1]})
    assert path.read_text() == '{\n  "a": [\n    1\n  ],\n  "b": 1.5\n}\n'
    with pytest.raises(ValueError, match=r"NaN|nan|JSON"):
        atomic_write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text())["b"] == 1.5


def test_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with atomic_folder(target) as building:
        (building / "one").write_text("1")
        assert not target.exists()
    assert (target / "one").read_text() == "1"
    with pytest.raises(RuntimeError), atomic_folder(target) as building:
        (building / "two").write_text("2")
        raise RuntimeError
    assert [p.name for p in target.iterdir()] == ["one"]
    with atomic_folder(target) as building:
        (building / "three").write_text("3")
    assert [p.name for p in target.iterdir()] == ["three"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_lines_round_trip_and_a_torn_tail_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    for i in range(3):
        append_line(path, {"i": i})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"i": 3')
    told: list[str] = []
    assert [r["i"] for r in read_lines(path, repair=True, warn=told.append)] == [0, 1, 2]
    assert path.read_bytes() == whole
    assert "SB601" in told[0]


def test_a_broken_middle_line_is_sb602(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(b'{"i": 0}\nnot json\n{"i": 2}\n')
    with pytest.raises(SegbenchError) as caught:
        read_lines(path)
    assert caught.value.code == "SB602"
    assert "line 2" in caught.value.message


def test_leftovers_of_dead_processes_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    gone = tmp_path / f".x.tmp-{int(dead.stdout)}-00000000"
    kept = tmp_path / f".x.tmp-{os.getppid()}-00000000"
    gone.write_text("")
    kept.write_text("")
    atomic.remove_leftovers(tmp_path)
    assert not gone.exists()
    assert kept.exists()


@pytest.mark.parametrize("n", range(1, 6))
def test_a_kill_at_any_step_of_a_write_leaves_old_or_new(tmp_path: Path, n: int) -> None:
    target = atomic_write(tmp_path / "x", "old")
    code = (
        "import sys; from segbench.core.atomic import atomic_write; atomic_write(sys.argv[1], 'new' * 1000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        env={**os.environ, "SEGBENCH_FAULT": f"write:{n}"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() in {"old", "new" * 1000}
    atomic.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [target]


def test_fault_text_is_checked() -> None:
    assert faults._parse("") is None
    plan = faults._parse("step:3:nan")
    assert plan is not None
    assert (plan.point, plan.at, plan.action) == ("step", 3, "nan")
    for wrong in ("step", "step:0", "nowhere:1", "step:1:explode", "step:x"):
        with pytest.raises(ValueError, match="SEGBENCH_FAULT"):
            faults._parse(wrong)


def test_counting_injects_nothing_and_tells_the_totals(tmp_path: Path) -> None:
    count = tmp_path / "count"
    code = "import sys; from segbench.core.atomic import atomic_write; atomic_write(sys.argv[1], 'x')"
    environment = {**os.environ, "SEGBENCH_FAULT": f"count:{count}"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "y")], env=environment, check=True)
    assert json.loads(count.read_text())["totals"] == {"write": 5}


def test_a_file_name_that_is_not_utf8_is_written_escaped_and_reads_back(tmp_path: Path) -> None:
    names = {"extra": ["caf\udce9.nii.gz"]}  # how Python holds a Latin-1 name of an old archive
    path = atomic_write_json(tmp_path / "run.json", names)
    assert json.loads(path.read_text(encoding="utf-8")) == names
