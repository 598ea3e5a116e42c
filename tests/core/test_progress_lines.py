"""Progress where nobody looks at a terminal: counts of all, rate and time left of this process."""

from __future__ import annotations

import pytest

from segbench.core import console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the test sets."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_nothing_done_promises_no_time(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("evaluate a", 40) as bar:
        bar.advance(0)
    assert capsys.readouterr().err == "evaluate a: 0/40 cases\n"


def test_what_was_done_before_counts_and_is_no_speed(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with console.progress("evaluate a", 40, before=30) as bar:
        bar.advance(0)
        clock[0] += 4
        bar.advance(2, note="c32")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "evaluate a: 30/40 cases"
    assert second == "evaluate a: 32/40 cases, 0.5/s, 16 s left, c32"
