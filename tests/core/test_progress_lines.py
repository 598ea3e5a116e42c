"""Progress where nobody looks at a terminal: counts of all, rate and time left of this process."""

from __future__ import annotations

import re

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


def test_where_a_step_ends_places_the_count(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """A training learns where it is from its checkpoint, and can be sent back to an earlier one."""
    with console.progress("train a", 40, unit="samples") as bar:
        bar.advance(4, at=24)
        clock[0] += 4
        bar.advance(4, at=28)
        clock[0] += 4
        bar.advance(4, at=16)
    assert capsys.readouterr().err.splitlines() == [
        "train a: 24/40 samples",
        "train a: 28/40 samples, 2/s, 6 s left",
        "train a: 16/40 samples, 1.5/s, 16 s left",
    ]


def test_an_unknown_total_promises_no_end(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("fetch a", 0, unit="MB", before=1.5) as bar:
        bar.advance(0)
        clock[0] += 31
        bar.advance(6.2)
    assert capsys.readouterr().err.splitlines() == ["fetch a: 1.5 MB", "fetch a: 7.7 MB, 0.2/s"]


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_the_numbers_stay_on_a_narrow_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The title may be cut, the count and the loss may not (at 40 columns the loss is cut too)."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    title = "train nnunet-tiny__phantom-msd__demo+custom__f0__s0__556e2c4e"
    with console.progress(title, 4000, unit="samples") as bar:
        bar.advance(6, note="loss 2.037, lr 0.002, peak 0.5 GiB")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "6/4000" in shown
    assert "train nnun" in shown
    assert ("peak 0.5 GiB" in shown) == (columns > 40)
    assert (title in shown) == (columns == 160)
