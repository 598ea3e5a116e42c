"""The only way to unpack an archive: every member is checked before the first is written.

Python's extractors strip `..` without a word, write one of two names that a file system takes for the same,
and stop silently at a damaged header. So the list of members is read first and refused as a whole (SB334);
what passes, folders and plain files, is unpacked by `tarfile` (filter "data") or `zipfile` into a folder
beside the target, which is renamed at the end.

Source: Python `tarfile` documentation (extraction filters); the overlapping-files bomb is D. Fifield, "A
better zip bomb", WOOT 2019.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from segbench.core.atomic import atomic_folder
from segbench.core.errors import SegbenchError

MAX_MEMBERS = 200_000
MAX_BYTES = 10**12
MAX_RATIO = 500.0
"""Uncompressed label maps by themselves grow about 200-fold (426 public ones: 198), datasets tenfold; a
bomb of zeros grows 1030-fold with gzip, and without limit with bzip2 and xz."""

_MAX_SINGLE_READ = 16 * 1024**2  # a tar header that asks for more (names of gigabytes) is an attack
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
)
_BIDI = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


_Member = tuple[str, int, bool, str | None]
"""What a listing says before anything is read: name, bytes, whether it is a folder, what is wrong with it."""


def safe_extract(archive: Path | str, target: Path | str) -> Path:
    """Unpack a tar (plain, gzip, bzip2, xz) or zip file, whole or not at all.

    Names must be relative and plain: no `..`, no drive letters or backslashes, no control characters or marks
    that turn the writing direction, no two names that differ in case only. Links, devices and encrypted
    members are refused; so is an archive of more than `MAX_MEMBERS`, `MAX_BYTES` or `MAX_RATIO`. `._*` and
    `__MACOSX` are left out.

    Args:
        archive: the file; its checksum, if there is one, was compared before.
        target: the folder to make; it must not exist, or be empty.

    Returns:
        The target.

    Raises:
        SegbenchError: SB334 for anything unsafe or damaged, naming the member; SB337 for a target that holds
            something; SB505 when the disk is full. Nothing is left behind.
    """
    source, folder = Path(archive), Path(target)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SegbenchError("SB337", "the folder to unpack into holds something already", path=folder)
    try:
        with source.open("rb") as stream:
            is_zip = stream.read(2) == b"PK"
            stream.seek(0)
            (_extract_zip if is_zip else _extract_tar)(source, stream, folder)
    except SegbenchError:
        raise
    except zipfile.BadZipFile as error:
        raise _refused(source, f"the archive is damaged: its directory or a member ({error})") from None
    except _BROKEN as error:
        raise _refused(source, f"the archive is damaged ({str(error) or type(error).__name__})") from None
    return folder


def is_archive_name(name: str) -> bool:
    """Whether a file of this name is unpacked after it was fetched."""
    return name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip"))


class _Guarded(io.RawIOBase):
    """A readable stream that refuses to give a whole gigabyte at once to a header that asks for it."""

    def __init__(self, inner: BinaryIO) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MAX_SINGLE_READ:
            raise tarfile.TarError("a header of the archive asks for an absurd amount of memory")
        return self._inner.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()


def _extract_tar(source: Path, stream: BinaryIO, folder: Path) -> None:
    opened = _inflated(stream)
    guarded = cast("BinaryIO", _Guarded(opened))
    with tarfile.open(fileobj=guarded, mode="r:") as tar:
        chosen: list[tarfile.TarInfo] = []

        def members() -> Iterator[_Member]:
            for info in tar:
                plain = info.isfile() and not info.issparse()
                fault = None if plain or info.isdir() else "is a link, a device or a sparse file"
                yield info.name, max(0, info.size), info.isdir(), fault
                if _wanted(info.name):
                    chosen.append(info)

        total = _check(source, members())
        if not chosen:
            raise _refused(source, "this is neither a tar nor a zip archive, or an empty one")
        # tarfile takes a damaged header for the end; only a block of zeros is one.
        opened.seek(tar.offset)
        if opened.read(512).strip(b"\0"):
            raise _refused(source, "the archive is damaged or cut short: its end marker is missing")
        if tar.offset + 512 > opened.tell():
            raise _refused(source, "the archive is cut short: its end marker is missing")
        _drain(opened)
        _need_room(folder, total)
        with atomic_folder(folder) as temporary:
            for info in chosen:  # folders and plain files only; no owner, time or mode travels
                tar.extract(info, temporary, set_attrs=False, filter="data")


def _extract_zip(source: Path, stream: BinaryIO, folder: Path) -> None:
    with zipfile.ZipFile(stream) as packed:
        infos = packed.infolist()

        def members() -> Iterator[_Member]:
            for info in infos:
                mode = info.external_attr >> 16
                fault = None
                if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
                    fault = "is a link or a device"
                elif info.flag_bits & 0x1:
                    fault = "is encrypted"
                # ZipInfo cuts a name at its first NUL; the name as stored tells.
                yield info.orig_filename, info.file_size, info.is_dir(), fault

        total = _check(source, members())
        _need_room(folder, total)
        with atomic_folder(folder) as temporary:
            for info in infos:
                if _wanted(info.filename):
                    packed.extract(info, temporary)


def _check(source: Path, members: Iterator[_Member]) -> int:
    """Bytes that the members take, or the refusal of the first that is wrong."""
    packed = max(1, source.stat().st_size)
    names: dict[str, tuple[bool, str]] = {}
    total = 0
    for count, (name, size, is_folder, fault) in enumerate(members, start=1):
        total += size
        if count > MAX_MEMBERS:
            raise _refused(source, f"the archive has more than {MAX_MEMBERS:,} members")
        if total > MAX_BYTES:
            raise _refused(source, f"the archive would take more than {MAX_BYTES:,} bytes")
        if total > MAX_RATIO * packed:
            raise _refused(source, f"the archive is a bomb: it would grow more than {MAX_RATIO:g}-fold")
        wrong = fault or _name_fault(name) or _clash(name, is_folder, names)
        if wrong is not None:
            raise _refused(source, f"member {_shown(name)} {wrong}")
    return total


def _name_fault(name: str) -> str | None:
    if any(unicodedata.category(character) in {"Cc", "Cs"} or character in _BIDI for character in name):
        return "has control characters in its name"
    if not name or name.startswith("/"):
        return "has no relative name"
    if "\\" in name or re.match(r"[A-Za-z]:", name):
        return "has a backslash or drive letter in its name"
    if ".." in name.split("/"):
        return "leaves the folder"
    if any(len(part.encode("utf-8", "replace")) > 255 for part in name.split("/")) or len(name) > 4000:
        return "has a name too long for a file"
    return None


def _clash(name: str, folder: bool, names: dict[str, tuple[bool, str]]) -> str | None:
    """A name that stands for another member too, on file systems that fold case or Unicode forms.

    `names` holds, by folded path, whether it is a folder and how it was spelt; folders that are only
    implied too.
    """
    # The parts as a file system may see them: without `.`, in one Unicode form.
    parts = PurePosixPath(unicodedata.normalize("NFC", name)).parts
    if not parts:
        return None if folder else "has no relative name"
    for depth in range(1, len(parts) + 1):
        spelt, last = "/".join(parts[:depth]), depth == len(parts)
        is_folder = folder or not last
        before = names.get(spelt.casefold())
        names.setdefault(spelt.casefold(), (is_folder, spelt))
        if before is None or before == (True, spelt) == (is_folder, spelt):
            continue
        if before[1] != spelt:
            return f"differs from {_shown(before[1])} in case only"
        if before[0] != is_folder and last:
            return "is a file and a folder at once"
        return "appears twice" if last else "lies inside another member that is a file"
    return None


def _wanted(name: str) -> bool:
    return not any(part == "__MACOSX" or part.startswith("._") for part in name.split("/"))


def _inflated(stream: BinaryIO) -> BinaryIO:
    """The stream without its compression, which its first bytes name."""
    head = stream.read(6)
    stream.seek(0)
    for magic, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if head.startswith(magic):
            return cast("BinaryIO", opener(stream, "rb"))
    return stream


def _drain(stream: BinaryIO) -> None:
    """Read on to the end, so that the checksum of the compression is seen; padding is small."""
    for _ in range(1024):
        if not stream.read(64 * 1024):
            return
    raise tarfile.TarError("data follows after the end of the archive")


def _need_room(folder: Path, total: int) -> None:
    place = folder.absolute().parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if total > free:
        raise SegbenchError("SB505", f"unpacking needs {total:,} bytes, {free:,} are free", path=folder)


def _refused(source: Path, message: str) -> SegbenchError:
    return SegbenchError("SB334", message, path=source)


def _shown(name: str) -> str:
    text = name.encode("unicode_escape").decode("ascii")
    return repr(text if len(text) <= 80 else text[:77] + "...")
