"""CPU milliseconds that a batch costs the main thread, and how many bytes of it are copied there.

    python benchmarks/input_path.py [--steps 12] [--workers 1]

A batch is 2 x 4 x 128^3 with the nnU-Net augmentation to come, read by worker processes from a prepared case
(float16). Three ways in turn, in one run: `before`, as batches came at first (float32 crops of one size
through a pipe, received and stacked by the main thread); `here`, the way of a CPU (the arrays of the workers
as they lie in shared memory); `ahead`, the way of an accelerator (a thread copies one batch ahead; the copy
goes to ordinary memory here, so its time says nothing of a GPU). Claim: `here` and `ahead` cost the main
thread at most 5 ms a batch, and it copies none of it. Exit 1 if that fails.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segbench.data.patches.augment_parameters import AugmentationSettings
from segbench.data.patches.sampling import PatchLoader, patch_start
from segbench.data.prepared.cache import Cache, write_case
from segbench.data.prepared.case import PreparedCase
from segbench.engine.feed import DeviceBatch, feed

PATCH, CHANNELS, BATCH = (128, 128, 128), 4, 2
CLAIM_MS = 5.0


def prepared(folder: Path) -> Cache:
    """Two cases of 4 x 160 x 200 x 180 with a structure each."""
    for index in range(2):
        r = np.random.default_rng(index)
        image = r.normal(size=(CHANNELS, 160, 200, 180)).astype(np.float32)
        labels = np.zeros(image.shape[1:], dtype=np.uint8)
        labels[60:90, 80:120, 70:100] = 1
        write_case(folder, f"case-{index}", PreparedCase(image, labels, {}))
    return Cache(folder)


def loader(cache: Cache, steps: int, workers: int) -> PatchLoader:
    """Batches as a training reads them."""
    return PatchLoader(
        cache, cache.case_ids, patch=PATCH, batch_size=BATCH, seed=0, foreground_fraction=0.33,
        workers=workers, stop_step=steps, augmentation=AugmentationSettings(),
    )  # fmt: skip


def serve(tasks: Connection, pipe: Connection, folder: Path) -> None:
    """A worker of the old way: samples in float32, in the largest crop of their batch, as bytes into a pipe."""
    cache = Cache(folder)
    while (plan := tasks.recv()) is not None:
        start = patch_start(plan, cache, PATCH)
        start = tuple(s - (e - p) // 2 for s, e, p in zip(start, plan.extent, PATCH, strict=True))
        arrays = (
            cache.image_patch(plan.case, start, plan.extent),
            cache.labels_patch(plan.case, start, plan.extent),
        )
        pipe.send([(array.shape, array.dtype.str) for array in arrays])
        for array in arrays:
            view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            done = 0
            while done < len(view):
                done += os.write(pipe.fileno(), view[done:])


def receive(pipe: Connection) -> list[np.ndarray]:
    """What `serve` sent, into fresh memory."""
    arrays = []
    for shape, kind in pipe.recv():
        array = np.empty(shape, dtype=np.dtype(kind))
        view = array.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            done += os.readv(pipe.fileno(), [view[done:]])
        arrays.append(array)
    return arrays


def before(cache: Cache, steps: int, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same batches as they came until October: through pipes, received and stacked by the main thread.

    **Source:** `_send`, `_receive` and `_assemble` of this repository at commit 6038e39.
    """
    plans = [plan for batch in loader(cache, steps, 0) for plan in batch.plans]
    context = get_context("spawn")
    tasks, answers = [], []
    for _ in range(max(workers, 1)):
        theirs, ours = context.Pipe(duplex=False)
        results, answer = context.Pipe(duplex=False)
        if sys.platform == "linux":
            fcntl.fcntl(answer.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)  # the largest a user may have
        context.Process(target=serve, args=(theirs, answer, cache.folder), daemon=True).start()
        tasks.append(ours)
        answers.append(results)
    count = len(tasks)
    for index, plan in enumerate(plans[: 2 * count]):  # a worker has one task ahead
        tasks[index % count].send(plan)
    gathered: list[list[np.ndarray]] = []
    for index in range(len(plans)):
        gathered.append(receive(answers[index % count]))
        if index + 2 * count < len(plans):
            tasks[index % count].send(plans[index + 2 * count])
        if len(gathered) == BATCH:
            images, labels = zip(*gathered, strict=True)
            yield torch.as_tensor(np.stack(images)), torch.as_tensor(np.stack(labels))
            gathered = []
    for pipe in tasks:
        pipe.send(None)


def copied(batch: Any) -> DeviceBatch:
    """A batch in memory of its own, as a copy to a device leaves it."""
    image, labels = ([torch.tensor(each) for each in part] for part in (batch.image, batch.labels))
    return DeviceBatch(image, labels, batch.plans)


def main_thread_ms(batches: Iterable[Any]) -> list[float]:
    """CPU milliseconds of this thread for each batch after the first, which starts the workers."""
    spent: list[float] = []
    at = time.thread_time()
    for _ in batches:
        now = time.thread_time()
        spent.append(1000 * (now - at))
        at = time.thread_time()
    return spent[1:]


def main() -> int:
    """Print the median and the largest of each way, and how many times less than before it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        cache = prepared(Path(folder))
        ways = {
            "before": lambda: before(cache, given.steps, given.workers),
            "here": lambda: feed(loader(cache, given.steps, given.workers), cpu),
            "ahead": lambda: feed(loader(cache, given.steps, given.workers), cpu, copier=copied),
        }
        medians: dict[str, float] = {}
        for name, way in ways.items():
            spent = main_thread_ms(way())
            medians[name] = float(np.median(spent))
            line = f"{name:<8}{medians[name]:8.2f} ms a batch (largest {max(spent):.2f})"
            if name != "before":
                holds = "holds" if medians[name] <= CLAIM_MS else "FAILS"
                line += f"  {medians['before'] / medians[name]:.0f} times less than before  {holds}"
            print(line, flush=True)
    return int(max(medians["here"], medians["ahead"]) > CLAIM_MS)


if __name__ == "__main__":
    sys.exit(main())
