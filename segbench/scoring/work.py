"""One case, from its files to rows: what a worker process does.

Every case leaves a stamp of the files it was computed from (state, sha256), so that the same command can
tell what still holds. A worker that finds both digests unchanged gives the earlier rows and scores nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from segbench.core.errors import SegbenchError
from segbench.core.faults import fault
from segbench.core.hashing import file_state, sha256_file
from segbench.metrics.engine.choice import compiled_engine_wanted
from segbench.metrics.evaluate import SMALL_VOXELS
from segbench.scoring.case import CaseResult, explain_label, reference_digest, score_failure, score_file
from segbench.scoring.masks import Member, on_one_code
from segbench.scoring.rules import ScoringRules
from segbench.scoring.sources import Predictions, References, files_of
from segbench.volumes import DEFAULT_MAX_BYTES
from segbench.volumes.read import plausible_size

Stamp = dict[str, Any]

ENGINE = "segbench.metrics.engine._native"

HASHED_AT_ONCE = 16 * 2**20
"""Files up to this size are hashed without a look at the header: that would take longer."""

SAME_FILE = "the prediction is the reference, byte for byte: are both the same files?"


@dataclass(frozen=True)
class Task:
    """A case to score.

    Attributes:
        case: its id.
        before: what an earlier run kept of it, or None.
        check_only: only read the reference: another reference is damaged already, so nothing will be scored.
    """

    case: str
    before: CaseResult | None = None
    check_only: bool = False


@dataclass
class ScoreCase:
    """The function that workers call; errors it raises are faults of references.

    Attributes:
        rules: how to score.
        references: where references come from.
        predictions: the prediction of each case.
        threads: threads of the engine in a worker process.
    """

    rules: ScoringRules
    references: References
    predictions: Predictions
    threads: int = 1

    def __call__(self, task: Task) -> CaseResult | None:
        """Return the rows of a case, the earlier ones where they hold; None when it was only checked."""
        if parent_process() is not None:
            os.environ["SEGBENCH_THREADS"] = str(self.threads)
            fault("worker")
        prediction = self.predictions.paths[task.case]
        inputs = {
            "rules": self.rules.digest(),
            "reference": [self._stamp(path) for path in self.references.files(task.case)],
            "prediction": self._stamped(prediction),
        }
        if task.before is not None and same_content(task.before.inputs, inputs):
            return replace(task.before, inputs=inputs)
        try:
            reference = self.references.read(task.case)
        except SegbenchError as error:
            explain_label(error, self.rules)
            raise _named(error, task.case) from None
        if task.check_only:
            return None
        absent = self.predictions.absent.get(task.case)
        result = score_file(self.rules, task.case, reference, prediction, absent=absent)
        notes = (*result.notes, (SAME_FILE, task.case)) if is_its_reference(inputs) else result.notes
        return replace(result, inputs=inputs, notes=notes)

    def killed(self, case: str, error: SegbenchError) -> CaseResult:
        """Return the rows of a case that no worker survives: unreadable, with the signal's name."""
        rules, reference, _ = on_one_code(self.rules, self.references.read(case))
        return CaseResult(
            case=case,
            rows=score_failure(rules, case, reference, error),
            reference=reference_digest(reference),
            inputs={"rules": self.rules.digest()},
            failure={**error.as_dict(), "case": case, "status": "unreadable"},
        )

    def files(self, case: str) -> list[Path]:
        """Return the files of a case, the prediction last."""
        return [*self.references.files(case), *files_of(self.predictions.paths[case])]

    def holds(self, before: CaseResult | None) -> bool:
        """Tell without reading that a case's files are what they were: nobody can set `ctime` back.

        Where the state differs the digests decide (`same_content`).
        """
        if before is None or before.inputs.get("rules") != self.rules.digest():
            return False
        prediction = self.predictions.paths[before.case]
        paths = self.files(before.case)
        stamps = _stamps(before.inputs)
        if (before.inputs.get("prediction") is None) != (prediction is None) or len(stamps) != len(paths):
            return False
        return all(
            old.get("sha256") is not None
            and tuple(old.get(name) for name in ("bytes", "mtime_ns", "ctime_ns", "inode"))
            == file_state(path)
            for old, path in zip(stamps, paths, strict=True)
        )

    def _stamp(self, path: Path) -> Stamp:
        return stamp(path, max_bytes=self.rules.max_bytes)

    def _stamped(self, source: Path | Mapping[Member, Path] | None) -> Stamp | list[Stamp] | None:
        """The stamp of a label map, those of masks, None where there is no prediction."""
        stamps = [self._stamp(path) for path in files_of(source)]
        return stamps if isinstance(source, Mapping) else stamps[0] if stamps else None


def preloaded(rules: ScoringRules, largest_bytes: int) -> tuple[str, ...]:
    """Return the modules a worker will need, for one process to import before the workers are made.

    Args:
        rules: how cases are scored.
        largest_bytes: payload of the largest volume: small ones need no compiled kernels.
    """
    if largest_bytes <= SMALL_VOXELS or not compiled_engine_wanted():
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
    """Tell whether a case's prediction is the files its reference is made of, or copies of them."""
    found = {each.get("sha256") for each in _of_prediction(inputs)}
    return bool(found) and None not in found and found <= {each.get("sha256") for each in inputs["reference"]}


def same_content(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether two sets of stamps are of the same bytes under the same rules."""
    digests = [each.get("sha256") for each in _stamps(now)]
    return (
        before.get("rules") == now["rules"]
        and (before.get("prediction") is None) == (now["prediction"] is None)
        and [each.get("sha256") for each in _stamps(before)] == digests
        and None not in digests
    )


def _stamps(inputs: Mapping[str, Any]) -> list[Stamp]:
    """Return the stamps of a case's files, the prediction's last."""
    return [*(inputs.get("reference") or ()), *_of_prediction(inputs)]


def _of_prediction(inputs: Mapping[str, Any]) -> list[Stamp]:
    found = inputs.get("prediction") or []
    return found if isinstance(found, list) else [found]


def _named(error: SegbenchError, case: str) -> SegbenchError:
    """Return the error of a reference, naming its case and saying whose fault it is."""
    message = error.message if error.message.startswith("reference") else f"reference: {error.message}"
    return error.with_details(message=message, case=error.case or case)
