"""The pool of data workers: order, errors, deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from segbench.core.errors import SegbenchError
from segbench.data.workers import ordered_map


def square(n: int) -> int:
    time.sleep(0.02 * (n % 3 == 0))  # some tasks take longer, order stays
    return n * n


def arrays(n: int):
    return (
        np.full((n, 3), n, dtype=np.float32),
        np.arange(n, dtype=np.uint8),
        np.zeros((0, 4), dtype=np.int32),
    )


def moody(word: str) -> str:
    if word == "refuse":
        raise SegbenchError("SB204", "cut short", case=word)
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "leave":
        os._exit(3)
    return word.upper()


def threads(_: int) -> str | None:
    return os.environ.get("OPENBLAS_NUM_THREADS")


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order(workers):
    tasks = list(range(20))
    assert [(t, r, e) for t, r, e in ordered_map(square, tasks, workers)] == [(n, n * n, None) for n in tasks]


def test_tasks_are_taken_only_a_little_ahead():
    taken = []

    def tasks():
        for n in range(100):
            taken.append(n)
            yield n

    results = ordered_map(square, tasks(), 1)
    next(results)
    assert len(taken) <= 6
    results.close()


@pytest.mark.slow
def test_arrays_travel_unchanged_in_any_size():
    for n, result, error in ordered_map(arrays, [0, 1, 7, 300_000], 1):
        assert error is None
        for got, expected in zip(result, arrays(n), strict=True):
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
            assert got.flags.writeable


@pytest.mark.slow
def test_errors_and_deaths_stay_with_their_task():
    words = ["a", "refuse", "b", "die", "c", "leave", "d"]
    answers = {task: (result, error) for task, result, error in ordered_map(moody, words, 2)}
    assert list(answers) == words
    assert [answers[w][0] for w in "abcd"] == ["A", "B", "C", "D"]
    refused, died, left = (answers[w][1] for w in ("refuse", "die", "leave"))
    assert isinstance(refused, SegbenchError)
    assert (refused.code, refused.case) == ("SB204", "refuse")
    assert isinstance(died, SegbenchError)
    assert (died.code, died.case) == ("SB503", "die")
    assert "SIGKILL" in str(died)
    assert "memory" in str(died)
    assert isinstance(left, SegbenchError)
    assert "status 3" in str(left)


@pytest.mark.slow
def test_workers_have_one_blas_thread_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    assert [result for _, result, _ in ordered_map(threads, [0], 1)] == ["1"]
    assert os.environ["OPENBLAS_NUM_THREADS"] == "7"


def whereabouts(name: str) -> tuple[bool, str | None, int]:
    return "colorsys" in sys.modules, os.environ.get(name), os.getppid()


def test_preloaded_workers_share_one_import_and_see_the_environment_of_now(monkeypatch):
    for value in ("first", "second"):
        monkeypatch.setenv("SEGBENCH_TEST_WORD", value)
        results = ordered_map(whereabouts, ["SEGBENCH_TEST_WORD"] * 6, 2, preload=("colorsys",))
        loaded, words, parents = zip(*(result for _, result, _ in results), strict=True)
        assert all(loaded)
        assert set(words) == {value}
        assert len(set(parents)) == 1
        assert os.getpid() not in parents


@pytest.mark.slow
def test_preloaded_workers_that_die_are_named_too():
    answers = {
        task: error for task, _, error in ordered_map(moody, ["a", "die", "b"], 2, preload=("colorsys",))
    }
    assert isinstance(answers["die"], SegbenchError)
    assert "SIGKILL" in str(answers["die"])
    assert answers["a"] is answers["b"] is None


def test_no_task_starts_no_process(monkeypatch):
    monkeypatch.setattr("segbench.data.workers.get_context", lambda *_: pytest.fail("a process was started"))
    assert list(ordered_map(square, [], 4)) == []


def test_a_script_needs_no_guard_and_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import operator\n"
        "from segbench.data.workers import ordered_map\n"
        "print('script runs')\n"
        "print([result for _, result, _ in ordered_map(operator.neg, [1, 2, 3], 2)])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "script runs\n[-1, -2, -3]\n"
    assert done.returncode == 0, done.stderr
