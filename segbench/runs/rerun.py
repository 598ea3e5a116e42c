"""What a record allows: find it, rebuild its command, say how two differ."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segbench.cards import DatasetCard, ModelCard
from segbench.cards.protocol import list_protocols, load_protocol, parse_setting
from segbench.core.errors import SegbenchError, nearest_names
from segbench.core.hashing import digest_json
from segbench.records.schema import RunRecord
from segbench.records.store import RUN_FILE, find_runs
from segbench.runs.fit import protocol_for
from segbench.runs.start import START_WEIGHTS


def find_run(name: str, results: Path) -> Path:
    """The run folder of an id, an unambiguous beginning of one, or a path.

    Raises:
        SegbenchError: SB101 unknown, SB104 ambiguous.
    """
    path = Path(name)
    if (path / "run.json").is_file():
        return path
    folders = {folder.name: folder for folder in find_runs(results)}
    if name in folders:
        return folders[name]
    matches = [folder for run_id, folder in folders.items() if name and run_id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise SegbenchError(
            "SB104",
            f"'{name}' is the beginning of {len(matches)} run ids",
            found=", ".join(folder.name for folder in matches[:3]) + (", ..." if len(matches) > 3 else ""),
            mend="write more of it",
        )
    near = nearest_names(name, list(folders))
    raise SegbenchError(
        "SB101",
        f"no run called '{name}'",
        path=results,
        mend=f"{'did you mean ' + ' or '.join(near) + '?   ' if near else ''}all: segbench list runs",
    )


def rerun_command(record: dict[str, Any], folder: Path | None = None) -> str:
    """The command that makes the same run again: the recorded one, or for a cell the one that plans it.

    Args:
        record: The content of `run.json`.
        folder: Where it lies: a split that is not the dataset's own is taken from there.
    """
    if record.get("kind") == "external":
        program, *words = record.get("command") or ["not", "recorded"]
        started = Path(program).name in {"segbench", "segbench.exe", "__main__.py"}  # not by a script
        return shlex.join(["segbench" if started else program, *words])
    model = (record.get("model") or {}).get("slug")
    dataset = (record.get("dataset") or {}).get("slug")
    protocol = record.get("protocol") or {}
    if not model or not dataset or not protocol:
        return "not a run of segbench run"
    name = str(protocol.get("name", "standard")).removesuffix("+custom")
    parts = ["segbench", "run", "--model", model, "--dataset", dataset, "--protocol", name]
    if name in list_protocols():
        changed = _settings(protocol, _shipped(name, record))
        if name == protocol.get("name") or len(changed) > 1:  # --limit alone does not rename the protocol
            limit = changed.pop("split.limit", None)
            parts += [] if limit is None else ["--limit", limit]
        parts += [word for field, value in changed.items() for word in ("--set", f"{field}={value}")]
    parts += _split_flag(record, folder)
    if record.get("init"):
        kept = START_WEIGHTS if folder is None else str(folder / START_WEIGHTS)
        parts += ["--init", kept, *(["--acknowledge"] if _acknowledged(record["init"]) else [])]
    parts += ["--fold", str(record.get("fold", 0)), "--seed", str(record.get("seed", 0))]
    return shlex.join(parts)


def _acknowledged(init: dict[str, Any]) -> bool:
    """Whether the start was marked: test cases among what it was trained on, or not known what that was."""
    return bool(init.get("overlap")) or init.get("trained_on") is None


def _settings(protocol: dict[str, Any], shipped: dict[str, Any]) -> dict[str, str]:
    """`--set` for each field of a section that the shipped protocol has otherwise; tables are set whole."""
    return {
        f"{section}.{field}": _toml(value)
        for section, fields in protocol.items()
        if isinstance(fields, dict) and section not in {"notes", "seeds", "family"}
        for field, value in fields.items()
        if (section, field) != ("split", "name") and value != (shipped.get(section) or {}).get(field)
    }


def _shipped(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """The protocol of that name as it applies to the record's own cards."""
    protocol = load_protocol(name)
    model, dataset = (record.get("model") or {}).get("card"), (record.get("dataset") or {}).get("card")
    try:
        cards = ModelCard.model_validate(model), DatasetCard.model_validate(dataset)
    except ValidationError:  # cards of another version; then more fields are named than need be
        return protocol.for_family(str((model or {}).get("family", ""))).resolved()
    return json.loads(json.dumps(protocol_for(protocol, *cards).resolved()))


def _split_flag(record: dict[str, Any], folder: Path | None) -> list[str]:
    """`--split` where the run did not take the split that its dataset's card names."""
    name = (record.get("split") or {}).get("name")
    card = (record.get("dataset") or {}).get("card") or {}
    if not name or name == (card.get("splits") or {}).get("default"):
        return []
    return ["--split", str(name) if folder is None else str(folder / RUN_FILE)]


def deciding(record: RunRecord) -> dict[str, Any]:
    """What of a record decides the numbers of its run; not when, where, by whom and under which titles."""
    content = record.model_dump(mode="json", exclude_none=True)
    kept = {name: content[name] for name in _DECIDING if name in content}
    model, dataset = content.get("model") or {}, content.get("dataset") or {}
    kept["model"] = {**model, "card": _only(model.get("card"), ("implementation", "arguments", "overrides"))}
    kept["dataset"] = {**dataset, "card": _only(dataset.get("card"), _DATASET_FIELDS)}
    for name in ("protocol", "metric_profile"):
        kept[name] = {k: v for k, v in (content.get(name) or {}).items() if k not in _TITLES}
    kept["segbench"] = _only(content.get("segbench"), ("version",))
    kept["external"] = {k: v for k, v in (content.get("external") or {}).items() if k in _SOURCES}
    return kept


_DECIDING = (
    "kind",
    "code",
    "init",
    "rules_digest",
    "references",
    "split",
    "fold",
    "seed",
    "versions",
    "determinism",
)
_DATASET_FIELDS = ("channels", "labels", "regions", "geometry", "evaluation")
_TITLES = frozenset(("name", "notes", "seeds", "schema_version"))
_SOURCES = frozenset(
    ("prediction", "reference", "geometry", "backend", "nnunet_summary", "sha256", "touchstone")
)
_SHOWN = 8  # entries of a list that are shown; of more their number and digest


def _only(content: object, names: tuple[str, ...]) -> dict[str, Any]:
    """Some fields of what should be a table."""
    return {name: content[name] for name in names if name in content} if isinstance(content, dict) else {}


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Fields in which two nested records differ: dotted name, value in a, value in b, as compact JSON.

    A field that one of them lacks is "-"; of a long list, or of the references, number and digest are given.
    """
    flat_a, flat_b = dict(_flat(a)), dict(_flat(b))
    return [
        (field, flat_a.get(field, "-"), flat_b.get(field, "-"))
        for field in sorted(flat_a.keys() | flat_b.keys())
        if flat_a.get(field) != flat_b.get(field)
    ]


def _flat(content: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in content.items():
        long = isinstance(value, list) and len(value) > _SHOWN
        if long or (key == "references" and isinstance(value, dict)):
            found.append((f"{prefix}{key}", f"{len(value)} entries, sha256 {digest_json(value)[:12]}"))
        elif isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", json.dumps(value, sort_keys=True)))
    return found


def difference_lines(rows: Sequence[tuple[str, str, str]], names: tuple[str, str], width: int) -> list[str]:
    """Differences for a terminal: the two runs, then a line for each field, none longer than `width`.

    Args:
        rows: From `differences`.
        names: Ids of the two runs.
        width: Columns of the terminal, at least 40.
    """
    lines = [f"{mark}  {shortened(name, width - 3)}" for mark, name in zip("AB", names, strict=True)]
    if not rows:
        return [*lines, "nothing that decides numbers differs"]
    first = min(max(len(row[0]) for row in rows), width // 2 - 4)
    room = (width - first - 4) // 2
    cells = [(shortened(field, first), *_told_apart(a, b, room)) for field, a, b in rows]
    second = max(len("A"), *(len(row[1]) for row in cells))
    table = [("", "A", "B"), *cells]
    return lines + [f"{x.ljust(first)}  {a.ljust(second)}  {b}".rstrip() for x, a, b in table]


def shortened(text: str, width: int) -> str:
    """A text of at most `width` characters, its middle left out where it is longer."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - (width - 1 - head) :]}"


def _told_apart(a: str, b: str, width: int) -> tuple[str, str]:
    """Two values shortened; where that hides what differs, from a little before the first difference."""
    short = shortened(a, width), shortened(b, width)
    if short[0] != short[1]:
        return short
    place = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    start = max(0, place - width // 4)
    dots = "\N{HORIZONTAL ELLIPSIS}" if start else ""
    return dots + shortened(a[start:], width - 1), dots + shortened(b[start:], width - 1)


def _toml(value: object) -> str:
    """A value as `--set` reads it: a word as it is, unless that would be read as something else."""
    if isinstance(value, str):
        return value if parse_setting(f"key={value}")[1] == value else json.dumps(value)
    return _inline(value)


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(inner) for inner in value) + "]"
    return json.dumps(value)
