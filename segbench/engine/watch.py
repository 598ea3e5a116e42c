"""Notices a training step that never ends: a hung driver, a dead network disk, a lost rank.

Nothing here decides a number. A thread compares the time since the last sign of life with a limit; what is
stuck cannot be asked to stop, so the caller is told where it hangs and ends the process.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from statistics import median
from types import TracebackType

from segbench.core.errors import SegbenchError

__all__ = ["StepWatch"]

MEDIAN_STEPS = 30.0
SHORTEST_S = 600.0
_REMEMBERED = 101


class StepWatch:
    """Context in which the main thread must show signs of life.

    Args:
        limit_s: Seconds without one that count as hung; 0: never; None: 30 median steps, at least 600 s.
        hung: Told of it (SB404, with what was under way and where) from the watching thread; must end the
            process. None: nobody watches.
    """

    def __init__(self, limit_s: float | None, hung: Callable[[SegbenchError], object] | None) -> None:
        self.given, self.hung = limit_s, hung
        self.doing = "starting"
        self._times: deque[float] = deque(maxlen=_REMEMBERED)
        self._last = self._step_began = time.monotonic()
        self._paused = False
        self._ended = threading.Event()
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._look, daemon=True, name="segbench-watch")

    def __enter__(self) -> StepWatch:
        if self.hung is not None and self.given != 0:
            self._last = time.monotonic()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    @property
    def limit_s(self) -> float:
        """The limit in force."""
        if self.given is not None:
            return self.given
        return max(SHORTEST_S, MEDIAN_STEPS * median(self._times)) if self._times else SHORTEST_S

    @property
    def step_s(self) -> float | None:
        """Median seconds of the last steps, from batch to batch."""
        return median(self._times) if self._times else None

    def alive(self, doing: str) -> None:
        """A sign of life, and what comes next."""
        self._last, self.doing, self._paused = time.monotonic(), doing, False

    def next_step(self, doing: str, *, counts: bool = True) -> None:
        """A step lies behind; `counts` when it was one like the others."""
        self.alive(doing)
        if counts:
            self._times.append(self._last - self._step_began)
        self._step_began = self._last

    def pause(self, doing: str) -> None:
        """What comes now has no usual length (validation of whole cases)."""
        self.doing, self._paused = doing, True

    def _look(self) -> None:
        while not self._ended.wait(min(1.0, self.limit_s / 10)):
            silent = time.monotonic() - self._last
            if not self._paused and silent > self.limit_s and self.hung is not None:
                self.hung(self._error(silent))
                return

    def _error(self, silent: float) -> SegbenchError:
        frame = sys._current_frames().get(self._main)
        stack = traceback.extract_stack(frame)[-4:] if frame is not None else []
        where = [f"{entry.filename.rpartition('/')[2]}:{entry.lineno} in {entry.name}" for entry in stack]
        return SegbenchError(
            "SB404",
            f"no step for {silent:.0f} s while {self.doing}",
            expected=f"a step within {self.limit_s:.0f} s",
            found=" < ".join(reversed(where)),
        )
