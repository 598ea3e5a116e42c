"""The training loop: plain, readable, and the same bytes whatever interrupts it.

What is special here:
- the budget is counted in samples seen; the schedule is a function of the fraction seen;
- batch t is a function of (seed, t) alone, so the loader has no state and a resume needs the step only;
- nothing in the loop reads the clock to decide a number; checkpoint times do not change results;
- a non-finite loss or gradient skips the update and is counted; too many roll back once, then the cell fails;
- out of memory is a result: the batch is never changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from segbench.cards.protocol import Protocol as BenchProtocol
from segbench.core.atomic import append_line, atomic_write, read_lines, sync_lines
from segbench.core.errors import SegbenchError
from segbench.core.faults import InjectedNaN, InjectedOutOfMemory, fault
from segbench.core.hashing import canonical_json
from segbench.core.interrupt import StopRequest
from segbench.engine.checkpoint import load_last, restore, save_checkpoint
from segbench.engine.losses import SegmentationLoss, constant_predictor_loss
from segbench.engine.optimiser import build_optimiser
from segbench.engine.precision import autocast, usable_precision
from segbench.engine.schedules import learning_rate

EPOCH_SAMPLES = 500
"""The row unit of `epochs.jsonl`; it changes nothing else."""
MAX_ROW_OF_NON_FINITE = 3
MAX_NON_FINITE_OF_1000 = 10


class TrainingBatch(Protocol):
    """What a loader yields: see `segbench.data.sampling.Batch`."""

    step: int
    image: Any
    labels: Any
    plans: Any


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Everything the loop needs, wired by the train stage.

    Attributes:
        build: Builds the network with its initial weights; the same every time.
        batches: `batches(first, last)` yields steps first..last-1, each a function of seed and step.
        transform: Augments (image, labels) of a batch on the training device.
        loss: The objective.
        protocol: Resolved for the model's family.
        folder: The run folder (checkpoints/ and epochs.jsonl go there).
        device: Training device.
        validate: Scores whole validation cases, or None.
        metadata: Stored with the weights.
        checkpoint_minutes: Time between checkpoints; 0: after every step.
        stop: Asked between steps.
        on_step: Told about each step done (samples, loss).
        warn: Told about warnings.
        channels: Output channels of the network.
        check: Called before every checkpoint; raises when the run is no longer ours.
    """

    build: Callable[[], nn.Module]
    batches: Callable[[int, int], Iterable[TrainingBatch]]
    transform: Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]]
    loss: SegmentationLoss
    protocol: BenchProtocol
    folder: Path
    device: torch.device
    stop: StopRequest
    on_step: Callable[[int, float], None]
    warn: Callable[[str], None]
    channels: int
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    checkpoint_minutes: float = 10.0
    check: Callable[[], None] = lambda: None


@dataclass(slots=True)
class _State:
    """What a checkpoint's `state.json` carries; all of it, so that a resume continues in the same numbers."""

    step: int = 0
    samples_seen: int = 0
    rolled_back: bool = False
    lr_scale: float = 1.0
    non_finite: list[int] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_steps: int = 0
    best_score: float | None = None
    seconds: float = 0.0
    told_not_learning: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training left behind."""

    network: nn.Module
    samples_seen: int
    degraded: bool
    peak_memory_bytes: int
    seconds: float
    checkpoint: Path


def train(job: TrainingJob) -> TrainResult:
    """Train to the end of the budget, from the last checkpoint when there is one.

    Raises:
        Interrupted: A signal came; the checkpoint is written.
        SegbenchError: SB402 diverged, SB504 out of memory, SB405 all checkpoints damaged, SB505 disk full.
    """
    run = _Run(job)
    try:
        return run.to_the_end()
    except (torch.OutOfMemoryError, InjectedOutOfMemory) as error:
        raise out_of_memory(job.device) from error
    except RuntimeError as error:
        if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
            raise out_of_memory(job.device) from error
        raise


def out_of_memory(device: torch.device) -> SegbenchError:
    """SB504 with the peak and the size of the device."""
    details: tuple[str, ...] = ()
    if device.type == "cuda":
        size = torch.cuda.get_device_properties(device).total_memory / 2**30
        peak = torch.cuda.max_memory_reserved(device) / 2**30
        allocated = torch.cuda.max_memory_allocated(device) / 2**30
        details = (f"peak allocated {allocated:.1f}, reserved {peak:.1f} of {size:.1f} GiB",)
    return SegbenchError("SB504", f"out of memory on {device.type}", details=details)


class _Run:
    def __init__(self, job: TrainingJob) -> None:
        self.job = job
        p = job.protocol
        self.batch = p.sampling.batch_size
        self.steps = math.ceil(p.budget.samples / self.batch)
        self.checkpoints = job.folder / "checkpoints"
        self.epochs = job.folder / "epochs.jsonl"
        precision = usable_precision(p.train.precision, job.device)
        self.amp = autocast(precision, job.device)
        self.scaler = torch.amp.GradScaler(enabled=precision == "fp16")
        self.state = _State()
        self.saved_at_step = -1
        self._start()

    def _start(self) -> None:
        """Build the network and take up the last checkpoint, if any."""
        job = self.job
        self.network = job.build().to(job.device)
        self.optimiser = build_optimiser(self.network, job.protocol.optimiser)
        self.ema: dict[str, Tensor] | None = (
            {k: v.detach().clone().float() for k, v in self.network.state_dict().items()}
            if job.protocol.train.ema_decay > 0
            else None
        )
        checkpoint = load_last(self.checkpoints, warn=job.warn)
        if checkpoint is not None:
            self._check_threads(checkpoint.state.get("threads"))
            restore(checkpoint, self.network, self.optimiser)
            if self.ema is not None and checkpoint.ema is not None:
                self.ema = {k: v.to(job.device) for k, v in checkpoint.ema.items()}
            self.scaler.load_state_dict(checkpoint.state["scaler"])
            known = {name: checkpoint.state[name] for name in _State.__slots__}
            self.state = _State(**known)
            self.saved_at_step = self.state.step
        self._keep_epochs_up_to(self.state.samples_seen)

    def _check_threads(self, threads: int | None) -> None:
        """A sum over other threads rounds otherwise; resume with the number the run was begun with."""
        if self.job.device.type != "cpu" or threads in (None, torch.get_num_threads()):
            return
        raise SegbenchError(
            "SB508",
            f"the checkpoint was made with {threads} threads, this process has {torch.get_num_threads()}",
            mend=f"set SEGBENCH_THREADS={threads}",
        )

    def to_the_end(self) -> TrainResult:
        began = last_saved = time.monotonic()
        before = self.state.seconds
        self.network.train()
        while self.state.step < self.steps:
            for batch in self.job.batches(self.state.step, self.steps):
                rolled_back = self._step(batch)
                self.state.seconds = before + time.monotonic() - began
                validated = False if rolled_back else self._maybe_validate()
                due = time.monotonic() - last_saved >= self.job.checkpoint_minutes * 60
                if due or validated or self.job.stop.asked:
                    self._save()
                    last_saved = time.monotonic()
                self.job.stop.check()
                if rolled_back:
                    break  # the loader starts again at the checkpoint's step
        if self.saved_at_step != self.state.step:
            self._save()
        sync_lines(self.epochs)
        return TrainResult(
            network=self._selected(),
            samples_seen=self.state.samples_seen,
            degraded=self.state.rolled_back,
            peak_memory_bytes=peak_memory(self.job.device),
            seconds=self.state.seconds,
            checkpoint=self.checkpoints / f"step-{self.state.step:09d}",
        )

    def _step(self, batch: TrainingBatch) -> bool:
        """One update. True when training was rolled back instead."""
        job, p = self.job, self.job.protocol
        poisoned = False
        try:
            fault("step")
        except InjectedNaN:
            poisoned = True
        image = torch.as_tensor(batch.image).to(job.device, non_blocking=True)
        labels = torch.as_tensor(batch.labels).to(job.device, non_blocking=True)
        image, labels = job.transform(image, labels, batch.plans)
        fraction = self.state.samples_seen / (self.steps * self.batch)
        rate = learning_rate(p.optimiser.lr, p.schedule, fraction) * self.state.lr_scale
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self._backward(image, labels, poisoned)
        finite = self._update(loss)
        self.state.step += 1
        self.state.samples_seen += self.batch
        self.state.loss_sum += loss if finite else 0.0
        self.state.loss_steps += 1 if finite else 0
        if not finite and self._count_non_finite():
            return True
        job.on_step(self.state.samples_seen, loss)
        self._maybe_not_learning(labels)
        self._maybe_row(rate)
        return False

    def _backward(self, image: Tensor, labels: Tensor, poisoned: bool) -> float:
        """Forward and backward, in `accumulate` equal parts; gives the loss."""
        parts = self.job.protocol.train.accumulate
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for image_part, labels_part in zip(image.chunk(parts), labels.chunk(parts), strict=True):
            with self.amp():
                outputs = self.network(image_part)
            loss = self.job.loss(outputs, labels_part) / parts
            if poisoned:
                loss = loss * float("nan")
            self.scaler.scale(loss).backward()
            total += float(loss.detach())
        return total

    def _update(self, loss: float) -> bool:
        """Clip and step when loss and gradient are finite; say whether they were."""
        p = self.job.protocol
        self.scaler.unscale_(self.optimiser)
        limit = p.train.clip_norm if p.train.clip_norm > 0 else float("inf")
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            self.scaler.step(self.optimiser)
        self.scaler.update()
        if finite and self.ema is not None:
            decay = p.train.ema_decay
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.ema[name].lerp_(value.detach().float(), 1 - decay)
        return finite

    def _count_non_finite(self) -> bool:
        """Remember a skipped update; roll back when there are too many. True when rolled back."""
        history = [step for step in self.state.non_finite if step > self.state.step - 1000]
        history.append(self.state.step)
        self.state.non_finite = history
        in_a_row = history[-MAX_ROW_OF_NON_FINITE:] == [
            self.state.step - i for i in reversed(range(MAX_ROW_OF_NON_FINITE))
        ]
        if not in_a_row and len(history) <= MAX_NON_FINITE_OF_1000:
            self.job.warn(f"loss or gradient not finite at step {self.state.step}: update skipped")
            return False
        if self.state.rolled_back:
            raise SegbenchError("SB402", f"not finite at step {self.state.step}, after a roll-back")
        self._roll_back()
        return True

    def _roll_back(self) -> None:
        scale = self.state.lr_scale * 0.5
        self.state = _State()
        self._start()
        self.state.rolled_back, self.state.lr_scale, self.state.non_finite = True, scale, []
        self.network.train()
        self._save()  # so that a kill from here on resumes after the roll-back, not before it
        self.job.warn(f"training rolled back to step {self.state.step}, learning rate halved from here")

    def _maybe_not_learning(self, labels: Tensor) -> None:
        """SB403 once, after 2 % of the budget (100 steps at least): a constant predictor must be beaten."""
        s = self.state
        if s.told_not_learning or s.step < max(100, self.steps // 50) or s.loss_steps == 0:
            return
        s.told_not_learning = True
        floor = constant_predictor_loss(self.job.loss, labels, self.job.channels)
        mean = s.loss_sum / s.loss_steps
        if mean >= floor:
            self.job.warn(
                f"warning[SB403]: loss {mean:.3f} after {s.samples_seen} samples, a constant {floor:.3f}"
            )

    def _maybe_row(self, rate: float) -> None:
        """Append a row to `epochs.jsonl` at the end of each epoch and of training."""
        s = self.state
        ended = s.samples_seen // EPOCH_SAMPLES > (s.samples_seen - self.batch) // EPOCH_SAMPLES
        if not ended and s.step < self.steps:
            return
        append_line(
            self.epochs,
            {
                "epoch": math.ceil(s.samples_seen / EPOCH_SAMPLES),
                "step": s.step,
                "samples_seen": s.samples_seen,
                "loss": s.loss_sum / s.loss_steps if s.loss_steps else None,
                "lr": rate,
                "non_finite": len(s.non_finite),
                "seconds": round(s.seconds, 3),
            },
        )
        s.loss_sum, s.loss_steps = 0.0, 0

    def _maybe_validate(self) -> bool:
        """Score whole validation cases when due; keep the best when the protocol selects by it."""
        job, s = self.job, self.state
        every = job.protocol.validation.every_samples
        if job.validate is None or every <= 0:
            return False
        if s.samples_seen // every == (s.samples_seen - self.batch) // every and s.step < self.steps:
            return False
        scores = job.validate(self.network)
        self.network.train()
        append_line(self.epochs, {"validation": scores, "step": s.step, "samples_seen": s.samples_seen})
        mean = sum(scores.values()) / len(scores) if scores else 0.0
        if s.best_score is None or mean > s.best_score:
            s.best_score = mean
            if job.protocol.validation.selection == "best_validation":
                from segbench.networks.tensor_bytes import tensor_bytes

                atomic_write(self.best_file, tensor_bytes(self.network.state_dict(), job.metadata))
        return True

    @property
    def best_file(self) -> Path:
        return self.checkpoints / "best.safetensors"

    def _selected(self) -> nn.Module:
        """The network with the weights that the protocol selects: last, ema or best on validation."""
        selection = self.job.protocol.validation.selection
        if selection == "ema" and self.ema is not None:
            own = self.network.state_dict()
            self.network.load_state_dict({k: v.to(own[k].dtype) for k, v in self.ema.items()})
        elif selection == "best_validation" and self.best_file.exists():
            from safetensors.torch import load_file

            self.network.load_state_dict(load_file(self.best_file))
        return self.network

    def _save(self) -> None:
        self.job.check()
        state = {**self.state.as_dict(), "scaler": self.scaler.state_dict(), "world_size": 1}
        save_checkpoint(
            self.checkpoints,
            network=self.network,
            optimiser=self.optimiser,
            state=state,
            ema=self.ema,
            metadata=self.job.metadata,
        )
        self.saved_at_step = self.state.step

    def _keep_epochs_up_to(self, samples: int) -> None:
        """Drop rows written after the checkpoint that is resumed: they will be written again."""
        rows = read_lines(self.epochs, repair=True, warn=self.job.warn)
        kept = [row for row in rows if int(str(row["samples_seen"])) <= samples]
        if len(kept) != len(rows):
            atomic_write(self.epochs, "".join(canonical_json(row) + "\n" for row in kept))


def peak_memory(device: torch.device) -> int:
    """Peak bytes: allocated on the device, or resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def load_network(build: Callable[[], nn.Module], weights: dict[str, Tensor]) -> nn.Module:
    """A network with given weights, in evaluation mode."""
    network = build()
    network.load_state_dict(weights)
    return network.eval()
