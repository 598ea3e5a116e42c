"""Batches on their way to the device: in order, one ahead, none lost, errors and ends included."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from segbench.engine.feed import CudaCopier, DeviceBatch, feed

CPU = torch.device("cpu")


def loader(count: int, seen: list[int] | None = None) -> Iterator[Any]:
    """Batches in one array that is written again for each, as a loader with workers may."""
    array = np.zeros((2, 4), dtype=np.float16)
    for step in range(count):
        array[...] = step
        if seen is not None:
            seen.append(step)
        yield SimpleNamespace(step=step, image=[array[0], array[1]], labels=[array[0]], plans=(step,))


def copied(batch: Any) -> DeviceBatch:
    image, labels = ([torch.tensor(each) for each in part] for part in (batch.image, batch.labels))
    return DeviceBatch(image, labels, batch.plans)


def values(batches: Any) -> list[tuple[float, ...]]:
    return [(batch.plans[0], *(float(t[0]) for t in (*batch.image, *batch.labels))) for batch in batches]


@pytest.mark.parametrize("copier", [None, copied], ids=["here", "by a thread"])
def test_batches_come_in_order_and_whole(copier: Any) -> None:
    assert values(feed(loader(20), CPU, copier=copier)) == [(n, n, n, n) for n in range(20)]
    assert values(feed(loader(0), CPU, copier=copier)) == []


def test_on_a_processor_nothing_is_copied_and_no_thread_runs() -> None:
    batches = feed(loader(3), CPU)
    first = next(batches)
    before = first.image[0].data_ptr()
    assert {thread.name for thread in threading.enumerate()}.isdisjoint({"segbench-feed"})
    assert next(batches).image[0].data_ptr() == before
    batches.close()


def test_the_thread_is_only_a_little_ahead() -> None:
    seen: list[int] = []
    batches = feed(loader(50, seen), CPU, copier=copied)
    next(batches)
    time.sleep(0.3)
    assert 2 <= len(seen) <= 3
    batches.close()
    time.sleep(0.3)
    assert len(seen) <= 3
    assert "segbench-feed" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("copier", [None, copied], ids=["here", "by a thread"])
def test_an_error_of_the_loader_arrives_after_the_batches_before_it(copier: Any) -> None:
    def failing() -> Iterator[Any]:
        yield from loader(2)
        raise ValueError("damaged")

    batches = feed(failing(), CPU, copier=copier)
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(ValueError, match="damaged"):
        next(batches)


@pytest.mark.parametrize("copier", [None, copied], ids=["here", "by a thread"])
def test_whoever_stops_early_closes_the_loader(copier: Any) -> None:
    closed: list[bool] = []

    def watched() -> Iterator[Any]:
        try:
            yield from loader(50)
        finally:
            closed.append(True)

    batches = feed(watched(), CPU, copier=copier)
    next(batches)
    batches.close()
    assert closed == [True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_are_the_same_on_the_device() -> None:
    device = torch.device("cuda")
    found = []
    for batch in feed(loader(20), device, copier=CudaCopier(device)):
        assert all(tensor.device.type == "cuda" for tensor in (*batch.image, *batch.labels))
        found.append((batch.plans[0], *(float(t[0]) for t in (*batch.image, *batch.labels))))
    assert found == [(n, n, n, n) for n in range(20)]
