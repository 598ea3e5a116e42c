"""Warnings of `segbench run`: three cases and a count for each kind, and each kind once a command."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segbench.core import console
from segbench.runs.active import ActiveCell
from segbench.runs.drive import each_warning_once


def a_cell(folder: Path) -> Any:
    """What `warn` needs of a cell at work."""
    folder.mkdir()
    cell = SimpleNamespace(warnings=[], quiet=False, folder=folder)
    cell.log = lambda text: ActiveCell.log(cell, text)  # type: ignore[arg-type]
    cell.warn = lambda text: ActiveCell.warn(cell, text)  # type: ignore[arg-type]
    return cell


def test_a_hundred_cases_of_a_kind_make_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = a_cell(tmp_path / "a")
    faults = [("SB202" if n % 2 else "SB215", f"case_{n:03d}", "is cut short") for n in range(100)]
    ActiveCell.warn_of_cases(cell, faults, "scored worst, not left out")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 == len(cell.warnings)
    assert lines[0].startswith(
        "warning: SB215: 50 times: case_000, case_002, case_004 and 47 more: is cut short"
    )
    assert all(line.endswith("scored worst, not left out") for line in lines)


def test_cells_of_one_command_say_the_same_once_and_record_it_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [a_cell(tmp_path / name) for name in "abc"]
    with each_warning_once():
        for cell in cells:
            cell.warn("SB321: 12 times: of the dataset")
        cells[2].warn("another")
    assert capsys.readouterr().err.splitlines() == [
        "warning: SB321: 12 times: of the dataset",
        "warning: another",
    ]
    for cell in cells:
        assert "SB321" in cell.warnings[0] and "SB321" in (cell.folder / "log.txt").read_text()
    assert "SEGBENCH_TOLD" not in os.environ
    a_cell(tmp_path / "d").warn("SB321: 12 times: of the dataset")  # another command says it again
    assert "SB321" in capsys.readouterr().err
    assert console.output.warnings[-1].startswith("SB321")
