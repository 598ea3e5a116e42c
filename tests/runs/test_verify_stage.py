"""What a cell says of the dataset it verified: faults of its own cases stop it, the others are warnings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from segbench.core.errors import SegbenchError
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.data.verify import api as verify_module
from segbench.runs.prepare import verify_stage


def finding(code: str, severity: str, case: str | None, message: str = "something") -> SimpleNamespace:
    return SimpleNamespace(
        code=code,
        severity=severity,
        case=case,
        message=message,
        file=None,
        expected=None,
        found=None,
        mend=None,
    )


def verified(monkeypatch: pytest.MonkeyPatch, *findings: SimpleNamespace, limit: int = 0) -> list[str]:
    """The warnings of a cell that trains on a, validates on b and tests on c."""
    report = SimpleNamespace(findings=findings, digest="d1", counts={})
    monkeypatch.setattr(verify_module, "verify", lambda *given, **named: report)
    told: list[str] = []
    context: Any = SimpleNamespace(
        data=None,
        split=SimpleNamespace(name="list", train=("a",), validation=("b",), test=("c",)),
        execution=SimpleNamespace(workers=0),
        protocol=SimpleNamespace(split=SimpleNamespace(limit=limit)),
        warn=told.append,
    )
    assert verify_stage(context).artefact == "d1"
    return told


def test_cases_that_the_split_leaves_out_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    unused = [finding("SB324", "warning", f"x{i}", "split list does not use the case") for i in range(182)]
    told = verified(monkeypatch, *unused, finding("SB313", "warning", "a", "constant image"))
    assert len(told) == 2
    assert "182 cases, such as x0" in told[-1]
    assert told[0] == "SB313: a: constant image"
    assert verified(monkeypatch, *unused, limit=6) == []  # --limit leaves them out, as asked


def test_a_signal_need_not_wait_for_the_last_case(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def slow(*given: Any, on_progress: Any, **named: Any) -> None:
        advance = on_progress("voxels of thousand", 1000)
        for case in range(1000):
            seen.append(case)
            stop.number = 15 if case == 3 else stop.number
            advance(1)

    monkeypatch.setattr(verify_module, "verify", slow)
    stop = StopRequest()
    context: Any = SimpleNamespace(
        data=None,
        split=SimpleNamespace(name="list", train=("a",), validation=(), test=()),
        execution=SimpleNamespace(workers=0),
        stop=stop,
    )
    with pytest.raises(Interrupted):
        verify_stage(context)
    assert seen == [0, 1, 2, 3]


def test_a_fault_outside_the_split_is_a_warning_and_inside_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    told = verified(monkeypatch, finding("SB204", "error", "x", "cut short"))
    assert told == ["SB204: x: cut short (outside the split)"]
    with pytest.raises(SegbenchError) as caught:
        verified(monkeypatch, finding("SB204", "error", "b", "cut short"), finding("SB307", "error", "c"))
    assert caught.value.code == "SB204"
    assert len(caught.value.details) == 1


def test_warnings_are_bounded_whatever_the_number_of_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    twins = [finding("SB321", "warning", f"c{i:04d}", f"the same image as case {i}") for i in range(1251)]
    outside = [finding("SB204", "error", f"x{i}", "cut short") for i in range(40)]
    told = verified(monkeypatch, *twins, *outside, finding("SB314", "warning", "a", "no HU"))
    assert len(told) == 3
    assert told[0] == "SB204: 40 times: x0, x1, x2 and 37 more: cut short (outside the split)"
    assert told[1].startswith("SB321: 1251 times: c0000, c0001, c0002 and 1248 more: ")
    assert told[2] == "SB314: a: no HU"
