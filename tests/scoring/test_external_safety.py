"""Scores follow the bytes, and what looks right and is not is said."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segbench.core.errors import SegbenchError
from segbench.scoring.evaluate import Request, evaluate_predictions
from segbench.scoring.work import stamp

SHAPE = (12, 14, 16)
OLD = (10**9, 10**9)


def blob(shift: int = 0) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[1:5, 2:7, 2 + shift : 8 + shift] = 1
    array[1:3, 2:4, 2 + shift : 5 + shift] = 2
    return array


def save(path: Path, array: np.ndarray, *, units: int = 2, spacing: float = 1.0, lost: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array.T, None if lost else np.diag([spacing, spacing, spacing, 1.0]))
    image.header.set_zooms([spacing] * 3)
    image.header["xyzt_units"] = units
    nib.save(image, path)
    os.utime(path, OLD)
    return path


def evaluate(root: Path, prediction: str = "pred", reference: str = "ref", **options):
    return evaluate_predictions(
        Request(
            prediction=root / prediction,
            reference=root / reference,
            regions={"whole": (1, 2), "core": (2,)},
            results=root / "results",
            workers=1,
            **options,
        ),
        command=(),
    )


def dice(evaluation) -> list[float]:
    return [row["dice"] for row in evaluation.rows if row["region"] == "whole"]


def in_place(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())  # the same inode
    os.utime(target, OLD)


def by_rename(source: Path, target: Path) -> None:
    shutil.copy2(source, target.with_suffix(".new"))
    target.with_suffix(".new").replace(target)


@pytest.mark.ci
@pytest.mark.parametrize("replace", [shutil.copy2, in_place, by_rename])
@pytest.mark.parametrize("role", ["pred", "ref"])
def test_a_file_replaced_at_equal_size_and_time_is_scored_again(tmp_path, role, replace):
    for case in ("a", "b"):
        for folder, shift in (("ref", 0), ("pred", 0), ("other", 3)):
            save(tmp_path / folder / f"{case}.nii", blob(shift))
    assert dice(evaluate(tmp_path)) == [1.0, 1.0]
    target = tmp_path / role / "a.nii"
    before = target.stat()
    replace(tmp_path / "other" / "a.nii", target)
    after = target.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    again = evaluate(tmp_path)
    assert dice(again) == [0.5, 1.0]
    assert dice(again) == dice(evaluate(tmp_path, fresh=True))


def test_a_file_of_the_same_bytes_is_not_scored_again(tmp_path):
    """A copy has another inode and another time; its digest is the same, so its rows stay."""
    save(tmp_path / "ref" / "a.nii", blob())
    path = save(tmp_path / "pred" / "a.nii", blob(1))
    evaluation = evaluate(tmp_path)
    lines = evaluation.folder / "cases.jsonl"
    marked = lines.read_text().replace('"dice": 0.', '"dice": 0.0')
    lines.write_text(marked)
    path.write_bytes(path.read_bytes())
    assert dice(evaluate(tmp_path)) == [pytest.approx(dice(evaluation)[0] / 10, rel=0.2)]


def test_what_no_reader_takes_is_not_hashed(tmp_path, monkeypatch):
    good = save(tmp_path / "good.nii", blob())
    hole = save(tmp_path / "hole.nii", blob())
    os.truncate(hole, 2**33)
    packed = save(tmp_path / "packed.nii.gz", blob())
    os.truncate(packed, 2**33)
    page = tmp_path / "page.nii"
    page.write_text("<html>")
    os.truncate(page, 2**33)
    hashed: list[str] = []
    monkeypatch.setattr(
        "segbench.scoring.work.sha256_file", lambda path: hashed.append(path.name) or "0" * 64
    )
    for path in (hole, packed, page, tmp_path / "absent.nii", tmp_path):
        assert stamp(path)["sha256"] is None
    assert stamp(good)["sha256"] is not None and hashed == ["good.nii"]


NRRD = """NRRD0004
type: uint8
dimension: 3
sizes: 16 14 12
spacings: 1 1 1
encoding: raw

"""
MHA = """ObjectType = Image
NDims = 3
DimSize = 16 14 12
ElementType = MET_UCHAR
ElementDataFile = LOCAL
"""


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="the system does not count what is read")
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_of_a_hole_behind_a_file_no_more_is_read_than_shows_that_it_is_one(tmp_path, name):
    """What is read of a file is bounded by what its header announces, however long the file is."""

    def read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    path = tmp_path / "pred" / name
    save(tmp_path / "ref" / "a.nii.gz", blob())
    path.parent.mkdir()
    if name.endswith((".nrrd", ".mha")):
        path.write_bytes((NRRD if name.endswith(".nrrd") else MHA).encode() + blob().tobytes())
    else:
        save(path, blob())
    evaluate(tmp_path)  # once, so that what is imported on the way is not counted
    os.truncate(path, 2**35)
    before = read()
    evaluation = evaluate(tmp_path)
    assert read() - before < 2**25
    assert [row["status"] for row in evaluation.rows] == ["unreadable", "unreadable"]
    assert {failure["code"] for failure in evaluation.failures} <= {"SB206", "SB208"}


@pytest.mark.parametrize("how", ["folder", "copy", "link"])
def test_predictions_that_are_the_references_are_pointed_at(tmp_path, how):
    for case in "abc":
        path = save(tmp_path / "ref" / f"{case}.nii.gz", blob())
        (tmp_path / "pred").mkdir(exist_ok=True)
        if how == "copy":
            shutil.copy(path, tmp_path / "pred" / path.name)
        elif how == "link":
            (tmp_path / "pred" / path.name).symlink_to(path)
    evaluation = evaluate(tmp_path, "ref" if how == "folder" else "pred")
    (told,) = evaluation.warnings
    assert told.startswith("3 of 3 cases: the prediction is the reference, byte for byte")
    record = json.loads((evaluation.folder / "run.json").read_text())
    assert record["warnings"] == [told]
    assert record["external"]["equal_to_reference"] == 3


def test_other_predictions_are_not(tmp_path):
    for case in "abc":
        save(tmp_path / "ref" / f"{case}.nii.gz", blob())
        save(tmp_path / "pred" / f"{case}.nii.gz", blob(1))
    evaluation = evaluate(tmp_path)
    assert evaluation.warnings == ()
    assert "equal_to_reference" not in json.loads((evaluation.folder / "run.json").read_text())["external"]


def test_micrometres_are_converted_and_said_once(tmp_path):
    for case in "abc":
        save(tmp_path / "ref" / f"{case}.nii.gz", blob(), units=3, spacing=10)
        save(tmp_path / "pred" / f"{case}.nii.gz", blob(2), units=3, spacing=10)
    evaluation = evaluate(tmp_path)
    assert [row["hd95"] for row in evaluation.rows if row["region"] == "whole"] == pytest.approx([0.02] * 3)
    assert evaluation.rows[0]["reference_volume_ml"] == pytest.approx(120 * 1e-6 / 1000)
    (told,) = evaluation.warnings
    assert "3 of 3 cases" in told and "micrometres" in told and "reference and prediction" in told
    assert evaluate(tmp_path).warnings == (told,)  # also when nothing is scored again


def test_each_file_by_its_own_word(tmp_path):
    save(tmp_path / "ref" / "a.nii.gz", blob(), units=3, spacing=500)
    save(tmp_path / "pred" / "a.nii.gz", blob(2), units=2, spacing=0.5)
    assert evaluate(tmp_path).rows[0]["hd95"] == pytest.approx(1.0)
    save(tmp_path / "pred" / "a.nii.gz", blob(2), units=0, spacing=500)
    (failure,) = evaluate(tmp_path).failures
    assert failure["code"] == "SB214"
    assert "micrometres" in failure["mend"] and "no unit" in failure["mend"]


@pytest.mark.parametrize("lost", ["ref", "pred", "both"])
def test_a_file_without_position_is_compared_by_shape_and_spacing(tmp_path, lost):
    for case in "ab":
        for folder in ("ref", "pred"):
            save(tmp_path / folder / f"{case}.nii.gz", blob(), spacing=2, lost=lost in (folder, "both"))
    evaluation = evaluate(tmp_path)
    assert dice(evaluation) == [1.0, 1.0]
    told = [text for text in evaluation.warnings if "does not say where it lies" in text]
    assert len(told) == 1 and told[0].startswith("2 of 2 cases")
    save(tmp_path / "pred" / "a.nii.gz", blob(), spacing=3, lost=lost != "ref")
    assert evaluate(tmp_path).failures[0]["code"] == "SB214"


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda a: a[::-1], "mirrored along z"),
        (lambda a: a[:, ::-1], "mirrored along y"),
        (lambda a: a[:, :, ::-1], "mirrored along x"),
        (lambda a: a[::-1, ::-1], "mirrored along z and y"),
        (lambda a: a[::-1, ::-1, ::-1], "mirrored along z and y and x"),
    ],
)
def test_a_flipped_array_under_its_header_is_scored_with_a_hint(tmp_path, turn, words):
    save(tmp_path / "ref" / "a.nii.gz", blob())
    save(tmp_path / "pred" / "a.nii.gz", turn(blob(1)))
    evaluation = evaluate(tmp_path)
    assert evaluation.rows[0]["status"] == "ok" and dice(evaluation)[0] < 0.5
    (told,) = evaluation.warnings
    unflipped = 0.833 + 0.667  # of the two regions, moved by a voxel
    assert f"{words} it would be {unflipped / 2:.2f}" in told


def test_exchanged_axes_of_equal_length_are_found(tmp_path):
    cube = np.zeros((12, 12, 12), np.uint8)
    cube[1:3, 1:11, 4:7] = 1
    cube[1:3, 1:5, 4:7] = 2
    save(tmp_path / "ref" / "a.nii.gz", cube)
    save(tmp_path / "pred" / "a.nii.gz", cube.transpose(2, 1, 0))
    (told,) = evaluate(tmp_path).warnings
    assert "axes taken in the order x, y, z it would be 1.00" in told


@pytest.mark.parametrize("shift", [0, 2, 6])
def test_no_hint_for_what_no_symmetry_mends(tmp_path, shift):
    save(tmp_path / "ref" / "a.nii.gz", blob())
    save(tmp_path / "pred" / "a.nii.gz", blob(shift))
    warnings = evaluate(tmp_path).warnings
    assert not any("mirrored" in text for text in warnings)


def test_a_hint_looks_at_a_sample_only(monkeypatch):
    """Large volumes: the estimate from a sample stands for the Dice of the whole."""
    from segbench.scoring import mirrored

    monkeypatch.setattr(mirrored, "_SAMPLE", 200)
    rng = np.random.default_rng(0)
    reference = np.zeros((40, 50, 60), np.uint8)
    reference[2:14, 5:25, 8:30] = 1
    reference[4:8, 10:20, 10:20] = 2
    noisy = np.where(rng.random(reference.shape) < 0.05, 0, reference)[::-1]
    rows = []
    for name, members in {"whole": (1, 2), "core": (2,)}.items():
        p, r = np.isin(noisy, members), np.isin(reference, members)
        voxels = {"reference_voxels": int(r.sum()), "prediction_voxels": int(p.sum())}
        rows.append(
            {"region": name, "status": "ok", "dice": 2 * (p & r).sum() / (p.sum() + r.sum()), **voxels}
        )
    hint = mirrored.mirror_hint(reference, noisy, {"whole": (1, 2), "core": (2,)}, rows)
    assert hint is not None and hint[0] == "mirrored along z"
    assert float(hint[1].rsplit(" ", 1)[1]) == pytest.approx(0.974, abs=0.03)


def test_an_absurd_spacing_costs_one_case_not_the_evaluation(tmp_path):
    """SB209 for the file that has it; the others are scored."""
    for case in "ab":
        save(tmp_path / "ref" / f"{case}.nii.gz", blob())
        save(tmp_path / "pred" / f"{case}.nii.gz", blob(1))
    huge = nib.Nifti2Image(blob().T, np.diag([1e150, 1e150, 1e150, 1.0]))
    nib.save(huge, tmp_path / "pred" / "a.nii.gz")
    evaluation = evaluate(tmp_path)
    assert [failure["code"] for failure in evaluation.failures] == ["SB209"]
    assert evaluation.rows[-1]["status"] == "ok"
    nib.save(huge, tmp_path / "ref" / "b.nii.gz")
    with pytest.raises(SegbenchError) as caught:
        evaluate(tmp_path)
    assert caught.value.code == "SB209"
