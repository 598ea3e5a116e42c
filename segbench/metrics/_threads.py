"""The threads of the native engine: how many, and the pools that stay between cases."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from segbench.core.environment import physical_cores


def threads_wanted() -> int:
    """Return the threads of the engine: `SEGBENCH_THREADS`, else the physical cores."""
    named = os.environ.get("SEGBENCH_THREADS", "")
    return max(1, int(named)) if named.isdigit() else _cores()


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
