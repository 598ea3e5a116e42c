"""Export to nnU-Net and MSD and back: equal voxels, affines, regions and ids; the written rules kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from segbench.cards import load_dataset_card
from segbench.cards.dataset_card import parse_dataset_card
from segbench.cli.main import build_app
from segbench.core.errors import SegbenchError
from segbench.data import Dataset, open_dataset
from segbench.data.exchange import LabelMap, export_dataset, import_predictions
from segbench.data.exchange.exporting import nnunet_labels
from segbench.data.scan_file import write_scan
from segbench.data.splits import load_split
from segbench.volumes import Volume, read_label_map, write_label_map

Tree = Callable[..., Path]
CARD_OF = {
    "crc": "crc-2000",
    "brats": "brats2023-gli",
    "aiib": "aiib2023",
    "abdomenatlas": "abdomenatlas-1.0-mini",
    "msd": None,
}


def opened(root: Path, kind: str) -> Dataset:
    slug = CARD_OF[kind]
    return open_dataset(root) if slug is None else open_dataset(slug, path=root)


@pytest.mark.ci
@pytest.mark.parametrize("kind", CARD_OF)
@pytest.mark.parametrize("format", ["nnunet", "msd"])
def test_the_import_of_an_export_is_the_dataset(
    clean_trees: dict[str, Path], tmp_path: Path, kind: str, format: str
) -> None:
    dataset = opened(clean_trees[kind], kind)
    report = export_dataset(dataset, tmp_path, format=format, split="random-50-25-25")
    assert (report.training, report.test, report.folds) == (3, 1, 1)
    again = open_dataset(report.root)
    assert again.adapter == format
    assert again.case_ids == dataset.case_ids
    assert list(again.card.regions.items()) == list(dataset.card.regions.items())
    assert again.card.labels == dataset.card.labels
    assert again.card.channels.order == dataset.card.channels.order
    assert again.card.channel_normalisation == dataset.card.channel_normalisation
    assert again.card.evaluation == dataset.card.evaluation
    assert again.card.geometry == dataset.card.geometry
    assert [again.patient_of(c) for c in again.case_ids] == [dataset.patient_of(c) for c in dataset.case_ids]
    assert not [f for f in again.layout_findings if f.severity != "info"]
    for case in dataset.case_ids:
        for first, second in (
            (dataset.read_image(case), again.read_image(case)),
            (dataset.read_reference(case), again.read_reference(case)),
        ):
            np.testing.assert_array_equal(first.array, second.array)
            np.testing.assert_allclose(first.affine, second.affine, atol=1e-6)


def test_the_rules_of_nnunets_format(clean_trees: dict[str, Path], tmp_path: Path) -> None:
    dataset = opened(clean_trees["brats"], "brats")
    root = export_dataset(dataset, tmp_path, number=7, split="random-50-25-25").root
    assert root.name == "Dataset007_Brats2023Gli"
    content = json.loads((root / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "t2w", "1": "t2f", "2": "t1n", "3": "t1c"}
    assert content["numTraining"] == 3
    assert content["file_ending"] == ".nii.gz"
    # In nnU-Net the order of the labels is that of regions_class_order: larger regions first.
    assert list(content["labels"].items()) == [
        ("background", 0),
        ("WT", [1, 2, 3]),
        ("TC", [1, 3]),
        ("ET", 3),
    ]
    assert content["regions_class_order"] == [2, 1, 3]
    names = sorted(path.name for path in (root / "imagesTr").iterdir())
    cases = sorted({name[:-12] for name in names})
    assert names == sorted(f"{case}_{c:04d}.nii.gz" for case in cases for c in range(4))
    assert sorted(p.name for p in (root / "labelsTr").iterdir()) == [f"{case}.nii.gz" for case in cases]
    assert sorted(p.name for p in (root / "labelsTs").iterdir()) == [
        f"{case}.nii.gz" for case in load_split("random-50-25-25", dataset)[0].test
    ]
    folds = json.loads((root / "splits_final.json").read_text())
    assert [sorted(fold["train"] + fold["val"]) for fold in folds] == [cases]
    for case in cases:
        label = nib.load(root / "labelsTr" / f"{case}.nii.gz")
        image = nib.load(root / "imagesTr" / f"{case}_0000.nii.gz")
        assert label.get_data_dtype() == np.uint8
        assert image.shape == label.shape
        np.testing.assert_allclose(image.affine, label.affine, atol=1e-6)


def test_regions_painted_in_class_order_give_the_labels_back(clean_trees: dict[str, Path]) -> None:
    """What nnU-Net does with regions: each paints its class, later over earlier."""
    for slug in ("brats2023-gli", "kits23", "msd-prostate", "msd-liver"):
        card = load_dataset_card(slug)
        mapping = LabelMap.consecutive(card)
        labels, order = nnunet_labels(mapping)
        everything = np.array(sorted(mapping.to_source))
        painted = np.zeros_like(everything)
        foreground = {name: value for name, value in labels.items() if name not in ("background", "ignore")}
        for (_, members), value in zip(foreground.items(), order or list(foreground.values()), strict=True):
            painted[np.isin(everything, members)] = value
        unions = {v for members in card.regions.values() for v in members}
        np.testing.assert_array_equal(painted, [v if v in unions else 0 for v in everything])


def test_unions_of_labels_with_names_of_their_own_stay_beside(clean_trees: dict[str, Path]) -> None:
    labels, order = nnunet_labels(LabelMap.consecutive(load_dataset_card("msd-hippocampus")))
    assert labels == {"background": 0, "anterior": 1, "posterior": 2}
    assert order is None


def test_gaps_are_closed_the_map_is_written_and_predictions_come_back(tmp_path: Path) -> None:
    source = tmp_path / "source"
    labels = np.zeros((4, 5, 6), dtype=np.uint8)
    labels[0], labels[1], labels[2, 0] = 3, 7, 200
    for case in ("a", "b"):
        write_scan(source / "Image" / f"{case}.nii.gz", np.ones((4, 5, 6), np.int16), np.eye(4))
        write_label_map(source / "ROI" / f"{case}.nii.gz", labels, Volume(labels, (1, 1, 1), np.eye(4)))
    content = load_dataset_card("crc-2000").model_dump(exclude_unset=True)
    content["labels"] = {0: "background", 3: "three", 7: "seven", 200: "nobody knows"}
    content["regions"] = {"seven": (7,), "three": (3,)}
    content["evaluation"]["ignore_label"] = 200
    dataset = open_dataset(parse_dataset_card(content), path=source)
    report = export_dataset(dataset, tmp_path / "raw", split="random-100-0-0")
    assert not report.identity
    assert report.folds == 0
    described = json.loads((report.root / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "three": 1, "seven": 2, "ignore": 3}
    exported = read_label_map(report.root / "labelsTr" / "a.nii.gz").array
    assert sorted(np.unique(exported)) == [0, 1, 2, 3]
    again = open_dataset(report.root)
    assert dict(again.card.regions) == {"seven": (2,), "three": (1,)}
    assert list(again.card.regions) == ["seven", "three"]
    assert again.card.evaluation.ignore_label == 3
    map_file = report.root / "segbench_label_map.json"
    written, failed = import_predictions(
        report.root / "labelsTr", label_map=map_file, output=tmp_path / "back"
    )
    assert [path.name for path in written] == ["a.nii.gz", "b.nii.gz"]
    assert failed == []
    back = read_label_map(tmp_path / "back" / "a.nii.gz")
    np.testing.assert_array_equal(back.array, labels)


class TestPredictions:
    @pytest.fixture
    def map_file(self, clean_trees: dict[str, Path], tmp_path: Path) -> Path:
        dataset = opened(clean_trees["brats"], "brats")
        return LabelMap.consecutive(dataset.card).write(tmp_path / "map", dataset.card)

    def predict(self, folder: Path, case: str, value: int) -> None:
        array = np.full((2, 3, 4), value, dtype=np.uint8)
        write_label_map(folder / f"{case}.nii.gz", array, Volume(array, (1, 1, 1), np.eye(4)))

    def test_one_bad_file_does_not_stop_the_rest(self, map_file: Path, tmp_path: Path) -> None:
        folder = tmp_path / "p"
        for case, value in (("a", 1), ("b", 9), ("c", 0), ("d", 3)):
            self.predict(folder, case, value)
        (folder / "d.nii.gz").write_bytes(b"\x1f\x8b broken")
        arguments = ["data", "import", "predictions", str(folder), "--map", str(map_file)]
        done = CliRunner().invoke(build_app(), [*arguments, "--output", str(tmp_path / "o"), "--json"])
        report = json.loads(done.stdout)
        assert done.exit_code == 3
        assert report["written"] == ["a.nii.gz", "c.nii.gz"]
        assert [e["case"] for e in report["failed"]] == ["b", "d"]
        assert report["failed"][0]["code"] == "SB213"

    def test_what_cannot_be_taken(self, map_file: Path, tmp_path: Path) -> None:
        (tmp_path / "p").mkdir()

        def code(folder: str, label_map: Path, output: str) -> str:
            with pytest.raises(SegbenchError) as caught:
                import_predictions(tmp_path / folder, label_map=label_map, output=tmp_path / output)
            return caught.value.code

        assert code("p", map_file, "o") == "SB311"
        assert code("p", tmp_path / "none.json", "o") == "SB110"
        (tmp_path / "bad.json").write_text("{}")
        assert code("p", tmp_path / "bad.json", "o") == "SB110"
        self.predict(tmp_path / "p", "a", 1)
        assert code("p", map_file, "p") == "SB104"


def test_files_that_are_right_are_linked_and_others_only_compressed(own_tree: Tree, tmp_path: Path) -> None:
    import gzip

    root = own_tree("crc")
    plain = root / "Image" / "crc_0000.nii.gz"
    plain.with_suffix("").write_bytes(gzip.decompress(plain.read_bytes()))
    plain.unlink()
    loud = root / "Image" / "crc_0002.nii.gz"
    loud = loud.rename(loud.with_name("crc_0002.NII.GZ"))
    dataset = opened(root, "crc")
    out = export_dataset(dataset, tmp_path / "raw", split="random-100-0-0", link=True).root / "imagesTr"
    linked = root / "Image" / "crc_0001.nii.gz"
    assert linked.samefile(out / "crc_0001_0000.nii.gz")
    assert loud.samefile(out / "crc_0002_0000.nii.gz")
    assert gzip.decompress((out / "crc_0000_0000.nii.gz").read_bytes()) == plain.with_suffix("").read_bytes()
    copied = export_dataset(dataset, tmp_path / "copy", split="random-100-0-0").root / "imagesTr"
    assert not linked.samefile(copied / "crc_0001_0000.nii.gz")
    assert (copied / "crc_0001_0000.nii.gz").read_bytes() == linked.read_bytes()


def test_a_patient_safe_export_leaves_the_leaking_cases_out(
    clean_trees: dict[str, Path], tmp_path: Path
) -> None:
    dataset = opened(clean_trees["brats"], "brats")
    ids = dataset.case_ids
    split = {
        "schema_version": 1, "dataset": "brats2023-gli", "name": "some", "kind": "list",
        "folds": [{"train": [ids[0]], "validation": [ids[1]], "test": [ids[2]]}],
    }  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps(split))
    report = export_dataset(dataset, tmp_path / "raw", split=tmp_path / "s.json")
    assert report.left_out == (ids[3],)
    assert open_dataset(report.root).case_ids == ids[:3]


def test_mixed_axis_orders_ask_for_the_reader_that_reorients(tmp_path: Path) -> None:
    from segbench.data.phantoms import generate

    mixed = open_dataset(generate("abdomenatlas", tmp_path / "a", cases=2))
    root = export_dataset(mixed, tmp_path / "raw", split="random-100-0-0").root
    content = json.loads((root / "dataset.json").read_text())
    assert content["overwrite_image_reader_writer"] == "NibabelIOWithReorient"
    assert content["channel_names"] == {"0": "CT"}


def test_nothing_is_written_over_and_a_failure_leaves_nothing(own_tree: Tree, tmp_path: Path) -> None:
    root = own_tree("crc")
    dataset = opened(root, "crc")
    out = tmp_path / "raw"
    export_dataset(dataset, out, split="random-100-0-0")
    with pytest.raises(SegbenchError) as caught:
        export_dataset(dataset, out, split="random-100-0-0")
    assert caught.value.code == "SB337"
    with pytest.raises(SegbenchError) as caught:
        export_dataset(dataset, out, number=1000)
    assert caught.value.code == "SB104"
    label = root / "ROI" / "crc_0003.nii.gz"
    label.write_bytes(label.read_bytes()[:-5])
    with pytest.raises(SegbenchError):
        export_dataset(opened(root, "crc"), tmp_path / "broken", split="random-100-0-0")
    assert [p.name for p in (tmp_path / "broken").iterdir()] == []


def test_the_command(clean_trees: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["data", "export", "crc-2000", "--path", str(clean_trees["crc"]), "--output", str(tmp_path)]
    done = CliRunner().invoke(build_app(), [*arguments, "--format", "msd", "--id", "12", "--json"])
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report["root"] == str(tmp_path / "Task12_Crc2000")
    assert report["training"] + report["test"] == 4
    assert len(open_dataset(report["root"]).case_ids) == 4
    assert CliRunner().invoke(build_app(), [*arguments, "--format", "msd", "--id", "12"]).exit_code == 4
    assert CliRunner().invoke(build_app(), [*arguments, "--format", "dicom"]).exit_code == 2
