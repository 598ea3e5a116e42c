"""The command that `segbench show run:ID` prints plans the same run: the same id, whatever was asked for."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.data import open_dataset
from segbench.data.splits import load_split, save_split


def segbench(*words: str) -> str:
    done = CliRunner().invoke(build_app(), list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    dataset = open_dataset("phantom-brats", data_dir=folder)
    save_split(load_split("folds-3", dataset), folder / "my folds.json")
    return folder


@pytest.mark.parametrize(
    "flags",
    [
        ("--model", "nnunet-tiny", "--protocol", "demo"),
        ("--model", "mean-atlas", "--protocol", "demo"),
        ("--model", "nnunet-tiny", "--protocol", "demo", "--set", "budget.samples=6", "--limit", "2"),
        ("--model", "nnunet-tiny", "--protocol", "demo", "--set", "split.limit=2"),
        ("--model", "segmamba-v2", "--protocol", "standard"),
        ("--model", "segmamba-v2", "--protocol", "published"),
        ("--model", "nnunet-tiny", "--protocol", "standard", "--set", "inference.mirror_axes=none"),
        ("--model", "nnunet-tiny", "--protocol", "demo", "--split", "folds-4", "--fold", "3"),
        ("--model", "nnunet-tiny", "--protocol", "demo", "--split", "FOLDS", "--fold", "1"),
        ("--model", "nnunet-tiny", "--protocol", "demo", "--split", "FOLDS", "--fold", "2", "--limit", "2"),
    ],
    ids=lambda flags: " ".join(flags)[8:60],
)
def test_the_printed_command_plans_the_same_run(
    flags: tuple[str, ...], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_DATA", str(data))
    words = [str(data / "my folds.json") if word == "FOLDS" else word for word in flags]
    segbench(
        "run", "--dataset", "phantom-brats", *words, "--seed", "1", "--plan-only", "--results", "old runs"
    )
    (folder,) = (path.parent for path in Path("old runs").glob("*/run.json"))
    shown = segbench("show", f"run:{folder.name}", "--results", "old runs").splitlines()[-1]
    program, *command = shlex.split(shown.removeprefix("rebuild with: "))
    assert program == "segbench"
    plan = json.loads(segbench(*command, "--dry-run", "--json"))
    assert [cell["run_id"] for cell in plan["cells"]] == [folder.name]
    # what the shipped protocol says anyway is not said again
    assert command.count("--set") == flags.count("--set")
