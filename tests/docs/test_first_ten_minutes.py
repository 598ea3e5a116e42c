"""`scripts/first_ten_minutes.sh`, dry: every command it would run exists, with the options it gives."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import preloaded
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "first_ten_minutes.sh"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    return dry(tmp_path_factory.mktemp("work"))


def dry(work: Path, **more: str) -> str:
    """What the script says that it would do."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    given = {**os.environ, "DRY_RUN": "1", "DEVICE": "cpu", "WORK": str(work), "PYTHON": "python", **more}
    done = subprocess.run(
        ["bash", str(SCRIPT)], env=given, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert not any(work.iterdir()), "a dry run runs nothing"
    return done.stdout


def commands(said: str) -> list[list[str]]:
    """The lines that would be run, as words; a variable before them is left out."""
    return [shlex.split(line) for line in re.findall(r"^\$ (?:env \S+ )?(python -m segbench .*)", said, re.M)]


@pytest.mark.ci
def test_every_command_knows_every_option_it_gets(said: str) -> None:
    found = commands(said)
    assert {words[3] for words in found} == {"doctor", "profile", "run"}
    for name in sorted({words[3] for words in found}):
        asked = preloaded.run("-m", "segbench", name, "--help", env={**os.environ, "COLUMNS": "200"})
        known = set(re.findall(r"--[a-z-]+", asked.stdout))
        given = {word for words in found if words[3] == name for word in words if word.startswith("--")}
        assert given <= known, f"segbench {name}"


def test_every_test_file_it_names_exists(said: str) -> None:
    named = re.findall(r"(?:tests|benchmarks)/[\w/]+\.py", said)
    assert named
    assert all((ROOT / name).is_file() for name in named)


def test_each_step_says_what_is_expected(said: str) -> None:
    steps = [line for line in said.splitlines() if line.startswith("== ")]
    assert len(steps) == said.count("   expected: ") == 10


@pytest.mark.parametrize("begun_with", ["", "fused-norm", "compile,inert-bias"])
def test_the_cost_of_a_step_is_measured_with_and_without_the_race_of_cudnn(
    begun_with: str, tmp_path: Path
) -> None:
    said = dry(tmp_path, SEGBENCH_FAST=begun_with)
    ways, profiled = zip(*re.findall(r"^\$ env SEGBENCH_FAST=(\S*) (.* profile .*)", said, re.M), strict=True)
    assert ways == (begun_with, f"{begun_with},no-benchmark".lstrip(","))
    assert len(set(profiled)) == 1  # the same command but for that
