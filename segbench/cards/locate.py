"""The one place that knows where cards are: in the wheel, in the checkout, or where a third party says."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path


def cards_root() -> Path:
    """The folder that holds `models/`, `datasets/` and `results/published/` of segbench itself.

    The packaged copy of a wheel if present, else the checkout that the package stands in.
    """
    package = Path(__file__).resolve().parent.parent
    packaged = package / "_cards"
    return packaged if packaged.is_dir() else package.parent


def card_roots() -> tuple[Path, ...]:
    """All folders with cards: segbench's own, then `SEGBENCH_CARDS` (set by `--cards`), then entry points.

    An entry point of group `segbench.cards` names a module; the folder of that module holds `models/` and
    `datasets/`. The module is located, not run.
    """
    roots = [cards_root()]
    named = os.environ.get("SEGBENCH_CARDS", "")
    roots += [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    roots += _installed_roots()
    unique: dict[Path, None] = dict.fromkeys(root.resolve() for root in roots)
    return tuple(unique)


@cache
def _installed_roots() -> tuple[Path, ...]:
    """Folders that installed packages offer; looked up once, it costs milliseconds."""
    folders = [_module_folder(point) for point in entry_points(group="segbench.cards")]
    return tuple(folder for folder in folders if folder is not None)


def _module_folder(point: EntryPoint) -> Path | None:
    from importlib.util import find_spec

    try:
        module = point.module
        spec = find_spec(module.partition(".")[0])
    except (AssertionError, AttributeError, ImportError, ValueError):  # not the name of a module
        return None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent.joinpath(*module.split(".")[1:])
    return folder if folder.is_dir() else Path(spec.origin).parent
