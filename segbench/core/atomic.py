"""The only way to write a result: a file under its final name is complete, or absent.

Each write goes to a temporary sibling, is flushed and fsynced, replaces the target in one step, and the
folder is fsynced. The price is one extra rename and two fsyncs a file (about a millisecond on a disk); the
gain is that neither SIGKILL nor power loss leaves half a file. Records that grow (`cases.jsonl`) are
appended in one system call a line; a torn tail is recognised and cut off when the file is opened again.

Source: the pattern is POSIX rename(2) and open(2); restic and SQLite document the same trade-offs.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from segbench.core.errors import SegbenchError
from segbench.core.faults import fault
from segbench.core.foreign import parse_json

_REFUSED = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG,  # no room
    errno.EROFS, errno.EACCES, errno.EPERM,  # not allowed
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,  # no such place
}  # fmt: skip
_FSYNC_EVERY_S = 5.0
_OLD_S = 3600.0
_last_fsync: dict[str, float] = {}


def atomic_write(path: Path | str, data: bytes | str | Callable[[BinaryIO], None]) -> Path:
    """Write a file so that its name holds either the old content or the whole new one.

    Args:
        path: The target; its folder is created.
        data: Bytes, text (UTF-8), or a function that writes to the open binary stream.

    Returns:
        The target.

    Raises:
        SegbenchError: SB505 when the disk is full, over quota or read-only. Nothing is left behind.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(target)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "wb") as stream:
            fault("write")
            if callable(data):
                data(stream)
            else:
                stream.write(encoded(data) if isinstance(data, str) else data)
            stream.flush()
            fault("write")
            os.fsync(stream.fileno())
        fault("write")
        temporary.replace(target)
        fault("write")
        fsync_folder(target.parent)
        fault("write")
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        _raise_coded(error, target)
        raise
    return target


def encoded(text: str) -> bytes:
    """Text as UTF-8; the bytes of a file name that is none stand escaped, in JSON as what reads back."""
    return text.encode("utf-8", "backslashreplace")


def atomic_write_json(path: Path | str, value: object) -> Path:
    """Write JSON for people and machines: sorted keys, two-space indent, no NaN, newline at the end."""
    return atomic_write(path, json_text(value))


def json_text(value: object) -> str:
    """The text `atomic_write_json` writes."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def atomic_folder(path: Path | str) -> Generator[Path]:
    """Give a temporary sibling folder that becomes `path` in one rename when the block ends well.

    An existing target is moved aside first and removed last, so that a whole folder stands under the name at
    every instant but the one between two renames; on an exception nothing of the new folder is left.
    """
    target = Path(path)
    temporary = temporary_name(target)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for entry in sorted(temporary.rglob("*")):
            if entry.is_file() and not entry.is_symlink():
                _fsync_file(entry)
            elif entry.is_dir():
                fsync_folder(entry)
        fsync_folder(temporary)
        fault("write")
        aside: Path | None = None
        if target.exists():
            aside = temporary_name(target)
            target.rename(aside)
        temporary.rename(target)
        fsync_folder(target.parent)
        fault("write")
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _raise_coded(error, target)
        raise


def append_line(path: Path | str, record: dict[str, object]) -> None:
    """Append one JSON line in one system call; fsync at most every five seconds (see `sync_lines`).

    Raises:
        SegbenchError: SB505 when the disk is full; the file then ends with a whole line or a torn tail
            that `read_lines` cuts off.
    """
    target = Path(path)
    line = encoded(json.dumps(record, sort_keys=True, ensure_ascii=False, allow_nan=False)) + b"\n"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fault("write")
        descriptor = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            written = os.write(descriptor, line)
            if written != len(line):  # a full disk can take part of a line
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            now = time.monotonic()
            if now - _last_fsync.get(str(target), -_FSYNC_EVERY_S) >= _FSYNC_EVERY_S:
                os.fsync(descriptor)
                _last_fsync[str(target)] = now
        finally:
            os.close(descriptor)
        fault("write")
    except OSError as error:
        _raise_coded(error, target)
        raise


def sync_lines(path: Path | str) -> None:
    """Force the lines appended so far to the disk (at the end of a stage)."""
    target = Path(path)
    if target.exists():
        _fsync_file(target)


def read_lines(
    path: Path | str, *, repair: bool = False, warn: Callable[[str], None] | None = None
) -> list[dict[str, object]]:
    """The records of a line file, without a torn tail.

    Args:
        path: The file; absent counts as empty.
        repair: Also cut the torn tail off the file itself (only the writer may).
        warn: Told about a cut tail (SB601).

    Raises:
        SegbenchError: SB602 when a line that is not the last does not parse.
    """
    target = Path(path)
    if not target.exists():
        return []
    data = target.read_bytes()
    records: list[dict[str, object]] = []
    start, number = 0, 0
    while start < len(data):
        number += 1
        end = data.find(b"\n", start)
        whole = end >= 0
        record = _parse_line(data[start : end if whole else len(data)])
        if record is None and whole and end + 1 < len(data):
            raise SegbenchError("SB602", f"line {number} does not parse", path=target)
        if record is None or not whole:
            if warn is not None:
                warn(f"warning[SB601]: the last line of {target.name} was torn and has been cut off")
            if repair:
                with target.open("r+b") as stream:
                    stream.truncate(start)
            break
        records.append(record)
        start = end + 1
    return records


def temporary_name(target: Path) -> Path:
    """A fresh name beside the target that says which process made it: `.<name>.tmp-<pid>-<8 hex>`."""
    return target.parent / f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"


def make_folder(folder: Path) -> Path:
    """Make a folder for results, with those above it.

    Raises:
        SegbenchError: SB505 when it cannot be made: a file stands there, the disk is full or read-only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SegbenchError("SB505", f"the folder cannot be made: {reason}", path=folder) from error
    return folder


def remove_leftovers(folder: Path) -> None:
    """Remove temporaries of processes that no longer live, in the folder and below it.

    Called when a run is opened by its writer, who holds the lease: a process of another host, whose number
    means nothing here, is then known by the age of what it left.
    """
    if not folder.is_dir():
        return
    for entry in sorted(folder.rglob(".*.tmp-*-*")):
        pid = entry.name.rsplit("-", 2)[-2]
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        if not _alive(int(pid)) or _age_s(entry) > _OLD_S:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:  # inside a folder that has just been removed
        return 0.0


def fsync_folder(folder: Path) -> None:
    """Make a rename inside the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network file systems refuse to sync a folder
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _parse_line(line: bytes) -> dict[str, object] | None:
    try:
        value: object = parse_json(line)
    except ValueError:
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def disk_error(error: BaseException, target: Path | None = None) -> SegbenchError | None:
    """SB505 in place of the system's word for a disk or folder that refuses; None for anything else.

    Args:
        error: What happened.
        target: What was to be written; by default the file that the system names.
    """
    if isinstance(error, FileNotFoundError) and error.errno is not None and error.filename is None:
        mend = "cd to a folder that exists; then the same command"  # the system was asked where it is
        return SegbenchError("SB505", "the current folder no longer exists", mend=mend)
    if not isinstance(error, OSError) or error.errno not in _REFUSED:
        return None
    named = str(target or error.filename or "")
    place = re.sub(r"(^|/)\.([^/]+)\.tmp-\d+-[0-9a-f]{8}(?=/|$)", r"\1\2", named)  # the name it was to have
    return SegbenchError("SB505", (error.strerror or str(error)).lower(), path=Path(place) if place else None)


def _raise_coded(error: BaseException, target: Path) -> None:
    coded = disk_error(error, target)
    if coded is None and isinstance(error, FileExistsError):  # a file stands where a folder has to be made
        coded = SegbenchError("SB505", "a file is where a folder is needed", path=target)
    if coded is None and isinstance(error, FileNotFoundError) and not target.parent.is_dir():
        coded = SegbenchError("SB505", "no folder can be made here", path=target.parent)
    if coded is not None:
        raise coded from error
