"""What a record allows: find it, rebuild its command, say how two differ."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segbench.cards import DatasetCard, ModelCard
from segbench.cards.protocol import list_protocols, load_protocol
from segbench.core.errors import SegbenchError, nearest_names
from segbench.pipeline.cell import protocol_for
from segbench.records.store import RUN_FILE, find_runs


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
            "SB104", f"'{name}' is the beginning of {len(matches)} run ids", mend="write more of it"
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
        return shlex.join(record.get("command") or ["not", "recorded"])
    model = (record.get("model") or {}).get("slug")
    dataset = (record.get("dataset") or {}).get("slug")
    protocol = record.get("protocol") or {}
    if not model or not dataset or not protocol:
        return "not a run of segbench run"
    name = str(protocol.get("name", "standard")).removesuffix("+custom")
    parts = ["segbench", "run", "--model", model, "--dataset", dataset, "--protocol", name]
    if name in list_protocols():
        changed = {
            field: _toml(ours)
            for field, ours, _ in differences(protocol, _shipped(name, record))
            if field != "split.name" and field.split(".")[0] not in {"name", "notes", "seeds", "family"}
        }
        if name == protocol.get("name") or len(changed) > 1:  # --limit alone does not rename the protocol
            limit = changed.pop("split.limit", None)
            parts += [] if limit is None else ["--limit", limit]
        parts += [word for field, value in changed.items() for word in ("--set", f"{field}={value}")]
    parts += _split_flag(record, folder)
    parts += ["--fold", str(record.get("fold", 0)), "--seed", str(record.get("seed", 0))]
    return shlex.join(parts)


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


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Fields in which two nested records differ: dotted name, value in a, value in b, as compact JSON."""
    flat_a, flat_b = dict(_flat(a)), dict(_flat(b))
    return [
        (field, flat_a.get(field, "-"), flat_b.get(field, "-"))
        for field in sorted(flat_a.keys() | flat_b.keys())
        if flat_a.get(field) != flat_b.get(field)
    ]


def _flat(content: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in content.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", json.dumps(value, sort_keys=True)))
    return found


def _toml(text: str) -> str:
    value = json.loads(text) if text != "-" else ""
    return value if isinstance(value, str) else text
