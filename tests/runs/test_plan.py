"""Plans: states from folders, forecasts from what was measured, refusals, and size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.core.errors import SegbenchError
from segbench.data.opening import MISSION, in_one_table
from segbench.records import RunRecord, write_run
from segbench.records.lease import Lease
from segbench.runs.plan import Request, expanded, make_plan
from segbench.runs.status import read_status


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def request(data: Path, results: Path, **fields: object) -> Request:
    settings = {"models": ["nnunet-tiny"], "datasets": ["phantom-brats"], "protocol": "demo", **fields}
    return Request(results=results, data_dir=data, **settings)  # type: ignore[arg-type]


def finish(folder: Path, status: str = "complete", **fields: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_run(
        folder, RunRecord(schema_version=1, run_id=folder.name, kind="trained", status=status, **fields)
    )  # type: ignore[arg-type]
    (folder / "cases.csv").write_text("x")


@pytest.mark.ci
def test_the_same_request_gives_the_same_ids_and_seeds_differ_in_name_only(
    data: Path, tmp_path: Path
) -> None:
    one = make_plan(request(data, tmp_path, seeds=[0, 1]))
    two = make_plan(request(data, tmp_path, seeds=[1, 0]))
    assert {p.cell.run_id for p in one.cells} == {p.cell.run_id for p in two.cells}
    assert len({p.cell.run_id[-8:] for p in one.cells}) == 1
    assert [p.cell.seed for p in one.cells] == [0, 1]


def test_a_baseline_is_planned_once_whatever_the_seeds(data: Path, tmp_path: Path) -> None:
    models = ["empty", "mean-atlas", "intensity", "atlas-intensity", "nnunet-tiny"]
    cells = make_plan(request(data, tmp_path, models=models, seeds=[3, 1, 2])).cells
    seeds = {slug: [p.cell.seed for p in cells if p.cell.model.slug == slug] for slug in models}
    assert seeds.pop("nnunet-tiny") == [1, 2, 3]
    assert set(map(tuple, seeds.values())) == {(3,)}


def test_states_and_forecasts(data: Path, tmp_path: Path) -> None:
    cells = make_plan(request(data, tmp_path, seeds=range(5))).cells
    assert {p.state for p in cells} == {"planned"}
    assert {p.forecast_s for p in cells} == {None}
    finish(cells[0].cell.folder, durations={"train": 10.0, "predict": 2.0})
    finish(cells[1].cell.folder, durations={"train": 14.0, "predict": 2.0})
    finish(cells[2].cell.folder, "failed")
    finish(cells[3].cell.folder, "running")  # nobody holds its lease
    again = make_plan(request(data, tmp_path, seeds=range(5))).cells
    assert [p.state for p in again] == ["done", "done", "failed", "resumable", "planned"]
    assert again[4].forecast_s == 14.0
    assert again[0].forecast_s is None
    totals = read_status(tmp_path).totals
    assert totals == {"done": 2, "failed": 1, "resumable": 1}


@pytest.mark.parametrize("status", ["planned", "running", "interrupted", "complete", "failed"])
@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_the_plan_and_the_status_say_the_same(
    status: str, rows: bool, held: bool, data: Path, tmp_path: Path
) -> None:
    folder = make_plan(request(data, tmp_path)).cells[0].cell.folder
    finish(folder, status)
    if not rows:
        (folder / "cases.csv").unlink()
    with Lease(folder) if held else nullcontext():
        planned, told = make_plan(request(data, tmp_path)).cells[0], read_status(tmp_path).cells[0]
    assert planned.state == told.state
    assert (planned.state == "done") == (status == "complete" and rows)


def test_weights_are_not_selected_on_cases_that_are_not_there(data: Path, tmp_path: Path) -> None:
    """In a cross-validation the held-out fold is the test: the last weights would be taken in silence."""
    best = {
        "validation.selection": "best_validation",
        "validation.cases": "validation",
        "validation.every_samples": 8,
    }
    (there,) = make_plan(request(data, tmp_path, overrides=best)).cells
    assert there.state == "planned"
    folds = make_plan(request(data, tmp_path, overrides=best, split="folds-5", folds="all")).cells
    assert {cell.state for cell in folds} == {"blocked"}
    assert folds[0].problem is not None
    assert folds[0].problem.code == "SB104"
    assert "no validation cases" in folds[0].note


def test_a_fold_that_does_not_exist(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SegbenchError, match="1 fold"):
        make_plan(request(data, tmp_path, folds=[3]))
    folds = make_plan(request(data, tmp_path, folds="all", split="folds-3")).cells
    assert [p.cell.fold for p in folds] == [0, 1, 2]
    tested = [case for p in folds for case in p.cell.split.test]
    assert len(tested) == len(set(tested)) == 12
    assert all(not p.cell.split.validation for p in folds)  # what is held out is scored, not selected on


def test_generated_scans_get_the_demo_protocol_unless_another_is_named(data: Path, tmp_path: Path) -> None:
    (plain,) = make_plan(request(data, tmp_path, protocol=None)).cells
    assert plain.cell.protocol.name == "demo"
    named = make_plan(request(data, tmp_path, protocol="standard")).cells
    assert {p.cell.protocol.name for p in named} == {"standard"}


def test_limit_enters_the_identity(data: Path, tmp_path: Path) -> None:
    (whole,) = make_plan(request(data, tmp_path, seeds=[0])).cells
    (cut,) = make_plan(request(data, tmp_path, seeds=[0], limit=1)).cells
    assert (len(cut.cell.split.train), len(cut.cell.split.test)) == (1, 1)
    assert cut.cell.run_id != whole.cell.run_id


def test_an_absent_dataset_is_returned_and_the_others_go_on(data: Path, tmp_path: Path) -> None:
    plan = make_plan(request(data, tmp_path, datasets=["crc-2000", "phantom-brats"]))
    assert [error.code for error in plan.absent] == ["SB301"]
    assert len(plan.cells) == 1


@pytest.mark.slow
def test_ten_thousand_cells(data: Path, tmp_path: Path) -> None:
    began = time.process_time()
    plan = make_plan(request(data, tmp_path, seeds=range(10_000)))
    planned = time.process_time() - began
    assert len(plan.cells) == 10_000
    for p in plan.cells:
        finish(p.cell.folder)
    began = time.process_time()
    report = read_status(tmp_path)
    told = time.process_time() - began
    assert report.totals == {"done": 10_000}
    print(f"plan {planned:.2f} CPU s, status {told:.2f} CPU s")  # the goals are 5 and 1.5


def asked_for(
    models: list[str], datasets: Sequence[str] = ("phantom-msd",), results: Path = Path("runs"), **more: Any
) -> Request:
    return expanded(Request(models, datasets, results, **more))


def foreign_card(cards: Path, slug: str, *, requires: str, broken: bool = False) -> None:
    text = f'''slug = "{slug}"
title = "x"
kind = "network"
family = "convolution"
provenance = "library"
implementation = "{requires}:Net"
requires = ["{requires}"]
input = {{ divisor = 1, minimum = 1 }}
source = {{ code = "https://example.org", licence = "MIT" }}
fidelity = {{ reproduces = "x" }}
'''
    (cards / "models" / slug).mkdir(parents=True)
    (cards / "models" / slug / "card.toml").write_text(text + "no such key = 1\n" * broken)


@pytest.mark.ci
def test_a_missing_package_or_a_broken_card_is_that_models_fault_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign_card(tmp_path / "cards", "needs", requires="no_such_package")
    foreign_card(tmp_path / "cards", "broken", requires="torch", broken=True)
    monkeypatch.setenv("SEGBENCH_CARDS", str(tmp_path / "cards"))
    data = {"data_dir": tmp_path / "data", "results": tmp_path / "runs"}
    alone = make_plan(asked_for(["mean-atlas"], **data))  # a broken card beside it is nobody's
    assert [planned.state for planned in alone.cells] == ["planned"]
    assert alone.absent == ()
    plan = make_plan(asked_for(["needs", "broken", "mean-atlas"], **data))
    states = {planned.cell.model.slug: (planned.state, planned.problem) for planned in plan.cells}
    assert states["mean-atlas"] == ("planned", None)
    state, problem = states["needs"]
    assert state == "blocked"
    assert problem is not None
    assert (problem.code, problem.mend) == ("SB502", "pip install no_such_package")
    assert [(error.code, "broken" in str(error.path)) for error in plan.absent] == [("SB110", True)]
    with pytest.raises(SegbenchError) as caught:
        make_plan(asked_for(["broken"], **data))
    assert caught.value.code == "SB110"


def test_a_broken_card_of_a_dataset_is_that_datasets_fault_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cards" / "datasets" / "odd").mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "odd" / "card.toml").write_text('slug = "odd"')
    monkeypatch.setenv("SEGBENCH_CARDS", str(tmp_path / "cards"))
    data = {"data_dir": tmp_path / "data", "results": tmp_path / "runs"}
    plan = make_plan(asked_for(["mean-atlas"], ["odd", "phantom-msd"], **data))
    assert [planned.state for planned in plan.cells] == ["planned"]
    assert [(error.code, "odd" in str(error.path)) for error in plan.absent] == [("SB110", True)]
    assert "title: found nothing; this key is required" in plan.absent[0].details
    listed = CliRunner().invoke(build_app(), ["list", "datasets"])
    assert (listed.exit_code, "phantom-msd" in listed.stdout, "SB110" in listed.stderr) == (0, True, True)


def test_mission_stands_for_the_four_datasets_of_the_readme() -> None:
    asked = asked_for(["mean-atlas"], ["mission", "msd-spleen", "crc-2000"]).datasets
    assert list(asked) == ["crc-2000", "brats2023-gli", "aiib2023", "abdomenatlas-1.0-mini", "msd-spleen"]
    with pytest.raises(SegbenchError) as caught:
        asked_for(["mission"], ["msd-spleen"])  # a group of datasets, not of models
    assert caught.value.code == "SB101"


def test_a_folder_in_place_of_a_name_gets_the_way_to_a_card(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError) as caught:
        asked_for(["mean-atlas"], [str(tmp_path)])
    assert caught.value.code == "SB101" and "data import dataset" in caught.value.mend


def test_datasets_that_are_not_here_are_one_table(tmp_path: Path) -> None:
    """However many are asked for: one error, a line each, the mission first; others stay by themselves."""
    asked = asked_for(["mean-atlas"], ["all"], data_dir=tmp_path, results=tmp_path / "runs")
    plan = make_plan(asked)
    assert len(plan.absent) == len(asked.datasets) > 10
    other = SegbenchError("SB311", "no case")
    told = in_one_table([*plan.absent, other], asked.datasets, tmp_path)
    assert [error.code for error in told] == ["SB311", "SB301"]
    lines = told[1].details
    assert len(lines) == len(asked.datasets) + 1
    assert [line.split()[0] for line in lines[1:5]] == list(MISSION)
    assert in_one_table(plan.absent[:2], asked.datasets[:2], tmp_path) == list(plan.absent[:2])
