"""Forecasts come from measurements, in order of worth, and a budget is spent in the order of the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segbench.core.errors import SegbenchError
from segbench.records import write_run
from segbench.runs import trial as probing
from segbench.runs.active import ActiveCell
from segbench.runs.cell import Execution, Plan
from segbench.runs.forecast import Measured, disk_needed, fitting, known_probe, with_finished
from segbench.runs.plan import Request, make_plan
from segbench.runs.runner import plan_run
from segbench.runs.trial import probe, with_probes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def plan(
    data: Path, results: Path, seeds: tuple[int, ...] = (0,), models: tuple[str, ...] = ("nnunet-tiny",)
) -> Plan:
    return make_plan(
        Request(
            models=models, datasets=["phantom-brats"], results=results, protocol="demo",
            overrides={"budget.samples": 20}, seeds=seeds, data_dir=data,
        )
    )  # fmt: skip


def finish(data: Path, results: Path, seed: int, **fields: object) -> None:
    cell = plan(data, results, (seed,)).cells[0].cell
    record = plan_run(cell, Execution(device="cpu"))
    write_run(cell.folder, record.model_copy(update={"status": "complete", **fields}))
    (cell.folder / "cases.csv").write_text("")


@pytest.mark.ci
def test_finished_runs_outside_the_plan_tell_time_and_memory(data: Path, tmp_path: Path) -> None:
    assert plan(data, tmp_path, (5,)).cells[0].forecast_s is None
    finish(data, tmp_path, 1, durations={"train": 40.0, "predict": 10.0}, peak_memory_bytes=7)
    finish(data, tmp_path, 2, durations={"train": 60.0, "predict": 10.0}, peak_memory_bytes=9)
    (planned,) = plan(data, tmp_path, (5,)).cells
    assert planned.forecast_s == pytest.approx(60.0)
    assert planned.step_s == pytest.approx(5.0)  # 10 steps
    assert planned.memory_bytes == 9
    assert "2 finished" in planned.forecast_from


def test_runs_of_another_protocol_tell_nothing(data: Path, tmp_path: Path) -> None:
    finish(data, tmp_path, 1, durations={"train": 40.0}, protocol_digest="0" * 64)
    assert plan(data, tmp_path, (5,)).cells[0].forecast_s is None


@pytest.mark.ci
def test_a_probe_is_measured_once_and_recalled(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEGBENCH_THREADS", "1")
    execution = Execution(device="cpu", data_dir=str(data))
    (planned,) = plan(data, tmp_path / "runs").cells
    assert known_probe(planned.cell, execution) is None
    seen = probe(planned.cell, execution)
    assert seen.problem == ""
    assert seen.step_s is not None
    assert 0.001 < seen.step_s < 60
    assert seen.memory_bytes is not None
    assert seen.memory_bytes > 50e6

    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("probed twice")

    monkeypatch.setattr(probing, "ask", never)
    assert probe(planned.cell, execution) == seen
    (told,) = with_probes(plan(data, tmp_path / "runs"), execution, measure=False).cells
    assert told.forecast_s == pytest.approx(10 * seen.step_s)
    assert "probe" in told.forecast_from
    assert not (tmp_path / "runs").exists()
    slower = replace(execution, device="cuda")
    assert known_probe(planned.cell, slower) is None


def test_a_probe_that_does_not_fit_gives_no_seconds(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "known_probe", lambda cell, execution: Measured(None, None, "out of memory"))
    (told,) = with_probes(plan(data, tmp_path), Execution(), measure=True).cells
    assert told.forecast_s is None
    assert told.forecast_from == "probe: out of memory"


def test_a_budget_is_spent_in_the_order_of_the_plan(data: Path, tmp_path: Path) -> None:
    cells = plan(data, tmp_path, (0, 1, 2, 3)).cells
    hours = [1.0, 5.0, 0.5, None]
    cells = [
        replace(c, forecast_s=None if h is None else h * 3600) for c, h in zip(cells, hours, strict=True)
    ]
    assert fitting(cells, 2.0) == [True, False, True, None]
    assert fitting(cells, 2.0, gpus=2) == [True, False, False, None]
    (floor,) = plan(data, tmp_path, models=("mean-atlas",)).cells
    assert fitting([floor], 0.0) == [True]


def test_disk_is_counted_once_per_recipe(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    one = disk_needed(plan(data, tmp_path))
    assert one > 0
    assert disk_needed(plan(data, tmp_path, (0, 1, 2))) == one
    assert disk_needed(plan(data, tmp_path, models=("mean-atlas",))) == 0


def test_unknown_costs_stop_a_budget_before_anything_runs(data: Path, tmp_path: Path) -> None:
    from segbench.cli.tables.plan import within_budget

    with pytest.raises(SegbenchError) as caught:
        within_budget(plan(data, tmp_path), Execution(), 1.0)
    assert caught.value.code == "SB104"
    assert "--probe" in caught.value.mend


def test_steps_that_drift_from_the_forecast_are_logged(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segbench.core.interrupt import StopRequest
    from segbench.runs import train

    (planned,) = plan(data, tmp_path).cells
    cell = replace(planned.cell, folder=tmp_path / "run")
    context = ActiveCell(cell, Execution(), StopRequest())
    monkeypatch.setattr(train, "known_probe", lambda cell, execution: Measured(1.0, 1))
    train._compare_with_forecast(context, 1.2)
    assert not (tmp_path / "run").exists()
    train._compare_with_forecast(context, 1.3)
    assert "+30%" in (tmp_path / "run" / "log.txt").read_text()
    assert with_finished([planned]) == [planned]
