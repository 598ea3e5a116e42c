"""Overrides of a network's arguments: which ones there are, and which values they can have.

What a constructor of segbench says of its own arguments is what is checked, so that a wrong value is refused
by name instead of failing deep inside a layer, or building another network than was meant.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from segbench.cards.model_card import ModelCard
from segbench.core.errors import SegbenchError
from segbench.networks.blocks.inputs import InputError

__all__ = ["UnknownOverrideError", "check_overrides", "frozen", "override_names"]

RESERVED = frozenset({"self", "in_channels", "out_channels", "spatial_dims"})
"""Parameters of a constructor that are no overrides: segbench sets them itself."""
SIZES = frozenset(
    {"features", "depths", "hidden", "blocks", "strides", "kernel_sizes", "kernel_size", "patch_size"}
    | {"slices", "dw_kernel", "mlp_expansion"}
)
"""Overrides that count something: channels, layers, voxels. None of them can be less than 1."""


class UnknownOverrideError(SegbenchError, TypeError):
    """An override that the network does not know (SB104); also a TypeError."""


def override_names(card: ModelCard, constructor: Callable[..., Any]) -> set[str]:
    """The names that `build_network` takes for this card, those that the card renames included."""
    renamed = set(card.overrides.values())
    taken = {
        parameter.name
        for parameter in inspect.signature(constructor).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    return (taken - RESERVED - renamed) | set(card.overrides)


def check_overrides(card: ModelCard, constructor: Callable[..., Any], overrides: Mapping[str, Any]) -> None:
    """Refuse overrides that the network does not know, or whose values it cannot have.

    Raises:
        UnknownOverrideError: An unknown name, or no plain value (SB104, a TypeError).
        InputError: A value of the wrong kind, or a size below 1 (SB104, a ValueError).
    """
    allowed = override_names(card, constructor)
    unknown = sorted(set(overrides) - allowed)
    if unknown:
        near = get_close_matches(unknown[0], allowed, n=1)
        raise UnknownOverrideError(
            "SB104",
            f"model '{card.slug}' takes no override {', '.join(unknown)}; "
            f"allowed: {', '.join(sorted(allowed))}",
            expected=sorted(allowed),
            found=unknown,
            mend=f"did you mean {near[0]}?" if near else "use one of the allowed overrides",
        )
    wrong = sorted(key for key, value in overrides.items() if not _is_plain(value))
    if wrong:
        raise UnknownOverrideError(
            "SB104",
            f"overrides are plain numbers, words and tuples; {', '.join(wrong)} is not",
            expected="numbers, words, tuples of them",
            found={key: type(overrides[key]).__name__ for key in wrong},
            mend="use a plain value",
        )
    if "backend" in overrides:
        from segbench.networks.scan.choice import check_backend_name

        check_backend_name(overrides["backend"])
    hints = _hints_of(constructor)
    for name, value in overrides.items():
        argument = card.overrides.get(name, name)
        if argument in hints:
            _check_kind(card, name, frozen(value), hints[argument])
        if name in SIZES:
            _check_size(card, name, value)


def frozen(value: Any) -> Any:
    """The value with tuples in the place of lists (cards and JSON have lists)."""
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _hints_of(constructor: Callable[..., Any]) -> dict[str, Any]:
    """Types of the arguments by name.

    Packages other than segbench annotate more narrowly than they accept, so of theirs only switches count:
    any word is true to Python, and "no" would build what True builds.
    """
    if constructor.__module__.startswith("segbench."):
        return get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    parameters = inspect.signature(constructor).parameters.values()
    return {parameter.name: bool for parameter in parameters if isinstance(parameter.default, bool)}


def _check_kind(card: ModelCard, name: str, value: object, hint: Any) -> None:
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        faults = error.errors()
        if {fault["type"] for fault in faults} <= {"missing", "too_long"}:
            return  # how many entries there must be, the constructor says better
        reason = faults[0]["msg"]
        raise InputError(
            "SB104",
            f"model '{card.slug}': {name} cannot be {value!r}: {reason[0].lower()}{reason[1:]}",
            expected=_written(hint),
            found=value,
            mend=f"{name} is {_written(hint)}; segbench show model:{card.slug} prints its arguments",
        ) from None


def _written(hint: Any) -> str:
    """A type as a reader would write it."""
    return (
        (hint.__name__ if isinstance(hint, type) else str(hint))
        .replace("collections.abc.", "")
        .replace("typing.", "")
    )


def _check_size(card: ModelCard, name: str, value: object) -> None:
    numbers = _numbers(value)
    wanted = None
    if any(number < 1 for number in numbers):
        wanted = "at least 1"
    elif "kernel" in name and any(number % 2 == 0 for number in numbers):
        wanted = "odd"  # an even one cannot be padded to keep the size
    if wanted is not None:
        raise InputError(
            "SB104",
            f"model '{card.slug}': {name} must be {wanted}; found {value!r}",
            expected=wanted,
            found=value,
            mend=f"give {name} of {wanted} numbers" if wanted == "odd" else f"give {name} of {wanted}",
        )


def _numbers(value: object) -> list[float]:
    if isinstance(value, tuple | list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
