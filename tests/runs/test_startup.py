"""One step is tried before a scan is prepared, and it leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segbench.core.errors import SegbenchError
from segbench.core.interrupt import StopRequest
from segbench.runs import build
from segbench.runs.build import try_one_step
from segbench.runs.cell import ActiveCell, Execution
from segbench.runs.plan import Request, make_plan
from segbench.runs.prepare import prepare_stage, prepared_root


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


def test_it_draws_nothing_from_the_global_generator(context: ActiveCell) -> None:
    before = torch.get_rng_state()
    try_one_step(context)
    assert torch.equal(torch.get_rng_state(), before)
    assert not context.folder.exists()


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
