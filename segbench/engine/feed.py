"""Batches on their way to the device, so that training never waits for a copy.

Where training is on an accelerator, a thread takes each batch from the loader, fills page-locked buffers and
copies them on a stream of its own, one batch ahead of the step. The main thread makes its own stream wait for
the copy and does nothing else. On a CPU batches stay where the loader left them, and there is no thread.

Every batch is a function of seed and step, so being ahead changes no number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from queue import Full, Queue
from typing import Any, Protocol

import torch
from torch import Tensor

from segbench.engine.job import TrainingBatch

__all__ = ["Copier", "CudaCopier", "DeviceBatch", "feed"]


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """A batch on the training device: per sample (C, D, H, W) and (D, H, W), or whole tensors of them.

    Attributes:
        image, labels, plans: As the loader gave them.
        ready: Called once before the tensors are used.
    """

    image: Any
    labels: Any
    plans: Any
    ready: Callable[[], None] = lambda: None


class Copier(Protocol):
    """What brings a batch to a device, in the thread of the feed."""

    def __call__(self, batch: TrainingBatch) -> DeviceBatch:
        """A copy of the batch; the loader's own arrays may change from now on."""
        ...


class CudaCopier:
    """Copies through page-locked memory on a stream of its own.

    Two sets of buffers take turns; one is filled again when the copy from it is over.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self._sets: list[tuple[list[Tensor], torch.cuda.Event]] = [
            ([], torch.cuda.Event()),
            ([], torch.cuda.Event()),
        ]
        self._turn = 0

    def __call__(self, batch: TrainingBatch) -> DeviceBatch:
        """The batch on the device, as soon as `ready` was called there."""
        buffers, copied = self._sets[self._turn]
        self._turn = 1 - self._turn
        copied.synchronize()
        sources = [torch.as_tensor(each) for each in (*batch.image, *batch.labels)]
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            moved = [self._copied(source, buffers, place) for place, source in enumerate(sources)]
            copied.record(self.stream)
        count = len(batch.image)

        def ready() -> None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(copied)
            for tensor in moved:
                tensor.record_stream(current)

        return DeviceBatch(moved[:count], moved[count:], batch.plans, ready)

    def _copied(self, source: Tensor, buffers: list[Tensor], place: int) -> Tensor:
        size = source.numel() * source.element_size()
        if place == len(buffers):
            buffers.append(torch.empty(size, dtype=torch.uint8, pin_memory=True))
        elif buffers[place].numel() < size:
            buffers[place] = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        pinned = buffers[place][:size].view(source.dtype).view(source.shape)
        pinned.copy_(source)
        return pinned.to(self.device, non_blocking=True)


def feed(
    batches: Iterable[TrainingBatch], device: torch.device, *, copier: Copier | None = None
) -> Generator[DeviceBatch]:
    """The batches in order, each on the device when its turn comes.

    Args:
        batches: From a loader; closed when the feed is.
        device: Where training is.
        copier: Brings them there; None: what the device needs.

    Yields:
        Batches that are there until the next one is asked for.
    """
    if copier is None and device.type == "cuda":
        copier = CudaCopier(device)
    if copier is not None:
        yield from _ahead(batches, copier)
        return
    iterator = iter(batches)
    with _closed(iterator):
        for batch in iterator:
            yield DeviceBatch(_tensors(batch.image), _tensors(batch.labels), batch.plans)


def _tensors(values: Any) -> Any:
    """Arrays as tensors on the same memory: each of a list, or the whole."""
    if isinstance(values, list | tuple):
        return [torch.as_tensor(value) for value in values]
    return torch.as_tensor(values)


def _closed(batches: Iterable[Any]) -> Any:
    """The context that ends a generator's own processes with it; nothing for other iterables."""
    return closing(batches) if isinstance(batches, Generator) else nullcontext()


def _ahead(batches: Iterable[TrainingBatch], copier: Copier) -> Generator[DeviceBatch]:
    """Batches that a thread has copied, one ahead of the one that is used."""
    waiting: Queue[DeviceBatch | BaseException | None] = Queue(maxsize=1)
    stop = threading.Event()

    def put(item: DeviceBatch | BaseException | None) -> bool:
        while not stop.is_set():
            with suppress(Full):
                waiting.put(item, timeout=0.1)
                return True
        return False

    def work() -> None:
        iterator = iter(batches)
        try:
            with _closed(iterator):
                for batch in iterator:
                    if not put(copier(batch)):
                        return
            put(None)
        except BaseException as error:  # it is the main thread's to deal with
            put(error)

    thread = threading.Thread(target=work, daemon=True, name="segbench-feed")
    thread.start()
    try:
        while True:
            item = waiting.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            item.ready()
            yield item
    finally:
        stop.set()
        thread.join()
