"""What all cards and protocols share: their tables, how a file is read, how faults become one error."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from segbench.cards.fault_lines import fault_lines
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_toml
from segbench.core.text import count

_Model = TypeVar("_Model", bound=BaseModel)
CARD_BYTES = 1_000_000
"""A card larger than this is refused before it is parsed."""


class Section(BaseModel):
    """A table of a card: frozen; a key that nobody knows and a number that is not finite are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def checked(
    model: type[_Model],
    content: Mapping[str, Any],
    *,
    what: str,
    path: Path | str | None = None,
    faults: Sequence[str] = (),
) -> _Model:
    """The content of a card as its model.

    Args:
        model: The model.
        content: The parsed TOML.
        what: Name for the error where there is no file.
        path: Its file, for the error.
        faults: What is wrong already.

    Raises:
        SegbenchError: SB110 with one line per fault: key path, what was found, what is allowed.
    """
    told = list(faults)
    try:
        card = model.model_validate(content)
    except ValidationError as error:
        told += fault_lines(error)
        card = None
    if told or card is None:
        name = what if path is None else Path(path).as_posix()
        message = f"{name} has {count(len(told), 'fault')}"
        raise SegbenchError("SB110", message, path=path, details=told)
    return card


def read_table(path: Path | str) -> dict[str, Any]:
    """The TOML of a card's file.

    Raises:
        SegbenchError: SB110 where it cannot be read, is too large or is not TOML.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        message = f"{path.as_posix()} cannot be read: {(error.strerror or str(error)).lower()}"
        raise SegbenchError("SB110", message, path=path) from None
    if len(raw) > CARD_BYTES:
        message = f"{path.as_posix()} is larger than {CARD_BYTES:,} bytes"
        raise SegbenchError("SB110", message, path=path, found=len(raw))
    try:
        return parse_toml(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SegbenchError("SB110", f"{path.as_posix()} is not valid TOML: {error}", path=path) from None
