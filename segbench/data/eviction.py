"""Who uses which prepared recipe, and the removal of those nobody has used for longest.

Every process that opens a recipe leaves a note in `<recipe>/users/`. A recipe with the note of a living
process is never removed; of the others, the ones used longest ago go first. Nothing is removed unless it is
asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from segbench.core.atomic import atomic_write_json, temporary_name

__all__ = ["evict", "in_use", "note_use"]

# A note from another host cannot be checked: it counts as living for two days after that host opened it.
_FOREIGN_S = 2 * 24 * 3600.0


def note_use(folder: Path | str) -> None:
    """Say that this process uses a recipe's folder from now on; also renews the time of its last use."""
    users = Path(folder) / "users"
    for note in users.glob("*.json"):
        if not _lives(note):
            note.unlink(missing_ok=True)
    mine = {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "start": _start(os.getpid())}
    atomic_write_json(users / f"{mine['host']}-{mine['pid']}.json", mine)


def in_use(folder: Path | str) -> bool:
    """Whether a living process has noted that it uses the recipe."""
    return any(_lives(note) for note in (Path(folder) / "users").glob("*.json"))


def evict(root: Path | str, keep_bytes: int) -> list[Path]:
    """Remove the recipes used longest ago until what is left fits; the folders removed.

    Args:
        root: The folder of all caches: recipes are `<root>/<dataset>/<recipe>`.
        keep_bytes: What may stay. Recipes in use stay whatever their size.
    """
    recipes = [path.parent for path in Path(root).glob("*/*/recipe.json")]
    sizes = {folder: _size(folder) for folder in recipes}
    total = sum(sizes.values())
    removed: list[Path] = []
    for folder in sorted(recipes, key=_last_use):
        if total <= keep_bytes:
            break
        if in_use(folder):
            continue
        # Out of sight in one step, so that nobody opens half of it; then removed at leisure.
        aside = temporary_name(folder)
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        total -= sizes[folder]
        removed.append(folder)
    return removed


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _last_use(folder: Path) -> float:
    noted = [folder / "recipe.json", folder / "users", *(folder / "users").glob("*.json")]
    return max(path.stat().st_mtime for path in noted if path.exists())


def _lives(note: Path) -> bool:
    try:
        user: dict[str, Any] = json.loads(note.read_text())
        if user["host"] != socket.gethostname():
            return time.time() - note.stat().st_mtime < _FOREIGN_S
        return user["boot"] == _boot() and user["start"] != "" and _start(int(user["pid"])) == user["start"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start(pid: int) -> str:
    """When a process started, in ticks ("" when there is none): tells a reused pid from the old one.

    Where there is no /proc, "alive" for a process that answers.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "alive"
