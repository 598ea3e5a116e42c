"""Takes openly downloadable datasets from the network: resumable, checked, unpacked safely.

The only module of segbench that opens a connection, and only when `segbench data fetch` was asked for. A
file has its final name when its size and digest are right; until then it is `<name>.part`, which the next
call resumes. The first verified download of a file writes its sha256 to a lock file beside the data; later
ones are compared.

Source: RFC 9110, 13.1.5 and 14 (If-Range, Range: a part is only continued when the server says that the
file is still the same one).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from segbench.cards.dataset_card import DatasetCard, Download
from segbench.core.archive import is_archive_name, safe_extract
from segbench.core.atomic import atomic_write_json, fsync_folder
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json

__all__ = ["Fetched", "download", "fetch", "safe_extract"]

PAUSES_S = (1.0, 2.0, 4.0, 8.0)
TIMEOUT_S = 60.0
_BLOCK = 1024**2
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")

Progress = Callable[[int, int | None], None]
"""Told (bytes that are here, bytes in all or None) as they come."""


class _Again(Exception):  # noqa: N818 - a reason to try once more, not an error
    """The connection failed in a way that may pass."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What `fetch` did: the dataset's folder, and (name, sha256, bytes) of each file that came."""

    root: Path
    files: tuple[tuple[str, str, int], ...]
    already_here: bool = False


def fetch(
    card: DatasetCard, data_dir: Path, *, progress: Progress | None = None, pauses: Sequence[float] = PAUSES_S
) -> Fetched:
    """Download and unpack a dataset into the data directory; nothing when its folder is there already.

    Args:
        card: a card with kind `public` and at least one download.
        data_dir: the folder that holds the datasets; made when absent.
        progress: told how far the download is.
        pauses: seconds between tries.

    Raises:
        SegbenchError: SB301 when the card names nothing to download; SB333, SB334, SB505, SB506 as
            `download` and `safe_extract`.
    """
    from segbench.data.opening import find_root, how_to_get

    if card.availability.kind != "public" or not card.availability.download:
        raise SegbenchError(
            "SB301",
            f"dataset {card.slug} cannot be fetched",
            details=[how_to_get(card, data_dir)],
            mend=f"see segbench show dataset:{card.slug}",
        )
    root = data_dir / card.location.folders[0]
    present = find_root(card, data_dir)
    if present is not None and any(present.iterdir()):
        return Fetched(present, (), already_here=True)
    lock = data_dir / f"{card.slug}.lock.json"
    known = _read_lock(lock)
    files: list[tuple[str, str, int]] = []
    for item in card.availability.download:
        name = _name_of(item.url)
        archive = download(
            item.url,
            data_dir / name,
            sha256=item.sha256 or known.get(item.url),
            md5=item.md5,
            bytes=item.bytes,
            progress=progress,
            pauses=pauses,
        )
        digest = _digest(archive, "sha256")
        files.append((name, digest, archive.stat().st_size))
        try:
            _place(archive, item, data_dir, root)
        except SegbenchError as error:
            if error.code == "SB334":
                archive.unlink()  # the next call takes it again instead of refusing the same file
            raise
        known[item.url] = digest
        atomic_write_json(lock, {"schema_version": 1, "dataset": card.slug, "sha256": known})
    return Fetched(root, tuple(files))


def download(
    url: str,
    target: Path | str,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    bytes: int | None = None,
    progress: Progress | None = None,
    timeout_s: float = TIMEOUT_S,
    pauses: Sequence[float] = PAUSES_S,
) -> Path:
    """One file, complete and verified under its name, or an error and no file of that name.

    Args:
        url: https; http only for this machine itself (tests).
        target: the file to make. One that is there and fits size and digests is kept as it is.
        sha256: its digest, 64 hex digits.
        md5: the same as 32 hex digits.
        bytes: its size.
        progress: told how far it is.
        timeout_s: longest wait for the server, each time.
        pauses: seconds before the second, third, ... try; their number bounds the tries.

    Returns:
        The target.

    Raises:
        SegbenchError: SB333 size or digest differ (the part is deleted); SB506 no connection, or the server
            refuses; SB104 an address that may not be used; SB505 the disk is full.
    """
    if not _may_be_asked(url):
        message = f"{url} may not be fetched: only https is"
        raise SegbenchError("SB104", message, expected="https://...", found=url)
    path = Path(target)
    digests = {"sha256": sha256, "md5": md5}
    if path.is_file() and _fault(path, bytes, digests) is None:
        return path
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    for attempt in range(len(pauses) + 1):
        if attempt:
            time.sleep(pauses[attempt - 1])
        try:
            _take(url, part, bytes, progress, timeout_s)
            break
        except _Again as reason:
            failures.append(str(reason))
        except OSError as error:
            raise SegbenchError("SB505", (error.strerror or str(error)).lower(), path=part) from error
    else:
        raise SegbenchError(
            "SB506",
            f"{url} could not be fetched in {len(pauses) + 1} tries",
            details=list(dict.fromkeys(failures)),
            mend=f"run the same command again to go on, or take {url} by hand and put it at {path}",
        )
    fault = _fault(part, bytes, digests)
    if fault is not None:
        _forget(part)
        raise SegbenchError(
            "SB333",
            f"what came from {url} is not what was announced",
            expected=fault[0],
            found=fault[1],
            path=path,
        )
    part.replace(path)
    fsync_folder(path.parent)
    _state_file(part).unlink(missing_ok=True)
    return path


def _fault(path: Path, size: int | None, digests: Mapping[str, str | None]) -> tuple[str, str] | None:
    """(expected, found) of the first difference from what is known of a file beforehand, or None."""
    if size is not None and path.stat().st_size != size:
        return f"{size:,} bytes", f"{path.stat().st_size:,} bytes"
    for name, value in digests.items():
        if value is not None and (found := _digest(path, name)) != value.lower():
            return f"{name} {value}", f"{name} {found}"
    return None


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never to another scheme or to an address that could not be named directly."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
            raise SegbenchError("SB506", f"the server redirects to another scheme: {newurl}")
        if not _may_be_asked(newurl):
            raise SegbenchError("SB506", f"the server redirects to an address without https: {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _take(url: str, part: Path, size: int | None, progress: Progress | None, timeout_s: float) -> None:
    """One try: continue the part when the server allows it, else begin again."""
    have, validator = _resumable(part, url)
    request = urllib.request.Request(url, headers={"User-Agent": "segbench", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    with _open(request, part, timeout_s) as answer:
        if not (answer.status == 206 and _continues(answer.headers.get("Content-Range"), have)):
            have = 0
        total = _total(answer, have)
        if size is not None and total is not None and total != size:
            _forget(part)
            raise SegbenchError(
                "SB333",
                f"what {url} offers is not what was announced",
                expected=f"{size:,} bytes",
                found=f"{total:,} bytes",
                path=part.with_suffix(""),
            )
        _remember(part, url, answer.headers)
        got = _copy(answer, part, have, total, size, progress)
    if total is not None and got < total:
        raise _Again(f"the connection was cut at {got:,} of {total:,} bytes")


def _open(request: urllib.request.Request, part: Path, timeout_s: float) -> Any:
    """The server's answer; what may pass is `_Again`, what will not is SB506."""
    try:
        return urllib.request.build_opener(_SameScheme).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is no beginning of this file
            _forget(part)
            raise _Again("the server refused to continue the part") from None
        if error.code in {408, 425, 429} or error.code >= 500:
            raise _Again(f"the server answered {error.code} {error.reason}") from None
        raise SegbenchError(
            "SB506",
            f"the server answered {error.code} {error.reason}",
            mend=f"take {request.full_url} by hand and put it at {part.with_suffix('')}",
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"no connection ({getattr(error, 'reason', None) or error})") from None


def _copy(
    answer: IO[bytes], part: Path, have: int, total: int | None, most: int | None, progress: Progress | None
) -> int:
    """Append what comes; returns the bytes that are here. Stops as soon as there are more than announced."""
    if total is not None and total - have > shutil.disk_usage(part.parent).free:
        raise SegbenchError(
            "SB505", f"the download needs {total - have:,} bytes more than are free", path=part
        )
    limit = total if most is None else most
    with part.open("r+b" if have else "wb") as stream:
        stream.seek(have)
        stream.truncate()
        while block := _read(answer):
            stream.write(block)
            have += len(block)
            if progress is not None:
                progress(have, total)
            if limit is not None and have > limit:
                break  # too much: the size check refuses it
        stream.flush()
        os.fsync(stream.fileno())
    return have


def _read(answer: IO[bytes]) -> bytes:
    try:
        return answer.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"the connection was cut ({error or type(error).__name__})") from None


def _total(answer: Any, have: int) -> int | None:
    length = answer.headers.get("Content-Length")
    return have + int(length) if length is not None and re.fullmatch("[0-9]{1,18}", length) else None


def _continues(content_range: str | None, have: int) -> bool:
    """Whether the answer begins just where the part ends."""
    return have > 0 and content_range is not None and content_range.startswith(f"bytes {have}-")


def _state_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _remember(part: Path, url: str, headers: Any) -> None:
    """Keep what tells this version of the file from another; without it a part is never continued."""
    etag = headers.get("ETag")
    validator = etag if etag and not etag.startswith("W/") else None if etag else headers.get("Last-Modified")
    atomic_write_json(_state_file(part), {"url": url, "validator": validator})


def _resumable(part: Path, url: str) -> tuple[int, str]:
    """(bytes that are here, their validator), or (0, "") when the file has to come from the beginning."""
    try:
        state = parse_json(_state_file(part).read_text(encoding="utf-8"))
        have = part.stat().st_size
    except (OSError, ValueError):
        return 0, ""
    if not isinstance(state, dict) or state.get("url") != url or not isinstance(state.get("validator"), str):
        return 0, ""
    return have, state["validator"]


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)


def _may_be_asked(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _THIS_MACHINE)


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as stream:
        # md5 is what some servers announce; it tells accidents apart, and the sha256 of the lock file the
        # rest
        return hashlib.file_digest(stream, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def _name_of(url: str) -> str:
    name = Path(urlsplit(url).path).name
    if not name or name.startswith("."):
        raise SegbenchError("SB104", f"{url} names no file", found=url)
    return name


def _read_lock(lock: Path) -> dict[str, str]:
    try:
        document = parse_json(lock.read_text(encoding="utf-8"))
        return {str(url): str(digest) for url, digest in document["sha256"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}


def _place(archive: Path, item: Download, data_dir: Path, root: Path) -> None:
    """Unpack an archive to where the card says, without the folder that wraps it; other files just move."""
    goal = data_dir / item.unpacks_to if item.unpacks_to else root
    if not is_archive_name(archive.name):
        goal.parent.mkdir(parents=True, exist_ok=True)
        archive.replace(goal if item.unpacks_to else root / archive.name)
        return
    unpacked = safe_extract(archive, data_dir / f".{archive.name}.unpacked")
    try:
        entries = [entry for entry in unpacked.iterdir() if not entry.name.startswith((".", "_"))]
        wrapped = len(entries) == 1 and entries[0].is_dir()
        goal.parent.mkdir(parents=True, exist_ok=True)
        (entries[0] if wrapped else unpacked).replace(goal)
        fsync_folder(goal.parent)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    archive.unlink()
