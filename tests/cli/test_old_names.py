"""Old names of options are taken for one version: under their new name, or left out with a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.cli.options import RENAMED

OLD = [(command, flag, new) for command, flags in RENAMED.items() for flag, new in flags.items()]
GONE = [each for each in OLD if not each[2].isidentifier()]
KEPT = [each for each in OLD if each[2].isidentifier()]
FAULTY = {
    "demo": ("--set", "nonsense"),
    "verify": ("nowhere/at-all",),
    "phantom": ("nothing", "DEST"),
    "predict": ("scan.nii.gz", "--output", "out"),
}
"""What makes a command end at once, after its options were read."""


def words_of(command: str) -> list[str]:
    """`data verify` for `verify`."""
    return [command] if command in typer.main.get_command(build_app()).commands else ["data", command]  # type: ignore[attr-defined]


def command_of(command: str) -> Any:
    found: Any = typer.main.get_command(build_app())
    for word in words_of(command):
        found = found.commands[word]
    return found


def invoke(*words: str) -> Any:
    return CliRunner().invoke(build_app(), [*words, "--no-color"])


@pytest.mark.parametrize(("command", "flag", "way"), [each for each in GONE if each[0] != "phantom"])
def test_an_option_that_is_gone_is_left_out_with_a_word(command: str, flag: str, way: str) -> None:
    told = invoke(*words_of(command), *FAULTY.get(command, ()), flag, "1")
    assert told.exit_code in {2, 4}, told.output  # of the fault that comes after
    assert f"{flag} is no longer an option of {command} and is left out" in told.output
    assert way in " ".join(told.output.split())
    assert "No such option" not in told.output


@pytest.mark.ci
@pytest.mark.parametrize(("command", "flag", "new"), KEPT)
def test_an_old_name_is_hidden_and_takes_what_the_new_one_takes(command: str, flag: str, new: str) -> None:
    parameters = command_of(command).params
    (old,) = [each for each in parameters if flag in each.opts]
    (now,) = [each for each in parameters if each.name == new]
    assert old.hidden
    assert getattr(old, "is_flag", False) == getattr(now, "is_flag", False)
    assert old.multiple == (getattr(now, "multiple", False) or now.nargs == -1)


def test_old_and_new_names_of_evaluate_give_the_same_run_and_not_both(tmp_path: Path) -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2:4, 2:4, 2:4] = 1
    for folder in ("preds", "refs"):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / folder / "a.nii.gz")
    description = {
        "labels": {"background": 0, "lesion": 1},
        "channel_names": {"0": "CT"},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    preds, refs, described = (str(tmp_path / name) for name in ("preds", "refs", "dataset.json"))
    rest = ("--results", str(tmp_path / "runs"), "--json", "--no-progress")
    now = invoke("evaluate", preds, refs, "--dataset", described, *rest)
    before = invoke(
        "evaluate", "--prediction", preds, "--reference", refs, "--dataset-json", described, *rest
    )
    assert now.exit_code == before.exit_code == 0, before.output
    assert json.loads(now.stdout)["run_id"] == json.loads(before.stdout)["run_id"]
    assert "lesion" in now.stdout
    for old in (("--prediction", preds), ("--dataset-json", described)):
        both = invoke("evaluate", preds, refs, "--dataset", described, *old, *rest)
        assert both.exit_code == 2
        assert f"{old[0]} is an old name of" in both.stderr
