"""`segbench report` as a user meets it: light help, exit codes, what goes to stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import preloaded
import pytest

QUICK = ("--resamples", "200", "--no-published", "--viewer", "none")
BLOCK = "import sys; sys.modules['torch'] = None; "


def run(*arguments: str, cwd: Path, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """In an interpreter of its own that has no torch."""
    script = f"{BLOCK}{code}from segbench.cli.main import entry_point; entry_point()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip


def report(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = ("-m", "segbench", "report", *QUICK, *arguments)
    return preloaded.run(*words, cwd=cwd, env={**os.environ, **environment})


def test_help_is_light_shows_defaults_and_fits_80_columns(tmp_path: Path) -> None:
    block = "sys.modules['pandas'] = None; sys.modules['matplotlib'] = None; sys.modules['jinja2'] = None; "
    done = run("report", "--help", cwd=tmp_path, code=block, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for flag in (
        "--runs", "--output", "--format", "--appendix", "--metrics", "--primary",
        "--regions", "--cells", "--digits", "--reference", "--margin", "--alpha", "--resamples", "--seed",
        "--missing", "--select", "--allow-edited", "--include-unfinished", "--published", "--no-published",
        "--viewer", "--max-size", "--pseudonyms",
    ):  # fmt: skip
        assert f" {flag} " in done.stdout, flag
    for words in ("[default: the results folder]", "Example: segbench report", "[default: 10000]"):
        assert words in done.stdout
    assert " --cell " not in done.stdout


@pytest.mark.ci
def test_the_answer_comes_first_then_the_table_then_findings(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=8, skill=0.7)
    runs.run("beta", cases=8, skill=0.9)
    done = report(tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    places = [
        next(number for number, line in enumerate(lines) if word in line)
        for word in ("is significantly better than", "seeds  n  failed", "[single-seed]")
    ]
    assert places == sorted(places)
    assert lines[0].startswith("phantom-brats, Dice")
    assert max(map(len, lines)) <= 80
    assert "reading records" in done.stderr and "writing json" in done.stderr
    assert "-> " in done.stderr.splitlines()[-1]
    assert (tmp_path / "out" / "report.json").is_file()
    quiet = report(tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json", "--no-progress")
    assert "reading records" not in quiet.stderr
    wide = report(tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json", "--verbose")
    assert "NSD WT" in wide.stdout and "NSD WT" not in done.stdout


def test_json_is_the_report_and_nothing_else(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=4)
    runs.write([row for row in runs.rows("beta", cases=4) if row["case"] != "case-0001"])
    done = report(tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json", "--json")
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "report.json").read_text())
    assert "error: [missing-cases]" in done.stderr
    assert done.returncode == 3


@pytest.mark.ci
def test_default_folders_and_formats(runs: Any, tmp_path: Path) -> None:
    """Runs are read from the results folder; the report goes to the folder `report` beside it."""
    runs.run("alpha", cases=3)
    (tmp_path / "results").mkdir()
    runs.root.rename(tmp_path / "results" / "runs")
    assert run("report", *QUICK, cwd=tmp_path).returncode == 0
    made = {path.name for path in (tmp_path / "results" / "report").iterdir()}
    assert {"report.html", "report.md", "paper.tex", "references.bib", "tables"} <= made
    assert "report.json" not in made
    elsewhere = tmp_path / "deep" / "runs"
    elsewhere.parent.mkdir()
    (tmp_path / "results" / "runs").rename(elsewhere)
    assert report(tmp_path, "--format", "json", SEGBENCH_RESULTS=str(elsewhere)).returncode == 0
    assert (tmp_path / "deep" / "report" / "report.json").is_file()


@pytest.mark.ci
@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--runs", "nowhere"], 4, "SB701"),
        (["--cells", "sideways"], 2, "mean-ci"),
        (["--cell", "median-iqr"], 2, "mean-ci"),
        (["--format", "figures"], 2, "html, markdown, latex, csv, json"),
        (["--margin", "dice"], 2, "SB104"),
        (["--metrics", "dise"], 2, "did you mean dice"),
        (["--primary", "dise"], 2, "did you mean dice"),
        (["--reference", "nobody"], 2, "nobody"),
        (["--no-such-flag"], 2, "no-such-flag"),
        (["--long"], 2, "--long"),
    ],
)
def test_exit_codes(runs: Any, tmp_path: Path, arguments: list[str], code: int, word: str) -> None:
    runs.run("alpha", cases=3)
    done = report(tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json", *arguments)
    assert done.returncode == code, done.stderr
    assert word in done.stderr


def test_the_old_name_of_an_option_is_still_taken(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=3)
    common = ("--runs", str(runs.root), "--output", "out", "--format", "json", "--json")
    old = report(tmp_path, *common, "--cell", "mean-sd")
    new = report(tmp_path, *common, "--cells", "mean-sd")
    assert old.returncode == 0, old.stderr
    assert old.stdout == new.stdout


def test_a_missing_case_exits_3_with_the_report_written(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=3)
    runs.write([row for row in runs.rows("beta", cases=3) if row["case"] != "case-0001"])
    done = report(tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json")
    assert done.returncode == 3
    assert "case-0001 (missing)" in done.stdout
    assert "failed: cases without a usable prediction, scored worst" in done.stdout
    assert (tmp_path / "out" / "report.json").is_file()


def test_lists_by_commas_and_repetition(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=3)
    done = report(
        tmp_path, "--runs", str(runs.root), "--output", "out", "--format", "json,csv",
        "--metrics", "hd95,dice", "--regions", "WT", "--regions", "TC",
        "--margin", "dice=0.005,hd95=2", "--digits", "3", "--select", "newest",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["settings"]["metrics"] == ["hd95", "dice"]
    assert content["settings"]["margin"] == {"dice": 0.005, "hd95": 2.0}
    assert content["settings"]["select"] == ["newest"]
    assert [c["region"] for c in content["columns"] if c["metric"] == "dice"] == ["WT", "TC", "mean"]
    assert (tmp_path / "out" / "tables" / "scores.csv").is_file()
    wrong = report(tmp_path, "--runs", str(runs.root), "--output", "out", "--select", "run-a")
    assert wrong.returncode == 2 and "no run called 'run-a'" in wrong.stderr


def test_two_runs_of_one_row_are_refused_until_one_is_selected(runs: Any, tmp_path: Path) -> None:
    for name, created in (("first", "2026-01-01"), ("second", "2026-01-02")):
        rows = [
            {**row, "run_id": f"alpha-{name}"}
            for row in runs.rows("alpha", cases=3, skill=0.7 if name == "first" else 0.9)
        ]
        runs.write(rows, record={"run_id": f"alpha-{name}", "created": created}, folder=name)
    common = ("--runs", str(runs.root), "--output", "out", "--format", "json")
    refused = report(tmp_path, *common)
    assert refused.returncode == 4
    assert "alpha-first" in refused.stderr and "alpha-second" in refused.stderr
    means: list[str] = []
    for choice in ("newest", "alpha-first"):
        done = report(tmp_path, *common, "--select", choice, "--json")
        column = next(c for c in json.loads(done.stdout)["columns"] if c["role"] == "primary")
        means.append(f"{column['means']['alpha']['value']:.1f}")
    assert means[0] > means[1]


def test_the_public_names() -> None:
    import segbench.report as room

    for name in ("build_report", "load_results", "ReportResult"):
        assert callable(getattr(room, name)), name
        assert name in dir(room)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = room.no_such_name
