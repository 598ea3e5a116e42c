"""The committed leaderboards: regenerated without a difference, from records that name no machine's paths."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def leaderboard():
    spec = importlib.util.spec_from_file_location("leaderboard", ROOT / "scripts" / "leaderboard.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["leaderboard"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["leaderboard"]


@pytest.fixture
def copy(leaderboard, tmp_path, monkeypatch):
    for name, folder in (("BOARDS", "results/leaderboard"), ("PAGES", "docs/leaderboard")):
        shutil.copytree(ROOT / folder, tmp_path / folder)
        monkeypatch.setattr(leaderboard, name, tmp_path / folder)
    monkeypatch.setattr(leaderboard, "ROOT", tmp_path)
    return tmp_path


def test_tables_and_pages_are_those_of_the_records(leaderboard, capsys):
    assert leaderboard.main(["--check"]) == 0, capsys.readouterr().out


def test_a_changed_record_a_changed_page_and_a_surplus_table_are_noticed(leaderboard, copy, capsys):
    page = copy / "docs/leaderboard/msd-hippocampus.md"
    right = page.read_text(encoding="utf-8")
    page.write_text(right.replace("inconclusive", "better"), encoding="utf-8")
    surplus = copy / "results/leaderboard/msd-hippocampus/tables/old.md"
    surplus.write_text("old")
    assert leaderboard.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "differs: docs/leaderboard/msd-hippocampus.md",
        "differs: results/leaderboard/msd-hippocampus/tables/old.md",
    ]
    assert leaderboard.main([]) == 0
    assert page.read_text(encoding="utf-8") == right
    assert not surplus.exists()


def test_records_carry_no_path_of_the_machine(leaderboard):
    records = sorted(ROOT.glob("results/leaderboard/*/runs/*/*.json"))
    assert records
    for path in records:
        content = json.loads(path.read_text(encoding="utf-8"))
        assert leaderboard.without_paths(content) == content, path


def test_only_finished_runs_are_taken_in_and_paths_are_left_behind(leaderboard, tmp_path, capsys):
    source = next(ROOT.glob("results/leaderboard/msd-hippocampus/runs/nnunet-tiny*"))
    for name, status in (("done", "complete"), ("half", "running")):
        shutil.copytree(source, tmp_path / "runs" / name)
        record = json.loads((source / "run.json").read_text(encoding="utf-8"))
        record |= {"status": status, "command": ["/opt/bin/segbench", "run", "--data-dir", "/data/scans"]}
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert leaderboard.collect(tmp_path / "runs", tmp_path / "board") == 0
    assert "left out, running: half" in capsys.readouterr().out
    (taken,) = (tmp_path / "board" / "runs").iterdir()
    assert sorted(path.name for path in taken.iterdir()) == ["cases.csv", "profile.json", "run.json"]
    command = json.loads((taken / "run.json").read_text(encoding="utf-8"))["command"]
    assert command == ["segbench", "run", "--data-dir", "scans"]
