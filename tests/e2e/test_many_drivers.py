"""Several commands on one folder, killed at random, with clocks that jump: each cell once, equal bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from functools import cache
from pathlib import Path

import pytest
from preloaded import Python

from segbench.core.hashing import sha256_file
from segbench.records import read_run

FLOORS = (
    "--model",
    "mean-atlas,intensity",
    "--dataset",
    "phantom-msd",
    "--protocol",
    "demo",
    "--seed",
    "0,1",
)
NETWORK = (
    "--model", "nnunet-tiny", "--dataset", "phantom-msd", "--protocol", "demo", "--set", "budget.samples=8",
    "--set", "patch.size=16", "--set", "inference.overlap=0", "--limit", "2", "--checkpoint-minutes", "0",
)  # fmt: skip


def start(results: Path, data: Path, *flags: str, **variables: str) -> Python:
    environment = {**os.environ, "SEGBENCH_THREADS": "1", "OMP_NUM_THREADS": "1", **variables}
    line = ("-m", "segbench", "run", *flags, "--device", "cpu", "--data-dir", str(data))
    return Python(*line, "--results", str(results), env=environment, merged=True, new_session=True)


def contents(results: Path) -> dict[str, str]:
    """Digests of scores, weights and predictions of every run; all must be complete, no case twice."""
    found: dict[str, str] = {}
    for path in sorted(results.glob("*/run.json")):
        folder = path.parent
        assert read_run(folder).status == "complete", folder.name
        cases = [json.loads(line)["case"] for line in (folder / "cases.jsonl").read_text().splitlines()]
        assert len(cases) == len(set(cases))
        for file in [
            folder / "cases.csv",
            *folder.glob("checkpoints/final.*"),
            *folder.glob("predictions/*.gz"),
        ]:
            found[file.relative_to(results).as_posix()] = sha256_file(file)
        assert not (folder / "lease.json").exists()
    assert found
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@cache
def undisturbed(data: Path, *flags: str) -> dict[str, str]:
    """What the command leaves when nobody disturbs it; made once."""
    results = data.parent / f"reference-of-{len(flags)}-flags"
    process = start(results, data, *flags)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return contents(results)


def two_drivers(results: Path, data: Path, *flags: str) -> list[int]:
    drivers = [start(results, data, *FLOORS, *flags) for _ in range(2)]
    codes = []
    for driver in drivers:
        output = driver.communicate(timeout=300)[0]
        assert driver.returncode in {0, 3, 7}, output
        assert "internal error" not in output, output
        codes.append(driver.returncode)
    for path in results.glob("*/log.txt"):
        lines = path.read_text().splitlines()
        assert sum(line.endswith("evaluate: begins") for line in lines) == 1, f"{path.parent.name} ran twice"
    return codes


@pytest.mark.ci
def test_two_drivers_run_each_cell_once(tmp_path: Path, data: Path) -> None:
    wanted = undisturbed(data, *FLOORS)
    codes = two_drivers(tmp_path / "runs", data, "--wait")
    assert codes == [0, 0]
    assert contents(tmp_path / "runs") == wanted


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_drivers_twenty_times(tmp_path: Path, data: Path) -> None:
    wanted = undisturbed(data, *FLOORS)
    for round_ in range(20):
        results = tmp_path / f"runs{round_}"
        two_drivers(results, data, "--max-parallel", str(1 + round_ % 2), *(["--wait"] if round_ % 3 else []))
        last = start(results, data, *FLOORS, "--wait")
        output = last.communicate(timeout=300)[0]
        assert last.returncode == 0, output
        assert contents(results) == wanted


def test_a_living_driver_is_named(tmp_path: Path, data: Path) -> None:
    first = start(tmp_path / "runs", data, *NETWORK, SEGBENCH_FAULT="step:2:hang")
    try:
        end = time.monotonic() + 60
        while not list((tmp_path / "runs").glob("*/lease.json")):
            assert time.monotonic() < end and first.poll() is None
            time.sleep(0.05)
        second = start(tmp_path / "runs", data, *NETWORK)
        output = second.communicate(timeout=120)[0]
        assert second.returncode == 7, output
        (lease,) = (tmp_path / "runs").glob("*/lease.json")
        holder = json.loads(lease.read_text())
        assert "error[SB603]" in output
        assert f"pid {holder['pid']} on {holder['host']}" in output
        assert "--wait" in output
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_random_kills_of_driver_and_cell(tmp_path: Path, data: Path) -> None:
    """Twenty rounds: SIGKILL at a random moment to the driver, to the cell, or to both; then once more."""
    wanted = undisturbed(data, *NETWORK)
    chance = random.Random(8)
    for round_ in range(20):
        results = tmp_path / f"runs{round_}"
        for _ in range(chance.choice([1, 2, 3])):
            driver = start(results, data, *NETWORK)
            time.sleep(chance.uniform(0.5, 7.0))
            victim = chance.choice(["driver", "cell", "all"])
            lease = next(iter(results.glob("*/lease.json")), None)
            if victim == "all":
                os.killpg(driver.pid, signal.SIGKILL)
            elif victim == "driver" or lease is None:
                driver.kill()
            else:
                try:
                    os.kill(int(json.loads(lease.read_text())["pid"]), signal.SIGKILL)
                except (OSError, ValueError):
                    driver.kill()
                driver.communicate(timeout=300)
            driver.wait(300)
        last = start(results, data, *NETWORK, "--wait")
        output = last.communicate(timeout=300)[0]
        assert last.returncode == 0, output
        assert contents(results) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("year", [1971, 2099])
def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, data: Path, year: int) -> None:
    """Every file's time lies in another century when the run goes on: nothing is redone, nothing differs."""
    wanted = undisturbed(data, *NETWORK)
    results = tmp_path / "runs"
    killed = start(results, data, *NETWORK, "--retries", "0", SEGBENCH_FAULT="case:2")
    output = killed.communicate(timeout=300)[0]
    assert killed.returncode == 3, output
    moment = (year - 1970) * 365.25 * 86400
    for path in sorted(results.rglob("*")):
        os.utime(path, (moment, moment))
    trained = next(results.glob("*/stages/train.json")).read_bytes()
    again = start(results, data, *NETWORK)
    output = again.communicate(timeout=300)[0]
    assert again.returncode == 0, output
    assert contents(results) == wanted
    assert next(results.glob("*/stages/train.json")).read_bytes() == trained


@pytest.mark.ci
@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_a_killed_data_worker_is_named_or_made_up_for(tmp_path: Path, data: Path, workers: str) -> None:
    flags = (*NETWORK, "--workers", workers)
    wanted = undisturbed(data, *NETWORK)
    process = start(tmp_path / "runs", data, *flags, "--retries", "0", SEGBENCH_FAULT="worker:3:kill")
    output = process.communicate(timeout=300)[0]
    if process.returncode == 0:  # a fresh worker did the patch that the dead one had in hand
        assert contents(tmp_path / "runs") == wanted
        return
    assert process.returncode == 3, output
    assert "error[SB503]" in output
    assert "signal 9" in output
    assert "phantom_" in output  # the case that it had in hand
    (folder,) = (path.parent for path in (tmp_path / "runs").glob("*/run.json"))
    failure = read_run(folder).failure
    assert failure is not None and failure.code == "SB503"
    again = start(tmp_path / "runs", data, *flags)
    output = again.communicate(timeout=300)[0]
    assert again.returncode == 0, output
    assert contents(tmp_path / "runs") == wanted
