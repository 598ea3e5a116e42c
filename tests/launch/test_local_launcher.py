"""Cells as child processes: GPUs are shared out between shells, children end with their launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segbench.core.errors import SegbenchError
from segbench.launch import LauncherChoice, Need, open_launcher
from segbench.launch.command import PARENT, cell_command, popen_cell
from segbench.launch.gpus import release, take_gpus, variables_of, visible_gpus
from segbench.launch.local import LocalLauncher


def test_gpus_are_the_visible_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible_gpus() == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_a_gpu_is_given_to_one_cell_and_another_shell_passes_it_over() -> None:
    gpus = ["0", "1"]
    first = take_gpus(gpus, 1)
    second = take_gpus(gpus, 1)
    assert first is not None and second is not None
    assert (list(first), list(second)) == (["0"], ["1"])
    assert take_gpus(gpus, 1) is None
    release(first)
    third = take_gpus(gpus, 1)
    assert third is not None and list(third) == ["0"]
    assert take_gpus(gpus, 2) is None
    release(second)
    release(third)
    both = take_gpus(gpus, 2)
    assert both is not None and list(both) == ["0", "1"]
    release(both)


NVIDIA_SMI = """\
GPU 0: NVIDIA H200 (UUID: GPU-5c1a2b3d-0000-1111-2222-333344445555)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaaaaaa-0000-1111-2222-333344445555)
  MIG 3g.20gb     Device  0: (UUID: MIG-11111111-0000-1111-2222-333344445555)
  MIG 3g.20gb     Device  1: (UUID: MIG-22222222-0000-1111-2222-333344445555)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbbbbbb-0000-1111-2222-333344445555)
"""


def test_a_gpu_that_is_shared_out_counts_as_its_slices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\ncat <<'END'\n{NVIDIA_SMI}END\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = (f"MIG-{digit * 8}-0000-1111-2222-333344445555" for digit in "12")
    assert visible_gpus() == ["0", first, second, "2"]
    command.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus() == []


def test_numbers_of_nvidia_smi_are_told_with_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    place = take_gpus(["1"], 1)
    assert place is not None
    assert variables_of(place) == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")  # then the number is in the order of the user
    assert variables_of(place) == {"CUDA_VISIBLE_DEVICES": "1"}
    release(place)
    assert variables_of({}) == {}


def test_slots_and_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert LocalLauncher(gpus=1).slots == 4
    assert LocalLauncher(gpus=2).slots == 2
    assert LocalLauncher(gpus=1, slots=3).slots == 3
    assert LocalLauncher().slots == 1
    monkeypatch.setenv("SEGBENCH_THREADS", "8")
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(
        "segbench.launch.local.popen_cell",
        lambda command, **kw: (
            seen.append(dict(command.variables) | kw["extra"]) or subprocess.Popen([sys.executable, "-c", ""])
        ),
    )
    launcher = LocalLauncher(gpus=2)
    refs = launcher.start([tmp_path / "a", tmp_path / "b", tmp_path / "c"], Need(gpus=2, threads=3))
    assert len(refs) == 2  # the third finds no GPU and is offered again later
    assert [extra["CUDA_VISIBLE_DEVICES"] for extra in seen] == ["0,1", "2,3"]
    for variable in ("SEGBENCH_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert {extra[variable] for extra in seen} == {"3"}  # as planned, however many share the machine
    while {state.phase for state in launcher.poll(refs)} != {"done"}:
        time.sleep(0.01)
    assert len(launcher.start([tmp_path / "c"], Need(gpus=2))) == 1


def test_a_child_that_was_killed_is_lost_and_its_signal_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "segbench.launch.local.popen_cell",
        lambda command, **kw: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]),
    )
    launcher = LocalLauncher()
    (job,) = launcher.start([tmp_path], Need())
    assert launcher.poll([job])[0].phase == "running"
    os.kill(int(job.name.partition(":")[2]), signal.SIGKILL)
    while launcher.poll([job])[0].phase == "running":
        time.sleep(0.01)
    assert launcher.poll([job])[0].phase == "lost"
    assert launcher.poll([job])[0].reason == "killed by signal 9"


@pytest.mark.ci
def test_a_cell_is_told_who_started_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGBENCH_DATA", "relative/data")
    monkeypatch.setenv(PARENT, "1")
    monkeypatch.chdir(tmp_path)
    command = cell_command(Path("runs/a"), ["--quiet"], threads=3)
    assert command.folder == str(tmp_path / "runs" / "a")
    assert command.directory == str(tmp_path)
    assert ("SEGBENCH_DATA", "relative/data") in command.variables
    assert PARENT not in dict(command.variables)
    child = popen_cell(command, launcher="ray", job="j", node="n")
    assert child.wait(60) == 4  # there is no run in that folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the tie to the parent is Linux's")
def test_a_cell_is_asked_to_stop_when_its_launcher_dies(tmp_path: Path) -> None:
    cell = (
        "import time, sys\n"
        "from segbench.core.interrupt import StopRequest\n"
        "from segbench.launch.command import stop_with_parent\n"
        "with StopRequest() as stop:\n"
        "    stop_with_parent()\n"
        "    open(sys.argv[1] + '/ready', 'w').close()\n"
        "    while not stop.asked: time.sleep(0.01)\n"
        "    open(sys.argv[1] + '/asked', 'w').close()\n"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        f"os.environ['{PARENT}'] = str(os.getpid())\n"
        "subprocess.Popen([sys.executable, '-c', sys.argv[2], sys.argv[1]])\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path), cell])
    wait_for(tmp_path / "ready")
    assert not (tmp_path / "asked").exists()
    process.kill()
    process.wait()
    wait_for(tmp_path / "asked")


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not come"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        (LauncherChoice("pbs"), "no such launcher"),
        (LauncherChoice("local", slurm=("partition=a",)), "--slurm belongs to"),
        (LauncherChoice("slurm", ray_address="auto"), "--ray-address belongs to"),
    ],
)
def test_flags_that_do_not_go_together(tmp_path: Path, choice: LauncherChoice, text: str) -> None:
    with pytest.raises(SegbenchError) as caught:
        open_launcher(choice, tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("SB104", 2)
    assert text in caught.value.message


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_an_absent_extra_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SegbenchError) as caught:
        open_launcher(LauncherChoice(name), tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("SB502", 5)
    assert f"needs {package}, which is not installed" in caught.value.message
    assert f"segbench[{name}]" in caught.value.mend
