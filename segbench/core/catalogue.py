"""The catalogue of error codes, read from `catalogue.toml`, and the meaning of the exit codes.

`segbench show error:SB204` prints an entry; `docs/reference/errors.md` is generated from the same file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

Severity = Literal["error", "warning", "info"]


class ExitCode(IntEnum):
    """What a command's exit status means (the same for every command)."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    PARTIAL = 3
    DATA = 4
    ENVIRONMENT = 5
    GATE = 6
    LOCKED = 7


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One error code.

    Attributes:
        code: "SB" and three digits.
        title: What happened, without names.
        exit_code: Exit status when nothing else went on (3 when other cases, cells or datasets did).
        explanation: What it means and what segbench did about it.
        mend: What the user can do, one line.
        example: A message as it is printed.
        severity: error, warning or info.
    """

    code: str
    title: str
    exit_code: int
    explanation: str
    mend: str
    example: str
    severity: Severity = "error"


def _read() -> Mapping[str, CatalogueEntry]:
    table = tomllib.loads(files("segbench.core").joinpath("catalogue.toml").read_text(encoding="utf-8"))
    entries = {
        code: CatalogueEntry(code=code, exit_code=entry.pop("exit"), **entry) for code, entry in table.items()
    }
    return MappingProxyType(entries)


CATALOGUE: Mapping[str, CatalogueEntry] = _read()
