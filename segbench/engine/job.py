"""What the training loop is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from segbench.cards.protocol import Protocol as BenchProtocol
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import StopRequest
from segbench.engine.losses import SegmentationLoss
from segbench.engine.ranks import ALONE, Ranks

__all__ = ["TrainResult", "TrainingBatch", "TrainingJob", "check_split"]


class TrainingBatch(Protocol):
    """What a loader yields: see `segbench.data.patches.sampling.Batch`."""

    step: int
    image: Any
    labels: Any
    plans: Any


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Everything the loop needs, wired by the train stage.

    Attributes:
        build: Builds the network with its initial weights; the same every time.
        batches: `batches(first, last)` yields this rank's share of steps first..last-1, each a function of
            seed and step.
        transform: Makes one tensor each of a batch's images and labels, augmented, where they are.
        loss: The objective.
        protocol: Resolved for the model's family.
        folder: The run folder (checkpoints/ and epochs.jsonl go there).
        device: Training device.
        validate: Scores whole validation cases, or None.
        metadata: Stored with the weights.
        checkpoint_minutes: Time between checkpoints; 0: after every step.
        stop: Asked between steps.
        on_step: Told about each step done (samples, loss, learning rate).
        warn: Told about warnings.
        channels: Output channels of the network.
        check: Called before every checkpoint; raises when the run is no longer ours.
        ranks: This process's place among those that train the network together.
        step_timeout: Seconds after which a step counts as hung, see `StepWatch`.
        hung: Told when it does; must end the process. None: nobody watches.
        view: Shown every row of `epochs.jsonl`, such as TensorBoard.
        inputs_digest: Of what the stage computes from; kept with every checkpoint, a resume with another is
            warned of.
        determinism: Level in force, kept with every checkpoint.
    """

    build: Callable[[], nn.Module]
    batches: Callable[[int, int], Iterable[TrainingBatch]]
    transform: Callable[[Any, Any, Any], tuple[Tensor, Tensor]]
    loss: SegmentationLoss
    protocol: BenchProtocol
    folder: Path
    device: torch.device
    stop: StopRequest
    on_step: Callable[[int, float, float], None]
    warn: Callable[[str], None]
    channels: int
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    checkpoint_minutes: float = 10.0
    check: Callable[[], None] = lambda: None
    ranks: Ranks = ALONE
    step_timeout: float | None = None
    hung: Callable[[SegbenchError], object] | None = None
    view: Callable[[dict[str, Any]], None] | None = None
    inputs_digest: str | None = None
    determinism: str | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, and of the weights that were best."""
        return self.folder / "checkpoints"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training left behind; `scans` are the backends that selective scans ran on."""

    network: nn.Module
    samples_seen: int
    degraded: bool
    peak_memory_bytes: int
    checkpoint: Path
    step_seconds: float | None = None
    scans: frozenset[str] = frozenset()


def check_split(protocol: BenchProtocol, ranks: Ranks) -> None:
    """Every rank and every accumulated part must get the same share of the batch.

    Raises:
        SegbenchError: SB104.
    """
    batch, parts = protocol.sampling.batch_size, protocol.train.accumulate
    pieces = parts * ranks.world
    if batch < ranks.world or (parts > 1 and batch % pieces):
        raise SegbenchError(
            "SB104",
            f"a batch of {batch} cannot be split over {ranks.world} processes and {parts} accumulated parts",
            expected=f"a multiple of {pieces}" if parts > 1 else f"at least {ranks.world}",
            found=batch,
        )
