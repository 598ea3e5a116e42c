"""What is installed: torch is the pinned one, and nothing dragged in what must not come."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {"torchvision", "torchaudio", "timm", "mamba-ssm", "nnunetv2"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_torch_is_the_pinned_one() -> None:
    pinned = re.search(
        r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert pinned is not None
    assert metadata.version("torch").split("+")[0] == pinned.group(1)


def test_nothing_unwanted_came_in() -> None:
    installed = {normal(d.metadata["Name"]) for d in metadata.distributions() if d.metadata["Name"]}
    assert installed.isdisjoint(FORBIDDEN)


def test_base_dependencies_name_nothing_forbidden() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = {normal(re.split(r"[<>=!~ \[;]", text, maxsplit=1)[0]) for text in project["dependencies"]}
    assert base.isdisjoint(FORBIDDEN | {"medpy", "submitit", "ray"})
    dev = {
        normal(re.split(r"[<>=!~ \[;]", text, maxsplit=1)[0])
        for text in project["optional-dependencies"]["dev"]
    }
    assert dev.isdisjoint(FORBIDDEN)


@pytest.mark.parametrize("package", ["monai", "segbench"])
def test_no_transitive_requirement_of_the_base(package: str) -> None:
    """Walk the requirements that are not optional; none of the forbidden ones is reached."""
    seen: set[str] = set()
    waiting = [package]
    while waiting:
        name = normal(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        waiting += [re.split(r"[<>=!~ \[;(]", r, maxsplit=1)[0] for r in requirements if "extra ==" not in r]
    assert seen.isdisjoint(FORBIDDEN)


def printed_by_make(*words: str) -> str:
    """What make would do, without doing it."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    command = ["make", "--always-make", "--dry-run", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_make_takes_torch_first_from_the_index_that_is_named_and_shows_what_pip_does() -> None:
    plain = [line for line in printed_by_make("setup").splitlines() if "pip install" in line]
    named = [line for line in printed_by_make("setup", "TORCH_INDEX=U").splitlines() if "pip install" in line]
    assert len(plain) == len(named) == 2
    assert "torch -c constraints.txt" in plain[0] and "index-url" not in "".join(plain)
    assert "--index-url U torch" in named[0] and "index-url" not in named[1]
    assert not any("quiet" in line or "-q" in line.split() for line in plain + named)


def test_every_base_dependency_has_a_lower_bound_that_make_lowest_pins() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "lowest.py")], capture_output=True, text=True, check=True
    )
    pins = dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in project["dependencies"]:
        name, _, bound = text.partition(">=")
        assert pins[name] == bound
    assert "-r .venv-lowest/requirements.txt" in printed_by_make("lowest")


def test_continuous_integration_runs_every_python_of_the_classifiers_and_the_lowest_versions() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    classified = {text.rpartition(" ")[2] for text in project["classifiers"] if "Python :: 3." in text}
    matrix = re.search(r"python: \[(.*)\]", workflow)
    assert matrix is not None
    assert set(re.findall(r"3\.\d+", matrix[1])) == classified
    assert "run: bash .ci/run" in workflow
    assert "run: make lowest" in workflow
    default, lowest = printed_by_make("test"), printed_by_make("lowest")
    marked = re.compile(r'-m "([^"]+)"')
    assert marked.findall(default)[-1] == marked.findall(lowest)[-1], "not the default tests"
