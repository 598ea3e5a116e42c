"""Shell completion with the names there are (`segbench --install-completion`).

Models, datasets, protocols, runs and error codes; fixed choices complete themselves. Each function gets what
was typed and gives what it could become. Lists by commas are completed at their last part. Nothing is opened
but the names of folders: a completion must come within a blink.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from segbench.core.environment import results_dir
from segbench.core.errors import CATALOGUE

Completer = Callable[[str], list[str]]


def attach(parameters: Sequence[inspect.Parameter], command: str) -> None:
    """Give the parameters of a command their completers, by their names."""
    for parameter in parameters:
        completer = _OF_COMMAND.get((command, parameter.name), _BY_NAME.get(parameter.name))
        for info in getattr(parameter.annotation, "__metadata__", ()):
            if completer is not None and getattr(info, "autocompletion", 0) is None:
                info.autocompletion = completer


def models(incomplete: str) -> list[str]:
    """Model slugs, at the last comma; `all` too."""
    from segbench.cards import list_model_cards

    return _last_part(incomplete, [*list_model_cards(), "all"])


def datasets(incomplete: str) -> list[str]:
    """Dataset slugs, at the last comma; `all` too."""
    from segbench.cards import list_dataset_cards

    return _last_part(incomplete, [*list_dataset_cards(), "all"])


def dataset(incomplete: str) -> list[str]:
    """One dataset slug, or a folder."""
    from segbench.cards import list_dataset_cards

    return [*_last_part(incomplete, list_dataset_cards()), *_folders(incomplete)]


def protocols(incomplete: str) -> list[str]:
    """Names of protocols."""
    from segbench.cards import list_protocols

    return [name for name in list_protocols() if name.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Run ids in the results folder (`SEGBENCH_RESULTS`, else ./results/runs)."""
    folder = results_dir()
    names = sorted(path.parent.name for path in folder.glob("*/run.json")) if folder.is_dir() else []
    return [name for name in names if name.startswith(incomplete)]


def things(incomplete: str) -> list[str]:
    """`model:NAME`, `dataset:NAME`, `protocol:NAME`, `run:ID`, `error:CODE`, `config`."""
    kind, colon, name = incomplete.partition(":")
    kinds: dict[str, Completer] = {
        "model": lambda text: [m for m in models(text) if m != "all"],
        "dataset": lambda text: [d for d in datasets(text) if d != "all"],
        "protocol": protocols,
        "run": runs,
        "error": lambda text: [code for code in CATALOGUE if code.startswith(text)],
    }
    if not colon:
        return [word for word in (*(f"{k}:" for k in kinds), "config") if word.startswith(incomplete)]
    return [f"{kind}:{found}" for found in kinds[kind](name)] if kind in kinds else []


def _last_part(incomplete: str, names: Iterable[str]) -> list[str]:
    done, comma, last = incomplete.rpartition(",")
    given = set(done.split(","))
    return [f"{done}{comma}{name}" for name in names if name.startswith(last) and name not in given]


def _folders(incomplete: str) -> list[str]:
    if not incomplete or any(character in incomplete for character in "*?["):
        return []
    start = Path(incomplete)
    parent = start if incomplete.endswith("/") else start.parent
    try:
        inside = sorted(entry for entry in parent.iterdir() if entry.is_dir())
    except OSError:
        return []
    return [f"{entry}/" for entry in inside if str(entry).startswith(incomplete)]


_BY_NAME: dict[str, Completer] = {
    "model": models,
    "dataset": dataset,
    "protocol": protocols,
    "run": runs,
    "sides": runs,
}
_OF_COMMAND: dict[tuple[str, str], Completer] = {
    ("run", "dataset"): datasets,
    ("show", "what"): things,
    ("show", "diff"): things,
}
