"""The process that measures, asked by `rows` through `core.processes`.

Counting requests may share a process; measured ones get one each.
"""

from __future__ import annotations

from typing import Any

from segbench.core.processes import answer_questions
from segbench.profiling.schema import ProfileRequest

__all__ = ["answer"]


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """{"row": ...} or {"status": ..., "reason": ...}; the process survives what Python can catch."""
    request = ProfileRequest.model_validate(question["request"])
    try:
        from segbench.profiling import measure

        if question["task"] == "try":
            measure.runs_at_all(request)
            return {"status": "ok", "reason": None}
        return {"row": measure.measure_row(request).model_dump(mode="json")}
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> dict[str, Any]:
    from segbench.core.errors import SegbenchError
    from segbench.engine.memory import is_out_of_memory

    text = (
        error.message if isinstance(error, SegbenchError) else f"{type(error).__name__}: {error}".rstrip(": ")
    )
    reason = (text.strip().splitlines() or [type(error).__name__])[0][:300]
    if is_out_of_memory(error):
        return {"status": "oom", "reason": reason}
    # What a network or a backend refuses is not a failure of the measurement.
    refused = isinstance(error, NotImplementedError | ValueError | SegbenchError)
    return {
        "status": "unsupported" if refused or "not implemented for" in str(error) else "error",
        "reason": reason,
    }


if __name__ == "__main__":
    answer_questions(answer)
