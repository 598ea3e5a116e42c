"""How a number is printed: half-even on the decimal string of the double, and never a misleading zero."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Context, Decimal

_CONTEXT = Context(prec=400, rounding=ROUND_HALF_EVEN)  # wide enough for any double at any number of digits


def format_number(value: float, *, scale: float = 1.0, digits: int = 2) -> str:
    """A number with fixed decimals, `-` as minus, `inf` for infinities; a rounded -0.00 becomes 0.00.

    Args:
        value: in stored units, not NaN.
        scale: factor applied before rounding (100 prints a Dice of 0.9 as 90.00).
        digits: decimals, 0 or more.
    """
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    exact = _CONTEXT.multiply(Decimal(repr(float(value))), Decimal(repr(float(scale))))
    rounded = exact.quantize(Decimal(1).scaleb(-digits), context=_CONTEXT)
    return f"{abs(rounded):f}" if rounded.is_zero() else f"{rounded:f}"


def format_p(value: float | None) -> str:
    """A p-value with three decimals, `<0.001` below that, never 0; `n/a` when there is none."""
    if value is None or math.isnan(value):
        return "n/a"
    return "<0.001" if value < 0.001 else format_number(value, digits=3)


def value_words(value: object) -> str:
    """A value of a recipe or rule in a few characters: `0.01`, `128x128x64`, `none` for an empty list."""
    if isinstance(value, list | tuple):
        return "x".join(map(value_words, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
