"""Rows of a profile, each measured in a fresh process: a crash, a timeout or no memory is a result."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any

from segbench.core.processes import Child, ChildEnded
from segbench.profiling.schema import MemoryFacts, ProfileRequest, ProfileRow

__all__ = ["largest_patch", "profile_rows"]

LARGEST_CUBE = 1024
WORKER = "segbench.profiling.worker"
Report = Callable[[ProfileRow], None]


def profile_rows(requests: Sequence[ProfileRequest], *, report: Report | None = None) -> list[ProfileRow]:
    """One row per request, in order; no exception of a model ends the others.

    Requests that are only counted (device meta) share a process until one of them breaks it.

    Args:
        requests: What to measure.
        report: Called with each row as soon as it is there.
    """
    rows: list[ProfileRow] = []
    shared: Child | None = None
    try:
        for request in requests:
            if request.device == "meta":
                shared = shared if shared is not None and shared.alive else Child(WORKER, silent=True)
                row = _row(_asked("row", request, shared), request)
            else:
                row = _row(_asked("row", request), request)
                if request.max_patch and row.status in {"ok", "oom"}:
                    row = _with_largest_patch(row, request)
            rows.append(row)
            if report is not None:
                report(row)
    finally:
        if shared is not None:
            shared.stop()
    return rows


def _asked(task: str, request: ProfileRequest, child: Child | None = None) -> dict[str, Any]:
    """What a process answers, one of its own unless `child` is given; its end or delay is a status."""
    asked = child or Child(WORKER, silent=True)
    try:
        question = {"task": task, "request": request.model_dump(mode="json")}
        return asked.ask(question, limit_s=request.limit_s)
    except TimeoutError as late:
        return {"status": "timeout", "reason": str(late)}
    except ChildEnded as end:
        if end.code == -signal.SIGKILL:
            return {"status": "oom", "reason": "ended by the system (signal 9), most likely for memory"}
        return {"status": "error", "reason": f"the process ended with {end}"}
    finally:
        if child is None:
            asked.stop()


def _row(answer: dict[str, Any], request: ProfileRequest) -> ProfileRow:
    if "row" in answer:
        return ProfileRow.model_validate(answer["row"])
    static: dict[str, Any] = {}
    if request.device != "meta" and answer["status"] != "error":
        # Parameters and cost of a row that could not be measured can still be counted.
        counted = _asked("row", request.model_copy(update={"device": "meta"})).get("row", {})
        static = {name: counted[name] for name in ("params", "cost", "environment") if name in counted}
    return ProfileRow.of(request, status=answer["status"], reason=answer["reason"], **static)


def _with_largest_patch(row: ProfileRow, request: ProfileRequest) -> ProfileRow:
    from segbench.networks import network_card

    needs = network_card(request.model).input
    assert needs is not None  # the schema of network cards
    edge, note = largest_patch(
        lambda n: _tries(request, n), step=needs.divisor, least=needs.minimum, most=LARGEST_CUBE
    )
    memory = row.memory.model_dump() if row.memory else dict.fromkeys(MemoryFacts.model_fields)
    if memory["weights_bytes"] is None:
        memory["weights_bytes"] = row.params.total * 4 if row.params else 0
    memory |= {"max_patch": edge, "max_patch_note": note}
    return ProfileRow.model_validate({**row.model_dump(), "memory": memory})


def largest_patch(
    tries: Callable[[int], str], *, step: int, least: int, most: int
) -> tuple[int | None, str | None]:
    """Edge of the largest cube that runs, by bisection in multiples of `step`, and what ended the search.

    Args:
        tries: Status of a cube of that edge: `ok`, or why not.
        step: The network's divisor.
        least: The smallest edge it takes.
        most: The largest edge to try.
    """
    low, high = -(-least // step), most // step
    status = tries(low * step)
    if status != "ok":
        return None, f"{low * step}: {status}"
    good, ended, edge = low, None, low
    while edge < high:  # doubling finds the first cube that fails, or reaches the end
        edge = min(2 * edge, high)
        status = tries(edge * step)
        if status != "ok":
            ended = f"{edge * step}: {status}"
            break
        good = edge
    bad = edge if ended else good + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        status = tries(middle * step)
        if status == "ok":
            good = middle
        else:
            bad, ended = middle, f"{middle * step}: {status}"
    return good * step, ended or f"larger cubes than {good * step} were not tried"


def _tries(request: ProfileRequest, edge: int) -> str:
    shape = (*request.input_shape[:2], edge, edge, edge)
    return str(_asked("try", request.model_copy(update={"input_shape": shape}))["status"])
