"""One case of `segbench evaluate`, from two files to rows: what a worker process does.

Every case leaves a stamp of the files it was computed from (state, sha256), so that the same command can
tell what still holds. A worker that finds both digests unchanged says so and scores nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from segbench.core.errors import SegbenchError
from segbench.core.faults import fault
from segbench.core.hashing import file_state, sha256_file
from segbench.metrics.engines import compiled_engine_wanted
from segbench.metrics.evaluate import SMALL_VOXELS
from segbench.scoring.case import CaseResult, ScoringRules, explain_label, score_file
from segbench.scoring.sources import References
from segbench.volumes import DEFAULT_MAX_BYTES
from segbench.volumes.read import plausible_size

Stamp = dict[str, Any]

ENGINE = "segbench.metrics._native"

HASHED_AT_ONCE = 16 * 2**20
"""Files up to this size are hashed without a look at the header: that would take longer."""

SAME_FILE = "the prediction is the reference, byte for byte: are both the same files?"


@dataclass(frozen=True)
class Task:
    """A case to score.

    Attributes:
        case: its id.
        prediction: its file, or None.
        before: the digests of an earlier run, or None.
        check_only: only read the reference: another reference is damaged already, so nothing will be scored.
    """

    case: str
    prediction: Path | None
    before: Mapping[str, Any] | None = None
    check_only: bool = False


@dataclass(frozen=True)
class Answer:
    """What a worker says about a task.

    Attributes:
        inputs: stamps of the files, and the digest of the rules.
        result: rows and failure; None when the earlier rows still hold or nothing was to be scored.
    """

    inputs: dict[str, Any]
    result: CaseResult | None


@dataclass
class ScoreCase:
    """The function that workers call; errors it raises are faults of references.

    Attributes:
        rules: how to score.
        references: where references come from.
        threads: threads of the engine in a worker process.
    """

    rules: ScoringRules
    references: References
    threads: int = 1

    def __call__(self, task: Task) -> Answer:
        """Return the rows of a case, or that the earlier ones hold."""
        if parent_process() is not None:
            os.environ["SEGBENCH_THREADS"] = str(self.threads)
            fault("worker")
        inputs = {
            "rules": self.rules.digest(),
            "reference": [self._stamp(path) for path in self.references.files(task.case)],
            "prediction": None if task.prediction is None else self._stamp(task.prediction),
        }
        if task.before is not None and same_content(task.before, inputs):
            return Answer(inputs, None)
        try:
            reference = self.references.read(task.case)
        except SegbenchError as error:
            explain_label(error, self.rules)
            raise _named(error, task.case) from None
        if task.check_only:
            return Answer(inputs, None)
        result = score_file(self.rules, task.case, reference, task.prediction)
        if is_its_reference(inputs):
            result = replace(result, notes=(*result.notes, (SAME_FILE, task.case)))
        return Answer(inputs, result)

    def _stamp(self, path: Path) -> Stamp:
        return stamp(path, max_bytes=self.rules.max_bytes)


def preloaded(rules: ScoringRules, largest_bytes: int) -> tuple[str, ...]:
    """Return the modules a worker will need, for one process to import before the workers are made.

    Args:
        rules: how cases are scored.
        largest_bytes: payload of the largest volume: small ones need no compiled kernels.
    """
    if rules.backend != "native" or largest_bytes <= SMALL_VOXELS or not compiled_engine_wanted():
        return (__name__,)
    return (__name__, ENGINE)


def stamp(path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Stamp:
    """Return state and sha256 of a file; what cannot be read, or is long and no reader takes, has no sha256.

    Header and size of a long file are looked at first: one that will be refused is not read to its end.
    """
    state = file_state(path)
    try:
        short = path.is_file() and state[0] <= HASHED_AT_ONCE
        digest = sha256_file(path) if short or plausible_size(path, max_bytes=max_bytes) else None
    except (OSError, SegbenchError):
        digest = None
    return {
        "bytes": state[0],
        "mtime_ns": state[1],
        "ctime_ns": state[2],
        "inode": state[3],
        "sha256": digest,
    }


def is_its_reference(inputs: Mapping[str, Any]) -> bool:
    """Tell whether a case's prediction is one of the files its reference is made of, or a copy of it."""
    found = (inputs.get("prediction") or {}).get("sha256")
    return found is not None and any(found == each.get("sha256") for each in inputs.get("reference") or ())


def untouched(before: Mapping[str, Any], files: Sequence[Path], prediction: Path | None, rules: str) -> bool:
    """Tell without reading that a case's files are what they were: nobody can set `ctime` back.

    Where the state differs the digests decide (`same_content`).
    """
    if before.get("rules") != rules or (before.get("prediction") is None) != (prediction is None):
        return False
    stamps: list[Any] = [*(before.get("reference") or ()), *([before["prediction"]] if prediction else [])]
    paths = [*files, *([prediction] if prediction else [])]
    if len(stamps) != len(paths):
        return False
    for old, path in zip(stamps, paths, strict=True):
        known = tuple(old.get(name) for name in ("bytes", "mtime_ns", "ctime_ns", "inode"))
        if old.get("sha256") is None or known != file_state(path):
            return False
    return True


def same_content(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether two sets of stamps are of the same bytes under the same rules."""
    return (
        before.get("rules") == now["rules"]
        and _digests(before) == _digests(now)
        and None not in _digests(now)
    )


def _digests(inputs: Mapping[str, Any]) -> list[Any]:
    stamps = [*(inputs.get("reference") or ()), *([inputs["prediction"]] if inputs.get("prediction") else [])]
    return [each.get("sha256") for each in stamps] + ([] if inputs.get("prediction") else ["no prediction"])


def _named(error: SegbenchError, case: str) -> SegbenchError:
    """Return the error of a reference, naming its case and saying whose fault it is."""
    return SegbenchError(
        error.code,
        error.message if error.message.startswith("reference") else f"reference: {error.message}",
        path=error.path,
        case=error.case or case,
        expected=error.expected,
        found=error.found,
        mend=error.mend,
        details=error.details,
    )
