"""Rows of a profile, each measured in a fresh process: a crash, a timeout or no memory is a result."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from segbench.profiling.request import ProfileRequest
from segbench.profiling.schema import ProfileRow

__all__ = ["largest_patch", "profile_rows"]

LARGEST_CUBE = 1024
Report = Callable[[ProfileRow], None]


def profile_rows(requests: Sequence[ProfileRequest], *, report: Report | None = None) -> list[ProfileRow]:
    """One row per request, in order; no exception of a model ends the others.

    Requests that are only counted (device meta) share a process until one of them breaks it.

    Args:
        requests: What to measure.
        report: Called with each row as soon as it is there.
    """
    rows: list[ProfileRow] = []
    shared: _Worker | None = None
    try:
        for request in requests:
            counted = request.device == "meta"
            worker = shared if counted and shared is not None and shared.alive else _Worker()
            shared = worker if counted else shared
            row = _row(worker, request)
            if not counted:
                worker.stop()
                if request.max_patch and row.status in {"ok", "oom"}:
                    row = _with_largest_patch(row, request)
            rows.append(row)
            if report is not None:
                report(row)
    finally:
        if shared is not None:
            shared.stop()
    return rows


def _row(worker: _Worker, request: ProfileRequest) -> ProfileRow:
    answer = worker.ask("row", request)
    if "row" in answer:
        return ProfileRow.model_validate(answer["row"])
    static = _static_facts(request) if request.device != "meta" and answer["status"] != "error" else {}
    return ProfileRow(
        model=request.model,
        status=answer["status"],
        reason=answer["reason"],
        input_shape=list(request.input_shape),
        out_channels=request.out_channels,
        mode=request.mode,
        dtype=request.dtype,
        device=request.device,
        **static,
    )


def _static_facts(request: ProfileRequest) -> dict[str, Any]:
    """Parameters and cost of a row that could not be measured: they can still be counted."""
    worker = _Worker()
    try:
        answer = worker.ask("row", request.model_copy(update={"device": "meta"}))
    finally:
        worker.stop()
    row = answer.get("row", {})
    return {name: row[name] for name in ("params", "cost", "environment") if name in row}


def _with_largest_patch(row: ProfileRow, request: ProfileRequest) -> ProfileRow:
    from segbench.networks import network_facts

    facts = network_facts(request.model)
    edge, note = largest_patch(
        lambda n: _tries(request, n), step=facts.divisor, least=facts.minimum, most=LARGEST_CUBE
    )
    memory = row.memory.model_dump() if row.memory else dict.fromkeys(_MEMORY_FIELDS)
    if memory["weights_bytes"] is None:
        memory["weights_bytes"] = row.params.total * 4 if row.params else 0
    memory |= {"max_patch": edge, "max_patch_note": note}
    return ProfileRow.model_validate({**row.model_dump(), "memory": memory})


_MEMORY_FIELDS = ("weights_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes",
                  "allocated_peak_bytes", "reserved_peak_bytes", "process_peak_bytes")  # fmt: skip


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
    worker = _Worker()
    try:
        shape = (*request.input_shape[:2], edge, edge, edge)
        answer = worker.ask("try", request.model_copy(update={"input_shape": shape}))
    finally:
        worker.stop()
    return str(answer["status"])


class _Worker:
    """A fresh process that answers one request after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "segbench.profiling.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not os.environ.get("SEGBENCH_DEBUG") else None,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    def ask(self, task: str, request: ProfileRequest) -> dict[str, Any]:
        """The answer, or a status for a process that died or took too long (it is ended then)."""
        assert self._process.stdin is not None
        question = {"task": task, "request": request.model_dump(mode="json")}
        deadline = time.monotonic() + request.limit_s
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            self.stop()
            return {"status": "timeout", "reason": f"not done after {request.limit_s:g} s"}
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return {"status": "oom", "reason": "ended by the system (signal 9), most likely for memory"}
        return {"status": "error", "reason": f"the process ended with {_named(code)}"}

    def stop(self) -> None:
        """End the process."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._lines.put(line)
        except ValueError:  # closed by `stop`
            return
        self._lines.put("")


def _named(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
