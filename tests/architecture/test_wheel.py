"""What the wheel holds: the package, every card, the published numbers; no run, no test, no data."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    planted = ROOT / "results" / "runs" / "planted-by-test-wheel"
    planted.mkdir(parents=True, exist_ok=True)
    (planted / "run.json").write_text("{}")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
            cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    finally:
        (planted / "run.json").unlink()
        planted.rmdir()
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_every_card_travels(names: list[str]) -> None:
    for kind in ("models", "datasets"):
        cards = {p.parent.name for p in (ROOT / kind).glob("*/card.toml")}
        assert cards
        assert {f"segbench/_cards/{kind}/{slug}/card.toml" for slug in cards} <= set(names)


def test_data_files_of_the_package_travel(names: list[str]) -> None:
    wanted = [
        p
        for p in (ROOT / "segbench").rglob("*")
        if p.suffix in {".toml", ".gz", ".css", ".js", ".html", ".typed"}
    ]
    assert any(p.name == "catalogue.toml" for p in wanted)
    assert {p.relative_to(ROOT).as_posix() for p in wanted if "_cards" not in p.parts} <= set(names)


def test_published_numbers_travel(names: list[str]) -> None:
    tables = {p.name for p in (ROOT / "results" / "published").glob("*.toml")}
    assert {f"segbench/_cards/results/published/{name}" for name in tables} <= set(names)


def test_nothing_else_travels(names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"segbench"}
    assert not [
        n for n in names if "planted-by-test-wheel" in n or "results/runs" in n or "results/report" in n
    ]
    assert not [n for n in names if n.endswith((".nii", ".nii.gz", ".pyc", ".nbi", ".nbc"))]
