"""Signals as requests: the first asks to finish the step and stop, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


class Interrupted(Exception):  # noqa: N818 - a request, not an error
    """Work stopped at a safe point because a signal asked for it.

    Attributes:
        exit_code: 130 for SIGINT, else 143.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 130 if number == signal.SIGINT else 143


class StopRequest:
    """A context in which SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 ask for a stop at the next safe point."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            os._exit(130 if number == signal.SIGINT else 143)
        self.number = number

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    def check(self) -> None:
        """Raise `Interrupted` when a signal has come; call at safe points."""
        if self.number is not None:
            raise Interrupted(self.number)
