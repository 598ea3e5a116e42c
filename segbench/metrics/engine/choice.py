"""Whether the compiled kernels may be used, whether they are there already, and the threads they run in."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from segbench.core.environment import named_threads, physical_cores


def compiled_engine_wanted() -> bool:
    """Tell whether compiled kernels may be used: not when `SEGBENCH_NO_NUMBA` is set to something but 0."""
    return os.environ.get("SEGBENCH_NO_NUMBA", "") in ("", "0")


def kernels_are_cached() -> bool:
    """Tell, without importing numba, whether the kernels' usual cache is newer than their source."""
    source = Path(__file__).with_name("_nearest.py")
    try:
        written = max(path.stat().st_mtime for path in source.parent.glob("__pycache__/_nearest.far-*.nbi"))
        return written >= source.stat().st_mtime
    except (OSError, ValueError):
        return False


def threads_wanted() -> int:
    """Return the threads of the engine: `SEGBENCH_THREADS`, else the physical cores."""
    return named_threads() or _cores()


@functools.cache
def _cores() -> int:
    return physical_cores()


def in_threads(
    function: Callable[[Any], Any], parts: list[Any], threads: int, *, inner: bool = False
) -> list[Any]:
    """Return the results of the parts in order. The kernels release the interpreter's lock.

    Args:
        function: called with each part.
        parts: the work.
        threads: most threads.
        inner: called from a part of another call. Such parts have threads of their own: waiting for one that
            waits behind oneself would never end.
    """
    if threads == 1 or len(parts) <= 1:
        return [function(part) for part in parts]
    return list(_pool(threads, inner).map(function, parts))


@functools.cache
def _pool(threads: int, inner: bool) -> ThreadPoolExecutor:
    """Threads that stay: new ones for each case touch their memory anew, a tenth of the time."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"segbench-metrics-{'inner' if inner else 'outer'}")


# A forked child has none of its parent's threads, only the pools that believe in them.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
