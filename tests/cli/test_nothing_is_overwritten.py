"""Every command over one tree: each file that was there before is there afterwards, byte for byte."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import preloaded
import pytest

from segbench.cli.main import COMMANDS, DATA_COMMANDS, IMPORT_COMMANDS, WEIGHTS_COMMANDS
from segbench.core.hashing import sha256_file

TABLE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "nothing-is-dropped.md"
EVERY = {
    *COMMANDS,
    *(f"data {name}" for name in DATA_COMMANDS),
    *(f"data import {name}" for name in IMPORT_COMMANDS),
    *(f"weights {name}" for name in WEIGHTS_COMMANDS),
}


def call(*arguments: object) -> tuple[int, str]:
    done = preloaded.run("-m", "segbench", *map(str, arguments))
    return done.returncode, done.stdout + done.stderr


def digests(root: Path) -> dict[str, str]:
    """Every file below a folder, whatever leads there; the cache and the terminal's files are not inputs."""
    return {
        str(path.relative_to(root)): sha256_file(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and "cache" not in path.relative_to(root).parts
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, predictions of it, weights, a summary of nnU-Net and two scored runs."""
    from segbench.networks import build_network
    from segbench.networks.weights import WeightsMetadata, write_weights

    root = tmp_path_factory.mktemp("tree")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("SEGBENCH_CACHE", str(root / "cache"))
        assert call("data", "phantom", "msd", "data", "--cases", 5, "--no-traps")[0] == 0
        (labels,) = (root / "data").rglob("labelsTr")
        for model in ("one", "two"):
            shutil.copytree(labels, root / "predictions" / model)
            for path in (root / "predictions" / model).iterdir():
                image = nib.load(path)
                array = np.roll(np.asarray(image.dataobj), 1 if model == "one" else 2, axis=0)
                nib.save(nib.Nifti1Image(array, image.affine, image.header), path)
            score = [f"predictions/{model}", labels, "--results", "runs"]
            assert call("evaluate", *score, "--region", "front=1", "--region", "back=2")[0] == 0
    stack = nib.load(next((root / "data").rglob("imagesTr/*")))
    nib.save(nib.Nifti1Image(np.asarray(stack.dataobj)[..., 0], stack.affine), root / "scan.nii.gz")
    about = WeightsMetadata("nnunet-tiny", 1, 3, {}, ("MR",), ("background", "anterior", "posterior"))
    write_weights(root / "w.safetensors", build_network("nnunet-tiny", 1, 3).state_dict(), about)
    (root / "summary.json").write_text(json.dumps({"metric_per_case": [], "mean": {}, "foreground_mean": {}}))
    fold = (
        root / "nnUNet_results" / "Dataset001_X" / "nnUNetTrainer__nnUNetPlans__2d" / "fold_1" / "validation"
    )
    shutil.copytree(labels, fold)
    (fold.parents[1] / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "MR"}, "labels": {"background": 0, "front": 1, "back": 2},
                    "file_ending": ".nii.gz"})
    )  # fmt: skip
    (root / "mine.csv").write_text("a table of mine\n")
    return root


@pytest.fixture
def tree(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tree, as working directory."""
    root = tmp_path / "tree"
    shutil.copytree(made, root, symlinks=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("SEGBENCH_CACHE", str(root / "cache"))
    monkeypatch.setenv("SEGBENCH_RESULTS", str(root / "runs"))
    return root


def paths(root: Path) -> tuple[Path, Path]:
    """The dataset's folder, and that of its references."""
    (labels,) = (root / "data").rglob("labelsTr")
    return labels.parent, labels


WALK: dict[str, list[str]] = {
    "list": ["runs"],
    "show": ["model:nnunet-tiny"],
    "status": [],
    "doctor": ["--bundle", "new/doctor.json"],
    "data verify": ["DATA"],
    "data split": ["DATA", "--folds", "2", "--write", "new/folds.json", "--to-nnunet", "new/splits.json"],
    "data export": ["DATA", "--output", "new/export", "--split", "new/folds.json"],
    "data prepare": ["phantom-msd", "--path", "DATA", "--protocol", "demo"],
    "data phantom": ["msd", "new/phantom", "--cases", "3"],
    "data fetch": ["msd-hippocampus", "--data-dir", "new/none"],
    "data import dataset": ["DATA", "--output", "new/cards", "--slug", "mine"],
    "data import predictions": ["predictions/one", "--map", "MAP", "--output", "new/back"],
    "data import nnunet": ["nnUNet_results", "--reference", "LABELS"],
    "data import scores": ["summary.json", "--dataset", "DATA"],
    "evaluate": ["predictions/one", "LABELS", "--region", "front=1",
                 "--region", "back=2"],
    "compare": ["one", "two"],
    "check": ["model:nnunet-tiny"],
    "claim": ["--a", "90", "--b", "89", "--n", "40"],
    "report": ["--output", "new/report", "--format", "json,csv,markdown,latex"],
    "predict": ["scan.nii.gz", "--run", "w.safetensors", "--dataset", "msd-hippocampus",
                "--output", "new/predicted", "--device", "cpu"],
    "weights import": ["w.safetensors", "--model", "nnunet-tiny", "--output", "new/in.safetensors"],
    "weights export": ["w.safetensors", "--model", "nnunet-tiny", "--output", "new/out.pt"],
    "weights card": ["w.safetensors"],
    "profile": ["--model", "nnunet-tiny", "--input", "1x1x32x32x32", "--device", "meta",
                "--output", "new/cost.csv"],
    "run": ["--model", "empty", "--dataset", "phantom-msd", "--protocol", "demo", "--device", "cpu"],
    "demo": ["--help"],  # trains for minutes; it is `run` and `report` in folders of their own
}  # fmt: skip
REFUSES = {"data fetch"}
"""Commands that find nothing here to take in; they still must not touch a thing."""


def test_every_command_is_in_the_walk_and_in_the_table() -> None:
    assert set(WALK) == EVERY
    rows = re.findall(r"^\| `([^`]+)` \|", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert EVERY <= set(rows), sorted(EVERY - set(rows))


@pytest.mark.ci
def test_every_command_leaves_every_file_as_it_was(tree: Path) -> None:
    root, labels = paths(tree)
    words = {"DATA": str(root), "LABELS": str(labels)}
    before = digests(tree)
    for name, options in WALK.items():
        made_by_export = [str(path) for path in (tree / "new").rglob("segbench_label_map.json")]
        words["MAP"] = made_by_export[0] if made_by_export else "absent"
        code, text = call(*name.split(), *(words.get(option, option) for option in options))
        assert "internal error" not in text, text
        assert (code in (0, 3)) != (name in REFUSES), f"{name}: {code}\n{text}"
        after = digests(tree)
        assert {path: after.get(path) for path in before} == before, name


INPUTS: dict[str, tuple[list[str], str, str]] = {
    # command: options with OUT for the place of the result, the input, the name of the result there
    "predict": (
        ["scan.nii.gz", "--weights", "w.safetensors", "--dataset", "msd-hippocampus", "--device", "cpu",
         "--output"],
        "scan.nii.gz", "scan.nii.gz",
    ),
    "data import predictions": (
        ["predictions/one", "--map", "map.json", "--output"],
        "predictions/one/phantom_000.nii.gz", "phantom_000.nii.gz",
    ),
    "report": (["--format", "json", "--output"], "RUN/run.json", "report.json"),
}  # fmt: skip


@pytest.mark.ci
@pytest.mark.parametrize("how", ["hard link", "link", "foreign", "folder link"])
@pytest.mark.parametrize("name", sorted(INPUTS))
def test_a_folder_of_results_that_leads_to_an_input_is_refused(tree: Path, name: str, how: str) -> None:
    options, source, target = INPUTS[name]
    _, labels = paths(tree)
    names = {"labels": {}, "to_source": {"0": 0, "1": 1, "2": 2}, "regions": [], "dataset": "x"}
    (tree / "map.json").write_text(json.dumps(names))
    run = next(path for path in (tree / "runs").iterdir())
    given = Path(source.replace("RUN", str(run)))
    place = tree / "out"
    if how == "folder link":
        other = tree / "elsewhere"
        other.mkdir()
        os.link(given, other / target)
        place.symlink_to(other)
    else:
        place.mkdir()
        if how == "hard link":
            os.link(given, place / target)
        elif how == "link":
            (place / target).symlink_to(given.resolve())
        else:
            shutil.copy(next(labels.iterdir()), place / target)
    before = digests(tree)
    code, text = call(*name.split(), *options, "out")
    assert code == 4 and "SB337" in text, text
    assert digests(tree) == before


FILES: dict[str, list[str]] = {
    "weights import": ["w.safetensors", "--model", "nnunet-tiny", "--output"],
    "weights export": ["w.safetensors", "--model", "nnunet-tiny", "--output"],
    "data split": ["DATA", "--folds", "2", "--write"],
    "doctor": ["--bundle"],
    "profile": ["--model", "nnunet-tiny", "--input", "1x1x32x32x32", "--device", "meta", "--output"],
}


@pytest.mark.ci
@pytest.mark.parametrize("target", ["w.safetensors", "link.safetensors", "mine.csv", "LABEL"])
@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_of_results_that_stands_already_is_refused(tree: Path, name: str, target: str) -> None:
    root, labels = paths(tree)
    (tree / "link.safetensors").symlink_to("w.safetensors")
    place = next(labels.iterdir()) if target == "LABEL" else Path(target)
    if name == "profile" and place.suffix not in (".csv", ".json", ".tex"):
        pytest.skip("a folder then")
    if name.startswith("weights") and place.suffix not in (".safetensors", ".pt"):
        pytest.skip("the ending is refused first")
    before = digests(tree)
    options = [str(root) if option == "DATA" else option for option in FILES[name]]
    code, text = call(*name.split(), *options, place)
    assert code == 4 and "SB337" in text, text
    assert digests(tree) == before


@pytest.mark.ci
def test_predict_into_the_folder_of_the_scan_is_refused(tree: Path) -> None:
    before = digests(tree)
    options, _, _ = INPUTS["predict"]
    for place in (".", str(tree), "predictions/.."):
        code, text = call("predict", *options, place)
        assert code == 4 and "SB337" in text, text
    assert digests(tree) == before


@pytest.mark.ci
def test_what_a_command_wrote_itself_it_replaces(tree: Path) -> None:
    options, _, _ = INPUTS["predict"]
    for _ in range(2):
        code, text = call("predict", *options, "out")
        assert code == 0, text
        assert call("report", "--format", "json,csv", "--output", "out2")[0] in (0, 3)
        assert call("data", "split", str(paths(tree)[0]), "--folds", 2, "--write", "folds.json")[0] == 0
    (tree / "out" / "scan.nii.gz").write_bytes((tree / "scan.nii.gz").read_bytes())
    assert call("predict", *options, "out")[0] == 4
