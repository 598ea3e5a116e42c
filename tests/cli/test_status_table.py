"""`segbench status`: state, step, time left, host and the class of a failure, one line a cell."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.records.lease import Lease


def run_folder(results: Path, name: str, status: str, **fields: Any) -> Path:
    folder = results / name
    folder.mkdir(parents=True)
    record = {"schema_version": 1, "run_id": name, "kind": "trained", "status": status, **fields}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_every_state_is_told_with_its_cause_and_time_left(tmp_path: Path) -> None:
    protocol = {"budget": {"samples": 200}, "sampling": {"batch_size": 2}}
    at_work = run_folder(tmp_path, "at-work", "running", protocol=protocol)
    (at_work / "checkpoints" / "step-000000040").mkdir(parents=True)
    (at_work / "epochs.jsonl").write_text('{"step": 20, "seconds": 100.0}\n{"step": 40, "seconds": 200.0}\n')
    run_folder(tmp_path, "left", "running", protocol=protocol)
    run_folder(tmp_path, "waits", "planned", protocol=protocol)
    (run_folder(tmp_path, "whole", "complete", protocol=protocol) / "cases.csv").touch()
    for name, kind in (("large", "oom"), ("larger", "oom"), ("wild", "diverged")):
        run_folder(tmp_path, name, "failed", failure={"class": kind, "message": "x"})
    with Lease(at_work):
        shown = CliRunner().invoke(build_app(), ["status", "--results", str(tmp_path)])
        told = CliRunner().invoke(build_app(), ["status", "--results", str(tmp_path), "--json"])
    lines = [line.split() for line in shown.stdout.splitlines()]
    here = f"{socket.gethostname()}:{os.getpid()}"
    assert lines[0] == ["run", "state", "step", "left", "host", "failure"]
    assert ["at-work", "running", "40/100", "5", "min", here] in lines
    assert ["left", "resumable", "0/100"] in lines
    assert ["waits", "planned", "0/100"] in lines
    assert ["whole", "done"] in lines
    assert ["large", "failed", "oom"] in lines
    assert shown.stdout.splitlines()[-1] == (
        "7 cells: 1 done, 3 failed (1 diverged, 2 oom), 1 planned, 1 resumable, 1 running"
    )
    cells = {cell["run_id"]: cell for cell in json.loads(told.stdout)["cells"]}
    assert cells["at-work"]["eta_s"] == 300.0
    assert cells["wild"]["failure"] == "diverged"


def test_a_plan_says_how_far_a_cell_has_come(tmp_path: Path) -> None:
    flags = ["run", "--model", "mean-atlas,nnunet-tiny", "--dataset", "phantom-msd", "--protocol", "demo"]
    flags += ["--data-dir", str(tmp_path / "data"), "--results", str(tmp_path / "runs")]
    flags += ["--set", "budget.samples=80"]
    CliRunner().invoke(build_app(), [*flags, "--print-jobs"], catch_exceptions=False)
    (folder,) = (path.parent for path in (tmp_path / "runs").glob("nnunet-tiny*/run.json"))
    (folder / "checkpoints" / "step-000000012").mkdir(parents=True)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    shown = CliRunner().invoke(build_app(), [*flags, "--dry-run"]).stdout.splitlines()
    lines = [line.split() for line in shown]
    assert ["nnunet-tiny", "phantom-msd", "0", "0", "resumable", "12/40", "?", "-"] in lines
    assert ["mean-atlas", "phantom-msd", "0", "0", "planned", "?", "-"] in lines
    assert shown[-1].startswith("total: ? device hours and 2 cells never measured (--probe); ")
