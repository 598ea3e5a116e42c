"""The training loop: plain, readable, and the same bytes whatever interrupts it.

What is special here:
- the budget is counted in samples seen; the schedule is a function of the fraction seen;
- batch t is a function of (seed, t) alone, so the loader has no state and a resume needs the step only;
- nothing in the loop reads the clock to decide a number; checkpoint times do not change results;
- several ranks share the global batch, and the loss is that of the global batch on each of them;
- a non-finite loss or gradient skips the update and is counted; too many roll back once, then the cell fails;
- where only fp16's loss scale made a gradient infinite, the update is skipped too, but that is not a fault;
- out of memory is a result: the batch is never changed.
"""

from __future__ import annotations

import math
import signal
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from segbench.core.errors import SegbenchError
from segbench.core.faults import InjectedNaN, fault
from segbench.core.interrupt import Interrupted
from segbench.engine.activations import checkpoint_activations
from segbench.engine.checkpoint import load_best, random_states, restore, save_best, save_checkpoint
from segbench.engine.device import nondeterminism_as_error
from segbench.engine.feed import DeviceBatch, feed
from segbench.engine.job import TrainingJob, TrainResult, check_split
from segbench.engine.losses import constant_predictor_loss
from segbench.engine.memory import oom_as_error, peak_memory
from segbench.engine.optimiser import build_optimiser, learning_rate, with_warmup
from segbench.engine.precision import autocast, usable_precision
from segbench.engine.resume import check_same_machine, decide_scan, last_checkpoint
from segbench.engine.state import EPOCH_SAMPLES, EpochRows, TrainingState
from segbench.engine.watch import StepWatch
from segbench.networks.blocks.fast import named_ways
from segbench.networks.scan import scans_used

__all__ = ["TrainResult", "TrainingJob", "train"]


def train(job: TrainingJob) -> TrainResult:
    """Train to the end of the budget, from the last checkpoint when there is one.

    Raises:
        Interrupted: A signal came; the checkpoint is written.
        SegbenchError: SB402 diverged, SB504 out of memory, SB405 all checkpoints damaged, SB505 disk full,
            SB104 a batch that cannot be split as asked.
    """
    with oom_as_error(job.device), nondeterminism_as_error():
        run = _Run(job)
        with scans_used(run.scan) as scans:
            result = run.to_the_end()
        return replace(result, scans=frozenset(scans))


class _Run:
    def __init__(self, job: TrainingJob) -> None:
        p = job.protocol
        check_split(p, job.ranks)
        self.job = job
        self.ranks = job.ranks
        self.loss = replace(job.loss, total=job.ranks.total)
        self.schedule = with_warmup(p.schedule, p.budget)
        self.batch = p.sampling.batch_size
        self.steps = math.ceil(p.budget.samples / self.batch)
        self.epochs = EpochRows(job.folder / "epochs.jsonl", job.view)
        precision = usable_precision(p.train.precision, job.device)
        self.amp = autocast(precision, job.device)
        self.scaler = torch.amp.GradScaler(job.device.type, enabled=precision == "fp16")
        self.watch = StepWatch(job.step_timeout, job.hung)
        self.state = TrainingState()
        self.random_of_ranks: list[dict[str, Any]] = []
        self.saved_at_step = -1
        self.last_saved = 0.0
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
        checkpoint = last_checkpoint(job)
        self.scan = decide_scan(job, self.network, {} if checkpoint is None else checkpoint.state)
        if checkpoint is not None:
            check_same_machine(job, checkpoint.state)
            restore(checkpoint, self.network, self.optimiser, rank=self.ranks.rank)
            if self.ema is not None and checkpoint.ema is not None:
                self.ema = {k: v.to(job.device) for k, v in checkpoint.ema.items()}
            if checkpoint.state["scaler"]:  # empty where the run was begun without one
                self.scaler.load_state_dict(checkpoint.state["scaler"])
            self.state = TrainingState.of(checkpoint.state)
            self.saved_at_step = self.state.step
        if self.ranks.writes:
            self.epochs.keep_up_to(self.state.samples_seen, job.warn)
        if job.protocol.train.checkpointing:
            checkpoint_activations(self.network)
        unused = job.protocol.loss.deep_supervision  # the lowest resolution's head gets no gradient
        self.shared = self.ranks.share(self.network, unused=unused)

    def to_the_end(self) -> TrainResult:
        began = self.last_saved = time.monotonic()
        before, before_on_devices = self.state.seconds, self.state.device_seconds

        def count_time() -> None:
            passed = time.monotonic() - began
            self.state.seconds = before + passed
            self.state.device_seconds = before_on_devices + passed * self.ranks.world

        self.shared.train()
        with self.watch:
            if self.state.validation_due:
                self._validate()
                self._save()
            while self.state.step < self.steps:
                self.watch.next_step("reading the first batch", counts=False)
                loader = self.job.batches(self.state.step, self.steps)
                with closing(feed(loader, self.job.device)) as batches:
                    for batch in batches:
                        rolled_back = self._step(batch)
                        count_time()
                        self._after_step(rolled_back)
                        if rolled_back:
                            break  # the loader starts again at the checkpoint's step
            if self.saved_at_step != self.state.step:
                self._note_random()
                self._save()
            self.ranks.wait()
        self.epochs.close()
        return TrainResult(
            network=self._selected(),
            samples_seen=self.state.samples_seen,
            degraded=self.state.rolled_back,
            peak_memory_bytes=self.ranks.largest(peak_memory(self.job.device), device=self.job.device)[0],
            checkpoint=self.job.checkpoints / f"step-{self.state.step:09d}",
            step_seconds=self.watch.step_s,
        )

    def _after_step(self, rolled_back: bool) -> None:
        """Validate, write a checkpoint and stop, each where it is due."""
        late = time.monotonic() - self.last_saved >= self.job.checkpoint_minutes * 60
        stopping, due = self.ranks.largest(self.job.stop.asked, late, device=self.job.device)
        self.state.validation_due = not rolled_back and self._must_validate()
        validated = self.state.validation_due and not stopping
        if due or validated or stopping:
            self._note_random()
        if validated:
            self._validate()
        if due or validated or stopping:
            self._save()
            self.last_saved = time.monotonic()
        if stopping:  # all ranks leave together, once the checkpoint is whole
            self.ranks.wait()
            raise Interrupted(self.job.stop.number or signal.SIGTERM)
        self.watch.next_step(f"reading the batch after step {self.state.step}", counts=not validated)

    def _step(self, batch: DeviceBatch) -> bool:
        """One update. True when training was rolled back instead."""
        job, p = self.job, self.job.protocol
        cases = ", ".join(str(plan.case) for plan in batch.plans)
        self.watch.alive(f"computing step {self.state.step + 1}{f' ({cases})' if cases else ''}")
        poisoned = False
        try:
            fault("step")
        except InjectedNaN:
            poisoned = True
        image, labels = job.transform(batch.image, batch.labels, batch.plans)
        fraction = self.state.samples_seen / (self.steps * self.batch)
        rate = learning_rate(p.optimiser.lr, self.schedule, fraction) * self.state.lr_scale
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss, finite, rescaled = self._update(self._backward(image, labels, poisoned))
        self.state.step += 1
        self.state.samples_seen += self.batch
        if finite:
            self.state.count_loss(loss)
        if not finite and not rescaled and self._count_non_finite():
            return True
        job.on_step(self.state.samples_seen, loss, rate)
        self._maybe_not_learning(labels)
        self._maybe_row(rate)
        return False

    def _backward(self, image: Tensor, labels: Tensor, poisoned: bool) -> Tensor:
        """Forward and backward, in `accumulate` equal parts; gives the loss of the global batch."""
        parts = self.job.protocol.train.accumulate
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=image.device)
        chunks = list(zip(image.chunk(parts), labels.chunk(parts), strict=True))
        for index, (image_part, labels_part) in enumerate(chunks):
            # Gradients are added up over the ranks once, with the last part.
            quiet = index + 1 < len(chunks) and self.ranks.world > 1
            with self.shared.no_sync() if quiet else nullcontext():  # type: ignore[operator]
                with self.amp():
                    outputs = self.shared(image_part)
                loss = self.loss(outputs, labels_part) / parts
                if poisoned:
                    loss = loss * float("nan")
                # Shared gradients are averaged over the ranks; ours are shares of one sum.
                self.scaler.scale(loss * self.ranks.world).backward()
            total += loss.detach()
        return total

    def _update(self, loss_on_device: Tensor) -> tuple[float, bool, bool]:
        """Clip and step when loss and gradient are finite.

        Returns:
            The loss, whether both were finite, and whether the gradient was not only because fp16's loss
            scale was too large: that is how a scale is found, at the beginning of every such training.
        """
        p = self.job.protocol
        self.scaler.unscale_(self.optimiser)
        limit = p.train.clip_norm if p.train.clip_norm > 0 else float("inf")
        norm_on_device = nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        loss, norm = torch.stack([loss_on_device, norm_on_device]).tolist()  # the one wait of a step
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            self.scaler.step(self.optimiser)
        scale = 1.0 if finite else self.scaler.get_scale()
        self.scaler.update()
        rescaled = not finite and math.isfinite(loss) and 1.0 < scale > self.scaler.get_scale()
        if finite and self.ema is not None:
            now = {k: v.detach() for k, v in self.network.state_dict().items() if v.is_floating_point()}
            mean = [self.ema[name] for name in now]
            torch._foreach_lerp_(  # type: ignore[attr-defined] - has no public name
                mean, [v.float() for v in now.values()], 1 - p.train.ema_decay
            )
        return loss, finite, rescaled

    def _count_non_finite(self) -> bool:
        """Remember a skipped update; roll back when there are too many. True when rolled back."""
        if not self.state.too_many_non_finite():
            self.job.warn(f"loss or gradient not finite at step {self.state.step}: update skipped")
            return False
        if self.state.rolled_back:
            raise SegbenchError("SB402", f"not finite at step {self.state.step}, after a roll-back")
        self._roll_back()
        return True

    def _roll_back(self) -> None:
        scale = self.state.lr_scale * 0.5
        self.state = TrainingState()
        self._start()
        self.state.rolled_back, self.state.lr_scale, self.state.non_finite = True, scale, []
        self.shared.train()
        self._note_random()  # all come together: nobody still reads the checkpoint that is replaced
        self._save()  # so that a kill from here on resumes after the roll-back, not before it
        self.job.warn(f"training rolled back to step {self.state.step}, learning rate halved from here")

    def _maybe_not_learning(self, labels: Tensor) -> None:
        """SB403 once, after 2 % of the budget (100 steps at least): a constant predictor must be beaten."""
        s = self.state
        if s.told_not_learning or s.step < max(100, self.steps // 50) or s.recent_loss is None:
            return
        s.told_not_learning = True
        constant = constant_predictor_loss(self.loss, labels, self.job.channels)
        loss = s.recent_loss  # the first steps of a network that does learn lie above a constant's
        if loss >= constant:
            self.job.warn(
                f"warning[SB403]: loss {loss:.3f} after {s.samples_seen} samples, a constant {constant:.3f}"
            )

    def _maybe_row(self, rate: float) -> None:
        """Append a row to `epochs.jsonl` at the end of each epoch and of training."""
        s = self.state
        if not s.ends_row(self.batch, EPOCH_SAMPLES) and s.step < self.steps:
            return
        row = {
            "epoch": math.ceil(s.samples_seen / EPOCH_SAMPLES),
            "step": s.step,
            "samples_seen": s.samples_seen,
            "loss": s.loss_sum / s.loss_steps if s.loss_steps else None,
            "lr": rate,
            "non_finite": len(s.non_finite),
            "seconds": round(s.seconds, 3),
        }
        if self.ranks.writes:
            self.epochs.append(row)
        s.loss_sum, s.loss_steps = 0.0, 0

    def _must_validate(self) -> bool:
        """Whether the protocol wants the validation cases scored after this step."""
        every = self.job.protocol.validation.every_samples
        if self.job.validate is None or every <= 0:
            return False
        return self.state.ends_row(self.batch, every) or self.state.step >= self.steps

    def _validate(self) -> None:
        """Score whole validation cases on rank 0; keep the best when the protocol selects by it.

        A signal meanwhile leaves a checkpoint that says what is still due.
        """
        job, s = self.job, self.state
        self.watch.pause(f"validating after step {s.step}")
        if self.ranks.writes and job.validate is not None:
            try:
                scores = job.validate(self.network)
            except Interrupted:
                self._save()
                raise
            self.epochs.append({"validation": scores, "step": s.step, "samples_seen": s.samples_seen})
            mean = sum(scores.values()) / len(scores) if scores else 0.0
            if s.best_score is None or mean > s.best_score:
                s.best_score = mean
                if job.protocol.validation.selection == "best_validation":
                    s.best_sha256 = save_best(job.checkpoints, self.network, job.metadata)
        s.validation_due = False
        self.ranks.wait()
        self.shared.train()

    def _selected(self) -> nn.Module:
        """The network with the weights that the protocol selects: last, ema or best on validation."""
        selection = self.job.protocol.validation.selection
        if selection == "ema" and self.ema is not None:
            own = self.network.state_dict()
            self.network.load_state_dict({k: v.to(own[k].dtype) for k, v in self.ema.items()})
        elif selection == "best_validation" and self.state.best_score is not None:
            self.network.load_state_dict(load_best(self.job.checkpoints, self.state.best_sha256))
        return self.network

    def _note_random(self) -> None:
        """What the generators of the other ranks stand at, for the next checkpoint; all ranks come here."""
        self.random_of_ranks = self.ranks.every(random_states())[1:]

    def _save(self) -> None:
        self.saved_at_step = self.state.step
        if not self.ranks.writes:
            return
        self.watch.alive(f"writing the checkpoint of step {self.state.step}")
        self.job.check()
        p = self.job.protocol
        state = {
            **self.state.as_dict(),
            "scaler": self.scaler.state_dict(),
            "schedule": {
                **self.schedule.model_dump(),
                "lr": p.optimiser.lr,
                "steps": self.steps,
                "batch": self.batch,
            },
            "world_size": self.ranks.world,
            "determinism": self.job.determinism,
            "scan_backend": self.scan,
            "fast": named_ways(),
            "random_of_ranks": self.random_of_ranks,
            "inputs_digest": self.job.inputs_digest,
        }
        save_checkpoint(
            self.job.checkpoints,
            network=self.network,
            optimiser=self.optimiser,
            state=state,
            ema=self.ema,
            metadata=self.job.metadata,
        )
