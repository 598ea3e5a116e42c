"""Whole gzip files of label maps in one step, where the compiled kernels are loaded already.

An accelerator and nothing more: it answers only for a sound file of one member that holds exactly the bytes
expected, CRC and length agreeing. Everything else, damaged or merely unusual, it leaves to `bytestream.py`,
so that which files are refused, and in which words, does not depend on it.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

KERNELS = "segbench.volumes.inflate_kernels"

LEAST_RATIO = 24
"""Below this many bytes of payload a byte of file, runs are short and zlib is as fast."""

MOST_FILE_BYTES = 64 * 2**20
"""Larger files are read block by block: this one holds the whole file in memory."""

_FHCRC, _FEXTRA, _FNAME, _FCOMMENT, _RESERVED = 2, 4, 8, 16, 0xE0


def load_kernels() -> bool:
    """Load the kernels for the rest of this process (0.5 s of CPU, once); False where there is no compiler.

    A single file is not worth it; a process that scores many is.
    """
    if os.environ.get("SEGBENCH_NO_NUMBA", "") not in ("", "0"):
        return False
    try:
        importlib.import_module(KERNELS)
    except ImportError:
        return False
    return True


def worth_it(file_bytes: int, payload_bytes: int) -> bool:
    """Tell whether a file is for this module: kernels loaded, long runs, not too large."""
    return (
        KERNELS in sys.modules and file_bytes <= MOST_FILE_BYTES and payload_bytes >= LEAST_RATIO * file_bytes
    )


def inflate_whole(data: bytes, size: int) -> NDArray[np.uint8] | None:
    """Return the payload of a sound gzip file of one member and exactly this size; None for any other.

    Args:
        data: the file's bytes.
        size: bytes of payload that are expected.
    """
    kernels: Any = sys.modules[KERNELS]
    start = _stream_start(data)
    if start is None:
        return None
    source = np.zeros(len(data) + kernels.PADDING, dtype=np.uint8)
    source[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    source.flags.writeable = False
    payload = np.empty(size, dtype=np.uint8)
    end, crc = kernels.inflate(source, start, payload, kernels.CRC_TABLES, kernels.ZERO_OPERATORS)
    trailer = crc.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")
    return payload if end >= 0 and data[end:] == trailer else None


def _stream_start(data: bytes) -> int | None:
    """Return where the deflate stream begins behind a member's header (RFC 1952 2.3)."""
    if len(data) < 18 or data[:3] != b"\x1f\x8b\x08" or data[3] & (_RESERVED | _FHCRC):
        return None
    flags, at = data[3], 10
    if flags & _FEXTRA:
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for flag in (_FNAME, _FCOMMENT):
        if flags & flag:
            zero = data.find(b"\0", at)
            if zero < 0:
                return None
            at = zero + 1
    return at if at < len(data) else None
