"""What a split file may hold: lists of cases or a rule. Malformed files are refused with all their faults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.text import count
from segbench.data.splits.walk import PARTS

SCHEMA_VERSION = 1
EVERY_OTHER_CASE = "*"
RULES = ("patient-safe", "random", "folds", "forms", "table")
_KEYS = {
    "schema_version", "dataset", "name", "kind", "source", "acknowledged_leaks", "folds", "digest",
    "rule", "of", "seed", "fractions", "test", "validation", "table", "case", "column", "known_leaks",
}  # fmt: skip


def load_document(path: Path) -> Mapping[str, Any] | list[Any]:
    """The JSON of a split file: an object, or the list of folds that nnU-Net writes (SB110 otherwise)."""
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"split file {path} cannot be read: {error.strerror}"
        raise SegbenchError("SB110", message, path=path) from error
    except ValueError as error:
        raise SegbenchError("SB110", f"split file {path.name} is not JSON: {error}", path=path) from error
    if not isinstance(document, dict | list):
        raise SegbenchError("SB110", f"split file {path.name} is not a JSON object", path=path)
    return document


def check_document(document: Mapping[str, Any], path: Path, slug: str) -> None:
    """Refuse a malformed file with all its faults (SB110), and another dataset's file (SB324)."""
    faults = [f"{key}: no such key" for key in sorted(set(document) - _KEYS)]
    if document.get("schema_version") != SCHEMA_VERSION:
        faults.append(f"schema_version: found {document.get('schema_version')!r}; allowed: {SCHEMA_VERSION}")
    no_text = [key for key in ("name", "dataset") if not isinstance(document.get(key), str)]
    faults += [f"{key}: found {document.get(key)!r}; allowed: a text" for key in no_text]
    kind = document.get("kind")
    if kind == "list":
        faults += _list_faults(document.get("folds"))
    elif kind == "rule":
        faults += _rule_faults(document)
    else:
        faults.append(f"kind: found {kind!r}; allowed: list, rule")
    if faults:
        message = f"split file {path.name} has {count(len(faults), 'fault')}"
        raise SegbenchError("SB110", message, path=path, details=faults)
    if document["dataset"] not in ("", slug):
        raise SegbenchError(
            "SB324",
            f"split {document['name']} was made for another dataset",
            path=path,
            expected=slug,
            found=document["dataset"],
        )


def _list_faults(folds: object) -> list[str]:
    if not isinstance(folds, list) or not folds:
        return ["folds: allowed: a list of {train, validation, test}"]
    faults: list[str] = []
    for index, fold in enumerate(folds):
        if not isinstance(fold, dict):
            faults.append(f"folds[{index}]: allowed: {{train, validation, test}}")
            continue
        for key, cases in fold.items():
            listed = isinstance(cases, list) and all(isinstance(case, str) for case in cases)
            if key not in PARTS:
                faults.append(f"folds[{index}].{key}: no such part; allowed: {', '.join(PARTS)}")
            elif not listed and cases != EVERY_OTHER_CASE:
                faults.append(f'folds[{index}].{key}: allowed: a list of case ids, or "{EVERY_OTHER_CASE}"')
        if list(fold.values()).count(EVERY_OTHER_CASE) > 1:
            faults.append(f'folds[{index}]: "{EVERY_OTHER_CASE}" may be in one part only')
    return faults


def _rule_faults(document: Mapping[str, Any]) -> list[str]:
    rule = document.get("rule")
    if rule not in RULES:
        return [f"rule: found {rule!r}; allowed: {', '.join(RULES)}"]
    needs = {
        "patient-safe": ("of",),
        "forms": ("test",),
        "table": ("table", "case", "column", "test"),
    }
    faults = [
        f"{key}: this key is required by the rule {rule}"
        for key in needs.get(rule, ())
        if key not in document
    ]
    faults += [
        f"{key}: found {document[key]!r}; allowed: a text"
        for key in ("of", "table", "case", "column")
        if not isinstance(document.get(key, ""), str)
    ]
    for key in ("test", "validation"):
        listed = document.get(key, [])
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            faults.append(f"{key}: found {listed!r}; allowed: a list of texts")
    if rule == "folds" and not _is_count(document.get("folds", 5)):
        faults.append(f"folds: found {document['folds']!r}; allowed: a number of folds")
    shares = document.get("fractions", [0.7, 0.1, 0.2])
    numbers = (
        isinstance(shares, list) and len(shares) == 3 and all(isinstance(s, int | float) for s in shares)
    )
    if not numbers or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or shares[2] >= 1:
        faults.append(f"fractions: found {shares!r}; allowed: three shares that sum to 1")
    seed = document.get("seed", 0)
    if not _is_count(seed):
        faults.append(f"seed: found {seed!r}; allowed: a whole number")
    return faults


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def named_ids(paths: Iterable[Path]) -> set[str]:
    """Every case id that list files name, whatever the part; unreadable files name nobody."""
    ids: set[str] = set()
    for path in paths:
        try:
            document = parse_json(path.read_text(encoding="utf-8"))
            listed = [cases for fold in document.get("folds", []) for cases in fold.values()]
            ids.update(case for cases in listed if cases != EVERY_OTHER_CASE for case in cases)
        except (OSError, ValueError, AttributeError, TypeError):
            continue
    return ids
