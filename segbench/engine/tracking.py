"""TensorBoard as a view of `epochs.jsonl`: there when the extra `tracking` is installed, never a record."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "tensorboard_view"]

FOLDER = "tensorboard"
_AXIS = "samples_seen"


def tensorboard_view(run: Path) -> Callable[[dict[str, Any]], None] | None:
    """Something that shows rows of `epochs.jsonl` in `<run>/tensorboard`; None without the extra.

    The x axis is samples seen. The first row after a resume hides what was shown beyond it.
    """
    if find_spec("tensorboard") is None:
        return None
    return _View(run / FOLDER)


class _View:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: Any = None

    def __call__(self, row: dict[str, Any]) -> None:
        at = int(row[_AXIS])
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=at)
        for name, value in scalars(row).items():
            self.writer.add_scalar(name, value, at)
        self.writer.flush()


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """The curves that a row of `epochs.jsonl` adds a point to."""
    if "validation" in row:
        return {f"validation/dice/{region}": float(value) for region, value in row["validation"].items()}
    return {
        f"train/{name}": float(row[name])
        for name in ("loss", "lr", "non_finite", "seconds")
        if row.get(name) is not None
    }
