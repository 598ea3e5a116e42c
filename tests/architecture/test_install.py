"""What is installed: torch is the pinned one, and nothing dragged in what must not come."""

from __future__ import annotations

import re
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
