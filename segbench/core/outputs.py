"""What a command may write over: never a file that it was given, never one that segbench did not write.

Files are compared by what they are, not by how their paths are spelled: symbolic and hard links, another case
of letters where the file system makes no difference, and relative paths all lead to the same file. Commands
ask before their first result is computed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from segbench.core.atomic import atomic_write_json
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.hashing import sha256_file

RECORD = ".written-by-segbench.json"
"""The record of a folder's outputs where no other file of the command can hold it."""


def check_targets(
    targets: Iterable[Path], *, inputs: Iterable[Path] = (), own: Callable[[Path], bool] | None = None
) -> None:
    """Refuse to write over a file that was given, or over a foreign one; writes nothing itself.

    Args:
        targets: the files that will be written.
        inputs: files that the command reads.
        own: whether a file that exists was written by this command; by default none was.

    Raises:
        SegbenchError: SB337 with the first file that stands in the way.
    """
    standing = [target for target in targets if os.path.lexists(target)]
    if not standing:
        return
    given = {identity for path in inputs if (identity := _identity(path)) is not None}
    for target in standing:
        if _identity(target) in given:
            raise SegbenchError(
                "SB337",
                "an input would be written over",
                path=target,
                expected="a place for the result that is not an input",
                found="a file that this command reads",
                mend="name another folder or file for the result",
            )
        if own is None or not own(target):
            raise SegbenchError(
                "SB337",
                "a file that this command did not write is where its result belongs",
                path=target,
                expected="no file, or one that this command wrote",
                found="a folder" if target.is_dir() else "a file of other origin, or changed since",
                mend="name another folder or file for the result, or move this one away",
            )


class OutputFolder:
    """A folder that receives the files of one command; a record there says which ones are its own.

    As a context: the record names the files before the first is written, so that a killed command's are known
    for its own, and holds the sha256 of each one afterwards. A file that was changed since is foreign.

    Args:
        folder: where the files go; made when the first is written.
        names: the files that will be written, relative to the folder.
        inputs: files that the command reads.
        record: name of the record.
        about: what else the record says.
        same: whether a file holds exactly what would be written; such a file may be replaced too.

    Raises:
        SegbenchError: SB337 as `check_targets`.
    """

    def __init__(
        self,
        folder: Path,
        names: Iterable[str],
        *,
        inputs: Iterable[Path] = (),
        record: str = RECORD,
        about: Mapping[str, Any] | None = None,
        same: Callable[[Path], bool] | None = None,
    ) -> None:
        self.folder = folder
        self._record = folder / record
        self._about = dict(about or {})
        self._planned = list(names)
        self._written: dict[str, str | None] = {}
        content = _read_record(self._record)
        self._before: dict[str, Any] = content or {}

        def own(target: Path) -> bool:
            if target == self._record:
                return content is not None
            return self._is_own(target) or (same is not None and same(target))

        check_targets([*(folder / name for name in self._planned), self._record], inputs=inputs, own=own)

    def wrote(self, *paths: Path) -> None:
        """Take down that files of this folder were written."""
        for path in paths:
            name = path.relative_to(self.folder).as_posix()
            self._written[name] = sha256_file(path) if path.is_file() else None

    def __enter__(self) -> OutputFolder:
        """The folder, its record naming what is about to be written."""
        self._keep({**self._before, **dict.fromkeys(self._planned)})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The record names what was written, then and now; none is left when there is nothing to name."""
        kept = {**self._before, **self._written}
        if kept:
            self._keep(kept)
        else:
            self._record.unlink(missing_ok=True)

    def _keep(self, written: Mapping[str, Any]) -> None:
        atomic_write_json(self._record, {"schema_version": 1, **self._about, "written": dict(written)})

    def _is_own(self, target: Path) -> bool:
        name = target.relative_to(self.folder).as_posix()
        if name not in self._before or target.is_symlink():
            return False
        digest = self._before[name]
        return digest is None or (target.is_file() and sha256_file(target) == digest)


def _read_record(path: Path) -> dict[str, Any] | None:
    """Names and digests of a record; None for what is none."""
    try:
        content: Any = parse_json(path.read_text(encoding="utf-8"))
        written: Any = content["written"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return cast("dict[str, Any]", written) if isinstance(written, dict) else None


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what a path leads to; None where it leads nowhere."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    return state.st_dev, state.st_ino
