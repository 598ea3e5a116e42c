"""Phantom trees that several tests of this room read; none of them writes into a tree that is shared."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from segbench.data.phantoms import KINDS, generate


@pytest.fixture(scope="session")
def clean_trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four clean tiny cases of each kind, by kind. Read only."""
    base = tmp_path_factory.mktemp("phantoms")
    return {kind: generate(kind, base / kind, cases=4, traps=False) for kind in KINDS}


@pytest.fixture
def own_tree(clean_trees: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a clean tree that the test may damage; without phantom.json it is as good as real."""

    def copy(kind: str, name: str = "tree", *, real: bool = True) -> Path:
        target = tmp_path / name
        shutil.copytree(clean_trees[kind], target)
        if real:
            (target / "phantom.json").unlink()
        return target

    return copy
