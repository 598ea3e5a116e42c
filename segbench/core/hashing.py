"""Digests of values and files: canonical JSON and sha256."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def canonical_json(value: object) -> str:
    """The one text form of a JSON-able value: sorted keys, no blanks, floats by `repr`, no NaN.

    Raises:
        ValueError: If the value holds NaN or infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_json(value: object) -> str:
    """Sha256 of the canonical JSON, 64 hex digits."""
    return sha256_bytes(canonical_json(value).encode())


def sha256_bytes(data: bytes | memoryview) -> str:
    """Sha256 of bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def file_state(path: Path | str) -> tuple[int, int, int, int]:
    """Size, times of the last change of the content and of the entry (nanoseconds), and inode; -1s for none.

    A file whose state is what it was holds the bytes it held: programs can set the first time back, as
    `cp -p` and archives do, but not the second. A state that differs says nothing yet; the bytes then decide.
    """
    try:
        state = Path(path).stat()
    except (OSError, ValueError):
        return -1, -1, -1, -1
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def sha256_file(path: Path | str) -> str:
    """Sha256 of a file's bytes, 64 hex digits, read in blocks."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
