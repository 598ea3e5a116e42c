"""The watch over steps, and the TensorBoard view."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path
from typing import ClassVar

import pytest

from segbench.core.errors import SegbenchError
from segbench.engine import tracking
from segbench.engine.watch import SHORTEST_S, StepWatch


def test_a_step_that_never_ends_is_named() -> None:
    told: list[SegbenchError] = []
    seen = threading.Event()

    def hung(error: SegbenchError) -> None:
        told.append(error)
        seen.set()

    with StepWatch(0.05, hung) as watch:
        watch.alive("computing step 7 (case_3)")
        assert seen.wait(5)
    assert told[0].code == "SB404"
    assert "computing step 7 (case_3)" in told[0].message
    assert "test_watch_and_tracking.py" in str(told[0].found)


def test_signs_of_life_and_pauses_keep_it_quiet() -> None:
    told: list[SegbenchError] = []
    pause = threading.Event()
    with StepWatch(0.2, told.append) as watch:
        for step in range(10):
            watch.next_step(f"step {step}")
            pause.wait(0.05)
        watch.pause("validating")
        pause.wait(0.5)
    assert not told


def test_the_limit_is_thirty_median_steps_and_at_least_ten_minutes() -> None:
    watch = StepWatch(None, None)
    assert watch.limit_s == SHORTEST_S == 600
    watch._times.extend([1.0, 100.0, 40.0])
    assert watch.limit_s == 30 * 40
    assert StepWatch(5.0, None).limit_s == 5.0


class _Writer:
    made: ClassVar[list[_Writer]] = []

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.points = folder, purge_step, []
        self.made.append(self)

    def add_scalar(self, name: str, value: float, at: int) -> None:
        self.points.append((name, value, at))

    def flush(self) -> None:
        self.flushed = True


def test_rows_are_shown_over_samples_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = _Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    view = tracking.tensorboard_view(tmp_path)
    assert view is not None
    view(
        {
            "epoch": 3,
            "step": 750,
            "samples_seen": 1500,
            "loss": 0.5,
            "lr": 0.01,
            "non_finite": 0,
            "seconds": 9.0,
        }
    )
    view({"validation": {"WT": 0.8}, "step": 800, "samples_seen": 1600})
    (writer,) = _Writer.made
    assert writer.folder == str(tmp_path / "tensorboard")
    assert writer.purge_step == 1500
    assert ("train/loss", 0.5, 1500) in writer.points
    assert ("validation/dice/WT", 0.8, 1600) in writer.points


def test_without_the_extra_there_is_no_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert tracking.tensorboard_view(tmp_path) is None
    assert not (tmp_path / "tensorboard").exists()


def test_the_real_writer_when_installed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    view = tracking.tensorboard_view(tmp_path)
    assert view is not None
    view({"samples_seen": 500, "loss": 0.25, "lr": 0.1})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(500, 0.25)]
