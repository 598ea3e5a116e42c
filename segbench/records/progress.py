"""How far a run has come, read from its folder: what tells a lost cell that moves from one that does not."""

from __future__ import annotations

from pathlib import Path


def progress_of(folder: Path) -> tuple[int, int, int, int]:
    """What grows as the run comes further: (finished stages, training step, predictions, bytes of scores).

    It never counts anything that a restart would have to do again.
    """
    stages = sum(1 for _ in (folder / "stages").glob("*.json"))
    predictions = sum(1 for entry in (folder / "predictions").glob("*") if not entry.name.startswith("."))
    lines = folder / "cases.jsonl"
    return (stages, last_step(folder), predictions, lines.stat().st_size if lines.is_file() else 0)


def last_step(folder: Path) -> int:
    """The step of the newest checkpoint of a run, 0 when there is none."""
    names = sorted(entry.name for entry in (folder / "checkpoints").glob("step-*"))
    number = names[-1].removeprefix("step-") if names else "0"
    return int(number) if number.isdigit() else 0
