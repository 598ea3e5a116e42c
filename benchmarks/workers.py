"""Milliseconds for each patch that a data worker hands to the trainer: own pool, futures, torch's loader.

    python benchmarks/workers.py [--patches 40]

A patch is four float32 channels and a label map of 128^3 voxels, made in the worker without work of its own,
so that only the way to the trainer is measured. Peers: `concurrent.futures` (spawned, pickled through a pipe)
and torch's DataLoader (shared memory) with two workers each. Claim: through the own pool a patch arrives no
later than through either, and it alone says on which case a worker was killed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

from segbench.data.workers import ordered_map

WORKERS = 2
EDGE = 128


def patch(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (4, z, y, x) float32 and labels (z, y, x) uint8."""
    image = np.full((4, EDGE, EDGE, EDGE), index, dtype=np.float32)
    return image, np.zeros((EDGE, EDGE, EDGE), dtype=np.uint8)


class Patches:
    """The patches as torch wants them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        """How many."""
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """One of them."""
        return patch(index)


def own(count: int) -> Iterator[Any]:
    """Through `segbench.data.workers`."""
    for _, result, error in ordered_map(patch, range(count), WORKERS):
        assert error is None
        yield result


def futures(count: int) -> Iterator[Any]:
    """Through `concurrent.futures`, as far ahead as the own pool."""
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        ahead = [pool.submit(patch, index) for index in range(min(count, 3 * WORKERS))]
        for index in range(count):
            yield ahead.pop(0).result()
            if index + 3 * WORKERS < count:
                ahead.append(pool.submit(patch, index + 3 * WORKERS))


def torch_loader(count: int) -> Iterator[Any]:
    """Through torch's DataLoader, spawned as the others are."""
    from torch.utils.data import DataLoader

    loader: Any = partial(DataLoader, batch_size=None, num_workers=WORKERS, multiprocessing_context="spawn")
    yield from loader(Patches(count))


def measure(way: Callable[[int], Iterator[Any]], count: int) -> tuple[float, float]:
    """(CPU ms of this process, wall ms) for each patch after the first, which waits for the processes."""
    batch = patch(0)
    patches = way(count)
    next(patches)
    cpu, wall = time.process_time(), time.perf_counter()
    for image, labels in patches:
        batch[0][...], batch[1][...] = image, labels  # as the trainer does, which reads every byte
    return (
        1000 * (time.process_time() - cpu) / (count - 1),
        1000 * (time.perf_counter() - wall) / (count - 1),
    )


def main() -> int:
    """Print the three; exit 1 if patches arrive later through the own pool than through a peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=40)
    count = parser.parse_args().patches
    found = {way.__name__: measure(way, count) for way in (own, futures, torch_loader)}
    for name, (cpu, wall) in found.items():
        print(f"{name:13s} {cpu:7.1f} ms CPU of the trainer, {wall:7.1f} ms wall a patch")
    return int(found["own"][1] > min(wall for _, wall in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
