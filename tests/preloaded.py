"""`python ...` in processes forked from one that has imported everything: 0.1 s instead of 5 s for a network.

What is tested stays a process of its own, with a pid, signals and an exit status; only imports are shared.
Tests about imports, the libraries' threads or the interpreter itself start a real one.

The server forks a keeper for each request, and that the process: the keeper waits for it and tells how it
ended. Python started by such a process (`segbench run` starts `segbench cell`) is forked in the same way.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module, reload
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, NoReturn

HEAVY = ("torch._dynamo", "torch.utils.flop_counter", "torch.testing", "monai.networks.nets", "scipy.stats")
LONGEST_REQUEST = 2**17
SERVER = "SEGBENCH_TESTS_SERVER"
"""Set for shells: the open file that leads to the server."""


class Python:
    """A started `python ...`, with the methods of `subprocess.Popen` that tests use.

    Args:
        words: What follows `python` on the command line: `-m module ...`, `-c code ...` or `file ...`.
        env: All of its environment variables; None: those of this process.
        cwd: Where it runs.
        merged: stderr goes to stdout.
        new_session: It leads a session of its own, so that a signal can go to all that it started.
    """

    def __init__(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        merged: bool = False,
        new_session: bool = False,
    ) -> None:
        self.args = words
        (self._out, out), (self._told, told) = _pipe(), os.pipe()
        self._err, err = (self._out, out) if merged else _pipe()
        request = json.dumps(
            {"words": words, "environment": dict(env or os.environ), "cwd": str(cwd or Path.cwd()),
             "new_session": new_session}
        ).encode()  # fmt: skip
        assert len(request) < LONGEST_REQUEST
        socket.send_fds(_server(), [request], [out, err, told])
        for file in {out, err, told}:
            os.close(file)
        self.pid = int(self._told_line())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status; negative where a signal ended it, None while it lives."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.returncode = int(self._told_line())
            os.close(self._told)
        return self.returncode

    def wait(self, timeout: float = 300.0) -> int:
        """As `poll`, when it has ended."""
        if self.returncode is None and not select.select([self._told], [], [], timeout)[0]:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout)
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, timeout: float = 300.0) -> tuple[str, str]:
        """All that it said, when it has ended."""
        self.wait(timeout)
        return _all_of(self._out), "" if self._err == self._out else _all_of(self._err)

    def kill(self) -> None:
        """End it now."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send it a signal, while it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _told_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self._told, 1)
            assert byte, "the server of forked processes has ended"
            line += byte
        return line


def run(*words: str, timeout: float = 300.0, **how: Any) -> subprocess.CompletedProcess[str]:
    """`python words` to its end, with what it said; further arguments as of `Python`."""
    process = Python(*words, **how)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess(["python", *words], process.wait(), out, err)


def command(path: Path) -> tuple[dict[str, str], list[int]]:
    """Write a program `segbench` for shells; the variables and the open files that the shell must inherit."""
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -ES "{__file__}" -m segbench "$@"\n')
    path.chmod(0o755)
    return {SERVER: str(_server().fileno())}, [_server().fileno()]


def _pipe() -> tuple[int, int]:
    """Both ends of a pipe that holds all that a command says; a file would end at a limit on files."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2**20)
    os.set_blocking(reader, False)  # what the process left running may still hold the other end
    return reader, writer


def _all_of(pipe: int) -> str:
    with open(pipe, "rb") as said:
        return (said.read() or b"").decode(errors="replace")


@cache
def _server() -> socket.socket:
    """The way to the one server of this process, or of the one that started it; it ends with that."""
    if number := os.environ.get(SERVER):
        return socket.socket(fileno=int(number))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    variables = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {
        "OMP_WAIT_POLICY": "PASSIVE"
    }
    subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=variables
    )
    theirs.close()
    return ours


def serve(requests: socket.socket) -> None:
    """The server: imports, then forks until nobody can ask any more."""

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        assert not (importing and event == "socket.connect"), f"an import connects to {arguments[1:]}"

    importing = True
    sys.addaudithook(refuse)
    import segbench

    for found in walk_packages(segbench.__path__, "segbench."):
        if not found.name.endswith("__main__"):
            with suppress(ImportError):  # extras that are not installed
                import_module(found.name)
    for name in HEAVY:
        import_module(name)
    importing = False
    gc.freeze()  # a cell collects garbage after every stage: the libraries' million objects are none
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, files, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 3)
        if not data:
            return
        if os.fork() == 0:
            requests.close()
            _keep(json.loads(data), *files)
        for file in files:
            os.close(file)


def _keep(request: dict[str, Any], out: int, err: int, told: int) -> NoReturn:
    """Start the process, tell its pid, and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def prepared() -> None:
        os.close(told)
        if request["new_session"]:
            os.setsid()
        os.chdir(request["cwd"])
        nothing = os.open(os.devnull, os.O_RDONLY)
        for file, number in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(file, number)

    pid = _fork(request["words"], request["environment"], prepared)
    for file in (out, err):
        os.close(file)
    with suppress(BrokenPipeError):  # who asked is gone
        os.write(told, f"{pid}\n".encode())
        os.write(told, f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
    os._exit(0)


def _fork(words: list[str], environment: dict[str, str], prepare: Callable[[], None]) -> int:
    """The pid of a process that does what `python words` does."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        prepare()
        os.environ.clear()
        os.environ.update(environment)
        code = _python(words)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _python(words: list[str]) -> int:
    """Do what `python words` does, in a process that has only imported so far; its exit status."""
    from segbench.cli import common
    from segbench.core import console, faults

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, buffering=1, encoding="utf-8", errors=errors, closefd=False)
        for number, mode, errors in ((0, "r", "strict"), (1, "w", "strict"), (2, "w", "backslashreplace"))
    )
    atexit._clear()  # what the parent would do at its end
    common._settings, console.output = common.Settings(), console.Output()
    reload(faults)  # reads SEGBENCH_FAULT
    subprocess._fork_exec = _forked_or_executed  # type: ignore[attr-defined]
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [str(Path.cwd()), *(str(Path(name).resolve()) for name in named if name)]
    kind, *rest = words
    try:
        if kind == "-m":
            sys.argv = rest
            if "." in rest[0]:  # else runpy warns that it was imported before
                sys.modules.pop(rest[0], None)
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = [kind, *rest[1:]]
            exec(rest[0], {"__name__": "__main__"})
        else:
            sys.argv = words
            runpy.run_path(kind, run_name="__main__")
        threading._shutdown()  # type: ignore[attr-defined]
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        atexit._run_exitfuncs()
    return 0


_execute = getattr(subprocess, "_fork_exec", None)


def _forked_or_executed(*given: Any) -> int:
    """What `subprocess` calls to start a process: Python is forked, anything else executed.

    The arguments are those of `_posixsubprocess.fork_exec`, the same from Python 3.11 on.
    """
    assert _execute is not None
    words = [os.fsdecode(word) for word in given[0]]
    if words[0] != sys.executable or words[1] not in {"-m", "-c"} or given[21] is not None:
        return _execute(*given)
    cwd, variables, in_, _, _, out, _, err, _, failed, _, new_session = given[4:16]

    def prepared() -> None:
        os.close(failed)
        if cwd is not None:
            os.chdir(cwd)
        if new_session:
            os.setsid()
        for file, number in ((in_, 0), (out, 1), (err, 2)):
            if file not in {-1, number}:
                os.dup2(file, number)
        os.closerange(3, 4096)

    pairs = variables if variables is not None else [os.fsencode(f"{k}={v}") for k, v in os.environ.items()]
    environment = dict(os.fsdecode(pair).split("=", 1) for pair in pairs)
    return _fork(words[1:], environment, prepared)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(socket.socket(fileno=int(sys.argv[1])))
    else:
        done = run(*sys.argv[1:])
        print(done.stdout, end="", flush=True)
        print(done.stderr, end="", file=sys.stderr)
        sys.exit(done.returncode)
