"""Predictions as one mask per structure, read through a dataset's card: what is not one fails alone."""

import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from test_external_evaluate import fresh_settings, segbench

from segbench.data.phantoms import generate
from segbench.records import read_cases

__all__ = ["fresh_settings"]

SLUG = "abdomenatlas-1.0-mini"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    base = tmp_path_factory.mktemp("atlas")
    return generate("abdomenatlas", base / "AbdomenAtlas1.0Mini", cases=2, traps=False)


@pytest.fixture
def liver(phantoms, tmp_path):
    """The mask of the liver in a perfect prediction of the first case."""
    shutil.copytree(phantoms, tmp_path / "preds")
    return next(path for path in sorted((tmp_path / "preds").rglob("liver.nii.gz")))


def rewrite(path, change):
    image = nib.load(path)
    array = change(np.asarray(image.dataobj))
    nib.save(nib.Nifti1Image(array, image.affine), path)


def scores(tmp_path, phantoms):
    code, out, err = segbench(
        "evaluate", "--dataset", SLUG, "--data-dir", phantoms.parent, "--prediction", tmp_path / "preds",
        "--results", tmp_path / "runs", "--json", "--no-progress",
    )  # fmt: skip
    rows = read_cases(Path(json.loads(out)["run_directory"])) if out else []
    return code, {(row["case"], row["region"]): row for row in rows}, err


DAMAGE = {
    "missing": (Path.unlink, "SB215"),
    "blank in its name": (lambda path: path.rename(path.with_name("liver .nii.gz")), "SB215"),
    "shape": (lambda path: rewrite(path, lambda a: a[:-3].astype(np.uint8)), "SB214"),
    "values": (lambda path: rewrite(path, lambda a: (a * 3).astype(np.uint8)), "SB315"),
    "fractions": (lambda path: rewrite(path, lambda a: (a * 0.5).astype(np.float32)), "SB212"),
}


@pytest.mark.ci
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_not_the_mask_fails_its_structure_alone(tmp_path, phantoms, liver, damage):
    change, said = DAMAGE[damage]
    case = liver.parents[1].name
    change(liver)
    code, rows, err = scores(tmp_path, phantoms)
    assert code == 3 and said in err and "liver" in err
    assert {key for key, row in rows.items() if row["code"]} == {(case, "liver")}
    assert (rows[case, "liver"]["code"], float(rows[case, "liver"]["dice"])) == (said, 0)
    assert {float(row["dice"]) for key, row in rows.items() if key != (case, "liver")} == {1.0}


def test_two_files_for_one_mask_are_refused(tmp_path, phantoms, liver):
    liver.with_name("liver.nii").write_bytes(gzip.decompress(liver.read_bytes()))
    code, rows, err = scores(tmp_path, phantoms)
    assert code == 4 and not rows
    assert "SB216" in err and "liver.nii.gz" in err


def test_a_mask_of_another_case_on_the_same_grid_is_scored_as_it_is(tmp_path, phantoms, liver):
    """Nothing in the file says whose it is; its structure alone shows it."""
    shutil.copy(max(phantoms.rglob("liver.nii.gz")), liver)
    code, rows, _ = scores(tmp_path, phantoms)
    assert code == 0
    assert {key for key, row in rows.items() if float(row["dice"]) < 1} == {(liver.parents[1].name, "liver")}


def test_a_mask_of_floats_that_are_whole_is_a_mask(tmp_path, phantoms, liver):
    rewrite(liver, lambda a: a.astype(np.float64))
    code, rows, _ = scores(tmp_path, phantoms)
    assert code == 0
    assert {float(row["dice"]) for row in rows.values()} == {1.0}


def test_a_folder_with_a_blank_in_its_name_is_not_the_case(tmp_path, phantoms, liver):
    case = liver.parents[1]
    case.rename(case.with_name(case.name + " "))
    code, rows, err = scores(tmp_path, phantoms)
    assert code == 3 and "has no reference and is not scored" in err
    assert {row["code"] for key, row in rows.items() if key[0] == case.name} == {"SB215"}
    assert {float(row["dice"]) for key, row in rows.items() if key[0] == case.name} == {0.0}
