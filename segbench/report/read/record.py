"""`run.json` of any tool and version as a `RunRecord`: what cannot be understood is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
        content: object = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        return unknown_record(path), f"run.json cannot be read: {type(error).__name__}"
    if not isinstance(content, dict) or _nested(content) > MAX_NESTING:
        return unknown_record(path), "run.json is not a record"
    fields: dict[str, Any] = content
    absent = [name for name in REQUIRED if fields.get(name) in (None, "")]
    if absent:
        return unknown_record(path, fields), f"run.json lacks {', '.join(absent)}"
    version = fields["schema_version"]
    if isinstance(version, int) and version > SCHEMA_VERSION:
        return unknown_record(
            path, fields
        ), f"run.json has schema_version {version}, newer than {SCHEMA_VERSION}"
    for name in ("model", "dataset", "protocol", "metric_profile"):
        if isinstance(fields.get(name), str):
            fields[name] = {"name" if name in {"protocol", "metric_profile"} else "slug": fields[name]}
    return _tolerant(path, fields)


def _tolerant(path: Path, fields: dict[str, Any]) -> tuple[RunRecord, str]:
    """The record of fields of which the required ones must be right."""
    while True:
        try:
            return RunRecord.model_validate(fields), ""
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_input=False):
                where = [str(part) for part in fault["loc"]]
                if where[0] in REQUIRED:
                    return unknown_record(
                        path, fields
                    ), f"run.json has an unusable {where[0]}: {fault['msg']}"
                _drop(fields, where)


def _drop(fields: dict[str, Any], where: Sequence[str]) -> None:
    """Take the innermost table entry on the way to a fault out of the fields."""
    here, name = fields, where[0]
    for part in where[1:]:
        inner = here.get(name)
        if not isinstance(inner, dict) or part not in inner:
            break
        here, name = inner, part
    here.pop(name, None)


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


def _nested(content: object) -> int:
    """Levels of tables and lists, counted without recursion."""
    depth, level = 0, [content]
    while level and depth <= MAX_NESTING:
        depth += 1
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = [item for item in inner if isinstance(item, dict | list)]
    return depth
