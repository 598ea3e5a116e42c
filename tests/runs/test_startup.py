"""One step is tried before a scan is prepared, and it leaves no trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from segbench.core.errors import SegbenchError
from segbench.core.interrupt import StopRequest
from segbench.core.processes import ChildEnded
from segbench.runs import build
from segbench.runs.active import ActiveCell
from segbench.runs.build import try_one_step
from segbench.runs.cell import Execution
from segbench.runs.plan import Request, make_plan
from segbench.runs.prepare import prepare_stage, prepared_root
from segbench.runs.runner import plan_run
from segbench.runs.trial import first_step


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ActiveCell:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEGBENCH_THREADS", "1")
    data = tmp_path / "data"
    request = Request(
        models=["nnunet-tiny"],
        datasets=["phantom-brats"],
        results=tmp_path / "runs",
        protocol="demo",
        overrides={"train.checkpointing": True},
        data_dir=data,
    )
    cell = make_plan(request).cells[0].cell
    execution = Execution(device="cpu", data_dir=str(data))
    return ActiveCell(cell, execution, StopRequest())


@pytest.mark.ci
def test_it_draws_nothing_from_the_global_generator(context: ActiveCell) -> None:
    before = torch.get_rng_state()
    try_one_step(context)
    assert torch.equal(torch.get_rng_state(), before)
    assert not context.folder.exists()


@pytest.mark.ci
def test_what_does_not_fit_is_known_before_the_cache_is_touched(
    context: ActiveCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(context: ActiveCell) -> torch.nn.Module:
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(build, "build_seeded", too_large)
    with pytest.raises(SegbenchError) as caught:
        prepare_stage(context)
    assert caught.value.code == "SB504"
    assert not list(prepared_root().rglob("case.json"))


@pytest.fixture
def two_gpus(context: ActiveCell, monkeypatch: pytest.MonkeyPatch) -> ActiveCell:
    """A planned cell of two GPUs, on a machine that seems to have them; to use one from here fails."""

    def used(*_: Any) -> NoReturn:
        pytest.fail("this process made a CUDA context")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("_lazy_init", "empty_cache", "reset_peak_memory_stats", "is_bf16_supported"):
        monkeypatch.setattr(torch.cuda, name, used)
    monkeypatch.setattr(build, "_one_step", used)
    context.execution = replace(context.execution, device="cuda", gpus_per_cell=2)
    plan_run(context, context.execution)
    return context


@pytest.mark.ci
def test_the_gpus_of_ranks_are_left_to_them(two_gpus: ActiveCell, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def ask(module: str, order: dict[str, Any]) -> dict[str, Any]:
        asked.append({"module": module, **order})
        return {}

    monkeypatch.setattr(build, "ask", ask)
    prepare_stage(two_gpus)  # nothing is prepared yet, so that one step is made first
    first_step(two_gpus)
    order = {"folder": str(two_gpus.folder), "execution": two_gpus.execution.as_dict()}
    assert asked == 2 * [{"module": "segbench.runs.build", **order}]


@pytest.mark.ci
@pytest.mark.parametrize("fault", ["SB504", "bug", "killed"])
def test_what_the_step_of_the_child_ends_with_is_the_cells(
    two_gpus: ActiveCell, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(cell: ActiveCell) -> None:
        assert cell.run_id == two_gpus.run_id
        if fault == "SB504":
            raise SegbenchError("SB504", "out of memory on cuda", details=("peak allocated 23.6",))
        raise ValueError("x")

    def ask(module: str, order: dict[str, Any]) -> dict[str, Any]:
        if fault == "killed":
            raise ChildEnded(-9)
        return json.loads(json.dumps(build._answer(json.loads(json.dumps(order)))))

    monkeypatch.setattr(build, "_one_step", step)
    monkeypatch.setattr(build, "ask", ask)
    with pytest.raises(SegbenchError if fault != "bug" else RuntimeError) as caught:
        try_one_step(two_gpus)
    told = {"SB504": "out of memory on cuda", "bug": "ValueError: x (see ", "killed": "signal SIGKILL"}
    assert told[fault] in str(caught.value)
    if isinstance(caught.value, SegbenchError):
        assert caught.value.code == ("SB503" if fault == "killed" else fault)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_device_a_child_makes_the_step(two_gpus: ActiveCell) -> None:
    first_step(two_gpus)
    assert (two_gpus.folder / "startup.json").is_file()


@pytest.mark.slow
def test_a_real_child_makes_a_step_of_the_cell_in_the_folder(two_gpus: ActiveCell) -> None:
    execution = replace(two_gpus.execution, device="cpu")
    order = {"folder": str(two_gpus.folder), "execution": execution.as_dict()}
    assert build.ask("segbench.runs.build", order) == {}
    order["execution"]["device"] = "abacus"
    assert build.ask("segbench.runs.build", order)["error"]["code"] == "SB502"


@pytest.mark.ci
def test_processes_on_a_cpu_leave_the_step_to_their_cell(
    context: ActiveCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ActiveCell] = []
    monkeypatch.setattr(build, "_one_step", made.append)
    monkeypatch.setattr(build, "ask", lambda *_: pytest.fail("asked a child"))
    context.execution = replace(context.execution, gpus_per_cell=2)
    try_one_step(context)
    assert made == [context]
