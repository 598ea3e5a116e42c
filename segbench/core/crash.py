"""Crash files: the traceback of an unexpected error without any value in it."""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path

from segbench.core.atomic import atomic_write
from segbench.core.environment import tilde, versions
from segbench.core.errors import SegbenchError


def write_crash(error: BaseException, folder: Path | None = None) -> Path:
    """Write the traceback and the versions, no locals (they can hold patient paths), and give the file.

    Args:
        error: What happened.
        folder: Where to write; the working directory by default. Where that cannot be written, the folder
            for temporary files takes it.

    Raises:
        SegbenchError: SB505 when neither takes it.
    """
    trace = "".join(tilde(line) for line in traceback.format_exception(error))
    packages = "\n".join(f"{name} {version}" for name, version in versions().items())
    name, text = f"segbench-crash-{os.getpid()}.txt", f"{trace}\n{packages}\n"
    try:
        return atomic_write((folder or Path.cwd()) / name, text)
    except (OSError, SegbenchError):  # a folder that is gone, read-only or full
        return atomic_write(Path(tempfile.gettempdir()) / name, text)
