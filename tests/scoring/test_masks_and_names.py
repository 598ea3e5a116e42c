"""One mask per structure, files that are not read, and what is said when nothing fits."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_external_evaluate import blob, evaluate, folders, fresh_settings, save, segbench, volume

from segbench.metrics import evaluate_case
from segbench.records import read_cases
from segbench.scoring.masks import Masks, on_one_code, read_masks
from segbench.volumes import Volume

__all__ = ["folders", "fresh_settings"]

SHAPE = (10, 18, 16)
SPACING = (2.0, 1.0, 0.5)
ORGANS = ("liver", "lung", "airway")


def overlapping(seed: int) -> dict[str, np.ndarray]:
    """Three boxes that overlap in pairs and all together."""
    rng = np.random.default_rng(seed)
    masks = {}
    for name in ORGANS:
        mask = np.zeros(SHAPE, np.uint8)
        low = rng.integers(1, 4, 3)
        mask[tuple(slice(int(a), int(a + n)) for a, n in zip(low, (5, 8, 8), strict=True))] = 1
        masks[name] = mask
    assert (sum(masks.values()) > 1).any()
    return masks


def write(root: Path, case: str, masks: dict[str, np.ndarray], below: str = "") -> None:
    for name, mask in masks.items():
        save(root / case / below / f"{name}.nii.gz", mask)


def rows_of(out: str) -> dict[tuple[str, str], dict[str, str]]:
    return {(row["case"], row["region"]): row for row in read_cases(Path(json.loads(out)["run_directory"]))}


@pytest.mark.parametrize("below", ["", "segmentations"])
def test_every_region_is_scored_on_its_own_mask(tmp_path, below):
    for index in range(3):
        write(tmp_path / "refs", f"s{index}", overlapping(index), below)
        write(tmp_path / "preds", f"s{index}", overlapping(index + 10))
    code, out, err = evaluate(tmp_path, "--json", regions=())
    assert code == 0, err
    rows = rows_of(out)
    assert len(rows) == 9
    for index in range(3):
        truth, guess = overlapping(index), overlapping(index + 10)
        for name in ORGANS:
            alone = evaluate_case(truth[name], guess[name], spacing_mm=SPACING, regions={"it": (1,)})["it"]
            row = rows[f"s{index}", name]
            assert {metric: float(row[metric]) for metric in alone} == pytest.approx(dict(alone), abs=0)
            assert int(row["reference_voxels"]) == truth[name].sum()


@pytest.mark.ci
def test_the_references_own_folder_is_perfect_and_nothing_is_scored_twice(tmp_path):
    write(tmp_path / "refs", "s0", overlapping(0), "segmentations")
    save(tmp_path / "refs" / "s0" / "ct.nii.gz", blob())
    arguments = ("evaluate", tmp_path / "refs", tmp_path / "refs", "--results", tmp_path / "runs")
    code, out, err = segbench(*arguments, "--json", "--no-progress")
    assert code == 0, err
    assert "byte for byte" in err
    assert all(float(row["dice"]) == 1 and float(row["hd95"]) == 0 for row in rows_of(out).values())
    lines = Path(json.loads(out)["run_directory"]) / "cases.jsonl"
    before = lines.read_bytes()
    assert segbench(*arguments, "--json", "--no-progress")[1] == out
    assert lines.read_bytes() == before
    save(tmp_path / "refs" / "s0" / "segmentations" / "liver.nii.gz", overlapping(3)["liver"])
    segbench(*arguments, "--json", "--no-progress")
    assert lines.read_bytes() != before


def test_masks_against_label_maps_and_label_maps_against_masks(tmp_path):
    save(tmp_path / "refs" / "s0.nii.gz", blob())
    core = blob() == 2
    write(tmp_path / "preds", "s0", {"Whole": (blob() > 0).astype(np.uint8), "core": core.astype(np.uint8)})
    code, out, err = evaluate(tmp_path, "--json")
    assert code == 0, err
    assert {float(row["dice"]) for row in rows_of(out).values()} == {1.0}
    code, out, err = segbench(
        "evaluate", tmp_path / "refs", tmp_path / "preds", "--region", "whole=1,2", "--region", "core=2",
        "--results", tmp_path / "runs", "--json", "--no-progress",
    )  # fmt: skip
    assert code == 0, err
    assert {float(row["dice"]) for row in rows_of(out).values()} == {1.0}
    assert evaluate(tmp_path, regions=())[0] == 2, "without names nobody knows which label is which mask"


def test_a_region_without_a_mask_is_a_failure_and_the_others_are_scored(tmp_path):
    write(tmp_path / "refs", "s0", overlapping(0))
    write(tmp_path / "preds", "s0", overlapping(0))
    (tmp_path / "preds" / "s0" / "lung.nii.gz").unlink()
    code, out, err = evaluate(tmp_path, "--json", regions=())
    assert code == 3
    assert "lung" in err
    rows = rows_of(out)
    assert (rows["s0", "lung"]["status"], rows["s0", "lung"]["code"]) == ("missing", "SB215")
    assert float(rows["s0", "lung"]["dice"]) == 0
    assert [float(rows["s0", name]["dice"]) for name in ("liver", "airway")] == [1, 1]


def test_what_is_not_a_mask_or_lies_elsewhere_is_named(tmp_path):
    for case in ("s0", "s1"):
        write(tmp_path / "refs", case, overlapping(0))
        write(tmp_path / "preds", case, overlapping(0))
    save(tmp_path / "preds" / "s0" / "liver.nii.gz", overlapping(0)["liver"] * 3)
    save(tmp_path / "preds" / "s1" / "liver.nii.gz", np.ones((4, 5, 6), np.uint8), volume(np.ones((4, 5, 6))))
    code, out, err = evaluate(tmp_path, "--json", regions=())
    assert code == 3
    failed = {failure["case"]: failure["code"] for failure in json.loads(out)["failures"]}
    assert failed == {"s0": "SB315", "s1": "SB214"}
    assert "liver.nii.gz" in err
    (tmp_path / "refs" / "s0" / "airway.nii.gz").unlink()
    code, _, err = evaluate(tmp_path, regions=())
    assert code == 4
    assert "airway" in err


def other_grid(path: Path) -> None:
    save(path, np.ones((4, 5, 6), np.uint8), volume(np.ones((4, 5, 6))))


def not_a_mask(path: Path) -> None:
    save(path, overlapping(0)["liver"] * 3)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def unread_format(path: Path) -> None:
    path.rename(path.with_name(path.name.replace(".nii.gz", ".mgz")))


@pytest.mark.ci
@pytest.mark.parametrize("organ", ORGANS)
@pytest.mark.parametrize(
    ("damage", "said"),
    [(other_grid, "SB214"), (not_a_mask, "SB315"), (cut, "SB204"), (unread_format, "SB202")],
)
def test_a_mask_that_cannot_be_used_fails_its_own_region_alone(tmp_path, organ, damage, said):
    """Whichever it is, the first that is read too: each region is scored on its own mask."""
    write(tmp_path / "refs", "s0", overlapping(0))
    write(tmp_path / "preds", "s0", overlapping(0), "segmentations")
    damage(tmp_path / "preds" / "s0" / "segmentations" / f"{organ}.nii.gz")
    code, out, err = evaluate(tmp_path, "--json", regions=())
    assert code == 3
    assert said in err and organ in err
    rows = rows_of(out)
    assert {name: rows["s0", name]["code"] for name in ORGANS if rows["s0", name]["code"]} == {organ: said}
    assert {name: float(rows["s0", name]["dice"]) for name in ORGANS} == {
        name: float(name != organ) for name in ORGANS
    }


def test_masks_that_are_all_in_a_format_that_is_not_read_are_not_missing(tmp_path):
    for case in ("s0", "s1"):
        write(tmp_path / "refs", case, overlapping(0))
        write(tmp_path / "preds", case, overlapping(0))
    for name in ORGANS:
        unread_format(tmp_path / "preds" / "s1" / f"{name}.nii.gz")
    code, out, err = evaluate(tmp_path, "--json", regions=())
    assert code == 3 and "SB215" not in err and "mri_convert" in err
    assert {row["code"] for (case, _), row in rows_of(out).items() if case == "s1"} == {"SB202"}


def test_codes_give_back_every_mask_for_any_overlap():
    rng = np.random.default_rng(0)
    masks = {name: rng.random((4, 5, 6)) < 0.4 for name in "abcdefgh"}
    sets, codes = {frozenset(): 0}, np.zeros((4, 5, 6), np.uint16)
    for place in np.ndindex(codes.shape):
        members = frozenset(name for name, mask in masks.items() if mask[place])
        codes[place] = sets.setdefault(members, len(sets))
    coded = Masks(Volume(codes, SPACING, np.eye(4)), tuple(sets))
    from segbench.metrics import load_profile
    from segbench.scoring.rules import rules_for

    regions = {name: (place,) for place, name in enumerate(masks, start=1)}
    rules, truth, guess = on_one_code(rules_for(None, load_profile("honest"), regions=regions), coded, coded)
    assert guess is not None
    for name, mask in masks.items():
        assert np.array_equal(np.isin(truth.array, rules.regions[name]), mask)
        assert np.array_equal(np.isin(guess.array, rules.regions[name]), mask)


def test_masks_of_labels_without_overlap_are_the_label_map(tmp_path):
    labels = blob()
    paths = {}
    for value in (1, 2):
        paths[value] = tmp_path / f"{value}.nii.gz"
        save(paths[value], (labels == value).astype(np.uint8) * 255)
    plain = read_masks("s0", paths, max_bytes=2**30).as_labels()
    assert isinstance(plain, Volume)
    assert np.array_equal(plain.array, labels)


@pytest.mark.ci
@pytest.mark.parametrize("name", ["case1.mgz", "case1.mhd", "case1.HDR", "case1.dcm", "case1.npz"])
def test_a_file_in_a_format_that_is_not_read_is_named_with_its_conversion(folders, name):
    (folders / "preds" / "case1.nii.gz").unlink()
    (folders / "preds" / name).write_bytes(b"x" * 500)
    code, out, err = evaluate(folders, "--json")
    assert code == 3
    (failure,) = json.loads(out)["failures"]
    assert (failure["code"], failure["status"]) == ("SB202", "unreadable")
    assert name in err
    assert "convert it" in err


def test_references_in_a_format_that_is_not_read_are_named_too(tmp_path):
    save(tmp_path / "preds" / "case1.nii.gz", blob())
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "case1.mgz").write_bytes(b"x")
    code, _, err = evaluate(tmp_path)
    assert code == 4
    assert "case1.mgz" in err
    assert "convert it" in err


def test_capital_endings_are_read(folders):
    (folders / "preds" / "case1.nii.gz").rename(folders / "preds" / "case1.NII.GZ")
    (folders / "refs" / "case2.nii.gz").rename(folders / "refs" / "case2.Nii.Gz")
    assert evaluate(folders)[0] == 0


@pytest.mark.parametrize("masks", [False, True])
def test_a_name_that_spells_accents_or_capitals_another_way_is_of_its_case(tmp_path, masks):
    for case, spelt in (("M\u00fcller 1", "Mu\u0308ller 1"), ("Case_2", "case_2")):
        for folder, name in (("refs", case), ("preds", spelt)):
            value = 3 if folder == "preds" and not masks else 1
            file = f"{name}/organ.nii.gz" if masks else f"{name}.nii.gz"
            save(tmp_path / folder / file, np.uint8(blob() > 0) * np.uint8(value))
    code, out, err = evaluate(tmp_path, "--json", regions=())
    assert code == 0, err
    assert json.loads(out)["failures"] == []
    assert "no reference" not in err
    rows = read_cases(next((tmp_path / "runs").rglob("cases.csv")))
    assert {row["region"] for row in rows} == ({"organ"} if masks else {"1", "3"})
    if not masks:
        save(tmp_path / "preds" / "Case_2.nii.gz", blob())
        code, _, err = evaluate(tmp_path, regions=())
        assert (code, "SB216" in err) == (4, True)


def test_when_no_case_finds_its_file_the_names_of_both_sides_are_said_and_nothing_is_scored(folders):
    for index in range(5):
        (folders / "preds" / f"case{index}.nii.gz").rename(folders / "preds" / f"case{index}_pred.nii.gz")
    code, _, err = evaluate(folders)
    assert code == 4
    for name in ("case0.nii.gz", "case2.nii.gz", "case0_pred.nii.gz", "case2_pred.nii.gz", "2 more"):
        assert name in err
    assert "case3" not in err
    assert not (folders / "runs").exists()


def test_references_with_one_fault_are_one_line(folders):
    code, _, err = evaluate(folders, regions=("core=2",))
    assert code == 4
    (line,) = [line for line in err.splitlines() if "SB213 the label map" in line]
    assert line.strip().startswith("case0, case1, case2 and 2 more: SB213")


def test_an_empty_folder_and_a_file_are_not_folders_of_references(folders):
    (folders / "empty").mkdir()
    code, _, err = segbench("evaluate", folders / "preds", folders / "empty", "--results", folders / "runs")
    assert (code, "an empty folder" in err, "no region" in err) == (4, True, False)
    file = folders / "refs" / "case0.nii.gz"
    code, _, err = segbench("evaluate", folders / "preds", file, "--results", folders / "runs")
    assert (code, "fix: name a folder of references" in err) == (4, True)


def test_failures_of_one_kind_are_three_and_a_number(folders):
    for index in range(1, 5):
        (folders / "preds" / f"case{index}.nii.gz").unlink()
    code, out, err = evaluate(folders, "--json")
    assert code == 3
    named = [f"no prediction for case case{index}" in err for index in range(5)]
    assert named == [False, True, True, True, False]
    assert "1 more" in err
    assert len(json.loads(out)["failures"]) == 4


@pytest.mark.ci
def test_notes_of_one_kind_are_told_once_with_three_examples(folders):
    for index in range(5):
        save(folders / "preds" / f"case{index}.nii.gz", blob(index), volume(blob(), origin=(0.1, 0, 0)))
    code, _, err = evaluate(folders)
    assert code == 0
    assert err.count("beside the reference") == 1
    assert err.count("0.2 voxels") == 3
    assert "5 of 5 cases" in err
