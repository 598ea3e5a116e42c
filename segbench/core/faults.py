"""Fault injection, off by default: `SEGBENCH_FAULT=<point>:<n>[:<action>]`.

The promises of segbench ("a file under its final name is whole", "the same command goes on") are shown by
killing it at every point where it could be killed. The points are `write`, `step`, `case`, `stage`,
`checkpoint` and `worker`; each counts from 1 per process. Actions: `kill` (default), `term`, `enospc`,
`eio`, `nan`, `oom`, `raise`, `hang`. `SEGBENCH_FAULT=count:<file>` injects nothing: at exit every process
that reached a point appends one JSON line with its totals. When unset, a point costs one `is None`.

Source: the method is SQLite's (sqlite.org/testing.html, I/O error and crash testing).
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Point = Literal["write", "step", "case", "stage", "checkpoint", "worker"]
POINTS: tuple[str, ...] = ("write", "step", "case", "stage", "checkpoint", "worker")
ACTIONS: tuple[str, ...] = ("kill", "term", "enospc", "eio", "nan", "oom", "raise", "hang")


class InjectedNaN(Exception):  # noqa: N818 - a signal to the training loop, not an error
    """Tells the training loop to treat its loss as NaN (`step` only)."""


class InjectedOutOfMemory(Exception):  # noqa: N818 - a signal to the training loop, not an error
    """Tells the training loop to behave as if the device's memory were exhausted (`step` only)."""


@dataclass(slots=True)
class _Plan:
    point: str
    at: int
    action: str
    count_file: str = ""
    totals: Counter[str] = field(default_factory=Counter[str])
    run_id: str | None = None


def _parse(text: str) -> _Plan | None:
    if not text:
        return None
    point, _, rest = text.partition(":")
    if point == "count":
        return _Plan("", 0, "", count_file=rest)
    number, _, action = rest.partition(":")
    action = action or "kill"
    if point not in POINTS or action not in ACTIONS or not number.isdigit() or int(number) < 1:
        raise ValueError(f"SEGBENCH_FAULT={text!r}: expected <point>:<n>[:<action>] or count:<file>")
    return _Plan(point, int(number), action)


_plan: _Plan | None = _parse(os.environ.get("SEGBENCH_FAULT", ""))


def fault(point: Point) -> None:
    """Mark a point where a fault may be injected; does nothing unless SEGBENCH_FAULT is set."""
    if _plan is None:
        return
    _plan.totals[point] += 1
    if point == _plan.point and _plan.totals[point] == _plan.at:
        _act(_plan.action)


def note_run(run_id: str) -> None:
    """Name the run in the totals written by `count:<file>`."""
    if _plan is not None:
        _plan.run_id = run_id


def _act(action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action == "eio":
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    elif action == "nan":
        raise InjectedNaN
    elif action == "oom":
        raise InjectedOutOfMemory
    elif action == "raise":
        raise RuntimeError("injected by SEGBENCH_FAULT")
    else:
        while True:
            time.sleep(60)


def _write_totals() -> None:
    if _plan is None or not _plan.totals:
        return
    line = json.dumps(
        {"pid": os.getpid(), "run_id": _plan.run_id, "totals": dict(sorted(_plan.totals.items()))}
    )
    descriptor = os.open(_plan.count_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (line + "\n").encode())
    finally:
        os.close(descriptor)


if _plan is not None and _plan.count_file:
    atexit.register(_write_totals)
