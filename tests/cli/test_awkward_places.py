"""Closed streams, full disks, folders that cannot be written: an exit code and a word, never a crash."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from segbench.cli.common import guarded
from segbench.core.atomic import atomic_folder, atomic_write, disk_error, temporary_name
from segbench.core.crash import write_crash
from segbench.core.errors import SegbenchError


def shell(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`segbench` started by a shell line in which it is called SEGBENCH."""
    command = line.replace("SEGBENCH", f"'{sys.executable}' -m segbench")
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True, text=True, timeout=120, check=False, cwd=cwd,
    )  # fmt: skip


@pytest.mark.ci
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("SEGBENCH list protocols >&-", 0, ""),
        ("SEGBENCH list protocolz 2>&-", 2, ""),
        ("SEGBENCH list protocols <&- >/dev/null", 0, ""),
        ("SEGBENCH list protocols --json > /dev/full", 5, "error[SB505]: the result cannot be written"),
        ("SEGBENCH list protocolz 2> /dev/full", 2, ""),
    ],
)
def test_streams_that_take_nothing(tmp_path: Path, line: str, code: int, said: str) -> None:
    done = shell(line, tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said)
    assert "internal error" not in done.stderr and "Exception ignored" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    done = shell("SEGBENCH show dataset:msd-hippocampus --json | head -c 1; true", tmp_path)
    assert done.stdout == "{"
    assert done.stderr == ""


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.ENOTDIR])
def test_a_refusal_of_the_system_is_never_a_defect(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def refuse() -> int:
        raise OSError(number, os.strerror(number), "data/there")

    assert guarded(refuse) == 5
    said = capsys.readouterr().err
    assert f"error[SB505]: {os.strerror(number).lower()}\n  --> data/there\n" in said
    assert "a folder that can be written" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("inside", ["", "/imagesTr/x.nii.gz"])
def test_a_refusal_names_what_was_to_be_written(inside: str, tmp_path: Path) -> None:
    """The temporary name beside it is nobody's concern."""
    temporary = str(temporary_name(tmp_path / "brats")) + inside
    error = disk_error(OSError(errno.ENOSPC, "full", temporary))
    assert error is not None and str(error.path) == f"{tmp_path / 'brats'}{inside}"


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for write in (
        lambda: atomic_write(tmp_path / "file" / "run.json", "x"),
        lambda: atomic_write(tmp_path / "file" / "deep" / "run.json", "x"),
        lambda: atomic_folder(tmp_path / "file" / "run").__enter__(),
    ):
        with pytest.raises(SegbenchError) as caught:
            write()
        assert caught.value.code == "SB505"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_current_folder_that_was_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert guarded(lambda: len(Path("data").resolve().parts)) == 5
    said = capsys.readouterr().err
    assert said.startswith("error[SB505]: the current folder no longer exists\n  fix: cd to a folder")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_place_in_which_no_folder_can_be_made() -> None:
    for write in (
        lambda: atomic_write("/proc/nowhere/run.json", "x"),
        lambda: atomic_folder("/proc/nowhere/run").__enter__(),
    ):
        with pytest.raises(SegbenchError) as caught:
            write()
        assert (caught.value.code, caught.value.exit_code) == ("SB505", 5)


def test_a_crash_file_finds_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is a file, as good as read-only: the folder for temporary files takes it."""
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    place = write_crash(RuntimeError("x"), tmp_path / "file")
    assert place.parent == tmp_path / "temporary"
    assert "RuntimeError" in place.read_text()


def test_a_cache_that_cannot_be_written_is_not_an_absent_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segbench.runs import plan

    def refuse(slug: str, **folders: object) -> object:
        raise SegbenchError("SB505", "read-only file system", path=tmp_path)

    monkeypatch.setattr(plan, "open_dataset", refuse)
    with pytest.raises(SegbenchError) as caught:
        plan.make_plan(
            plan.Request(["mean-atlas"], ["phantom-msd"], tmp_path, protocol="demo", data_dir=tmp_path)
        )
    assert (caught.value.code, caught.value.exit_code) == ("SB505", 5)
