"""The bytes of a volume file, plain or gzip, read to their very end and checked there.

Readers in wide use trust their own idea of the end: one accepts a flipped bit and a lost trailer, another
returns a truncated file as whole. Here a payload counts only after the whole stream was seen: every gzip
member ends with the right CRC32 and length, nothing is missing, and nothing is left over. Several members
are one stream, as bgzip writes them. Memory stays at two small blocks beside the caller's own buffer.

Source: RFC 1952 (gzip), RFC 1951 (deflate: at most 1032:1); zlib-ng checks CRC32 and ISIZE of a member by
itself.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Literal, Protocol

from zlib_ng import zlib_ng

from segbench.core.errors import SegbenchError

_library: Any = zlib_ng  # its stubs leave arguments untyped and call its error an instance

MAX_RATIO = 1032
"""Deflate cannot expand further than this."""

Coding = Literal["plain", "gzip", "zlib"]
_WINDOW: dict[Coding, int] = {"plain": 15, "gzip": 31, "zlib": 15}

GZIP_MAGIC = b"\x1f\x8b"
_BLOCK_IN = 256 * 1024
_BLOCK_OUT = 1024 * 1024
_LOOK_PAST = 16 * 1024 * 1024  # how far we count surplus payload before calling it a bomb
_MAX_EMPTY_MEMBERS = 64  # bgzip ends with one; a file made of them would only burn time


class Hasher(Protocol):
    """What `hashlib.sha256()` gives, as far as it is used here."""

    def update(self, data: bytes, /) -> None:
        """Take in more of the file's bytes."""
        ...


class ByteStream:
    """Payload of one open file, in order.

    Attributes:
        path: the file.
        file_bytes: its size on disk from where the stream stood on.
        coding: `plain`, `gzip`, or `zlib` (a bare zlib stream, as MetaImage stores it).
        position: payload bytes given out so far.
    """

    def __init__(
        self, path: Path, stream: FileIO, *, coding: Coding = "plain", hasher: Hasher | None = None
    ) -> None:
        self.path = path
        self.coding: Coding = coding
        self.position = 0
        self._end = os.fstat(stream.fileno()).st_size
        self.file_bytes = self._end - stream.tell()
        self._stream = stream
        self._hasher = hasher
        self._pending = b""
        self._consumed = 0
        self._decoder = _library.decompressobj(_WINDOW[coding])
        self._inside = False
        self._begun = False
        self._empty_members = 0
        self._member_start = 0

    def most(self) -> int:
        """The largest payload that a file of this size can hold."""
        return self.file_bytes if self.coding == "plain" else self.file_bytes * MAX_RATIO

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; fewer only where the payload properly ends."""
        parts: list[bytes] = []
        while count > 0:
            part = self._next(min(count, _BLOCK_OUT))
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def fill(self, buffer: memoryview) -> int:
        """Fill a writable byte buffer; returns the bytes there were (fewer only at the payload's end)."""
        at, size = 0, len(buffer)
        if self.coding == "plain":
            return self._fill_plain(buffer)
        while at < size:
            part = self._next(min(size - at, _BLOCK_OUT))
            if not part:
                break
            buffer[at : at + len(part)] = part
            at += len(part)
        return at

    def skip(self, count: int) -> int:
        """Read on and forget; returns how many of the bytes there were."""
        left = count
        while left > 0 and (part := self._next(min(left, _BLOCK_OUT))):
            left -= len(part)
        return count - left

    def last_length(self) -> int:
        """What the last four bytes of the file say: the length modulo 2^32 of its last gzip member."""
        return int.from_bytes(os.pread(self._stream.fileno(), 4, max(0, self._end - 4)), "little")

    def finish(self, announced: int) -> None:
        """Read on to the end of the file and refuse anything left over.

        Args:
            announced: payload bytes that the header speaks of, for the message.

        Raises:
            SegbenchError: SB206 surplus bytes, SB208 surplus without end, SB204 or SB205 in the trailer.
        """
        surplus = 0
        while part := self._next(_BLOCK_OUT):
            surplus += len(part)
            if surplus > _LOOK_PAST:
                raise SegbenchError(
                    "SB208",
                    "the data goes on past the size that the header announces",
                    path=self.path,
                    expected=f"{announced:,} bytes",
                    found=f"more than {announced + surplus:,} bytes",
                )
        if surplus:
            raise SegbenchError(
                "SB206",
                f"{surplus:,} bytes of data are left over after the voxels",
                path=self.path,
                expected=f"{announced:,} bytes",
                found=f"{announced + surplus:,} bytes",
            )

    def _fill_plain(self, buffer: memoryview) -> int:
        at, size = 0, len(buffer)
        while at < size:
            got = self._stream.readinto(buffer[at : at + 4 * _BLOCK_OUT])
            if not got:
                break
            if self._hasher is not None:
                self._hasher.update(bytes(buffer[at : at + got]))
            at += got
        self.position += at
        return at

    def _read_file(self, count: int) -> bytes:
        data = self._stream.read(count)
        if self._hasher is not None and data:
            self._hasher.update(data)
        self._consumed += len(data)
        return data

    def _next(self, limit: int) -> bytes:
        """The next 1..limit payload bytes, or nothing at the payload's proper end."""
        part = self._read_file(limit) if self.coding == "plain" else self._next_inflated(limit)
        self.position += len(part)
        return part

    def _next_inflated(self, limit: int) -> bytes:
        while True:
            if not self._inside and not self._begin_member():
                return b""
            at_end = False
            if not self._pending:
                self._pending = self._read_file(_BLOCK_IN)
                at_end = not self._pending
            part = self._inflate(limit)
            if self._decoder.eof:
                self._end_member(len(part))
            elif at_end and not part:
                raise SegbenchError(
                    "SB204",
                    f"the {self.coding} stream ends at byte {self._consumed:,} before its end marker",
                    path=self.path,
                    expected="the end marker of the stream",
                    found=f"{self.position:,} bytes of data so far",
                )
            if part:
                self._empty_members = 0
                return part

    def _inflate(self, limit: int) -> bytes:
        try:
            part: bytes = self._decoder.decompress(self._pending, limit)
        except _library.error as error:
            raise SegbenchError(
                "SB205",
                f"the compressed data is damaged ({str(error).split(': ')[-1]})",
                path=self.path,
                expected="data that agrees with its checksum",
                found=f"a fault at about byte {self._consumed - len(self._pending):,} of {self.file_bytes:,}",
            ) from None
        self._pending = self._decoder.unconsumed_tail
        return part

    def _end_member(self, last: int) -> None:
        if self.position + last == self._member_start:
            self._empty_members += 1
            if self._empty_members > _MAX_EMPTY_MEMBERS:
                raise SegbenchError(
                    "SB206",
                    "the file ends in a long row of empty gzip members",
                    path=self.path,
                    expected=f"at most {_MAX_EMPTY_MEMBERS}",
                    found=f"more than {_MAX_EMPTY_MEMBERS}",
                )
        self._pending = self._decoder.unused_data
        self._decoder = _library.decompressobj(_WINDOW[self.coding])
        self._inside = False

    def _begin_member(self) -> bool:
        """Whether another member follows; refuses anything else that does."""
        if len(self._pending) < 2:
            self._pending += self._read_file(_BLOCK_IN)
        if not self._pending:
            return False
        first = not self._begun
        self._begun = True
        if not (self._pending.startswith(GZIP_MAGIC) if self.coding == "gzip" else first):
            left = self.file_bytes - self._consumed + len(self._pending)
            raise SegbenchError(
                "SB206",
                f"{left:,} bytes follow after the end of the {self.coding} stream",
                path=self.path,
                expected=f"{self.file_bytes - left:,} bytes",
                found=f"{self.file_bytes:,} bytes",
            )
        self._member_start = self.position
        self._inside = True
        return True


@contextmanager
def open_regular(path: Path | str) -> Generator[FileIO]:
    """Open a non-empty regular file for reading, never waiting on a pipe or device.

    Raises:
        SegbenchError: SB201 for everything that is not such a file, also when reading it fails later on;
            SB208 when memory runs out.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        raise _unusable(path, _reason(error)) from None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            found = _kind(state.st_mode)
            raise _unusable(path, f"this is {found}, not a file", found)
        if state.st_size == 0:
            raise _unusable(path, "the file is empty", "0 bytes")
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as stream:
            yield stream
    except OSError as error:
        raise _unusable(path, _reason(error)) from None
    except MemoryError:
        raise SegbenchError(
            "SB208",
            "memory ran out while the file was read",
            path=path,
            expected="enough free memory for the voxels",
            found="none left",
        ) from None
    finally:
        os.close(descriptor)


def _unusable(path: Path | str, message: str, found: str | None = None) -> SegbenchError:
    return SegbenchError(
        "SB201",
        message,
        path=str(path).replace("\0", "\\0"),
        expected="a regular file that may be read",
        found=found or message,
    )


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return "no file can have such a name"
    words = {
        errno.ENOENT: "no such file",
        errno.ENOTDIR: "no such file",
        errno.ELOOP: "the file is a loop of links",
        errno.EACCES: "the file may not be read (permission denied)",
        errno.ENXIO: "this is a socket or device, not a file",
        errno.ENAMETOOLONG: "the name is too long for a file",
        errno.EISDIR: "this is a folder, not a file",
    }
    return words.get(error.errno or 0, f"the file is not readable ({(error.strerror or str(error)).lower()})")
