"""A small pool of processes that keeps order, names what a dead worker was doing, and tries that once more.

`concurrent.futures` and torch's loader both answer a killed worker with "a process died": not which task, not
which signal. Here each worker has its own pipe, so both are known. Answers are pickled: what is large goes
through memory that both sides share (`patches.arena`). Processes are spawned, or forked from a
clean process that was (a fork after torch has started threads can hang for ever). They ignore SIGINT (the
parent decides), end when their pipe closes, and use one BLAS thread each.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any

from segbench.core.environment import BLAS_VARIABLES
from segbench.core.errors import SegbenchError

__all__ = ["TASKS_OF_A_WORKER", "ordered_map"]

TASKS_OF_A_WORKER = 3
"""Tasks that are taken for each worker: the one at work, and two that are done or next."""
_ATTEMPTS = 2
_THREAD_VARIABLES = (*BLAS_VARIABLES, "BLOSC_NTHREADS")


def ordered_map(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    workers: int,
    *,
    case_of: Callable[[Any], str] = str,
    preload: Sequence[str] = (),
) -> Generator[tuple[Any, Any, Exception | None]]:
    """`(task, result, error)` of each task, in the order of the tasks.

    Args:
        function: Picked up by name in the worker: a module-level function or an instance of a class with
            `__call__`.
        tasks: Taken only a few ahead of what was handed out.
        workers: Processes; 0 calls the function here.
        case_of: The case a task is about, for messages.
        preload: Modules that take long to import. Where the system can, one clean process then imports them
            once and the workers are forked from it; it has no thread that a fork could lose.

    Yields:
        The error is what the function raised, or SB503 when the worker died twice on the task; result is then
        None.
    """
    if workers <= 0:
        for task in tasks:
            try:
                result = function(task)
            except Exception as error:  # handed to the caller, who knows what it means
                yield task, None, error
            else:
                yield task, result, None
        return
    pool = _Pool(function, workers, case_of, tuple(preload))
    try:
        yield from pool.run(iter(tasks))
    finally:
        pool.close()


@dataclass(slots=True)
class _Job:
    """A task on its way."""

    task: Any
    attempts: int = 0
    done: bool = False
    result: Any = None
    error: Exception | None = None


@dataclass(slots=True)
class _Worker:
    """A process, our ends of its pipes, and what it is doing."""

    process: Any
    tasks: Any
    answers: Any
    job: _Job | None = None

    def hang_up(self) -> None:
        self.tasks.close()
        self.answers.close()


class _Pool:
    def __init__(
        self,
        function: Callable[[Any], Any],
        workers: int,
        case_of: Callable[[Any], str],
        preload: tuple[str, ...] = (),
    ) -> None:
        self.function, self.case_of, self.preload = function, case_of, preload
        self.size = workers
        self.workers: list[_Worker] = []

    def run(self, tasks: Iterator[Any]) -> Iterator[tuple[Any, Any, Exception | None]]:
        order: deque[_Job] = deque()
        waiting: deque[_Job] = deque()
        limit = self.size * TASKS_OF_A_WORKER
        exhausted = False
        while True:
            while not exhausted and len(order) < limit:
                try:
                    job = _Job(next(tasks))
                except StopIteration:
                    exhausted = True
                else:
                    order.append(job)
                    waiting.append(job)
            if not order:
                return
            self._hand_out(waiting)
            while order and order[0].done:
                job = order.popleft()
                yield job.task, job.result, job.error
                # The caller may have taken its time: keep the workers busy before the next one.
                self._collect(waiting, timeout=0.0)
                self._hand_out(waiting)
            if order and not order[0].done:
                self._collect(waiting, timeout=None)

    def close(self) -> None:
        for worker in self.workers:
            worker.hang_up()
        for worker in self.workers:
            worker.process.join(timeout=1.0)
            if worker.process.is_alive():
                worker.process.terminate()
                worker.process.join()

    def _spawn(self) -> _Worker:
        forked = bool(self.preload) and "forkserver" in get_all_start_methods()
        context: Any = get_context("forkserver" if forked else "spawn")
        if forked:
            context.set_forkserver_preload([__name__, *self.preload])
        their_tasks, our_tasks = context.Pipe(duplex=False)
        our_answers, their_answers = context.Pipe(duplex=False)
        process = context.Process(
            target=_serve,
            # A fork has the environment of the process it was forked from, which may be of yesterday.
            args=(their_tasks, their_answers, self.function, dict(os.environ) if forked else {}),
            daemon=True,
        )
        with _one_thread(), _main_left_out(self.function):
            process.start()
        their_tasks.close()
        their_answers.close()
        return _Worker(process, our_tasks, our_answers)

    def _hand_out(self, waiting: deque[_Job]) -> None:
        busy = sum(worker.job is not None for worker in self.workers)
        while len(self.workers) < min(self.size, busy + len(waiting)):
            self.workers.append(self._spawn())
        for index, worker in enumerate(self.workers):
            if worker.job is not None or not waiting:
                continue
            job = waiting.popleft()
            job.attempts += 1
            worker.job = job
            try:
                worker.tasks.send(job.task)
            except OSError:
                self._replace_dead_worker(index, waiting)

    def _collect(self, waiting: deque[_Job], timeout: float | None) -> None:
        """Take what has arrived; with no timeout wait for at least one message or death."""
        by_pipe = {w.answers: index for index, w in enumerate(self.workers) if w.job is not None}
        for pipe in wait(list(by_pipe), timeout):
            index = by_pipe[pipe]
            worker = self.workers[index]
            job = worker.job
            assert job is not None
            try:
                job.result, job.error = worker.answers.recv()
            except (EOFError, OSError):
                self._replace_dead_worker(index, waiting)
            else:
                job.done, worker.job = True, None

    def _replace_dead_worker(self, index: int, waiting: deque[_Job]) -> None:
        """A worker died: put a fresh one in its place and its task back in front, or fail the task."""
        dead = self.workers[index]
        dead.hang_up()
        dead.process.join()
        job = dead.job
        self.workers[index] = self._spawn()
        if job is None:
            return
        if job.attempts < _ATTEMPTS:
            waiting.appendleft(job)
        else:
            job.done, job.error = True, _killed(self.case_of(job.task), dead.process.exitcode)


def _killed(case: str, code: int | None) -> SegbenchError:
    """SB503 with the case, the signal and what is likely behind it."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        likely = "most likely the system ran out of memory" if name == "SIGKILL" else "a fault in a library"
        how = f"killed by {name} ({likely})"
    else:
        how = f"ended with status {code}"
    return SegbenchError(
        "SB503",
        f"a worker was {how} twice on case {case}" if code and code < 0 else f"a worker {how} on case {case}",
        case=case,
        found=how,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Children begin with one BLAS thread: workers times threads would fight for the cores."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _main_left_out(function: Callable[[Any], Any]) -> Iterator[None]:
    """Children do not run the caller's script again, so a script needs no `if __name__ == "__main__"`.

    A spawned child imports the parent's main module first, unless it finds a module without a file there. A
    function that lives in the script is found in no other way: then the script is imported.
    """
    home = getattr(function, "__module__", None) or type(function).__module__
    main = sys.modules["__main__"]
    if home != "__main__":
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(tasks: Any, answers: Any, function: Callable[[Any], Any], environment: Mapping[str, str]) -> None:
    """A worker's life: take a task, answer, until the pipe closes."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    while True:
        try:
            task = tasks.recv()
        except (EOFError, OSError):
            return
        try:
            result, error = function(task), None
        except Exception as raised:  # travels to the parent, which decides
            result, error = None, raised
        try:
            answers.send((result, error))
        except OSError:
            return


def _die_with_parent() -> None:
    """On Linux ask the kernel to end this process when its parent is gone, SIGKILL included."""
    if sys.platform != "linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    try:
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
