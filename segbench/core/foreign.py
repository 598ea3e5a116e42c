"""JSON, TOML and tables of others: text that is not one is a ValueError; a value that is not one is empty."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Mapping
from typing import Any, cast


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, as `json.loads` gives it.

    Raises:
        ValueError: It is no JSON, or nested so deeply that Python gives up: a file of a few kilobytes
            of brackets would else end the command with an internal error.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None


def parse_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text, as `tomllib.loads` gives it.

    Raises:
        tomllib.TOMLDecodeError: A ValueError; it is no TOML, or nested too deeply.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise tomllib.TOMLDecodeError("nested too deeply") from None


def parse_table(text: str) -> list[list[str]]:
    """The cells of a table, line by line; comma, semicolon or tab between them, as its first line has most.

    Raises:
        ValueError: It is not a table.
    """
    first = text.partition("\n")[0]
    try:
        return list(csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count)))
    except csv.Error as error:
        raise ValueError(str(error)) from None


def table(value: object, *names: str) -> Mapping[str, Any]:
    """The table at a path of names below an unchecked value, keys as text; empty where there is none."""
    for name in names:
        value = table(value).get(name)
    if not isinstance(value, Mapping):
        return {}
    return {str(key): item for key, item in cast("Mapping[object, Any]", value).items()}


def as_list(value: object) -> list[Any]:
    """An unchecked value as a list; an empty one where it is not a list."""
    return list(cast("list[Any] | tuple[Any, ...]", value)) if isinstance(value, list | tuple) else []
