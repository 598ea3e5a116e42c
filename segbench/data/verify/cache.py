"""The memory of verification: one JSON per root, so that a file that did not change is not opened again."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from segbench.core import console
from segbench.core.atomic import atomic_write
from segbench.core.environment import cache_dir
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.hashing import canonical_json, file_state
from segbench.data.verify.facts import FACTS_VERSION, CompositeFacts, FileFacts

FOLDER = "verify"
_OF_THE_MOMENT = {"SB201", "SB208", "SB503"}
_FILE, _CASE = TypeAdapter(FileFacts), TypeAdapter(CompositeFacts)


@dataclass(slots=True)
class FactsCache:
    """Facts by file (path inside the root) and by case (painted references).

    Attributes:
        path: the cache file, or None for a memory that is not kept.
        root: the dataset's root.
        files: entries as read; turned into facts when asked for.
        cases: painted references.
        about: what other verifications may want to know of this dataset (`across`).
        changed: whether there is something to save.
    """

    path: Path | None
    root: Path
    files: dict[str, Any] = field(default_factory=dict[str, Any])
    cases: dict[str, Any] = field(default_factory=dict[str, Any])
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    changed: bool = False

    def file(self, path: Path) -> FileFacts | None:
        """Facts of a file in its present state, or None when it has to be opened."""
        facts = self.remembered(path)
        return facts if facts is not None and facts.state == file_state(path) else None

    def remembered(self, path: Path) -> FileFacts | None:
        """Facts of a file in the state in which it was read last, whatever its state now."""
        name = self._name(path)
        entry = self.files.get(name)
        if entry is None or isinstance(entry, FileFacts):
            return entry
        try:
            facts = _FILE.validate_python(entry)
        except ValueError:
            return None
        self.files[name] = facts  # asked for more than once a run
        return facts

    def keep(self, path: Path, facts: FileFacts) -> None:
        """Remember a file, unless its fault is of this moment: not there, too large for the limits of now."""
        if facts.state[0] >= 0 and (facts.fault is None or facts.fault.code not in _OF_THE_MOMENT):
            self.files[self._name(path)] = facts
            self.changed = True

    def composite(self, case: str, inputs: str) -> CompositeFacts | None:
        """Facts of a painted reference made from files in just this state, or None."""
        entry = self.cases.get(case)
        if entry is None:
            return None
        try:
            facts = _CASE.validate_python(entry)
        except ValueError:
            return None
        return facts if facts.inputs == inputs else None

    def keep_composite(self, case: str, facts: CompositeFacts) -> None:
        """Remember a painted reference."""
        self.cases[case] = facts
        self.changed = True

    def note(self, about: dict[str, Any]) -> None:
        """Remember what the dataset is as a whole."""
        if about != self.about:
            self.about = about
            self.changed = True

    def save(self) -> None:
        """Write what is known, whole or not at all; nothing when nothing changed.

        A folder that cannot be written costs time at the next verification, never this one: it is told once.
        """
        if self.path is None or not self.changed:
            return
        files = {n: _plain(_FILE, f) if isinstance(f, FileFacts) else f for n, f in self.files.items()}
        cases = {n: _plain(_CASE, f) if isinstance(f, CompositeFacts) else f for n, f in self.cases.items()}
        value = {
            "version": FACTS_VERSION,
            "files": files,
            "cases": cases,
            "about": self.about,
        }
        try:
            atomic_write(self.path, canonical_json(value))
        except (SegbenchError, OSError) as error:
            why = error.message if isinstance(error, SegbenchError) else error.strerror
            place = f"cannot be remembered in {self.path.parent} ({why})"
            console.warn(f"what was verified {place}: the next command verifies again")
            self.path = None
        self.changed = False

    def _name(self, path: Path) -> str:
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:  # nnU-Net's dataset.json may name files elsewhere
            return path.as_posix()


def _plain(kind: TypeAdapter[Any], facts: FileFacts | CompositeFacts) -> dict[str, Any]:
    return kind.dump_python(facts, mode="json", exclude_defaults=True)


def open_cache(root: Path, *, folder: Path | None = None, keep: bool = True) -> FactsCache:
    """The memory of a dataset root; empty when there is none yet, or when it cannot be used.

    Args:
        root: the dataset's root.
        folder: where the cache files lie; the cache folder of this user when None.
        keep: False gives an empty memory that is never saved (`--no-cache`).
    """
    resolved = root.resolve()
    if not keep:
        return FactsCache(None, root)
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", resolved.name).strip("-") or "root"
    key = hashlib.sha256(str(resolved).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = (folder or cache_dir() / FOLDER) / f"{name}-{key}.json"
    cache = FactsCache(path, root)
    try:
        value = parse_json(path.read_bytes())
        if value["version"] == FACTS_VERSION:
            cache.files, cache.cases = dict(value["files"]), dict(value["cases"])
            cache.about = dict(value["about"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent, of another version or damaged: everything is read again
    return cache
