"""`run.json` of any tool and version as a `RunRecord`: what cannot be understood is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from segbench.core.foreign import parse_json
from segbench.records.schema import SCHEMA_VERSION, RunRecord

MAX_NESTING = 40  # levels of tables in a run.json; segbench writes six
REQUIRED = ("schema_version", "run_id", "kind", "status")


def read_record(path: Path) -> tuple[RunRecord, str]:
    """`run.json` as far as it can be understood and, when its run cannot be used, why.

    Fields and entries of tables that are not what the schema says are left out; model, dataset, protocol and
    metric profile may be a name.
    """
    try:
        content: Any = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        return unknown_record(path), f"run.json cannot be read: {(error.strerror or str(error)).lower()}"
    except ValueError as error:
        return unknown_record(path), f"run.json is not valid JSON: {error} (fix: restore it or run again)"
    fields = cast("dict[str, Any]", content) if isinstance(content, dict) else None
    if fields is None or not _shallow(fields):
        return unknown_record(path), "run.json is not a record"
    absent = [name for name in REQUIRED if fields.get(name) in (None, "")]
    if absent:
        return unknown_record(path, fields), f"run.json lacks {', '.join(absent)}"
    version = fields["schema_version"]
    if isinstance(version, int) and version > SCHEMA_VERSION:
        problem = f"run.json has schema_version {version}, newer than {SCHEMA_VERSION}"
        return unknown_record(path, fields), problem
    for name in ("model", "dataset", "protocol", "metric_profile"):
        if isinstance(fields.get(name), str):
            fields[name] = {"name" if name in {"protocol", "metric_profile"} else "slug": fields[name]}
    while True:
        try:
            return RunRecord.model_validate(fields), ""
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_input=False):
                where = [str(part) for part in fault["loc"]]
                if where[0] in REQUIRED:
                    problem = f"run.json has an unusable {where[0]}: {fault['msg']}"
                    return unknown_record(path, fields), problem
                _drop(fields, *where)


def _drop(fields: dict[str, Any], name: str, *below: str) -> None:
    """Take the innermost table entry on the way to a fault out of the fields."""
    inner = fields.get(name)
    if below and isinstance(inner, dict) and below[0] in inner:
        _drop(cast("dict[str, Any]", inner), *below)
    else:
        fields.pop(name, None)


def unknown_record(path: Path, fields: Mapping[str, Any] | None = None) -> RunRecord:
    """The record of a run.json that cannot be used: a name to call the run by, and whose it may be."""
    given = fields or {}
    name = given.get("run_id")
    tables = {key: given[key] for key in ("model", "dataset", "protocol") if isinstance(given.get(key), dict)}
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=name if isinstance(name, str) and name else path.parent.name,
        kind="external",
        status="failed",
        **tables,
    )


def _shallow(content: object) -> bool:
    """Whether no table or list lies deeper than `MAX_NESTING` levels, counted without recursion."""
    level: list[Any] = [content]
    for _ in range(MAX_NESTING + 1):
        within: list[Any] = [item.values() if isinstance(item, dict) else item for item in level]
        level = [inner for items in within for inner in items if isinstance(inner, dict | list)]
    return not level
