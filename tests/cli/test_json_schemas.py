"""`--json` of every command keeps to the schema that ships with segbench, and is one document on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from segbench.cli.main import COMMANDS, DATA_COMMANDS, IMPORT_COMMANDS, WEIGHTS_COMMANDS, build_app
from segbench.volumes import Volume, write_label_map

FLOORS = (
    "run",
    "--model",
    "mean-atlas,intensity",
    "--dataset",
    "phantom-msd",
    "--seed",
    "0",
    "--max-parallel",
    "2",
)
NETWORK = (
    "run", "--model", "nnunet-tiny", "--dataset", "phantom-msd", "--set", "budget.samples=2",
    "--set", "patch.size=16", "--limit", "1", "--device", "cpu",
)  # fmt: skip
SCANS = "raw/Dataset500_PhantomMsd/imagesTs"
LABELS = "data/phantom-msd/Task99_Phantom/labelsTr"
SMOKE = (*NETWORK[1:], "--smoke")
FINAL = "results/runs/NETWORK/checkpoints/final.safetensors"
WEIGHTS = (FINAL, "--model", "nnunet-tiny", "--output")
IMPORT = ("data", "import", "dataset", "data/phantom-msd/Task99_Phantom", "--output", "cards")
EVALUATE = ("evaluate", LABELS, LABELS, "--region", "a=1,2", "--name", "copy")

# schema -> the commands whose output it describes, run in this order in one folder
DOCUMENTS: list[tuple[str, tuple[str, ...]]] = [
    ("list", ("list", "models")),
    ("list", ("list", "datasets")),
    ("list", ("list", "protocols")),
    ("list", ("list", "metrics")),
    ("show", ("show", "model:segmamba-v2")),
    ("show", ("show", "dataset:msd-hippocampus")),
    ("show", ("show", "protocol:standard")),
    ("show-error", ("show", "error:SB204")),
    ("show-config", ("show", "config")),
    ("show-check", ("show", "model:nnunet-tiny", "--check")),
    ("plan", (*FLOORS, "--dry-run")),
    ("status", ("status",)),
    ("run", FLOORS),
    ("plan", (*FLOORS, "--dry-run")),
    ("status", ("status",)),
    ("list", ("list", "runs")),
    ("show-run", ("show", "run:RUN1")),
    ("show-diff", ("show", "run:RUN1", "--diff", "run:RUN2")),
    ("evaluate", EVALUATE),
    ("compare", ("compare", "mean-atlas", "intensity")),
    ("report", ("report", "--format", "csv")),
    ("claim", ("claim", "--a", "91.37", "--b", "91.32", "--n", "250")),
    ("profile", ("profile", "--model", "nnunet-tiny", "--input", "1x1x32x32x32", "--device", "meta")),
    ("check", ("check", "model:nnunet-tiny")),
    ("doctor", ("doctor",)),
    ("data-verify", ("data", "verify", "phantom-msd")),
    ("data-split", ("data", "split", "phantom-msd", "--folds", "3")),
    ("data-prepare", ("data", "prepare", "phantom-msd", "--protocol", "demo")),
    ("data-phantom", ("data", "phantom", "crc", "crc", "--cases", "2")),
    ("data-export", ("data", "export", "phantom-msd", "--format", "nnunet", "--output", "raw")),
    ("data-import-dataset", IMPORT),
    ("run", NETWORK),
    ("predict", ("predict", SCANS, "--run", "NETWORK", "--output", "p")),
    ("run-smoke", ("run", *SMOKE)),
    ("weights-export", ("weights", "export", *WEIGHTS, "theirs.pt")),
    ("weights-card", ("weights", "card", FINAL)),
    ("weights-import", ("weights", "import", *WEIGHTS, "ours.safetensors")),
    ("demo", ("demo", "--set", "budget.samples=2", "--results", "demo/runs")),
]  # fmt: skip
TAKEN_IN: dict[str, tuple[str, ...]] = {
    "data-fetch": ("data", "fetch", "msd-hippocampus", "--data-dir", "data"),
    "data-import-predictions": (
        "data", "import", "predictions", "theirs", "--map", "map.json", "--output", "ours"
    ),
    "data-import-scores": ("data", "import", "scores", "summary.json", "--dataset", "lits"),
    "data-import-nnunet": ("data", "import", "nnunet", "nnunet", "--reference", "labels"),
}  # fmt: skip
"""The same for commands that take in what `other_tools` writes; each runs in this process."""
_ALSO = {"status": (4,), "run-smoke": (6,)}
"""Exit codes besides 0 and 3: nothing was run yet; the small network did not learn the case by heart."""


def schema(name: str) -> dict[str, Any]:
    if name == "report":
        place = files("segbench.report") / "schema" / "report.schema.json"
    else:
        place = files("segbench.cli") / "schema" / f"{name}.schema.json"
    return json.loads(place.read_text(encoding="utf-8"))


def word_of(word: str, runs: Path) -> str:
    """RUN1, RUN2 and NETWORK stand for the ids of runs made before."""
    for name, pattern in (("RUN1", "intensity__*"), ("RUN2", "mean-atlas__*"), ("NETWORK", "nnunet-tiny__*")):
        if name in word:
            (found,) = (path.parent.name for path in runs.glob(f"{pattern}/run.json"))
            return word.replace(name, found)
    return word


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, tuple[str, ...], Any]]:
    """What each command prints, in a process of its own."""
    folder = tmp_path_factory.mktemp("json")
    environment = {
        **os.environ,
        "SEGBENCH_THREADS": "1", "OMP_NUM_THREADS": "1", "SEGBENCH_CACHE": str(folder / "cache"),
    }  # fmt: skip
    made = []
    for name, command in DOCUMENTS:
        words = [word_of(word, folder / "results" / "runs") for word in command]
        done = subprocess.run(
            [sys.executable, "-m", "segbench", *words, "--json"],
            capture_output=True, text=True, cwd=folder, env=environment, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode in {0, 3, *_ALSO.get(name, ())}, (command, done.stderr)
        made.append((name, command, json.loads(done.stdout) if done.stdout else None))
    return made


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("index", range(len(DOCUMENTS)), ids=[" ".join(c)[:40] for _, c in DOCUMENTS])
def test_a_document_keeps_to_its_schema(outputs: list[tuple[str, tuple[str, ...], Any]], index: int) -> None:
    name, _, document = outputs[index]
    if document is None:
        assert name == "status"  # nothing was run yet: SB701 on stderr, nothing on stdout
        return
    assert document["schema_version"] == schema(name)["properties"]["schema_version"].get("const", 1)
    jsonschema.Draft202012Validator(schema(name)).validate(document)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted({name for name, _ in DOCUMENTS}))
def test_a_schema_is_one_and_refuses_what_lacks_a_field(
    outputs: list[tuple[str, tuple[str, ...], Any]], name: str
) -> None:
    content = schema(name)
    jsonschema.Draft202012Validator.check_schema(content)
    document = next(found for kind, _, found in outputs if kind == name and found is not None)
    for field in content["required"]:
        broken = {key: value for key, value in document.items() if key != field}
        assert not jsonschema.Draft202012Validator(content).is_valid(broken)


LIGHT = [(name, command) for name, command in DOCUMENTS[:9] if command[0] in {"list", "show"}]


@pytest.mark.parametrize(("name", "command"), LIGHT, ids=[" ".join(command) for _, command in LIGHT])
def test_light_commands_keep_to_their_schemas(name: str, command: tuple[str, ...]) -> None:
    """The same check in this process for the commands that need nothing; the whole table is `slow`."""
    done = CliRunner().invoke(build_app(), [*command, "--json"])
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator(schema(name)).validate(document)
    broken = {key: value for key, value in document.items() if key != "schema_version"}
    assert not jsonschema.Draft202012Validator(schema(name)).is_valid(broken)


def test_weights_keep_to_their_schemas(tmp_path: Path) -> None:
    """A checkpoint in, and out again under the names of the authors."""
    import torch

    from segbench.networks import build_network

    start, ours, theirs = (tmp_path / name for name in ("start.pt", "ours.safetensors", "theirs.pt"))
    torch.save(build_network("segmamba-v2-tiny", 1, 2).state_dict(), start)
    for word, source, target in (("import", start, ours), ("export", ours, theirs)):
        command = ["weights", word, str(source), "--model", "segmamba-v2-tiny", "--output", str(target)]
        done = CliRunner().invoke(build_app(), [*command, "--json"])
        assert done.exit_code == 0, done.stderr
        jsonschema.Draft202012Validator(schema(f"weights-{word}")).validate(json.loads(done.stdout))
    assert theirs.is_file()


@pytest.mark.parametrize("name", sorted({name for name, _ in DOCUMENTS} - {"report"} | set(TAKEN_IN)))
def test_a_shipped_schema_is_a_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))
    assert "schema_version" in schema(name)["required"]


def other_tools(folder: Path) -> None:
    """A dataset that is here already, a good and a bad label map, scores of nnU-Net and of Touchstone."""
    (folder / "data" / "Task04_Hippocampus").mkdir(parents=True)
    (folder / "data" / "Task04_Hippocampus" / "dataset.json").write_text("{}")
    array = np.ones((2, 3, 4), dtype=np.uint8)
    write_label_map(folder / "theirs" / "a.nii.gz", array, Volume(array, (1.0, 1.0, 1.0), np.eye(4)))
    (folder / "theirs" / "b.nii.gz").write_bytes(b"<html>")
    names = {"dataset": "x", "to_source": {"0": 0, "1": 7}, "labels": {"0": "background", "1": "a"}}
    (folder / "map.json").write_text(json.dumps({**names, "regions": [["a", [1]]], "ignore": None}))
    counts = {"TP": 8, "FP": 1, "FN": 1, "TN": 90, "n_pred": 9, "n_ref": 9}
    good = {"Dice": 16 / 18, "IoU": 0.8, **counts}
    cases = [
        {"metrics": {"1": good, "2": found}, "prediction_file": f"/p/{case}.nii.gz", "reference_file": case}
        for case, found in (("a", good), ("b", {**good, "Dice": 0.99}))
    ]
    means = {"mean": {"1": {"Dice": 0.9}}, "foreground_mean": {"Dice": 0.9}}
    (folder / "summary.json").write_text(json.dumps({"metric_per_case": cases, **means}))
    fold = folder / "nnunet" / "Dataset001_X" / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0" / "validation"
    for place in (folder / "labels", fold):
        write_label_map(place / "a.nii.gz", array, Volume(array, (1.0, 1.0, 1.0), np.eye(4)))
    (fold.parents[1] / "dataset.json").write_text(
        json.dumps(
            {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
        )
    )
    table = folder / "Touchstone" / "dapatlas_results" / "Network" / "dsc.csv"
    table.parent.mkdir(parents=True)
    table.write_text("name,aorta,liver\ns1,0.9,0.8\n")


@pytest.mark.parametrize("name", TAKEN_IN)
def test_what_is_taken_in_keeps_to_its_schema(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_tools(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(build_app(), [*TAKEN_IN[name], "--json"])
    assert done.exit_code in {0, 3}, done.output
    document, validator = json.loads(done.stdout), jsonschema.Draft202012Validator(schema(name))
    validator.validate(document)
    assert document["schema_version"] == 1
    for field in schema(name)["required"]:
        assert not validator.is_valid({key: value for key, value in document.items() if key != field})


def test_every_command_has_a_schema() -> None:
    covered = {c[0] if c[0] != "data" else c[1] for _, c in DOCUMENTS}
    covered |= {" ".join(c[1:3]) if c[1] == "import" else c[1] for c in TAKEN_IN.values()}
    covered |= {" ".join(c[:2]) for _, c in DOCUMENTS if c[0] == "weights"}
    covered.add("dataset")  # `data import dataset`
    names = {
        *COMMANDS,
        *DATA_COMMANDS,
        *(f"import {n}" for n in IMPORT_COMMANDS),
        *(f"weights {n}" for n in WEIGHTS_COMMANDS),
    }
    assert names - covered - {"import dataset"} == set()
