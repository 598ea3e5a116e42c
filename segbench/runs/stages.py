"""The stage contract: a stage is skipped when its inputs are unchanged and its outputs are there.

`inputs_digest` covers the stage's name and version, the protocol fields it reads (declared, not "all") and
the digests of what it consumes. `stages/<name>.json` is written last and atomically; outputs without it are
leftovers, used where they can be resumed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core.atomic import atomic_write_json
from segbench.core.errors import SegbenchError
from segbench.core.faults import fault
from segbench.core.foreign import parse_json
from segbench.core.hashing import digest_json, sha256_file

if TYPE_CHECKING:
    from segbench.runs.active import ActiveCell

STAGES = ("verify", "prepare", "train", "predict", "evaluate", "profile")


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage leaves behind.

    Attributes:
        outputs: Files in the run folder, recorded with size and sha256.
        artefact: Digest of what later stages consume.
        facts: Small values for the record (counts, seconds, memory), JSON-able.
    """

    artefact: str
    outputs: Sequence[Path] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a cell.

    Attributes:
        name: One of `STAGES`.
        version: Raised whenever the numbers of the stage could change.
        sections: Protocol sections it reads.
        consumes: Earlier stages whose artefacts it reads.
        run: Does the work.
        networks_only: Baselines skip it.
        inputs: Further inputs of the digest, such as the seed.
    """

    name: str
    version: int
    sections: tuple[str, ...]
    consumes: tuple[str, ...]
    run: Callable[[ActiveCell], StageResult]
    networks_only: bool = False
    inputs: Callable[[ActiveCell], dict[str, Any]] = lambda cell: {}


def inputs_digest(stage: Stage, cell: ActiveCell) -> str:
    """Digest of everything that decides what the stage computes."""
    protocol = cell.protocol.resolved()
    return digest_json(
        {
            "stage": stage.name,
            "version": stage.version,
            "protocol": {section: protocol[section] for section in stage.sections},
            "consumes": {name: cell.artefacts[name] for name in stage.consumes if name in cell.artefacts},
            "extra": stage.inputs(cell),
        }
    )


def finished(
    stage: Stage, cell: ActiveCell, digest: str, *, check_outputs: bool = False
) -> dict[str, Any] | None:
    """The stage file when it is current and its outputs exist with the right size, else None."""
    try:
        content = parse_json(stage_file(cell.folder, stage.name).read_text(encoding="utf-8"))
        if content["inputs_digest"] != digest:
            return None
        for output in content["outputs"]:
            path = cell.folder / output["path"]
            if not path.is_file() or path.stat().st_size != output["bytes"]:
                return None
            if check_outputs and sha256_file(path) != output["sha256"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content


def execute(stage: Stage, cell: ActiveCell) -> None:
    """Run a stage unless it is done; leaves its artefact and facts in the cell."""
    digest = inputs_digest(stage, cell)
    done = finished(stage, cell, digest, check_outputs=cell.execution.check_outputs)
    if done is None:
        fault("stage")
        cell.log(f"{stage.name}: begins")
        began = time.monotonic()
        before = len(cell.warnings)
        cell.inputs_digest = digest
        result = stage.run(cell)
        give_back_memory(cycles=stage.name == "train")
        cell.check_lease()
        done = {
            "schema_version": 1,
            "stage": stage.name,
            "version": stage.version,
            "inputs_digest": digest,
            "artefact": result.artefact,
            "outputs": [
                {
                    "path": path.relative_to(cell.folder).as_posix(),
                    "bytes": path.stat().st_size,
                    "sha256": sha256_file(path),
                }
                for path in result.outputs
            ],
            "facts": result.facts,
            "seconds": round(time.monotonic() - began, 3),
            "peak_rss_bytes": peak_rss(),
            "warnings": cell.warnings[before:],
        }
        atomic_write_json(stage_file(cell.folder, stage.name), done)
        cell.log(f"{stage.name}: done in {done['seconds']:.1f} s")
    else:
        cell.log(f"{stage.name}: unchanged, skipped")
        cell.warnings.extend(w for w in done["warnings"] if w not in cell.warnings)
    cell.artefacts[stage.name] = done["artefact"]
    cell.facts[stage.name] = done["facts"]
    cell.seconds[stage.name] = done["seconds"]


def drop_from(folder: Path, name: str) -> None:
    """Forget a stage and every later one, with their leftovers (`--fresh`).

    Raises:
        SegbenchError: SB104 for a name that is not a stage.
    """
    if name not in STAGES:
        raise SegbenchError("SB104", f"--fresh {name}: no such stage", expected=", ".join(STAGES), found=name)
    later = STAGES[STAGES.index(name) :]
    for stage in later:
        stage_file(folder, stage).unlink(missing_ok=True)
    leftovers = {
        "train": ("checkpoints", "epochs.jsonl", "tensorboard"),
        "predict": ("predictions",),
        "evaluate": ("cases.jsonl", "cases.csv"),
        "profile": ("profile.json",),
    }
    for stage in later:
        for leftover in leftovers.get(stage, ()):
            path = folder / leftover
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def stage_file(folder: Path, name: str) -> Path:
    """Where a stage says that it is done."""
    return folder / "stages" / f"{name}.json"


def give_back_memory(*, cycles: bool) -> None:
    """Return freed memory to the system; the next stage needs other sizes, and glibc would keep the old.

    Args:
        cycles: Look for objects that only hold each other first. Training leaves large ones; the search walks
            over everything that torch has imported, a quarter of a second each time.
    """
    import ctypes
    import gc
    import sys

    if cycles:
        gc.collect()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def peak_rss() -> int | None:
    """Peak resident memory of this process in bytes, or None where the system does not tell."""
    try:
        import resource
        import sys
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
