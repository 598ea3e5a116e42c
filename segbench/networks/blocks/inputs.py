"""Refuse a volume that the network cannot take, before any compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segbench.core.errors import SegbenchError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["InputError", "check_arguments", "check_volume"]


class InputError(SegbenchError, ValueError):
    """A tensor or argument that a network cannot take (SB104); also a ValueError."""


def check_volume(
    x: Tensor,
    *,
    channels: int | None,
    divisor: int | Sequence[int],
    minimum: int | Sequence[int],
    size: Sequence[int] | None = None,
) -> None:
    """Pass a batch that the network can take; refuse any other one.

    Args:
        x: The batch; (B, C, D, H, W) is required.
        channels: C that the network was built for; None leaves it unchecked.
        divisor: What every spatial length (or D, H, W each) must be a multiple of.
        minimum: The smallest spatial length (or D, H, W each).
        size: The one size a network of fixed size takes.

    Raises:
        InputError: Naming what is required and what was found.
    """
    if x.ndim != 5:
        raise _refusal("a batch needs five axes (B, C, D, H, W)", "five axes", tuple(x.shape))
    if channels is not None and x.shape[1] != channels:
        raise _refusal(
            f"the network was built for {channels} input channels", f"{channels} channels", x.shape[1]
        )
    spatial = tuple(x.shape[2:])
    if size is not None and spatial != tuple(size):
        raise _refusal(f"the network was built for patches of {_times(size)}", _times(size), _times(spatial))
    divisors = (divisor,) * 3 if isinstance(divisor, int) else tuple(divisor)
    minima = (minimum,) * 3 if isinstance(minimum, int) else tuple(minimum)
    if any(length % step for length, step in zip(spatial, divisors, strict=True)):
        multiple = (
            f"multiple of {divisors[0]}" if len(set(divisors)) == 1 else f"multiple of {_times(divisors)}"
        )
        raise _refusal(f"each spatial length must be a {multiple}", f"a {multiple}", _times(spatial))
    if any(length < least for length, least in zip(spatial, minima, strict=True)):
        least = str(minima[0]) if len(set(minima)) == 1 else _times(minima)
        raise _refusal(f"each spatial length must be at least {least}", f"at least {least}", _times(spatial))


def check_arguments(*conditions: tuple[bool, str, object, str]) -> None:
    """Pass when every condition holds.

    Args:
        *conditions: Whether it holds, the argument's name, its value, what it must be.

    Raises:
        InputError: For the first that does not hold.
    """
    for holds, name, found, expected in conditions:
        if not holds:
            raise InputError(
                "SB104", f"{name} must be {expected}; found {found}", expected=expected, found=found
            )


def _refusal(message: str, expected: str, found: object) -> InputError:
    return InputError(
        "SB104",
        f"{message}; found {found}",
        expected=expected,
        found=str(found),
        mend="pad the volume or choose another patch; padding is the inferer's work, not the network's",
    )


def _times(lengths: Sequence[int]) -> str:
    return "x".join(str(length) for length in lengths)
