"""The command line as a user meets it: suggestions, exit codes, one JSON document, settings files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import preloaded
import pytest


def segbench(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return preloaded.run("-m", "segbench", *arguments, cwd=cwd, env={**os.environ, **variables})


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("run", "--model", "segmamba2", "--dataset", "msd-hippocampus"), 2, "did you mean"),
        (("run", "--model", "nnunet-tiny", "--dataset", "hipocampus"), 2, "msd-hippocampus"),
        (("run", "--model", "nnunet-tiny", "--dataset", "crc-2000", "--protocol", "demmo"), 2, "demo"),
        (
            ("run", "--model", "nnunet-tiny", "--dataset", "crc-2000", "--set", "budget.sample=3"),
            2,
            "budget.samples",
        ),
        (
            ("run", "--model", "nnunet-tiny", "--dataset", "crc-2000", "--set", "budget.samples=-3"),
            2,
            "SB104",
        ),
        (("run", "--model", "nnunet-tiny", "--dataset", "crc-2000", "--set", "nonsense"), 2, "KEY=VALUE"),
        (("run", "--model", "nnunet-tiny", "--dataset", "crc-2000", "--seed", "3-1"), 2, "SB104"),
        (("run", "--model", "nnunet-tiny", "--dataset", "crc-2000"), 4, "on request only"),
        (("run", "--dataset", "crc-2000"), 2, "--model"),
        (("list", "nothing"), 2, "models"),
        (("show", "error:SB999"), 2, "SB101"),
        (("show", "run:nothing"), 2, "SB101"),
        (("status", "--results", "nowhere"), 4, "SB701"),
        (("--config", "nowhere.toml", "list", "models"), 2, "does not exist"),
        (("predict", "x.nii.gz", "--output", "o"), 2, "--run names no weights"),
        (("--max-volume", "many", "list", "models"), 2, "8GiB"),
    ],
)
def test_wrong_input_is_named(tmp_path: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    done = segbench(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ci
def test_json_is_the_only_thing_on_stdout(tmp_path: Path) -> None:
    for arguments in (("list", "models"), ("list", "datasets"), ("show", "error:SB204"), ("show", "config")):
        for command in (("--json", *arguments), (*arguments, "--json")):
            done = segbench(*command, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["schema_version"] == 1


def test_a_dry_run_of_everything_names_what_is_absent_and_writes_nothing(tmp_path: Path) -> None:
    done = segbench("run", "--model", "segmamba-v2", "--dataset", "all", "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 3
    plan = json.loads(done.stdout)
    absent = " ".join(error["message"] for error in plan["absent"])
    for slug in ("crc-2000", "brats2023-gli", "aiib2023", "abdomenatlas-1.0-mini", "msd-hippocampus"):
        assert slug in absent
    assert "segbench data fetch msd-hippocampus" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_flag_beats_variable_beats_file(tmp_path: Path) -> None:
    (tmp_path / "segbench.toml").write_text('[status]\nresults = "from-file"\n')
    assert "from-file" in segbench("status", cwd=tmp_path).stderr
    assert "from-variable" in segbench("status", cwd=tmp_path, SEGBENCH_RESULTS="from-variable").stderr
    flag = segbench("status", "--results", "from-flag", cwd=tmp_path, SEGBENCH_RESULTS="from-variable")
    assert "from-flag" in flag.stderr
    (tmp_path / "other.toml").write_text('results = "from-config"\n')
    assert "from-config" in segbench("--config", "other.toml", "status", cwd=tmp_path).stderr


def test_the_cell_command_is_shown_on_request_only() -> None:
    assert " cell " not in segbench("--help").stdout
    assert " cell " in segbench("--help", "--all").stdout


@pytest.mark.ci
def test_a_patch_that_a_model_cannot_take_blocks_its_cell_only(tmp_path: Path) -> None:
    done = segbench(
        "run", "--model", "nnunet,nnunet-tiny", "--dataset", "phantom-brats", "--protocol", "demo",
        "--dry-run", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    states = {cell["model"]: cell for cell in json.loads(done.stdout)["cells"]}
    assert states["nnunet"]["state"] == "blocked"
    assert "patches of 32x32x32" in states["nnunet"]["note"]
    assert states["nnunet-tiny"]["state"] == "planned"
    assert not (tmp_path / "results").exists()
