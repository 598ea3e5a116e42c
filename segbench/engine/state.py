"""What training carries from step to step, and the rows it writes: `state.json` and `epochs.jsonl`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbench.core.atomic import append_line, atomic_write, read_lines, sync_lines
from segbench.core.hashing import canonical_json

__all__ = ["EPOCH_SAMPLES", "EpochRows", "TrainingState"]

EPOCH_SAMPLES = 500
"""The row unit of `epochs.jsonl`; it changes nothing else."""
RECENT_STEPS = 20
MAX_ROW_OF_NON_FINITE = 3
MAX_NON_FINITE_OF_1000 = 10


@dataclass(slots=True)
class TrainingState:
    """What a checkpoint's `state.json` carries; all of it, so that a resume continues in the same numbers.

    Attributes:
        step: Updates tried.
        samples_seen: Samples of those.
        rolled_back: Training went back to a checkpoint once.
        lr_scale: Halved by the roll-back.
        non_finite: Steps whose update was skipped, of the last 1000.
        loss_sum, loss_steps: Of the epoch at hand.
        recent_loss: Exponential mean of the finite losses, over about the last `RECENT_STEPS` steps.
        best_score: Best mean over regions on the validation cases.
        best_sha256: Of the weights that had it, where the protocol selects by it.
        seconds: Wall time of training.
        device_seconds: The same times the processes that trained together.
        told_not_learning: SB403 was looked at.
        validation_due: The step's validation was interrupted; it comes first after a resume.
    """

    step: int = 0
    samples_seen: int = 0
    rolled_back: bool = False
    lr_scale: float = 1.0
    non_finite: list[int] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_steps: int = 0
    recent_loss: float | None = None
    best_score: float | None = None
    best_sha256: str | None = None
    seconds: float = 0.0
    device_seconds: float = 0.0
    told_not_learning: bool = False
    validation_due: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> TrainingState:
        """From a checkpoint's `state.json`."""
        return cls(**{name: content[name] for name in cls.__slots__ if name in content})

    def count_loss(self, loss: float) -> None:
        """Take up the finite loss of a step."""
        self.loss_sum += loss
        self.loss_steps += 1
        before = loss if self.recent_loss is None else self.recent_loss
        self.recent_loss = before + (loss - before) / RECENT_STEPS

    def too_many_non_finite(self) -> bool:
        """Remember that this step's update was skipped; whether three in a row or 1 % of 1000 are reached."""
        history = [step for step in self.non_finite if step > self.step - 1000]
        history.append(self.step)
        self.non_finite = history
        last = [self.step - i for i in reversed(range(MAX_ROW_OF_NON_FINITE))]
        return history[-MAX_ROW_OF_NON_FINITE:] == last or len(history) > MAX_NON_FINITE_OF_1000

    def ends_row(self, batch: int, every: int) -> bool:
        """Whether this step's samples complete a unit of `every` samples."""
        return self.samples_seen // every != (self.samples_seen - batch) // every


class EpochRows:
    """`epochs.jsonl`, the record of training: a row every 500 samples, and one per validation.

    Args:
        path: The file.
        view: Told about every row, such as a TensorBoard writer.
    """

    def __init__(self, path: Path, view: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.path, self.view = path, view

    def append(self, row: dict[str, Any]) -> None:
        """Add one row."""
        append_line(self.path, row)
        if self.view is not None:
            self.view(row)

    def keep_up_to(self, samples: int, warn: Callable[[str], None]) -> None:
        """Drop rows written after the checkpoint that is resumed: they will be written again."""
        rows = read_lines(self.path, repair=True, warn=warn)
        kept = [row for row in rows if int(str(row["samples_seen"])) <= samples]
        if len(kept) != len(rows):
            atomic_write(self.path, "".join(canonical_json(row) + "\n" for row in kept))

    def close(self) -> None:
        """Bring what was appended to the disk."""
        sync_lines(self.path)
