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
from segbench.core.processes import boot_id, pid_namespace, process_start, same_process_table

__all__ = ["evict", "in_use", "note_use"]

# A note from another host or container cannot be checked: it counts as living for two days after it was left.
_FOREIGN_S = 2 * 24 * 3600.0


def note_use(folder: Path | str) -> None:
    """Say that this process uses a recipe's folder from now on; also renews the time of its last use."""
    users = Path(folder) / "users"
    for note in users.glob("*.json"):
        if not _lives(note):
            note.unlink(missing_ok=True)
    host, pid, table = socket.gethostname(), os.getpid(), pid_namespace()
    mine = {"host": host, "boot": boot_id(), "namespace": table, "pid": pid, "start": process_start(pid)}
    number = "".join(character for character in table if character.isdigit())
    atomic_write_json(users / f"{host}-{number}-{pid}.json", mine)


def in_use(folder: Path | str) -> bool:
    """Whether a living process has noted that it uses the recipe."""
    return any(_lives(note) for note in (Path(folder) / "users").glob("*.json"))


def evict(root: Path | str, keep_bytes: int) -> list[Path]:
    """Remove the recipes used longest ago until what is left fits; the folders removed.

    Args:
        root: The folder of all caches: recipes are `<root>/<dataset>/<recipe>`.
        keep_bytes: What may stay. Recipes in use stay whatever their size.
    """
    recipes = sorted((path.parent for path in Path(root).glob("*/*/recipe.json")), key=_last_use)
    sizes = [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in recipes]
    left, removed = sum(sizes), list[Path]()
    for folder, size in zip(recipes, sizes, strict=True):
        if left > keep_bytes and not in_use(folder):
            # Out of sight in one step, so that nobody opens half of it; then removed at leisure.
            aside = temporary_name(folder)
            folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
            left -= size
            removed.append(folder)
    return removed


def _last_use(folder: Path) -> float:
    noted = [folder / "recipe.json", folder / "users", *(folder / "users").glob("*.json")]
    return max(path.stat().st_mtime for path in noted if path.exists())


def _lives(note: Path) -> bool:
    try:
        user: dict[str, Any] = json.loads(note.read_text())
        if not same_process_table(user["host"], user["boot"], user.get("namespace")):
            return time.time() - note.stat().st_mtime < _FOREIGN_S
        return user["start"] != "" and process_start(int(user["pid"])) == user["start"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
