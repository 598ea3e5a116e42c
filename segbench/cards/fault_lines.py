"""What pydantic found wrong with a card or a record, in one wording for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

__all__ = ["fault_lines"]

KNOWN = {"Field required": "this key is required", "Extra inputs are not permitted": "no such key"}


def fault_lines(error: ValidationError) -> list[str]:
    """One line per fault, sorted: key path, what was found, what is allowed."""
    lines: set[str] = set()
    for fault in error.errors(include_url=False):
        parts = [_key_path(fault["loc"]), _found(fault) + _allowed(fault["msg"])]
        lines.add(": ".join(part for part in parts if part))
    return sorted(lines)


def _found(fault: Mapping[str, Any]) -> str:
    value = fault["input"]
    if fault["type"] == "value_error" and isinstance(value, Mapping):  # a rule across keys names them itself
        return ""
    if fault["msg"] == "Field required":  # pydantic gives the table around it
        return "found nothing; "
    return "found a table; " if isinstance(value, Mapping) else f"found {_short(value)}; "


def _key_path(where: Sequence[str | int]) -> str:
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text.replace(".[key]", "")


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _allowed(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return KNOWN.get(message, message[:1].lower() + message[1:])
