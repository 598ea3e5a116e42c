"""`segbench report` as a user meets it: light help, exit codes, what goes to stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BLOCK = "import sys; sys.modules['torch'] = None; "


def run(*arguments: str, cwd: Path, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    script = f"{BLOCK}{code}from segbench.cli.main import entry_point; entry_point()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip


def report(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    quick = ("--resamples", "200", "--no-published", "--viewer", "none")
    return run("report", *quick, *arguments, cwd=cwd, **environment)


def test_help_needs_neither_torch_nor_pandas_nor_matplotlib(tmp_path: Path) -> None:
    block = "sys.modules['pandas'] = None; sys.modules['matplotlib'] = None; sys.modules['jinja2'] = None; "
    done = run("report", "--help", cwd=tmp_path, code=block, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    for flag in (
        "--runs", "--output", "--format", "--long", "--metrics", "--regions", "--reference", "--order",
        "--missing",
        "--cell", "--digits", "--margin", "--alpha", "--resamples", "--seed", "--published", "--no-published",
        "--viewer", "--max-size", "--pseudonyms", "--column", "--font", "--include-unfinished", "--raw-csv",
        "--json",
    ):  # fmt: skip
        assert flag in done.stdout, flag


def test_the_main_table_goes_to_stdout_and_findings_to_stderr(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=4)
    runs.run("beta", cases=4, skill=0.9)
    done = report(tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "beta" in done.stdout
    assert "\N{PLUS-MINUS SIGN}" in done.stdout
    assert "few-cases" not in done.stdout
    assert "[few-cases]" in done.stderr
    assert (tmp_path / "out" / "report.json").is_file()


def test_json_is_the_report_and_nothing_else(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=4)
    done = report(tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json", "--json")
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "report.json").read_text())


def test_default_folders(runs: Any, tmp_path: Path) -> None:
    """Runs are read from the results folder; the report goes to the folder `report` beside it."""
    runs.run("alpha", cases=3)
    (tmp_path / "results").mkdir()
    runs.root.rename(tmp_path / "results" / "runs")
    assert report(tmp_path, "--format", "json").returncode == 0
    assert (tmp_path / "results" / "report" / "report.json").is_file()
    elsewhere = tmp_path / "deep" / "runs"
    elsewhere.parent.mkdir()
    (tmp_path / "results" / "runs").rename(elsewhere)
    assert report(tmp_path, "--format", "json", SEGBENCH_RESULTS=str(elsewhere)).returncode == 0
    assert (tmp_path / "deep" / "report" / "report.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--runs", "nowhere"], 4, "SB701"),
        (["--order", "sideways"], 2, "SB104"),
        (["--margin", "dice"], 2, "SB104"),
        (["--metrics", "dise"], 2, "did you mean dice"),
        (["--no-such-flag"], 2, "no-such-flag"),
    ],
)
def test_exit_codes(runs: Any, tmp_path: Path, arguments: list[str], code: int, word: str) -> None:
    runs.run("alpha", cases=3)
    done = report(tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json", *arguments)
    assert done.returncode == code, done.stderr
    assert word in done.stderr


def test_a_missing_case_exits_3_with_the_report_written(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=3)
    runs.write([row for row in runs.rows("beta", cases=3) if row["case"] != "case-0001"])
    done = report(tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json")
    assert done.returncode == 3
    assert "case-0001 (missing)" in done.stderr
    assert (tmp_path / "out" / "report.json").is_file()


def test_lists_by_commas_and_repetition(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=3)
    done = report(
        tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json,csv",
        "--metrics", "hd95,dice", "--regions", "WT", "--regions", "TC",
        "--margin", "dice=0.005,hd95=2", "--digits", "3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["settings"]["metrics"] == ["hd95", "dice"]
    assert content["settings"]["margin"] == {"dice": 0.005, "hd95": 2.0}
    assert list(dict.fromkeys(row["region"] for row in content["summary"])) == ["WT", "TC"]
    assert (tmp_path / "out" / "tables" / "main_dice.csv").is_file()


def test_the_public_names() -> None:
    import segbench.report as room

    for name in (
        "Column", "Cell", "Row", "Table", "with_marks", "render", "escape_latex", "lint_latex",
        "build_report",
        "load_results", "ReportResult",
    ):  # fmt: skip
        assert callable(getattr(room, name)), name
        assert name in dir(room)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = room.no_such_name
