"""Fixtures that every room uses."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import hypothesis
import pytest

from segbench.cli import common
from segbench.core import console

# The same examples in every run, so that a failure is the change's and not chance's; no example is timed.
# HYPOTHESIS_PROFILE=nightly draws others, and more of them.
hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("nightly", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# One thread a process: results do not depend on it, and the suite runs beside others on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # and those that ask for more do not wait by spinning


def _refuse_other_machines(event: str, arguments: tuple[object, ...]) -> None:
    """No test reaches another machine; this one (loopback, its own addresses) is allowed."""
    if event != "socket.connect" or not isinstance(address := arguments[1], tuple):
        return
    host = str(address[0])
    own = ("127.", "::1", "localhost", "0.0.0.0")
    if not host.startswith(own) and host not in _own_addresses():
        raise RuntimeError(f"a test tried to connect to {host}; the suite works without a network")


def _own_addresses() -> set[str]:
    try:
        return set(socket.gethostbyname_ex(socket.gethostname())[2])
    except OSError:
        return set()


sys.addaudithook(_refuse_other_machines)  # the whole process, threads included; nothing can switch it off

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans beside the checkout; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real scans are not here ({REAL_DATA.name} beside the checkout is absent)")
    return REAL_DATA


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the user's settings, data or results, and none writes into the checkout."""
    for variable in (
        "SEGBENCH_DATA",
        "SEGBENCH_RESULTS",
        "SEGBENCH_CARDS",
        "SEGBENCH_FAULT",
        "SEGBENCH_SCAN",
        "SEGBENCH_FAST",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(common, "_settings", common.Settings())  # flags of one test are not the next one's
    monkeypatch.setattr(console, "output", console.Output())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "config"))
