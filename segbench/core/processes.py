"""Processes: whether one that left its pid in a file still lives, and children that answer questions.

A pid says something only to an observer of the same process table: same host, same boot, same PID namespace.

A child is asked with `Child.ask` and answers with `answer_questions`: one line of JSON each way. What it is,
how long it may take and how it ended are the same for everybody who asks.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = [
    "Child", "ChildEnded", "answer_questions", "ask", "boot_id", "pid_namespace", "process_start",
    "same_process_table",
]  # fmt: skip


def boot_id() -> str:
    """The id of this boot of the machine; "" where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def pid_namespace() -> str:
    """What pids of this process are numbers of, such as `pid:[4026531836]`; "" where nobody tells."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def same_process_table(host: object, boot: object, namespace: object) -> bool:
    """Whether a pid noted there means the same process here; never where any of it is unknown."""
    here = (socket.gethostname(), boot_id(), pid_namespace())
    return all(here) and here == (host, boot, namespace)


def process_start(pid: int) -> str:
    """The start time of a process in the system's ticks, so that a reused pid is told apart; "" unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return ""


class ChildEnded(Exception):  # noqa: N818 - an outcome that the caller reports
    """A child ended without an answer; `code` is its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")
        self.code = code


class Child:
    """A fresh process that answers one question after the other.

    It has a session of its own: Ctrl-C reaches the parent alone, which ends it or passes a signal on.

    Args:
        module: Run as `python -m module`; its main program calls `answer_questions`.
        arguments: Arguments of that program.
        environment: Variables beside the parent's own.
        silent: Whether its stderr is dropped; never with SEGBENCH_DEBUG.
    """

    def __init__(
        self, module: str, *arguments: str, environment: dict[str, str] | None = None, silent: bool = False
    ) -> None:
        hidden = silent and not os.environ.get("SEGBENCH_DEBUG")
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if hidden else None,
            env={**os.environ, **(environment or {})},
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self.process.poll() is None

    def ask(
        self, question: object, *, limit_s: float | None = None, between: Callable[[], None] | None = None
    ) -> Any:
        """The answer of the child; whoever stops waiting ends it.

        Args:
            question: Plain values.
            limit_s: Seconds to wait; None waits as long as it lives.
            between: Called twenty times a second while waiting: the place to pass a signal on.

        Raises:
            TimeoutError: No answer within `limit_s`.
            ChildEnded: It ended before it had answered.
        """
        assert self.process.stdin is not None
        began = time.monotonic()
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            while (line := self._next_line(0.05)) is None:
                if between is not None:
                    between()
                if limit_s is not None and time.monotonic() - began > limit_s:
                    raise TimeoutError(f"not done after {limit_s:g} s")
        except BrokenPipeError:
            line = ""
        except BaseException:
            self.stop()
            raise
        if line:
            return json.loads(line)
        raise ChildEnded(self.process.wait())

    def stop(self) -> None:
        """End it now."""
        if self.alive:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue

    def _next_line(self, wait_s: float) -> str | None:
        try:
            return self._lines.get(timeout=wait_s)
        except queue.Empty:
            return None

    def _listen(self) -> None:
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                self._lines.put(line)
        except ValueError:  # closed by `stop`
            return
        self._lines.put("")


def ask(module: str, question: object, *, limit_s: float | None = None, silent: bool = False) -> Any:
    """One question to a child of its own, which is ended afterwards; arguments and errors as `Child.ask`."""
    child = Child(module, silent=silent)
    try:
        return child.ask(question, limit_s=limit_s)
    finally:
        child.stop()


def answer_questions(answer: Callable[[Any], object]) -> None:
    """What a child does: one answer for each question, until nobody asks any more.

    Whatever a library prints goes to stderr, so that stdout carries answers only.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line)), allow_nan=False) + "\n")
        answers.flush()
