"""Memory of the device that trains: its peak, and the result when it does not suffice."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from segbench.core.errors import SegbenchError
from segbench.core.faults import InjectedOutOfMemory
from segbench.core.text import bytes_words

__all__ = ["is_out_of_memory", "oom_as_error", "out_of_memory", "peak_memory"]

_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory",
          "defaultcpuallocator", "cudnn_status_alloc_failed", "cublas_status_alloc_failed")  # fmt: skip


@contextmanager
def oom_as_error(device: torch.device) -> Generator[None]:
    """Context in which running out of memory, on the device or in this process, is SB504.

    Raises:
        SegbenchError: SB504.
    """
    try:
        yield
    except (RuntimeError, InjectedOutOfMemory, MemoryError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(device) from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, by its type or by what the libraries write."""
    if isinstance(error, MemoryError | InjectedOutOfMemory | torch.cuda.OutOfMemoryError):
        return True  # the last under its name before torch 2.5
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


def out_of_memory(device: torch.device) -> SegbenchError:
    """SB504 with the peak and the size of the device."""
    details: tuple[str, ...] = ()
    if device.type == "cuda":
        size = bytes_words(torch.cuda.get_device_properties(device).total_memory)
        peak = bytes_words(torch.cuda.max_memory_reserved(device))
        allocated = bytes_words(torch.cuda.max_memory_allocated(device))
        details = (f"peak allocated {allocated}, reserved {peak} of {size}",)
    return SegbenchError("SB504", f"out of memory on {device.type}", details=details)


def peak_memory(device: torch.device) -> int:
    """Peak bytes: allocated on the device, or resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
