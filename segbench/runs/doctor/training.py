"""Whether a device trains as it should: batches arrive, kernels keep it busy, memory is what was counted.

And: a lost rank ends the others, a stopped training goes on in the same bytes. No device has run the limits
on time and memory yet. `python -m segbench.runs.doctor.training cuda FILE` is a rank of `lost_rank`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from segbench.cards import load_protocol
from segbench.core.hashing import sha256_bytes
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.core.text import bytes_words
from segbench.data.patches.augment import AugmentationSettings, augment
from segbench.data.patches.sampling import PatchLoader
from segbench.data.prepared.cache import Cache
from segbench.data.prepared.cache_write import write_case
from segbench.data.prepared.case import PreparedCase
from segbench.engine.device import prepare_device
from segbench.engine.feed import CudaCopier, feed
from segbench.engine.job import TrainingBatch, TrainingJob
from segbench.engine.losses import SegmentationLoss
from segbench.engine.precision import Precision, autocast, usable_precision
from segbench.engine.ranks import process_group
from segbench.engine.trainer import train
from segbench.launch.command import PARENT, stop_with_parent
from segbench.networks import build_network
from segbench.networks.tensor_bytes import tensor_bytes
from segbench.profiling import memory
from segbench.profiling.latency import synchronise
from segbench.runs.doctor.arithmetic import Finding

__all__ = ["idle_share", "input_path", "lost_rank", "repeats", "training_memory"]

COSTLY, QUICK = "nnunet", "segmamba-v2-tiny"
"""The networks whose steps are measured, and repeated."""
IDLE_LIMIT = 0.3
"""Share of a training step in which no kernel runs; before batches were copied ahead 30 % were expected."""
MEMORY_LIMIT = 1.6
"""Peak over what is known to be kept: gradients of activations and cuDNN's workspace come on top."""
LOST_RANK_S, START_S = 60.0, 60.0
"""torch gives the ranks that are left 30 seconds; starting two processes takes time too."""


def input_path(device: torch.device) -> Finding:
    """Batches through page-locked memory and a stream of their own arrive as they were."""
    draw = np.random.default_rng(0)
    expected = [draw.normal(size=(2, 3, 8, 8, 8)).astype(np.float16) for _ in range(8)]
    batches = [SimpleNamespace(step=0, image=list(each), labels=[each[0, 0]], plans=()) for each in expected]
    copier = CudaCopier(device) if device.type == "cuda" else None
    fed = feed(iter(cast("list[TrainingBatch]", batches)), device, copier=copier)
    arrived = [[tensor.cpu().numpy() for tensor in batch.image] for batch in fed]
    same = all(np.array_equal(ours, theirs) for ours, theirs in zip(arrived, expected, strict=True))
    told = "8 batches of float16, expected bit for bit"
    return Finding("input path", "agrees" if same else "WRONG", told, same)


def idle_share(device: torch.device, *, steps: int = 24, workers: int = 4) -> Finding:
    """How long no kernel runs in training steps of nnU-Net whose patches come from workers."""
    events: list[Any] = []
    edge = _edge(device)
    with TemporaryDirectory() as folder:
        watch = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        job = _training(device, Path(folder), COSTLY, edge=edge, steps=steps, workers=workers)

        def on_step(samples: int, *_: float) -> None:
            if samples == steps:  # the first half finds algorithms and fills caches
                watch.start()
            elif samples == 2 * steps:
                synchronise(device)
                watch.stop()
                events.extend(watch.events() or ())

        train(replace(job, on_step=on_step))
    idle = idle_of(events)
    ok = idle <= IDLE_LIMIT
    told = (
        f"no kernel ran in {idle:.0%} of {steps // 2} steps of {COSTLY} at 2x4x{edge}^3 with {workers} "
        f"workers, expected at most {IDLE_LIMIT:.0%}"
    )
    return Finding("idle", "busy" if ok else "WAITS", told, ok)


def idle_of(events: Iterable[Any]) -> float:
    """The share of a profile, from its first kernel to its last, in which none runs; copies do not compute.

    Raises:
        ValueError: There is no kernel: the profiler saw nothing.
    """
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == torch.profiler.DeviceType.CUDA
        and not event.name.startswith(("Memcpy", "Memset"))
        and not getattr(event, "is_user_annotation", False)
    )
    if not spans:
        raise ValueError("the profiler saw no kernel (CUPTI may not be allowed here)")
    busy, until = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return 1 - busy / (until - spans[0][0])


def training_memory(device: torch.device) -> Finding:
    """The peak of training steps of nnU-Net against what must be kept: weights thrice and activations."""
    edge = _edge(device)
    with TemporaryDirectory() as folder:
        job = _training(device, Path(folder), COSTLY, edge=edge, steps=3)
        kept = _must_be_kept(job)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        peak = train(job).peak_memory_bytes
    ratio = peak / kept
    ok = 0.9 <= ratio <= MEMORY_LIMIT
    told = (
        f"peak {bytes_words(peak)} of a step of {COSTLY} at 2x4x{edge}^3, {ratio:.2f} times the "
        f"{bytes_words(kept)} that must be kept, expected 0.9 to {MEMORY_LIMIT:g}"
    )
    return Finding("training memory", "as counted" if ok else "UNEXPECTED", told, ok)


def _must_be_kept(job: TrainingJob) -> int:
    """Bytes of a step: batch, weights, their gradients and momentum, and what the backward pass needs."""
    network = job.build().to(job.device)
    with closing(feed(job.batches(0, 1), job.device)) as batches:
        batch = next(batches)
        image, labels = job.transform(batch.image, batch.labels, batch.plans)

    def forward() -> None:
        with autocast(usable_precision(job.protocol.train.precision, job.device), job.device)():
            outputs = network(image)
        job.loss(outputs, labels)

    weights = memory.tensor_bytes(network.parameters())
    return memory.saved_bytes(forward, network) + 3 * weights + memory.tensor_bytes([image, labels])


def lost_rank(device: torch.device, *, limit_s: float = LOST_RANK_S) -> Finding:
    """Two ranks add up a number; one is killed, and the other must end, not wait for ever."""
    what = "lost rank"
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        return Finding(what, "not tried", "one GPU here; tried where there are two")
    with TemporaryDirectory() as folder:
        added = Path(folder) / "added"
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        line += ["--local-addr", "127.0.0.1", "--max-restarts", "0"]
        line += ["-m", "segbench.runs.doctor.training", device.type, str(added)]
        agent = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            agent.wait(timeout=limit_s + START_S)
        except subprocess.TimeoutExpired:
            agent.kill()  # its ranks end with it
            agent.wait()
            told = f"still there after {limit_s + START_S:g} s, expected to end within {limit_s:g} s"
            return Finding(what, "HANGS", told, ok=False)
        took = time.time() - added.stat().st_mtime if added.is_file() else None
    if took is None:
        told = f"two processes did not add up a number (status {agent.returncode}), --gpus-per-cell 1 only"
        return Finding(what, "FAILS", told, ok=False)
    ok = took <= limit_s and agent.returncode != 0
    told = (
        f"one of two processes was killed, the other ended {took:.0f} s later, expected within {limit_s:g} s"
    )
    return Finding(what, "ends" if ok else "LATE", told, ok)


def repeats(device: torch.device, *, steps: int = 20) -> Finding:
    """A short training twice, the second stopped in the middle and resumed: the same weights."""
    level = prepare_device(device, level="bitwise", tf32=True)
    straight, resumed = (_weights_after(device, steps, stopped) for stopped in (False, True))
    state = "repeats to the bit" if straight == resumed else "DOES NOT REPEAT"
    told = (
        f"{steps} steps twice under level {level}, once stopped and resumed; expected weights of equal bytes"
    )
    return Finding("determinism", state, told, straight == resumed)


def _weights_after(device: torch.device, steps: int, stopped: bool) -> str:
    """The digest of the weights after a training, perhaps stopped in its middle and resumed."""
    with TemporaryDirectory() as folder:
        job = _training(device, Path(folder), QUICK, edge=32, steps=steps)

        def on_step(samples: int, *_: float) -> None:
            job.stop.number = signal.SIGTERM if samples == steps else None

        if stopped:
            try:
                train(replace(job, on_step=on_step))
            except Interrupted:
                job.stop.number = None
        return sha256_bytes(tensor_bytes(train(job).network.state_dict()))


def _training(
    device: torch.device, folder: Path, network: str, *, edge: int, steps: int, workers: int = 0
) -> TrainingJob:
    """A training of four classes on two cases, augmented as nnU-Net does, as the train stage wires it."""
    settings = {"budget.samples": 2 * steps, "optimiser.name": "sgd", "optimiser.lr": 1e-2,
                "train.precision": _sixteen_bits(device)}  # fmt: skip
    cache, augmentation = _prepared(folder / "cache", edge * 5 // 4), AugmentationSettings()
    repeatable = torch.are_deterministic_algorithms_enabled()

    def batches(first: int, last: int) -> Iterable[Any]:
        return PatchLoader(
            cache, cache.case_ids, patch=(edge, edge, edge), batch_size=2, seed=0, foreground_fraction=0.33,
            workers=workers, start_step=first, stop_step=last, augmentation=augmentation,
        )  # fmt: skip

    def transform(images: Any, maps: Any, plans: Any) -> tuple[torch.Tensor, torch.Tensor]:
        image, labels = augment(images, maps, plans, augmentation, noise_on_cpu=repeatable)
        return image, labels.long()

    def build() -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build_network(network, 4, 4)

    return TrainingJob(
        build=build,
        batches=batches,
        transform=transform,
        loss=SegmentationLoss(),
        protocol=load_protocol("demo", settings),
        folder=folder,
        device=device,
        stop=StopRequest(),
        on_step=lambda *_: None,
        warn=lambda _: None,
        channels=4,
        checkpoint_minutes=1e9,
    )


def _prepared(folder: Path, edge: int) -> Cache:
    """Two prepared cases of four channels: noise, and a cube of each class in the one before."""
    for case in range(2):
        image = np.random.default_rng(case).normal(size=(4, edge, edge, edge)).astype(np.float32)
        labels = np.zeros((edge, edge, edge), dtype=np.uint8)
        for value in (1, 2, 3):
            inner = slice(value * edge // 8, -value * edge // 8)
            labels[inner, inner, inner] = value
        write_case(folder, str(case), PreparedCase(image, labels, {}))
    return Cache(folder)


def _sixteen_bits(device: torch.device) -> Precision:
    """What the default protocol computes in there, else fp16."""
    return "bf16" if usable_precision("bf16", device) == "bf16" else "fp16"


def _edge(device: torch.device) -> int:
    """A patch of 128 where it surely fits."""
    return 128 if torch.cuda.mem_get_info(device)[0] > 20 * 2**30 else 96


def _rank(kind: str, added: str) -> None:
    """A rank of `lost_rank`: adds up ones until one of the two kills itself."""
    import torch.distributed as dist

    os.environ[PARENT] = str(os.getppid())
    stop_with_parent()
    with process_group(on_cuda=kind == "cuda") as device:
        for turn in range(100):
            ones = torch.ones(1, device=device)
            dist.all_reduce(ones)
            if turn == 3 and dist.get_rank() == 1 and float(ones) == 2:
                Path(added).touch()
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _rank(*sys.argv[1:])
