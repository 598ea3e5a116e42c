"""Signals as requests: the first asks to finish the step and stop, the second stops at once.

SIGUSR1 and SIGUSR2 come from schedulers and launchers, and may pass on what has reached the whole process
group already (Ctrl-C, the end of a Slurm job). They ask, however often; only a second SIGINT or SIGTERM stops
at once.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

_URGENT = (signal.SIGINT, signal.SIGTERM)
_NOTICES = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Work stopped at a safe point because a signal asked for it.

    Attributes:
        exit_code: 130 for SIGINT, else 143.
        told: a process of this command has said so already.
    """

    def __init__(self, number: int, *, told: bool = False) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.told = told
        self.exit_code = 130 if number == signal.SIGINT else 143


class StopRequest:
    """A context in which SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 ask for a stop at the next safe point."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._urgent = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (*_URGENT, *_NOTICES):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in _URGENT:
            self._urgent += 1
            if self._urgent > 1:
                os._exit(130 if number == signal.SIGINT else 143)
        if self.number is None or number in _URGENT:  # the exit status tells of the person's signal
            self.number = number

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    def check(self) -> None:
        """Raise `Interrupted` when a signal has come; call at safe points."""
        if self.number is not None:
            raise Interrupted(self.number)
