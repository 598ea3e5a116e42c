"""Children that answer questions: the answer, a late one, one that dies, and nothing left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from segbench.core.processes import Child, ChildEnded, ask

PROGRAM = """
import os, sys, time
from segbench.core.processes import answer_questions

def answer(question):
    print("what a library says")
    if question == "die":
        os.kill(os.getpid(), 9)
    if question == "leave":
        sys.exit(4)
    if question == "sleep":
        time.sleep(60)
    return {"pid": os.getpid(), "question": question}

answer_questions(answer)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_child.py").write_text(PROGRAM)
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), before])))
    return "a_child"


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_one_child_answers_one_question_after_the_other(module: str) -> None:
    child = Child(module, silent=True)
    first, second = child.ask("a"), child.ask({"b": [1, 2.5, None, "é"]})
    assert first == {"pid": child.process.pid, "question": "a"}
    assert second == {"pid": child.process.pid, "question": {"b": [1, 2.5, None, "é"]}}
    assert child.alive
    child.stop()
    assert gone(child.process.pid)


def test_ask_leaves_no_process_behind(module: str) -> None:
    assert gone(ask(module, 1, silent=True)["pid"])


@pytest.mark.parametrize(
    ("question", "code", "words"), [("die", -signal.SIGKILL, "signal SIGKILL"), ("leave", 4, "exit code 4")]
)
def test_a_child_that_ends_says_how(question: str, code: int, words: str, module: str) -> None:
    child = Child(module, silent=True)
    for _ in range(2):  # asked again, it says the same
        with pytest.raises(ChildEnded, match=words) as caught:
            child.ask(question)
        assert caught.value.code == code
    assert not child.alive
    child.stop()


def test_a_late_child_is_ended(module: str) -> None:
    child = Child(module, silent=True)
    with pytest.raises(TimeoutError, match=r"not done after 0\.2 s"):
        child.ask("sleep", limit_s=0.2)
    assert gone(child.process.pid)


def test_who_stops_waiting_ends_the_child(module: str) -> None:
    def between() -> None:
        raise KeyboardInterrupt

    child = Child(module, silent=True)
    with pytest.raises(KeyboardInterrupt):
        child.ask("sleep", between=between)
    assert gone(child.process.pid)


def test_a_signal_can_be_passed_on_while_waiting(module: str) -> None:
    child = Child(module, silent=True)
    with pytest.raises(ChildEnded, match="SIGTERM"):
        child.ask("sleep", between=lambda: child.process.send_signal(signal.SIGTERM))


def test_variables_and_arguments_reach_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PROGRAM.replace('"question": question', '"question": [os.environ["GIVEN"], *sys.argv[1:]]')
    (tmp_path / "told.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    child = Child("told", "x", "y", environment={"GIVEN": "v"}, silent=True)
    try:
        assert child.ask(0)["question"] == ["v", "x", "y"]
    finally:
        child.stop()
