"""Opening datasets: each layout as downloaded and as renamed, and what is said when it does not fit."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segbench.cards import list_dataset_cards, load_dataset_card
from segbench.cards.dataset_card import parse_dataset_card
from segbench.core.console import render_error
from segbench.core.errors import SegbenchError
from segbench.data import Dataset, open_dataset
from segbench.data.describe import describe_dataset
from segbench.data.opening import MISSION, availability
from segbench.data.prepared.case import load_case
from segbench.data.scan_file import write_scan
from segbench.data.verify.api import verify
from segbench.data.verify.report import as_text
from segbench.runs.cell import classes_of
from segbench.volumes import Volume, read_volume, write_label_map
from segbench.volumes.geometry import Orientation, reorient

Tree = Callable[..., Path]
CARD_OF = {
    "crc": "crc-2000",
    "brats": "brats2023-gli",
    "aiib": "aiib2023",
    "abdomenatlas": "abdomenatlas-1.0-mini",
    "msd": None,
}


def incomplete(dataset: Dataset) -> tuple[str, ...]:
    """Cases with a file absent; they are neither trained on nor scored."""
    return tuple(case for case, files in dataset.discovery.cases.items() if files.missing)


def code_of(call: Callable[[], object]) -> SegbenchError:
    with pytest.raises(SegbenchError) as caught:
        call()
    return caught.value


def codes(dataset: Dataset, *, but: tuple[str, ...] = ("SB305",)) -> list[tuple[str, str]]:
    return sorted((f.code, f.severity) for f in dataset.layout_findings if f.code not in but)


def scan(path: Path, value: int = 3, shape: tuple[int, ...] = (4, 5, 6)) -> None:
    write_scan(path, np.full(shape, value, dtype=np.int16), np.eye(4))


def label(path: Path, value: int = 1, shape: tuple[int, ...] = (4, 5, 6), dtype: type = np.uint8) -> None:
    array = np.zeros(shape, dtype=dtype)
    array[1:3, 1:3, 1:3] = value
    write_label_map(path, array, Volume(array, (1.0, 1.0, 1.0), np.eye(4)))


def fingerprint(root: Path) -> dict[str, tuple[str, int]]:
    return {
        path.relative_to(root).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
        )
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.ci
@pytest.mark.parametrize("kind", CARD_OF)
def test_each_layout_opens_and_reads_and_nothing_is_written(clean_trees: dict[str, Path], kind: str) -> None:
    root = clean_trees[kind]
    before = fingerprint(root)
    dataset = open_dataset(root) if CARD_OF[kind] is None else open_dataset(CARD_OF[kind], path=root)
    assert len(dataset.case_ids) == 4
    assert list(dataset.case_ids) == sorted(dataset.case_ids)
    assert {f.severity for f in dataset.layout_findings} <= {"info"}
    for case in dataset.case_ids:
        image, reference = dataset.read_image(case), dataset.read_reference(case)
        assert image.array.dtype == np.float32
        assert image.array.shape == (len(dataset.card.channels.order), *reference.shape_zyx)
        assert reference.array.dtype == np.uint8
        assert set(np.unique(reference.array)) <= set(dataset.card.labels)
        np.testing.assert_array_equal(image.affine, reference.affine)
    assert fingerprint(root) == before


@pytest.mark.ci
def test_phantom_json_agrees_with_what_is_read(clean_trees: dict[str, Path]) -> None:
    for kind, slug in CARD_OF.items():
        root = clean_trees[kind]
        dataset = open_dataset(slug or root, path=None if slug is None else root)
        described = json.loads((root / "phantom.json").read_text())["cases"]
        for row in described:
            if row["label_sha256"] is None:
                assert row["case"] in dataset.cases_without_reference
                continue
            labels = dataset.read_reference(row["case"]).array
            counted = {str(v): int((labels == v).sum()) for v in dataset.card.foreground}
            assert counted == {value: entry["voxels"] for value, entry in row["labels"].items()}


def test_channels_come_by_name_whatever_the_order_in_the_file(own_tree: Tree) -> None:
    dataset = open_dataset("brats2023-gli", path=own_tree("brats"))
    case = dataset.case_ids[0]
    content = load_dataset_card("brats2023-gli").model_dump(exclude_unset=True)
    content["channels"]["order"] = ("t1n", "t1c", "t2w", "t2f")
    other = open_dataset(parse_dataset_card(content), path=dataset.root)
    there, here = dataset.read_image(case).array, other.read_image(case).array
    for index, channel in enumerate(other.card.channels.order):
        np.testing.assert_array_equal(here[index], there[dataset.card.channels.order.index(channel)])
    msd = own_tree("msd", "msd")
    before = open_dataset(msd)
    stacked = before.read_image(before.case_ids[0]).array
    content = before.card.model_dump(exclude_unset=True)
    content["channels"]["order"] = tuple(reversed(before.card.channels.order))
    turned = open_dataset(parse_dataset_card(content), path=msd)
    np.testing.assert_array_equal(turned.read_image(before.case_ids[0]).array, stacked[::-1])


def test_brats_as_renamed_by_the_release_and_mixed_with_the_download(own_tree: Tree) -> None:
    root = own_tree("brats")
    renamed = sorted(p for p in root.iterdir() if p.is_dir())[:2]
    for folder in renamed:
        for path in folder.iterdir():
            path.rename(folder / path.name.removeprefix(f"{folder.name}-"))
    dataset = open_dataset("brats2023-gli", path=root)
    assert len(dataset.case_ids) == 4
    assert codes(dataset) == [("SB340", "info")]
    assert dataset.case(renamed[0].name).form == "renamed-by-segmamba-v2"
    assert dataset.form == "mixed"


def test_uncompressed_files_and_folders_one_level_too_deep_are_found(own_tree: Tree, tmp_path: Path) -> None:
    import gzip

    root = own_tree("brats")
    for path in list(root.rglob("*.nii.gz"))[:5]:
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    outer = tmp_path / "X"
    (outer / "X").mkdir(parents=True)
    root.rename(outer / "X" / "Y")
    (outer / "X" / "__MACOSX").mkdir()
    (outer / "X" / "Y" / "._BraTS-GLI-90000-000").mkdir()
    (outer / "X" / ".DS_Store").touch()
    dataset = open_dataset("brats2023-gli", path=outer)
    assert len(dataset.case_ids) == 4
    assert codes(dataset) == []
    too_deep = tmp_path / "Z"
    (too_deep / "a" / "b").mkdir(parents=True)
    outer.rename(too_deep / "a" / "b" / "c")
    assert code_of(lambda: open_dataset("brats2023-gli", path=too_deep)).code == "SB311"


def test_the_same_file_with_two_endings_is_ambiguous(own_tree: Tree) -> None:
    root = own_tree("crc")
    image = next((root / "Image").iterdir())
    image.with_suffix("").write_bytes(b"x")
    assert ("SB306", "error") in codes(open_dataset("crc-2000", path=root))


def test_a_missing_channel_is_named_and_the_case_is_not_read(own_tree: Tree) -> None:
    root = own_tree("brats")
    case = "BraTS-GLI-90001-000"
    (root / case / f"{case}-t1c.nii.gz").unlink()
    dataset = open_dataset("brats2023-gli", path=root)
    assert incomplete(dataset) == (case,)
    assert case not in dataset.case_ids
    finding = next(f for f in dataset.layout_findings if f.code == "SB303")
    assert (finding.case, finding.file) == (case, f"{case}/{case}-t1c.nii.gz")
    assert finding.severity == "error"
    assert "t1c" in code_of(lambda: dataset.read_image(case)).message


def test_a_validation_tree_is_no_error_but_one_missing_label_is(own_tree: Tree) -> None:
    root = own_tree("brats")
    labels = sorted(root.rglob("*-seg.nii.gz"))
    labels[0].unlink()
    dataset = open_dataset("brats2023-gli", path=root)
    assert codes(dataset) == [("SB303", "error")]
    for path in labels[1:]:
        path.unlink()
    dataset = open_dataset("brats2023-gli", path=root)
    assert codes(dataset) == [("SB303", "info")]
    assert dataset.case_ids == ()
    assert len(dataset.cases_without_reference) == 4
    assert code_of(lambda: dataset.read_reference(dataset.cases_without_reference[0])).code == "SB303"


def test_a_partial_download_says_how_many_of_how_many(own_tree: Tree) -> None:
    dataset = open_dataset("brats2023-gli", path=own_tree("brats"))
    finding = next(f for f in dataset.layout_findings if f.code == "SB305")
    assert finding.message.startswith("found 4 of 1251 expected cases (1247 absent)")
    assert "BraTS-GLI-00017-001" in finding.message  # the official list knows some of the absent ones
    assert finding.severity == "warning"
    report = verify(dataset, headers_only=True, cache=False)
    (counted,) = [f for f in report.findings if f.code == "SB305"]
    named = set(re.findall(r"BraTS-GLI-\d{5}-\d{3}", str(counted.mend)))
    assert len(named) == 250  # every absent case that the official list names
    assert "-v shows all" in as_text(report)
    assert str(counted.mend) in as_text(report, verbose=True)


def test_predictions_are_no_reference_wherever_they_lie(own_tree: Tree, tmp_path: Path) -> None:
    root = own_tree("aiib")
    shutil.copytree(root / "AIIB23_Train_T1", root / "Val_semi_postprocess")
    for path in list((root / "Val_semi_postprocess").rglob("*.nii.gz")):
        path.rename(path.with_name(f"semi_{path.name}"))
    dataset = open_dataset("aiib2023", path=root)
    assert ("SB330", "error") in codes(dataset)
    assert len(dataset.case_ids) == 4
    for name in ("Val_semi_postprocess", "Pseudo"):
        other = tmp_path / name
        shutil.copytree(root / "AIIB23_Train_T1", other)
        assert code_of(lambda other=other: open_dataset("aiib2023", path=other)).code == "SB330"
    inside = tmp_path / "Pseudo" / "AIIB23"
    shutil.copytree(root / "AIIB23_Train_T1", inside)
    assert code_of(lambda: open_dataset("aiib2023", path=inside)).code == "SB330"
    content = load_dataset_card("aiib2023").model_dump(exclude_unset=True)
    content["layout"]["pseudo_labels"] = ""
    assert len(open_dataset(parse_dataset_card(content), path=inside).case_ids) == 4


@pytest.mark.parametrize(("images", "labels"), [("img", "label"), ("images", "gt"), ("image", "mask")])
def test_crc_under_other_folder_names(own_tree: Tree, images: str, labels: str) -> None:
    root = own_tree("crc")
    inner = root / "random2500"
    inner.mkdir()
    (root / "Image").rename(inner / images)
    (root / "ROI").rename(inner / labels)
    dataset = open_dataset("crc-2000", path=root)
    assert len(dataset.case_ids) == 4
    assert codes(dataset) == []


def test_orphans_and_strays_are_named(own_tree: Tree) -> None:
    root = own_tree("crc")
    next((root / "Image").iterdir()).unlink()
    (root / "Image" / "bad name!.nii.gz").touch()
    found = codes(open_dataset("crc-2000", path=root))
    assert ("SB304", "error") in found
    assert ("SB339", "error") in found
    brats = own_tree("brats", "brats")
    (brats / "loose.nii.gz").touch()
    assert ("SB304", "error") in codes(open_dataset("brats2023-gli", path=brats))


def capitals(path: Path) -> Path:
    return path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))


def test_endings_in_capital_letters_are_the_same_endings(own_tree: Tree) -> None:
    crc = own_tree("crc", "crc")
    capitals(crc / "Image" / "crc_0001.nii.gz")
    capitals(crc / "ROI" / "crc_0001.nii.gz")
    brats = own_tree("brats", "brats")
    for path in sorted(next(p for p in sorted(brats.iterdir()) if p.is_dir()).iterdir()):
        capitals(path)
    msd = own_tree("msd", "msd")
    capitals(msd / "labelsTr" / "phantom_000.nii.gz")
    for dataset in (
        open_dataset("crc-2000", path=crc),
        open_dataset("brats2023-gli", path=brats),
        open_dataset(msd),
    ):
        assert len(dataset.case_ids) == 4
        assert {severity for _, severity in codes(dataset)} <= {"info"}
        for case in dataset.case_ids:
            dataset.read_image(case)
            dataset.read_reference(case)
    shutil.copy(crc / "ROI" / "crc_0001.NII.GZ", crc / "ROI" / "crc_0001.nii.gz")
    assert ("SB306", "error") in codes(open_dataset("crc-2000", path=crc))


def test_labels_under_a_name_that_nobody_reads_are_pointed_at(own_tree: Tree) -> None:
    root = own_tree("crc")
    (root / "ROI").rename(root / "Truth")
    (root / "Notes").mkdir()
    findings = open_dataset("crc-2000", path=root).layout_findings
    (found,) = [f for f in findings if f.severity == "warning" and f.code != "SB305"]
    assert (found.code, found.file, found.expected) == ("SB303", "Truth", "labels in ROI")
    shutil.rmtree(root / "Truth")
    assert codes(open_dataset("crc-2000", path=root)) == [("SB303", "info")]


def test_a_folder_that_cannot_be_read_is_no_empty_folder(
    own_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = own_tree("crc")
    (root / "lost+found").mkdir()
    listed = os.scandir

    def refuse(path: Path | str) -> object:
        if Path(path).name in {"ROI", "lost+found"}:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    error = code_of(lambda: open_dataset("crc-2000", path=root))
    assert (error.code, error.path) == ("SB201", root / "ROI")


def test_ids_that_differ_in_case_only_collide(own_tree: Tree) -> None:
    root = own_tree("crc")
    for folder in ("Image", "ROI"):
        shutil.copy(root / folder / "crc_0001.nii.gz", root / folder / "CRC_0001.nii.gz")
    dataset = open_dataset("crc-2000", path=root)
    assert ("SB306", "error") in codes(dataset)
    assert len(dataset.case_ids) == 4


class TestAtlas:
    def test_masks_are_the_reference_and_combined_stands_in(self, own_tree: Tree) -> None:
        root = own_tree("abdomenatlas")
        whole = open_dataset("abdomenatlas-1.0-mini", path=root)
        case = whole.case_ids[0]
        assert whole.case(case).form == "masks"
        assert whole.case(case).combined is not None
        before = whole.read_reference(case).array
        shutil.rmtree(root / case / "segmentations")
        without = open_dataset("abdomenatlas-1.0-mini", path=root)
        assert without.case(case).form == "combined"
        np.testing.assert_array_equal(without.read_reference(case).array, before)

    def test_later_masks_win_and_255_means_inside(self, own_tree: Tree) -> None:
        root = own_tree("abdomenatlas")
        case = open_dataset(root).case_ids[0]
        folder = root / case / "segmentations"
        dataset = open_dataset(root)
        before = dataset.read_reference(case)
        everything = np.full(before.shape_zyx, 255, dtype=np.uint8)
        write_label_map(folder / "kidney_left.nii.gz", everything, before)
        after = open_dataset(root).read_reference(case).array
        later = before.array > 3
        np.testing.assert_array_equal(after[later], before.array[later])
        assert set(np.unique(after[~later])) == {3}

    def test_a_missing_mask_needs_combined(self, own_tree: Tree) -> None:
        root = own_tree("abdomenatlas")
        cases = sorted(p.name for p in root.iterdir())
        (root / cases[0] / "segmentations" / "liver.nii.gz").unlink()
        (root / cases[1] / "segmentations" / "liver.nii.gz").unlink()
        (root / cases[1] / "combined_labels.nii.gz").unlink()
        dataset = open_dataset(root)
        assert dataset.case(cases[0]).form == "combined"
        assert incomplete(dataset) == (cases[1],)
        finding = next(f for f in dataset.layout_findings if f.code == "SB303")
        assert finding.file == f"{cases[1]}/segmentations/liver.nii.gz"

    @pytest.mark.parametrize("values", [(0, 2), (0, 1, 255)])
    def test_a_mask_of_other_values_is_refused(self, own_tree: Tree, values: tuple[int, ...]) -> None:
        root = own_tree("abdomenatlas")
        dataset = open_dataset(root)
        case = dataset.case_ids[0]
        grid = dataset.read_reference(case)
        mask = np.zeros(grid.shape_zyx, dtype=np.uint8)
        mask.reshape(-1)[: len(values)] = values
        write_label_map(root / case / "segmentations" / "spleen.nii.gz", mask, grid)
        error = code_of(lambda: dataset.read_reference(case))
        assert (error.code, error.case) == ("SB315", case)


class TestMsd:
    def edit(self, root: Path, **changes: object) -> Path:
        path = root / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return root

    def test_listed_and_absent_and_unlisted(self, own_tree: Tree) -> None:
        root = own_tree("msd")
        (root / "labelsTr" / "phantom_001.nii.gz").unlink()
        (root / "imagesTr" / "phantom_002.nii.gz").unlink()
        scan(root / "imagesTr" / "stray.nii.gz")
        dataset = open_dataset(root)
        assert dataset.case_ids == ("phantom_000", "phantom_003")
        assert codes(dataset) == [("SB303", "error"), ("SB303", "error"), ("SB304", "error")]
        assert {f.case for f in dataset.layout_findings} >= {"phantom_001", "phantom_002", "stray"}
        count = next(f for f in dataset.layout_findings if f.code == "SB305")
        assert (count.found, count.expected) == ("2", "4")

    def test_numtraining_that_is_wrong_is_an_error_but_no_obstacle(self, own_tree: Tree) -> None:
        dataset = open_dataset(self.edit(own_tree("msd"), numTraining=7))
        assert ("SB331", "error") in codes(dataset)
        assert len(dataset.case_ids) == 4

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"training": [{"image": "../x.nii.gz", "label": "./labelsTr/x.nii.gz"}]}, "training[0]"),
            ({"training": [{"image": "./imagesTr/x.nii.gz"}]}, "training[0].label"),
            ({"training": "all"}, "training"),
            ({"labels": {"1": "no background"}}, "labels: 0 is absent"),
            ({"labels": []}, "labels"),
            ({"modality": {"1": "MR"}}, "modality"),
            ({"numTraining": "many"}, "numTraining"),
        ],
    )
    def test_an_invalid_json_is_refused_with_its_faults(
        self, own_tree: Tree, changes: dict[str, object], said: str
    ) -> None:
        error = code_of(lambda: open_dataset(self.edit(own_tree("msd"), **changes)))
        assert error.code == "SB331"
        assert any(line.startswith(said) for line in error.details)

    def test_all_faults_of_a_json_are_told_at_once(self, own_tree: Tree) -> None:
        root = self.edit(own_tree("msd"), labels={}, modality=3, training=None)
        assert len(code_of(lambda: open_dataset(root)).details) == 4

    @pytest.mark.parametrize("content", ["", "[]", "{", "null", "\x00"])
    def test_what_is_no_json_object_is_refused(self, own_tree: Tree, content: str) -> None:
        root = own_tree("msd")
        (root / "dataset.json").write_text(content)
        assert code_of(lambda: open_dataset(root)).code == "SB331"

    def test_labels_and_channels_must_be_the_cards(self, own_tree: Tree) -> None:
        root = own_tree("msd")
        error = code_of(lambda: open_dataset("msd-hippocampus", path=root))
        assert error.code == "SB331"
        assert "channels" in error.message or "labels" in error.message
        renamed = self.edit(root, labels={"0": "background", "1": "Anterior", "2": "hind part"})
        found = [f for f in open_dataset("phantom-msd", path=renamed).layout_findings if f.code == "SB331"]
        assert [f.severity for f in found] == ["warning"]  # "Anterior" is the card's name but for case

    def test_the_raw_format_of_nnunet_v1_is_read(self, own_tree: Tree) -> None:
        """MSD's dataset.json, one file per channel `<case>_0000.nii.gz`: the same voxels as one 4D file."""
        root = own_tree("msd")
        before = open_dataset(root)
        stacked = {case: before.read_image(case).array for case in before.case_ids}
        for folder in ("imagesTr", "imagesTs"):
            for path in list((root / folder).iterdir()):
                volume = read_volume(path, raw=True, allow_channels=True)
                for index, channel in enumerate(volume.array):
                    name = path.name.replace(".nii.gz", f"_{index:04d}.nii.gz")
                    write_scan(path.with_name(name), channel, volume.affine)
                path.unlink()
        dataset = open_dataset(root)
        assert dataset.case_ids == before.case_ids and codes(dataset) == []
        assert dataset.cases_without_reference == before.cases_without_reference
        assert dataset.form == "nnunet-v1"
        for case, array in stacked.items():
            np.testing.assert_array_equal(dataset.read_image(case).array, array)
        (root / "imagesTr" / f"{dataset.case_ids[0]}_0001.nii.gz").unlink()
        assert incomplete(open_dataset(root)) == dataset.case_ids[:1]


class TestNnunet:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "Dataset123_My Set"
        for case in ("a_1", "a_2"):
            for channel in (0, 1):
                scan(root / "imagesTr" / f"{case}_{channel:04d}.nii.gz", 10 * channel + 1)
            label(root / "labelsTr" / f"{case}.nii.gz", 2)
        for channel in (0, 1):
            scan(root / "imagesTs" / f"t_{channel:04d}.nii.gz")
        self.write(
            root, {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, regions_class_order=[1, 2]
        )
        return root

    def write(self, root: Path, labels: dict[str, object], **more: object) -> None:
        document = {"channel_names": {"0": "CT", "1": "PET"}, "labels": labels, "numTraining": 2}
        (root / "dataset.json").write_text(json.dumps(document | {"file_ending": ".nii.gz"} | more))

    def test_channels_regions_and_the_ignore_label(self, root: Path) -> None:
        dataset = open_dataset(root)
        card = dataset.card
        assert (card.slug, card.channels.order) == ("my-set", ("CT", "PET"))
        assert dict(card.regions) == {"whole": (1, 2), "core": (2,)}
        assert (card.evaluation.ignore_label, card.foreground) == (3, (1, 2))
        assert card.channel_normalisation == ("ct", "zscore")
        assert dataset.case_ids == ("a_1", "a_2")
        assert dataset.cases_without_reference == ("t",)
        image = dataset.read_image("a_1").array
        assert (image[0] == 1).all()
        assert (image[1] == 11).all()
        assert codes(dataset) == [("SB303", "info")]

    def test_a_missing_channel_an_orphan_and_a_stray(self, root: Path) -> None:
        (root / "imagesTr" / "a_2_0001.nii.gz").unlink()
        scan(root / "imagesTr" / "a_1_0007.nii.gz")
        label(root / "labelsTr" / "b.nii.gz")
        scan(root / "imagesTr" / "noindex.nii.gz")
        dataset = open_dataset(root)
        assert incomplete(dataset) == ("a_2",)
        found = codes(dataset)
        assert found.count(("SB304", "error")) == 3
        assert ("SB303", "error") in found

    def test_volumes_of_another_ending_are_strays_and_other_files_are_not(self, root: Path) -> None:
        label(root / "labelsTr" / "a_1.nii")
        capitals(root / "imagesTs" / "t_0001.nii.gz")
        (root / "imagesTr" / "Thumbs.db").touch()
        strays = {f.file for f in open_dataset(root).layout_findings if f.code == "SB304"}
        assert strays == {"labelsTr/a_1.nii"}, "an ending in capital letters is the same ending"

    @pytest.mark.ci
    @pytest.mark.parametrize("field", ["image", "label"])
    @pytest.mark.parametrize(
        "name", ["../far/x.nii.gz", "imagesTr/../../far/x.nii.gz", "/far/x.nii.gz", "..\\far\\x.nii.gz",
                 "C:\\far\\x.nii.gz", "C:x.nii.gz", "\\\\host\\far\\x.nii.gz", "x\0.nii.gz", "", "."],
    )  # fmt: skip
    def test_a_path_that_leaves_the_folder_is_refused(self, root: Path, name: str, field: str) -> None:
        entry = {
            "images": ["imagesTr/a_1_0000.nii.gz", "imagesTr/a_1_0001.nii.gz"],
            "label": "labelsTr/a_1.nii.gz",
        }
        entry = entry | ({"label": name} if field == "label" else {"images": [entry["images"][0], name]})
        self.write(root, {"background": 0, "one": 1, "two": 2}, dataset={"x": entry})
        with pytest.raises(SegbenchError) as caught:
            open_dataset(root)
        assert caught.value.code == "SB331"
        place = "dataset.x.label" if field == "label" else "dataset.x.images[1]"
        assert any(
            line.startswith(place) and "inside the dataset's folder" in line for line in caught.value.details
        )

    def test_files_listed_elsewhere(self, root: Path, tmp_path: Path) -> None:
        far = tmp_path / "far"
        scan(far / "ct.nii.gz", 5)
        scan(far / "pet.nii.gz", 6)
        label(far / "seg.nii.gz")
        for name in ("ct", "pet", "seg"):  # a link is the user's own word, wherever it leads
            (root / f"{name}.nii.gz").symlink_to(far / f"{name}.nii.gz")
        (root / "more").symlink_to(far)
        listed = {
            "x": {"images": ["ct.nii.gz", "more/pet.nii.gz"], "label": "seg.nii.gz"},
            "y": {"images": ["imagesTr/a_1_0000.nii.gz", "gone.nii.gz"], "label": "labelsTr/a_1.nii.gz"},
        }
        self.write(root, {"background": 0, "one": 1, "two": 2}, dataset=listed)
        dataset = open_dataset(root)
        assert dataset.case_ids == ("x",)
        assert dataset.read_image("x").array[:, 0, 0, 0].tolist() == [5, 6]
        assert ("SB303", "error") in codes(dataset)

    @pytest.mark.parametrize(
        ("labels", "more", "said"),
        [
            ({"a": 1}, {}, "labels.background"),
            ({"background": 1, "a": 2}, {}, "labels.background: found 1"),
            ({"background": 0, "a": 1, "ignore": 1}, {}, "labels.ignore"),
            ({"background": 0, "a": [1, 2]}, {}, "regions_class_order"),
            ({"background": 0, "a": [1, 2]}, {"regions_class_order": [1, 2]}, "regions_class_order: found 2"),
            ({"background": 0, "a": "one"}, {}, "labels.a"),
            ({"background": 0, "a": [0, 1]}, {"regions_class_order": [1]}, "labels.a"),
            ({"background": 0, "a": 1}, {"file_ending": ".dcm"}, "file_ending"),
            ({"background": 0, "a": 1}, {"file_ending": ".png"}, "file_ending"),
            ({"background": 0, "a": 1}, {"numTraining": None}, "numTraining"),
            ({"background": 0, "a": 1}, {"channel_names": {"0": "CT", "2": "PET"}}, "channel_names"),
            ({"background": 0, "a": 1}, {"dataset": {"x": 3}}, "dataset.x"),
        ],
    )
    def test_the_written_rules_of_the_format(
        self, root: Path, labels: dict[str, object], more: dict[str, object], said: str
    ) -> None:
        self.write(root, labels, **more)
        error = code_of(lambda: open_dataset(root))
        assert error.code == "SB331"
        assert any(line.startswith(said) for line in error.details), error.details

    def test_labels_with_gaps_are_read_as_they_stand(self, root: Path) -> None:
        self.write(root, {"background": 0, "organ": 5, "tumour": 200})
        for path in (root / "labelsTr").iterdir():
            label(path, 200)
        dataset = open_dataset(root)
        assert dataset.card.foreground == (5, 200)
        assert set(np.unique(dataset.read_reference(dataset.case_ids[0]).array)) == {0, 200}
        assert classes_of(dataset.card, "softmax").values == (0, 5, 200)  # class 2 of a network is 200

    def test_capital_endings(self, root: Path) -> None:
        self.write(root, {"background": 0, "one": 1, "two": 2}, file_ending=".NII.GZ")
        before = open_dataset(root).case_ids
        for path in [*(root / "imagesTr").iterdir(), *(root / "labelsTr").iterdir()]:
            path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
        dataset = open_dataset(root)
        assert before and dataset.case_ids == before and codes(dataset) == [("SB303", "info")]
        assert dataset.read_image(before[0]).array.shape[0] == 2

    @pytest.mark.parametrize(
        "name", ["case 000", "case(001)", "f\u00e4ll_003", "case,004", "\u75c5\u4f8b005"]
    )
    def test_ids_with_blanks_and_letters_of_other_scripts(self, root: Path, name: str) -> None:
        for path in [*(root / "imagesTr").iterdir(), *(root / "labelsTr").iterdir()]:
            path.rename(path.with_name(path.name.replace("a_1", name)))
        self.write(root, {"background": 0, "one": 1, "two": 2})
        dataset = open_dataset(root)
        assert name in dataset.case_ids and codes(dataset) == [("SB303", "info")]
        assert dataset.patient_of(name) == name

    def test_a_name_that_may_not_be_an_id_gets_the_rule(self, root: Path) -> None:
        for path in [*(root / "imagesTr").iterdir(), *(root / "labelsTr").iterdir()]:
            path.rename(path.with_name(path.name.replace("a_", "a?")))
        for path in (root / "imagesTs").iterdir():
            path.unlink()
        self.write(root, {"background": 0, "one": 1, "two": 2})
        error = code_of(lambda: open_dataset(root))
        assert error.code == "SB311" and "letters, digits, blanks" in error.mend

    @pytest.mark.parametrize(
        ("ending", "told"),
        [
            (".mgz", "mri_convert"),
            (".mhd", "sitk"),
            (".hdr", "nibabel"),
            (".dcm", "dcmqi"),
            (".nii.bz2", "bunzip2"),
        ],
    )
    @pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
    def test_files_in_a_format_that_is_not_read_are_never_missing(
        self, root: Path, folder: str, ending: str, told: str
    ) -> None:
        self.write(root, {"background": 0, "one": 1, "two": 2})
        for path in list((root / folder).glob("a_1*")):
            path.rename(path.with_name(path.name.replace(".nii.gz", ending)))
        found = [f for f in open_dataset(root).layout_findings if f.code == "SB202"]
        (finding,) = found
        assert finding.severity == "error" and told in finding.mend and ending in finding.message

    def test_masks_per_structure_in_the_place_of_label_maps_are_named_with_the_way_out(
        self, root: Path
    ) -> None:
        self.write(root, {"background": 0, "one": 1, "two": 2})
        labels = sorted((root / "labelsTr").iterdir())
        for path in labels:
            folder = path.with_name(path.name.removesuffix(".nii.gz"))
            folder.mkdir()
            (folder / "one.nii.gz").write_bytes(path.read_bytes())
            path.rename(folder / "two.nii.gz")
        findings = open_dataset(root).layout_findings
        (finding,) = [f for f in findings if f.code == "SB202"]
        assert f"{len(labels)} folders" in finding.message and "one, two" in finding.message
        assert "totalsegmentator" in finding.mend and "evaluate" in finding.mend
        assert not [f for f in findings if f.code == "SB303" and "imagesTr" in (f.file or "")]

    def test_two_formats_in_one_json_are_ambiguous(self, root: Path) -> None:
        self.write(root, {"background": 0, "a": 1}, modality={"0": "CT"})
        error = code_of(lambda: open_dataset(root))
        assert error.code == "SB302"
        assert "nnU-Net" in str(error.found)
        assert "MSD" in str(error.found)

    def test_same_names_of_channels_are_told_apart(self, root: Path) -> None:
        self.write(root, {"background": 0, "1st": 1}, channel_names={"0": "zscore", "1": "zscore"})
        card = open_dataset(root).card
        assert card.channels.order == ("zscore", "zscore_2")
        assert list(card.regions) == ["r_1st"]


class TestGeometryOfACase:
    @pytest.mark.parametrize(
        ("affine", "shape", "code"),
        [
            (np.diag([1.0, 1, 1, 1]), (4, 5, 7), "SB307"),
            (np.diag([1.0, 1, 1.01, 1]), (4, 5, 6), "SB308"),
            (np.array([[1.0, 0, 0, 0.6], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), (4, 5, 6), "SB309"),
            (np.diag([-1.0, 1, 1, 1]), (4, 5, 6), "SB309"),
        ],
    )
    def test_a_label_on_another_grid_is_refused(
        self, tmp_path: Path, affine: np.ndarray, shape: tuple[int, int, int], code: str
    ) -> None:
        scan(tmp_path / "Image" / "a.nii.gz")
        array = np.ones(shape, dtype=np.uint8)
        write_label_map(tmp_path / "ROI" / "a.nii.gz", array, Volume(array, (1, 1, 1), affine))
        dataset = open_dataset("crc-2000", path=tmp_path)
        error = code_of(lambda: dataset.read_image("a"))
        assert (error.code, error.case) == (code, "a")

    @pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
    @pytest.mark.parametrize("flips", [(True, False, False), (False, True, True)])
    def test_another_order_of_axes_is_reordered_exactly(
        self, tmp_path: Path, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
    ) -> None:
        """The image follows the reference's order; each voxel keeps its label, whatever the stored order."""
        values = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
        affine = np.diag([1.0, 2.0, 3.0, 1.0])
        write_scan(tmp_path / "Image" / "a.nii.gz", values, affine)
        turn = Orientation(axes, flips)
        turned = reorient(Volume((values % 7 == 3).astype(np.uint8), (3.0, 2.0, 1.0), affine), turn)
        write_label_map(tmp_path / "ROI" / "a.nii.gz", turned.array, turned)
        dataset = open_dataset("crc-2000", path=tmp_path)
        image, reference = dataset.read_image("a"), dataset.read_reference("a")
        np.testing.assert_array_equal(image.affine, reference.affine)
        np.testing.assert_array_equal(image.array[0] % 7 == 3, reference.array == 1)
        report = verify(dataset, cache=False)
        found = {(f.code, f.severity) for f in report.findings if f.severity != "info"}
        assert found - {("SB305", "warning"), ("SB329", "warning")} == {("SB309", "warning")}
        prepared = load_case([tmp_path / "Image" / "a.nii.gz"], tmp_path / "ROI" / "a.nii.gz", crop=False)
        np.testing.assert_array_equal(prepared.images[0] % 7 == 3, prepared.labels == 1)

    def test_a_tiny_shift_is_taken_and_the_references_affine_holds(self, tmp_path: Path) -> None:
        scan(tmp_path / "Image" / "a.nii.gz")
        shifted = np.eye(4)
        shifted[0, 3] = 0.004
        array = np.ones((4, 5, 6), dtype=np.uint8)
        write_label_map(tmp_path / "ROI" / "a.nii.gz", array, Volume(array, (1, 1, 1), shifted))
        dataset = open_dataset("crc-2000", path=tmp_path)
        assert dataset.read_image("a").affine[0, 3] == pytest.approx(0.004)

    def test_an_undeclared_value_and_a_damaged_file_name_the_case(self, tmp_path: Path) -> None:
        scan(tmp_path / "Image" / "a.nii.gz")
        label(tmp_path / "ROI" / "a.nii.gz", 2)
        dataset = open_dataset("crc-2000", path=tmp_path)
        error = code_of(lambda: dataset.read_reference("a"))
        assert (error.code, error.case) == ("SB213", "a")
        image = tmp_path / "Image" / "a.nii.gz"
        image.write_bytes(image.read_bytes()[:-9])
        assert code_of(lambda: dataset.read_image("a")).code in {"SB204", "SB205"}
        assert code_of(lambda: dataset.case("b")).code == "SB324"


class TestFurtherLayouts:
    @pytest.mark.parametrize("ending", [".nrrd", ".mha"])
    def test_other_formats_are_read_where_the_extra_is_installed(self, tmp_path: Path, ending: str) -> None:
        sitk = pytest.importorskip("SimpleITK")
        array = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
        for folder, values in (("Image", array), ("ROI", (array > 60).astype(np.uint8))):
            (tmp_path / folder).mkdir()
            sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / folder / f"a{ending}"))
        dataset = open_dataset("crc-2000", path=tmp_path)
        np.testing.assert_array_equal(dataset.read_image("a").array[0], array)
        np.testing.assert_array_equal(dataset.read_reference("a").array, array > 60)

    def test_acdc_keeps_the_frames_of_a_patient_together_and_skips_4d(self, tmp_path: Path) -> None:
        for patient in ("patient001", "patient002"):
            for frame in ("frame01", "frame12"):
                scan(tmp_path / "training" / patient / f"{patient}_{frame}.nii.gz")
                label(tmp_path / "training" / patient / f"{patient}_{frame}_gt.nii.gz")
            scan(tmp_path / "training" / patient / f"{patient}_4d.nii.gz", shape=(2, 4, 5, 6))
        dataset = open_dataset("acdc", path=tmp_path)
        assert dataset.case_ids == tuple(f"patient00{p}_frame{f}" for p in (1, 2) for f in ("01", "12"))
        assert dataset.patient_of("patient002_frame12") == "patient002"
        assert codes(dataset) == []

    @pytest.mark.parametrize("folders", [("", ""), ("volume", "segmentation")])
    def test_lits_in_one_folder_and_in_two(self, tmp_path: Path, folders: tuple[str, str]) -> None:
        batch = tmp_path / "Training Batch 1"
        for number in (0, 10):
            scan(batch / folders[0] / f"volume-{number}.nii")
            label(batch / folders[1] / f"segmentation-{number}.nii", 2)
        dataset = open_dataset("lits", path=tmp_path)
        assert dataset.case_ids == ("volume-0", "volume-10")
        assert dataset.read_reference("volume-10").array.max() == 2
        assert codes(dataset) == []
        (batch / folders[0] / "volume-0.nii").unlink()
        assert ("SB304", "error") in codes(open_dataset("lits", path=tmp_path))

    def test_btcv_and_amos_pair_by_number_and_by_folder(self, tmp_path: Path) -> None:
        scan(tmp_path / "btcv" / "RawData" / "Training" / "img" / "img0001.nii.gz")
        label(tmp_path / "btcv" / "RawData" / "Training" / "label" / "label0001.nii.gz", 13)
        scan(tmp_path / "btcv" / "RawData" / "Testing" / "img" / "img0061.nii.gz")
        dataset = open_dataset("btcv", data_dir=tmp_path)
        assert dataset.case_ids == ("img0001",)
        assert dataset.cases_without_reference == ("img0061",)
        for part, name in (("Tr", "amos_0001"), ("Va", "amos_0008")):
            scan(tmp_path / "amos22" / f"images{part}" / f"{name}.nii.gz")
            label(tmp_path / "amos22" / f"labels{part}" / f"{name}.nii.gz")
        dataset = open_dataset("amos22", data_dir=tmp_path)
        assert dataset.case_ids == ("amos_0001", "amos_0008")
        assert dataset.case("amos_0008").form == "validation"

    def test_aeropath_paints_airways_over_lungs(self, tmp_path: Path) -> None:
        scan(tmp_path / "1" / "1_CT_HR.nii.gz")
        label(tmp_path / "1" / "1_CT_HR_label_airways.nii.gz")
        everywhere = np.ones((4, 5, 6), dtype=np.uint8)
        write_label_map(
            tmp_path / "1" / "1_CT_HR_label_lungs.nii.gz",
            everywhere,
            Volume(everywhere, (1, 1, 1), np.eye(4)),
        )
        labels = open_dataset("aeropath", path=tmp_path).read_reference("1").array
        assert (labels == 1).sum() == 8
        assert (labels == 2).sum() == labels.size - 8
        overlaps = [f for f in verify("aeropath", path=tmp_path, cache=False).findings if f.code == "SB326"]
        assert [(f.severity, f.found) for f in overlaps] == [("info", "8 voxels")]  # no alarm on clean data

    def test_patients_may_stand_in_a_table(self, tmp_path: Path) -> None:
        for case in ("a", "b", "c"):
            scan(tmp_path / "Image" / f"{case}.nii.gz")
            label(tmp_path / "ROI" / f"{case}.nii.gz")
        (tmp_path / "meta.csv").write_text("\ufeffid;subject\na;p1\nb;p1\n", encoding="utf-8")
        content = load_dataset_card("crc-2000").model_dump(exclude_unset=True)
        content["patient"] = {"group": {"table": "meta.csv", "case": "id", "patient": "subject"}}
        dataset = open_dataset(parse_dataset_card(content), path=tmp_path)
        assert [dataset.patient_of(case) for case in "abc"] == ["p1", "p1", "c"]
        (tmp_path / "meta.csv").write_text("id,subject\na,\nb,\nc\n")  # unknown patients are not one patient
        unknown = open_dataset(parse_dataset_card(content), path=tmp_path)
        assert [unknown.patient_of(case) for case in "abc"] == ["a", "b", "c"]
        for text in ("id;person\na;p1\n", "case;subject\na;p1\n", "", "id;subject\na;" + "x" * 200_000, None):
            if text is None:
                (tmp_path / "meta.csv").unlink()
            else:
                (tmp_path / "meta.csv").write_text(text)
            again = open_dataset(parse_dataset_card(content), path=tmp_path)
            assert code_of(lambda again=again: again.patient_of("a")).code == "SB303"


class TestAbsence:
    @pytest.mark.parametrize(
        ("slug", "second", "kind"),
        [
            ("msd-spleen", "free to download: segbench data fetch msd-spleen (CC BY-SA 4.0)", "msd"),
            ("brats2023-gli", "given out after registration: https://www.synapse.org", "brats"),
            (
                "crc-2000",
                "it is given out by its authors on request only: see segbench show dataset:crc-2000",
                "crc",
            ),
        ],
    )
    def test_it_says_where_was_looked_and_how_to_get_it(
        self, tmp_path: Path, slug: str, second: str, kind: str
    ) -> None:
        error = code_of(lambda: open_dataset(slug, data_dir=tmp_path / "data"))
        assert (error.code, error.exit_code) == ("SB301", 4)
        lines = render_error(error).splitlines()
        folder = load_dataset_card(slug).location.folders[0]
        assert lines[0] == f"error[SB301]: dataset {slug} is not here"
        assert lines[1].strip().startswith(f"looked in {tmp_path / 'data' / folder} (from ")
        assert any(line.strip().startswith(second) for line in lines)
        assert lines[-1].strip() == f"to try the same layout without it: segbench data phantom {kind} DIR"

    @pytest.mark.parametrize("slug", ["acdc", "totalsegmentator", "kits23", "amos22", "btcv", "lits"])
    def test_phantoms_are_named_only_where_they_have_the_same_layout(self, tmp_path: Path, slug: str) -> None:
        error = code_of(lambda: open_dataset(slug, data_dir=tmp_path))
        assert "data phantom" not in render_error(error)
        assert f"segbench show dataset:{slug}" in error.mend
        assert describe_dataset(load_dataset_card(slug))["layout"]["try it on phantoms"] is None

    def test_a_data_directory_one_level_too_deep_is_the_datasets_own(self, own_tree: Tree) -> None:
        root = own_tree("crc", "CRC-2000")
        assert open_dataset("crc-2000", data_dir=root).case_ids
        assert (
            open_dataset("crc-2000", data_dir=root).root
            == open_dataset("crc-2000", data_dir=root.parent).root
        )
        assert code_of(lambda: open_dataset("aiib2023", data_dir=root)).code == "SB301"

    def test_what_can_be_had_is_one_row_each_the_mission_first(self, own_tree: Tree, tmp_path: Path) -> None:
        own_tree("crc", "CRC-2000")
        slugs = [slug for slug in list_dataset_cards() if not load_dataset_card(slug).is_phantom]
        rows = availability(slugs, tmp_path)
        assert [row[0] for row in rows[:4]] == list(MISSION)
        assert sorted(row[0] for row in rows) == sorted(slugs)
        assert [row[0] for row in rows if row[3] == "here"] == ["crc-2000"]
        assert all(row[1] for row in rows), "each says how it is had"
        fetchable = next(row for row in rows if row[0] == "msd-hippocampus")
        assert fetchable[1] == "segbench data fetch msd-hippocampus"

    def test_the_example_of_the_command_line_page(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        text = render_error(code_of(lambda: open_dataset("crc-2000")))
        assert "looked in data/CRC-2000 (from ./data): the folder does not exist" in text

    def test_private_cards_name_the_folder(self, tmp_path: Path) -> None:
        content = load_dataset_card("crc-2000").model_dump(exclude_unset=True)
        content["availability"]["kind"] = "private"
        error = code_of(lambda: open_dataset(parse_dataset_card(content), data_dir=tmp_path))
        assert any(f"not public; put it at {tmp_path / 'CRC-2000'}" in line for line in error.details)

    def test_the_first_folder_that_exists_wins_and_the_variable_is_heeded(
        self, own_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own_tree("crc", "crc-2000")
        monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path))
        assert open_dataset("crc-2000").root == tmp_path / "crc-2000"
        own_tree("crc", "random2500")
        assert open_dataset("crc-2000").root == tmp_path / "random2500"
        assert code_of(lambda: open_dataset("crc-2000", data_dir=tmp_path / "no")).code == "SB301"
        assert code_of(lambda: open_dataset("crc-2000", path=tmp_path / "no")).code == "SB301"

    @pytest.mark.parametrize("slug", ["acdc", "msd-heart", "brats2023-gli", "abdomenatlas-1.0-mini"])
    def test_an_empty_folder_with_the_right_name_is_no_dataset_yet(self, tmp_path: Path, slug: str) -> None:
        folder = load_dataset_card(slug).location.folders[-1]
        (tmp_path / folder).mkdir()
        error = code_of(lambda: open_dataset(slug, data_dir=tmp_path))
        assert error.code == "SB301"
        assert error.details[0].startswith(f"looked in {tmp_path / folder} ")
        assert error.details[0].endswith("the folder is empty")

    def test_unknown_names_and_folders(self, tmp_path: Path) -> None:
        error = code_of(lambda: open_dataset("brats2023-gly"))
        assert (error.code, "brats2023-gli" in error.mend) == ("SB101", True)
        assert code_of(lambda: open_dataset(tmp_path / "nowhere")).code == "SB301"
        assert code_of(lambda: open_dataset(tmp_path)).code == "SB302"
        error = code_of(lambda: open_dataset("crc-2000", path=tmp_path))
        assert (error.code, "the folder is empty" in error.details[0]) == ("SB301", True)
        (tmp_path / "notes.txt").write_text("nothing of the dataset")
        assert code_of(lambda: open_dataset("crc-2000", path=tmp_path)).code == "SB311"

    def test_a_folder_that_only_a_card_can_read_says_which(self, own_tree: Tree) -> None:
        error = code_of(lambda: open_dataset(own_tree("brats")))
        assert error.code == "SB302"
        assert error.mend.startswith("this looks like brats2023-gli")

    def test_a_folder_that_fits_two_layouts_is_refused(self, own_tree: Tree) -> None:
        root = own_tree("msd")
        (root / "BDMAP_00000001").mkdir()
        error = code_of(lambda: open_dataset(root))
        assert error.code == "SB302"
        assert "BDMAP" in str(error.found)


def test_folders_describe_themselves(clean_trees: dict[str, Path]) -> None:
    for kind, slug in CARD_OF.items():
        assert open_dataset(clean_trees[kind]).card.slug == (slug or "phantom")
        assert open_dataset(str(clean_trees[kind])).is_generated


@pytest.mark.real_data
class TestRealLayouts:
    def test_hippocampus(self, real_data: Path) -> None:
        dataset = open_dataset("msd-hippocampus", data_dir=real_data)
        assert len(dataset.case_ids) == 200
        assert codes(dataset, but=()) == []
        image = dataset.read_image(dataset.case_ids[0])
        assert image.spacing_mm == (1.0, 1.0, 1.0)
        alone = open_dataset(real_data / "Task04_Hippocampus")
        assert alone.case_ids == dataset.case_ids
        assert dict(alone.card.regions) == {"Anterior": (1,), "Posterior": (2,)}

    def test_abdomenatlas_masks_equal_combined(self, real_data: Path) -> None:
        dataset = open_dataset(real_data / "AbdomenAtlas1.0Mini_layout")
        files = dataset.case(dataset.case_ids[0])
        from segbench.volumes import read_label_map

        assert dataset.card.slug == "abdomenatlas-1.0-mini"
        assert files.combined is not None
        np.testing.assert_array_equal(
            dataset.read_reference(files.case).array, read_label_map(files.combined).array
        )

    def test_brats_without_labels(self, real_data: Path) -> None:
        dataset = open_dataset("brats2023-gli", path=real_data / "brats2023_layout_unlabelled")
        assert dataset.cases_without_reference == ("BraTS-GLI-00001-000",)
        assert dataset.read_image("BraTS-GLI-00001-000").array.shape == (4, 155, 240, 240)

    def test_kidney_labels_without_images(self, real_data: Path) -> None:
        dataset = open_dataset("kits23", path=real_data / "kits19_labels_only")
        assert dataset.case_ids == ()
        assert incomplete(dataset) == ("case_00003", "case_00007")
        assert set(np.unique(dataset.read_reference("case_00003").array)) <= {0, 1, 2}
