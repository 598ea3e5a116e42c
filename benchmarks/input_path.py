"""CPU milliseconds that a batch costs the main thread, and how many bytes of it are copied there.

    python benchmarks/input_path.py [--steps 12] [--workers 1]

A batch is 2 x 4 x 128^3 with the nnU-Net augmentation to come, read by worker processes from a prepared case
(float16). Three ways: `before`, as batches came until now (float32 crops of one size through a pipe, stacked
in the main thread; built here from the same samples); `here`, the way of a CPU (the arrays of the workers as
they lie in shared memory); `ahead`, the way of an accelerator (a thread copies one batch ahead; the copy goes
to ordinary memory here, so its time says nothing of a GPU). Claim: `here` and `ahead` cost the main thread at
most 5 ms a batch, and it copies none of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segbench.data.patches.augment_parameters import AugmentationSettings
from segbench.data.patches.sampling import PatchLoader, patch_start
from segbench.data.prepared.cache import Cache, write_case
from segbench.data.prepared.case import PreparedCase
from segbench.data.workers import ordered_map
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


class Before:
    """One sample as it was read before: float32, in the largest crop of its batch."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def __call__(self, plan: Any) -> tuple[np.ndarray, np.ndarray]:
        """Image and labels."""
        start = patch_start(plan, self.cache, PATCH)
        start = tuple(s - (e - p) // 2 for s, e, p in zip(start, plan.extent, PATCH, strict=True))
        image = self.cache.image_patch(plan.case, start, plan.extent)
        return image, self.cache.labels_patch(plan.case, start, plan.extent)


def before(cache: Cache, steps: int, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same batches, through a pipe and stacked."""
    plans = [plan for batch in loader(cache, steps, 0) for plan in batch.plans]
    gathered: list[tuple[np.ndarray, np.ndarray]] = []
    for _, result, error in ordered_map(Before(cache), plans, workers):
        assert error is None
        gathered.append(result)
        if len(gathered) == BATCH:
            images, labels = zip(*gathered, strict=True)
            yield torch.as_tensor(np.stack(images)), torch.as_tensor(np.stack(labels))
            gathered = []


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


def main() -> None:
    """Print the median and the largest of each way."""
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
        for name, way in ways.items():
            spent = main_thread_ms(way())
            median = float(np.median(spent))
            claim = "" if name == "before" else "  holds" if median <= CLAIM_MS else "  FAILS"
            print(f"{name:<8}{median:8.2f} ms a batch (largest {max(spent):.2f}){claim}")


if __name__ == "__main__":
    main()
