"""The process that measures: requests come in as lines of JSON, rows go out as lines of JSON.

Started by `rows` as `python -m segbench.profiling.worker`. Whatever a library prints goes to stderr, so that
stdout holds rows only. Counting requests may share a process; measured ones get one each.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from segbench.profiling.request import ProfileRequest

__all__ = ["main"]


def main() -> None:
    """Answer one line of stdin after the other."""
    rows = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        task = json.loads(line)
        answer = _answer(task["task"], ProfileRequest.model_validate(task["request"]))
        rows.write(json.dumps(answer, allow_nan=False) + "\n")
        rows.flush()


def _answer(task: str, request: ProfileRequest) -> dict[str, Any]:
    """{"row": ...} or {"status": ..., "reason": ...}; the process survives what Python can catch."""
    try:
        from segbench.profiling import measure

        if task == "try":
            measure.runs_at_all(request)
            return {"status": "ok", "reason": None}
        return {"row": measure.measure_row(request).model_dump(mode="json")}
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> dict[str, Any]:
    from segbench.core.errors import SegbenchError
    from segbench.profiling.memory import is_out_of_memory

    text = (
        error.message if isinstance(error, SegbenchError) else f"{type(error).__name__}: {error}".rstrip(": ")
    )
    reason = (text.strip().splitlines() or [type(error).__name__])[0][:300]
    if is_out_of_memory(error):
        return {"status": "oom", "reason": reason}
    # What a network or a backend refuses is no failure of the measurement.
    refused = isinstance(error, NotImplementedError | ValueError | SegbenchError)
    return {
        "status": "unsupported" if refused or "not implemented for" in str(error) else "error",
        "reason": reason,
    }


if __name__ == "__main__":
    main()
