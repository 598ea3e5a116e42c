"""The three recipes are walked as they stand: files written, diffs applied, commands run, output compared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import preloaded
import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "docs" / "how-to"
BLOCK = re.compile(
    r"(?:^`(?P<file>[\w./-]+)`\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


def steps(page: Path) -> Iterator[tuple[str, str, str]]:
    """(kind, file, text) of each block in order; `file` is the path in the line above the block."""
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield found["kind"], found["file"] or "", found["text"]


def walk(page: Path, place: Path, package: Path) -> list[str]:
    """Do what a page says in a folder; the kinds of its blocks, in order."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(package), "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SEGBENCH_CACHE": str(place / "cache"), "SEGBENCH_THREADS": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    (place / "bin").mkdir()
    command, inherited = place / "bin" / "segbench", list[int]()
    if package == ROOT:
        variables, inherited = preloaded.command(command)
        environment |= variables
    else:
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m segbench "$@"\n')
        command.chmod(0o755)
    kinds, begun, printed = [], "", ""
    for kind, file, text in steps(page):
        kinds.append(kind)
        if kind == "sh":
            exports = "\n".join(line for line in begun.splitlines() if line.startswith("export "))
            done = subprocess.run(
                ["bash", "-euc", f"{exports}\n{text}"], cwd=place, env=environment, pass_fds=inherited,
                capture_output=True, text=True, timeout=500, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{page.name}:\n{text}\n{done.stdout}{done.stderr}"
            begun, printed = begun + text, done.stdout
        elif kind == "diff":
            apart = {**os.environ, "GIT_CEILING_DIRECTORIES": str(package.parent)}  # no repository around it
            done = subprocess.run(
                ["git", "apply", "-"], cwd=package, env=apart, input=text,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{page.name}: the diff does not apply: {done.stdout}{done.stderr}"
        elif kind == "text":
            said = " ".join(printed.split())
            assert " ".join(text.split()) in said, f"{page.name} prints otherwise:\n{printed}"
        else:
            assert file, f"{page.name}: a block of {kind} without the file it goes to"
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_text(text, encoding="utf-8")
    return kinds


@pytest.mark.ci
@pytest.mark.parametrize("name", ["network", "dataset"])
def test_a_recipe_can_be_typed_as_it_stands(name: str, tmp_path: Path) -> None:
    kinds = walk(RECIPES / f"add-a-{name}.md", tmp_path, ROOT)
    assert kinds.count("sh") >= 2 and "toml" in kinds
    runs = sorted(path.parent.name for path in (tmp_path / "results" / "runs").glob("*/cases.csv"))
    assert any(run.startswith("mine__" if name == "network" else "mean-atlas__my-dataset__") for run in runs)


@pytest.mark.ci
def test_the_recipe_of_a_metric(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    hidden = shutil.ignore_patterns("__pycache__", "runs", "report")
    for folder in ("segbench", "models", "datasets", "results"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=hidden)
    (tmp_path / "project").mkdir()
    kinds = walk(RECIPES / "add-a-metric.md", tmp_path / "project", copy)
    assert kinds == ["diff", "toml", "sh", "text"]


def test_a_recipe_that_is_wrong_fails(tmp_path: Path) -> None:
    for count, text in enumerate(
        (
            "```sh\nsegbench list nothing\n```\n",
            "```sh\necho a\n```\n\n```text\nb\n```\n",
            "```toml\na = 1\n```\n",
        )
    ):
        place = tmp_path / str(count)
        place.mkdir()
        (place / "page.md").write_text(text)
        with pytest.raises(AssertionError):
            walk(place / "page.md", place, ROOT)
