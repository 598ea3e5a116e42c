"""The layers of the house: imports point downward, without circles, and light rooms stay light."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "segbench"

# A room may import the rooms named here, besides itself. Arrows point downward only.
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "cards": {"core"},
    "stats": {"core"},
    "volumes": {"core"},
    "metrics": {"core", "cards", "volumes", "stats"},
    "networks": {"core", "cards"},
    # profiling times the real inferer, so it stands on the engine
    "profiling": {"core", "cards", "volumes", "metrics", "networks", "data", "engine"},
    "records": {"core", "cards"},
    "data": {"core", "cards", "volumes", "metrics", "stats"},
    "engine": {"core", "cards", "volumes", "metrics", "networks", "data"},
    "predict": {"core", "cards", "volumes", "networks", "data", "engine", "records"},
    "launch": {"core", "cards", "records"},
    # the report opens the scans of its overlays through the dataset's adapter
    "published": {"core", "cards", "metrics", "stats"},
    "report": {"core", "cards", "volumes", "metrics", "stats", "records", "data", "published"},
    "scoring": {"core", "cards", "volumes", "metrics", "stats", "records", "data"},
    "runs": {
        "core", "cards", "volumes", "metrics", "stats", "networks", "data", "engine", "profiling", "records",
        "launch", "predict", "published", "report", "scoring",
    },
    "cli": {
        "core", "cards", "volumes", "metrics", "stats", "networks", "data", "engine", "profiling", "records",
        "launch", "predict", "runs", "published", "report", "scoring",
    },
}  # fmt: skip

# Third parties that a room must never import, at any depth of indentation.
NEVER: dict[str, set[str]] = {
    "core": {"torch", "pandas", "numpy", "scipy", "monai", "matplotlib"},
    "cards": {"torch", "pandas", "scipy", "monai", "matplotlib"},
    "volumes": {"torch", "pandas", "monai", "matplotlib"},
    "metrics": {"pandas", "matplotlib"},
    "stats": {"torch", "pandas", "monai", "matplotlib"},
    "records": {"torch", "pandas", "numpy", "monai"},
    "report": {"torch", "monai"},
    "scoring": {"torch", "pandas", "monai", "matplotlib"},
    "networks": {"pandas", "matplotlib", "nibabel"},
}
# The one place in a torch-free room that may import it, lazily.
EXCEPTIONS = {
    ("metrics", "torch"): "selfcheck.py",
    ("metrics", "monai"): "selfcheck.py",
}


@cache
def imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of every import, also of those inside functions."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append((node.lineno, node.module))
            if node.module == "segbench":
                found += [(node.lineno, f"segbench.{alias.name}") for alias in node.names]
    return found


def files(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_imports_point_downward(room: str) -> None:
    wrong = []
    for path in files(room):
        for line, module in imports(path):
            parts = module.split(".")
            if parts[0] != "segbench" or len(parts) < 2 or parts[1] == room:
                continue
            if parts[1] in MAY_IMPORT and parts[1] not in MAY_IMPORT[room]:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {module}")
    assert not wrong, f"{room} may import only {sorted(MAY_IMPORT[room])}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("room", sorted(NEVER))
def test_light_rooms_stay_light(room: str) -> None:
    wrong = []
    for path in files(room):
        for line, module in imports(path):
            top = module.split(".")[0]
            allowed = EXCEPTIONS.get((room, top))
            if top in NEVER[room] and (allowed is None or not path.as_posix().endswith(allowed)):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_every_room_is_known() -> None:
    rooms = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file() and p.name != "_cards"}
    assert rooms == set(MAY_IMPORT), "a new room needs a place in the layers"


def test_the_layers_have_no_circle() -> None:
    settled: set[str] = set()
    while len(settled) < len(MAY_IMPORT):
        free = {room for room, below in MAY_IMPORT.items() if room not in settled and below <= settled}
        assert free, f"a circle among {sorted(set(MAY_IMPORT) - settled)}"
        settled |= free


def test_no_files_import_each_other_in_a_circle(file_circles: list[tuple[str, ...]]) -> None:
    assert not file_circles, "\n".join(" <-> ".join(group) for group in file_circles)
