"""What probes have measured on this machine, kept per kind of step in the cache folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from segbench.core.environment import cache_dir, machine
from segbench.core.hashing import digest_json
from segbench.pipeline.cell import Cell
from segbench.pipeline.context import Execution

__all__ = ["Measured", "known_probe", "probe_file"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a probe saw.

    Attributes:
        step_s: Median seconds of a training step; None when it does not fit.
        memory_bytes: Peak: on the device, or of the process on a CPU.
        problem: Why there are no seconds, such as "out of memory".
    """

    step_s: float | None
    memory_bytes: int | None
    problem: str = ""


def known_probe(cell: Cell, execution: Execution) -> Measured | None:
    """What an earlier probe of the same kind on this machine saw."""
    try:
        return Measured(**json.loads(probe_file(cell, execution).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def probe_file(cell: Cell, execution: Execution) -> Path:
    """Where a probe of this kind is kept: everything that decides how long a step takes is in the name."""
    p, card = cell.protocol, cell.dataset
    kind = {
        "machine": machine(),
        "threads": execution.threads,
        "device": execution.device,
        "model": cell.model.slug,
        "arguments": cell.network_arguments,
        "patch": list(p.patch.size),
        "batch": p.sampling.batch_size,
        "augment": p.augment.model_dump(mode="json"),
        "mirror": list(card.geometry.mirror_axes),
        "loss": p.loss.model_dump(mode="json"),
        "optimiser": p.optimiser.name,
        "train": p.train.model_dump(mode="json"),
        "determinism": p.determinism.level,
    }
    return cache_dir() / "probes" / f"{digest_json(kind)[:16]}.json"
