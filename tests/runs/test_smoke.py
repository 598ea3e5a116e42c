"""`segbench run --smoke`: a model that cannot learn one scan by heart stops the matrix before it begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.runs import trial


def run(data: Path, results: Path, models: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[dict]]:
    monkeypatch.setenv("SEGBENCH_THREADS", "1")
    command = ["--json", "run", "--model", models, "--dataset", "phantom-brats", "--device", "cpu", "--smoke"]
    command += ["--data-dir", str(data), "--results", str(results)]
    done = CliRunner().invoke(build_app(), command)
    return done.exit_code, json.loads(done.stdout)["smoke"]


@pytest.mark.ci
def test_a_network_that_has_not_learnt_is_exit_6_and_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "SMOKE_STEPS", 2)
    code, rows = run(tmp_path / "data", tmp_path / "runs", "nnunet-tiny,mean-atlas", monkeypatch)
    assert code == 6
    (row,) = rows  # a floor has nothing to learn
    assert row["model"] == "nnunet-tiny"
    assert row["passed"] is False
    assert set(row["dice"]) == {"WT", "TC", "ET"}
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["nnunet-tiny", "segmamba-v2-tiny", "uxnet-tiny"])
def test_every_family_learns_one_scan_by_heart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    code, rows = run(tmp_path / "data", tmp_path / "runs", model, monkeypatch)
    assert code == 0, rows
    assert sum(rows[0]["dice"].values()) / 3 > 0.9
