"""The run id: the same id means the same experiment."""

from __future__ import annotations

import re
from dataclasses import dataclass

from segbench.core.hashing import digest_json

_UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")
_ID = re.compile(
    r"(?P<model>.+?)__(?P<dataset>.+?)__(?P<protocol>.+?)__f(?P<fold>\d+)__s(?P<seed>\d+)__(?P<digest>[0-9a-f]{8})"
)


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """The parts of a run id."""

    model: str
    dataset: str
    protocol: str
    fold: int
    seed: int
    digest: str


def run_id(
    model: str, dataset: str, protocol: str, *, fold: int, seed: int, content: dict[str, object]
) -> str:
    """`<model>__<dataset>__<protocol>__f<fold>__s<seed>__<8 hex>`.

    Args:
        model: Model slug, or the label of predictions from elsewhere.
        dataset: Dataset slug.
        protocol: Protocol name.
        fold: Fold index.
        seed: Training seed.
        content: Everything that changes numbers: network arguments, resolved protocol, dataset content
            digest, split digest, schema version. JSON-able.
    """
    parts = [safe_part(model), safe_part(dataset), safe_part(protocol), f"f{fold}", f"s{seed}"]
    return "__".join([*parts, digest_json(content)[:8]])


def parse_run_id(text: str) -> RunIdentity | None:
    """The parts of a run id, or None when the text is none."""
    match = _ID.fullmatch(text)
    if match is None:
        return None
    return RunIdentity(
        match["model"],
        match["dataset"],
        match["protocol"],
        int(match["fold"]),
        int(match["seed"]),
        match["digest"],
    )


def safe_part(text: str) -> str:
    """A name as it stands in a folder name: letters, digits, dot, plus, dash; never empty, never hidden."""
    cleaned = _UNSAFE.sub("-", text).strip("-.")[:80]
    return cleaned or "unnamed"
