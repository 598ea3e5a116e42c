"""From a card's `module:name` to what builds its network; a card from elsewhere is code, and bounded here.

Of the package that the card names, and of no other, something is imported; what it may name is a network's
class, or a function that says it builds one. Hubs, loaders and evaluators are neither.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from segbench.cards.locate import cards_root
from segbench.cards.model_card import ModelCard
from segbench.cards.registry import card_file
from segbench.core import console
from segbench.core.errors import BackendUnavailable, SegbenchError

__all__ = ["check_override_words", "leaves", "obstacle", "resolve_implementation"]

BUILDS = ("in_channels", "out_channels")
"""What a function that builds a network takes by name; hubs, loaders and evaluators do not."""
_PLACES = re.compile(
    r"(^|_)(address|checkpoint|ckpt|cmd|code|command|dir|directory|expr|expression|file|filename|files|folder|hub"
    r"|path|paths|pretrained|repo|repository|script|uri|url|weights)(_|$)"
)
"""Words in the name of an argument that stands for a path, an address or an expression."""
_WORD = re.compile(r"[\w.+-]*")


def resolve_implementation(card: ModelCard) -> Callable[..., Any]:
    """The class or function that a card names, from an installed package that its `requires` lists.

    Only that package is imported; whether the others of `requires` are there is looked up.

    Raises:
        SegbenchError: SB502 where a package is missing; SB110 where it has no such name, or where the name is
            neither a network's class nor a function of that package that builds one.
    """
    problem = obstacle(card)
    if problem is not None:
        raise problem
    module_name, _, attribute = card.implementation.partition(":")
    package = module_name.partition(".")[0]
    _say_where_from(card.slug, package)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise SegbenchError(
            "SB110",
            f"model '{card.slug}': {module_name} needs {error.name}, which cannot be imported",
            expected="all packages that it needs, among requires and installed",
            found=", ".join(card.requires),
            mend=f"install {error.name} and name it in requires, or correct the card",
        ) from error
    except (Exception, SystemExit) as error:  # whatever a module of somebody else raises
        raise _refused(
            card,
            f"importing {module_name} fails: {type(error).__name__}: {error}",
            mend=f"python -c 'import {module_name}' shows where",
        ) from error
    if not hasattr(module, attribute):
        raise SegbenchError(
            "SB110",
            f"model '{card.slug}': {module_name} has no '{attribute}'",
            expected=f"a class or function of {module_name}",
            found=attribute,
        )
    found = getattr(module, attribute)
    reason = _why_not(found, package) or _place_given(found, {*card.arguments, *card.overrides.values()})
    if reason is not None:
        raise _refused(card, reason)
    constructor: Callable[..., Any] = found
    return constructor


def obstacle(card: ModelCard) -> SegbenchError | None:
    """Why a card's network cannot be built here, as far as can be known without importing anything."""
    module_name = card.implementation.partition(":")[0]
    try:
        _check_package(card, module_name, module_name.partition(".")[0])
        _check_words(card, card.arguments)
    except SegbenchError as error:
        return error
    absent = next((name for name in card.requires if not _is_installed(name.partition(".")[0])), None)
    return None if absent is None else _missing(card, absent)


def _check_package(card: ModelCard, module_name: str, package: str) -> None:
    """Before anything is imported: a package that the card names, not Python itself, not a program."""
    if package not in card.requires:
        raise _refused(card, f"{package} is not among requires ({', '.join(card.requires)})")
    if package in sys.stdlib_module_names:
        raise _refused(card, f"{package} is part of Python, and builds no networks")
    if "__main__" in module_name.split("."):
        raise _refused(card, f"{module_name} is a program")


def check_override_words(
    card: ModelCard, constructor: Callable[..., Any], overrides: Mapping[str, Any]
) -> None:
    """Refuse overrides (a command's, or those that a weights file states) that a card could not state.

    Raises:
        SegbenchError: SB110.
    """
    _check_words(card, overrides)
    reason = _place_given(constructor, {card.overrides.get(name, name) for name in overrides})
    if reason is not None:
        raise _refused(card, reason)


def _check_words(card: ModelCard, arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        for text in leaves(value):
            if isinstance(text, str) and not _WORD.fullmatch(text):
                raise _refused(card, f"the argument {name} = {text!r} is not a plain word")


def leaves(value: object) -> list[object]:
    """The values inside nested tuples and lists."""
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]  # pyright: ignore[reportUnknownVariableType]
    return [value]


def _why_not(found: object, package: str) -> str | None:
    """Why this is nothing that a card may name; None where it is."""
    from torch import nn

    home = str(getattr(found, "__module__", None))
    if not (inspect.isclass(found) and issubclass(found, nn.Module)) and not inspect.isfunction(found):
        return "it is neither a subclass of torch.nn.Module nor a function"
    if home.partition(".")[0] != package:
        return f"it belongs to {home}, not to {package}"
    if inspect.isfunction(found):
        parameters = inspect.signature(found).parameters
        absent = [name for name in BUILDS if name not in parameters]
        if absent:
            return f"a function that builds a network takes {absent[0]} by name"
        places = [name for name in parameters if _is_place(name)]
        if places:
            return f"it takes a path, an address or an expression: {places[0]}"
    return None


def _place_given(found: Any, given: set[str]) -> str | None:
    """An argument of a class that stands for a path, an address or an expression, and is given or must be.

    Names of arguments tell nothing of segbench's own networks, none of which opens a file.
    """
    if str(getattr(found, "__module__", "")).startswith("segbench."):
        return None
    parameters = inspect.signature(found).parameters
    for name in sorted({*given, *parameters}):
        needed = name in parameters and parameters[name].default is inspect.Parameter.empty
        if _is_place(name) and (name in given or needed):
            return f"the argument {name} stands for a path, an address or an expression"
    return None


def _is_place(name: str) -> bool:
    return _PLACES.search(name.lower()) is not None


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return True
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _missing(card: ModelCard, name: str) -> BackendUnavailable:
    wanted = f"'segbench[{card.extra}]'" if card.extra else name
    return BackendUnavailable(
        f"model '{card.slug}' needs {name}, which is not installed", mend=f"pip install {wanted}"
    )


def _refused(
    card: ModelCard,
    reason: str,
    mend: str = "name the network's class, or write a small function of your own that builds it",
) -> SegbenchError:
    return SegbenchError(
        "SB110",
        f"model '{card.slug}' cannot be built by {card.implementation}: {reason}",
        expected="a subclass of torch.nn.Module, or a function with in_channels and out_channels, of a "
        "package that requires names; numbers and plain words as arguments",
        found=card.implementation,
        mend=mend,
    )


@cache
def _say_where_from(slug: str, package: str) -> None:
    """One line when a card from elsewhere is first used: it decides what is imported."""
    try:
        path = card_file("models", slug)
    except SegbenchError:  # a card that was made in memory
        return
    if not path.resolve().is_relative_to(cards_root().resolve()):
        said = f"its card is not segbench's own ({path}); the package {package} is imported"
        console.note(f"model {slug}: {said}")
