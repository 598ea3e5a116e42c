"""Whether the compiled kernels may be used, and whether they are there already."""

from __future__ import annotations

import os
from pathlib import Path


def compiled_engine_wanted() -> bool:
    """Tell whether compiled kernels may be used: not when `SEGBENCH_NO_NUMBA` is set to something but 0."""
    return os.environ.get("SEGBENCH_NO_NUMBA", "") in ("", "0")


def kernels_are_cached() -> bool:
    """Tell, without importing numba, whether the kernels' usual cache is newer than their source."""
    source = Path(__file__).with_name("_kernels.py")
    try:
        written = max(path.stat().st_mtime for path in source.parent.glob("__pycache__/_kernels.far-*.nbi"))
        return written >= source.stat().st_mtime
    except (OSError, ValueError):
        return False
