"""The script that measures the house, for the tests of its layers and of its size."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def portrait() -> ModuleType:
    spec = importlib.util.spec_from_file_location("portrait", ROOT / "scripts" / "portrait.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def file_circles(portrait: ModuleType) -> list[tuple[str, ...]]:
    """Groups of files of the package that import each other."""
    return portrait.circles(portrait.import_graph(portrait.parsed(ROOT / "segbench")))
