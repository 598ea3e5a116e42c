"""Signals ask once, and only a person's second one stops at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from segbench.core.interrupt import Interrupted, StopRequest

WORK = """
import time
from segbench.core.interrupt import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    while not stop.asked:
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(20)
"""


@pytest.mark.parametrize(
    ("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 143), ("SIGUSR2", 143)]
)
def test_the_first_signal_asks(number: str, code: int) -> None:
    with StopRequest() as stop:
        stop.check()
        os.kill(os.getpid(), getattr(signal, number))
        time.sleep(0.01)
        assert stop.asked
        with pytest.raises(Interrupted) as caught:
            stop.check()
    assert caught.value.exit_code == code


@pytest.mark.parametrize("first", ["SIGUSR1", "SIGUSR2", "SIGTERM"])
def test_a_signal_passed_on_by_a_launcher_is_no_second_one(first: str) -> None:
    with StopRequest() as stop:
        for name in (first, "SIGUSR1", "SIGUSR2", "SIGUSR1"):
            os.kill(os.getpid(), getattr(signal, name))
            time.sleep(0.01)
        assert stop.asked  # this process is still here


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_of_a_person_stops_at_once(number: int, code: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    assert child.stdout.readline() == "asked\n"
    child.send_signal(number)
    assert child.wait(5) == code
