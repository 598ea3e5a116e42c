"""What stands where a result belongs: inputs and foreign files stay, a command's own files are replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segbench.core.errors import SegbenchError
from segbench.core.outputs import RECORD, OutputFolder, check_targets


def code(call) -> str | None:
    try:
        call()
    except SegbenchError as error:
        return error.code
    return None


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def same(tmp_path: Path, how: str) -> tuple[Path, Path]:
    """A file, and another path that leads to it."""
    file = put(tmp_path / "in" / "scan.nii.gz")
    other = tmp_path / "out" / "scan.nii.gz"
    if how == "path":
        return file, file
    if how == "dots":
        return file, tmp_path / "in" / ".." / "in" / "scan.nii.gz"
    if how == "folder link":
        (tmp_path / "out").symlink_to(tmp_path / "in")
        return file, other
    other.parent.mkdir()
    if how == "link":
        other.symlink_to(file)
    elif how == "relative link":
        other.symlink_to("../in/scan.nii.gz")
    else:
        os.link(file, other)
    return file, other


@pytest.mark.parametrize("how", ["path", "dots", "folder link", "link", "relative link", "hard link"])
def test_an_input_is_an_input_whatever_path_leads_there(tmp_path, how):
    file, other = same(tmp_path, how)
    assert code(lambda: check_targets([other], inputs=[file], own=lambda _: True)) == "SB337"
    assert code(lambda: check_targets([file], inputs=[other], own=lambda _: True)) == "SB337"


def test_a_relative_path_and_an_absolute_one_are_the_same(tmp_path, monkeypatch):
    file = put(tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    assert code(lambda: check_targets([Path("scan.nii.gz")], inputs=[file], own=lambda _: True)) == "SB337"


@pytest.mark.parametrize("kind", ["file", "folder", "broken link"])
def test_what_this_command_did_not_write_stays(tmp_path, kind):
    target = tmp_path / "a.csv"
    if kind == "file":
        put(target)
    elif kind == "folder":
        target.mkdir()
    else:
        target.symlink_to(tmp_path / "nowhere")
    assert code(lambda: check_targets([target])) == "SB337"
    assert code(lambda: check_targets([tmp_path / "free.csv"])) is None


def write(folder: Path, text: str, names=("a", "b"), **options) -> None:
    with OutputFolder(folder, names, **options) as results:
        for name in names:
            results.wrote(put(folder / name, text))


def test_own_files_are_replaced_and_changed_ones_are_foreign(tmp_path):
    write(tmp_path, "first")
    write(tmp_path, "second")
    write(tmp_path, "third", names=("b", "c"))
    write(tmp_path, "fourth")
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "fourth"
    put(tmp_path / "a", "mine")
    assert code(lambda: write(tmp_path, "fifth")) == "SB337"
    assert [(tmp_path / name).read_text() for name in "abc"] == ["mine", "fourth", "third"]


def test_nothing_is_written_when_one_file_stands_in_the_way(tmp_path):
    put(tmp_path / "b", "mine")
    assert code(lambda: write(tmp_path, "new")) == "SB337"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def test_what_a_killed_command_wrote_is_its_own(tmp_path):
    results = OutputFolder(tmp_path, ["a", "b"])
    results.__enter__()
    put(tmp_path / "a", "half")  # and then the process is gone
    write(tmp_path, "whole")
    assert (tmp_path / "a").read_text() == "whole"


def test_a_foreign_record_is_not_believed_and_not_replaced(tmp_path):
    for text in ("notes of mine", "[]", '{"written": 3}'):
        put(tmp_path / RECORD, text)
        assert code(lambda: write(tmp_path, "new")) == "SB337"
        assert (tmp_path / RECORD).read_text() == text


def test_a_link_in_the_place_of_an_own_file_is_foreign(tmp_path):
    write(tmp_path / "out", "first")
    elsewhere = put(tmp_path / "elsewhere", "first")
    (tmp_path / "out" / "a").unlink()
    (tmp_path / "out" / "a").symlink_to(elsewhere)
    assert code(lambda: write(tmp_path / "out", "second")) == "SB337"


def test_where_nothing_was_written_no_record_is_left(tmp_path):
    with pytest.raises(RuntimeError), OutputFolder(tmp_path, ["a"]):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_holds_the_same_already_may_be_replaced(tmp_path):
    put(tmp_path / "a", "text")
    write(tmp_path, "text", names=("a",), same=lambda path: path.read_text() == "text")
