"""`segbench data prepare`: what is kept when the cache is tidied, and what the exit status says."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.core.errors import SegbenchError
from segbench.data.prepared.eviction import note_use
from segbench.runs.prepare import evict_recipes, prepared_root


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three recipes of 1000 bytes and a bit, used one after the other."""
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path))
    made: list[Path] = []
    for age, name in enumerate(("old", "middle", "new")):
        folder = prepared_root() / "some-set" / name
        folder.mkdir(parents=True)
        (folder / "recipe.json").write_text("{}")
        (folder / "image.b2nd").write_bytes(b"0" * 1000)
        os.utime(folder / "recipe.json", (1000 + age, 1000 + age))
        made.append(folder)
    return made


def test_a_recipe_in_use_is_never_evicted(recipes: list[Path]) -> None:
    """This process trains on the oldest one: tidying in another shell must not take it away."""
    note_use(recipes[0])
    done = CliRunner().invoke(build_app(), ["--json", "data", "prepare", "--evict", "0"])
    assert done.exit_code == 0
    assert {Path(folder).name for folder in json.loads(done.stdout)["evicted"]} == {"middle", "new"}
    assert [folder.exists() for folder in recipes] == [True, False, False]
    assert (recipes[0] / "image.b2nd").is_file()


def test_the_one_used_longest_ago_goes_first(recipes: list[Path]) -> None:
    assert evict_recipes(2.5e-6) == [recipes[0]]
    assert evict_recipes(2.5e-6) == []


@pytest.mark.parametrize("size", ["-1", "nan", "inf"])
def test_a_size_that_cannot_be_is_refused_and_nothing_goes(recipes: list[Path], size: str) -> None:
    with pytest.raises(SegbenchError) as caught:
        evict_recipes(float(size))
    assert caught.value.code == "SB104"
    assert all(folder.exists() for folder in recipes)


@pytest.mark.ci
def test_a_case_that_fails_is_exit_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    app, data = build_app(), tmp_path / "data"
    phantom = ["data", "phantom", "msd", str(data / "set"), "--size", "tiny", "--cases", "4", "--no-traps"]
    made = CliRunner().invoke(app, phantom)
    assert made.exit_code == 0, made.output
    prepare = ["data", "prepare", "phantom-msd", "--path", str(data / "set"), "--protocol", "demo"]
    whole = CliRunner().invoke(app, prepare)
    assert whole.exit_code == 0, whole.output
    shutil.rmtree(tmp_path / "cache")
    image = sorted(data.rglob("imagesTr/*.nii.gz"))[0]
    image.write_bytes(image.read_bytes()[:-20])
    partial = CliRunner().invoke(app, prepare)
    assert partial.exit_code == 3, partial.output
