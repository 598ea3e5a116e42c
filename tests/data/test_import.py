"""Import in place: a card and splits for a dataset of another tool, and not one voxel copied."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from segbench.cards import list_model_cards, load_dataset_card, load_model_card
from segbench.cards.dataset_card import parse_dataset_card, read_dataset_card
from segbench.cli.main import build_app
from segbench.core.errors import SegbenchError
from segbench.core.names import region_names
from segbench.data import open_dataset
from segbench.data.exchange import export_dataset, import_dataset, import_predictions
from segbench.data.exchange.fitting import fitting_patch
from segbench.data.exchange.importing import toml_text
from segbench.data.patients import case_pattern_of, looks_grouped
from segbench.data.recognise import slug_of
from segbench.data.scan_file import write_scan
from segbench.data.splits import load_split
from segbench.volumes import Volume, write_label_map

Tree = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Hippocampus", "hippocampus"),
        ("My Set (2)", "my-set-2"),
        ("__x__", "x"),
        ("Ätna", "tna"),
        ("", "dataset"),
        ("A" * 90, "a" * 64),
    ],
)
def test_slugs_of_names(name: str, slug: str) -> None:
    assert slug_of(name) == slug


def test_an_exported_split_comes_back_with_its_test_set(clean_trees: dict[str, Path], tmp_path: Path) -> None:
    dataset = open_dataset("brats2023-gli", path=clean_trees["brats"])
    root = export_dataset(dataset, tmp_path / "raw", split="random-50-25-25").root
    before = sorted(p.relative_to(root) for p in root.rglob("*"))
    arguments = [
        "data",
        "import",
        "dataset",
        str(root),
        "--output",
        str(tmp_path / "cards"),
        "--slug",
        "mine",
    ]
    done = CliRunner().invoke(build_app(), [*arguments, "--json"])
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report["slug"] == "mine"
    assert report["regions"] == {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
    assert sorted(p.relative_to(root) for p in root.rglob("*")) == before
    written = sorted(p.relative_to(tmp_path / "cards").as_posix() for p in (tmp_path / "cards").rglob("*.*"))
    assert written == ["datasets/mine/card.toml", "datasets/mine/splits/imported.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"labels": 5},
        {"labels": {"one": "a"}},
        {"regions": [["TC"]]},
        {"regions": 7},
        {"regions": [["TC", None]]},
        {"card": {"evaluation": {"ignore_label": [1]}}, "ignore": [1]},
    ],
)
def test_a_damaged_label_map_beside_an_export_is_named(
    clean_trees: dict[str, Path], tmp_path: Path, change: dict[str, object]
) -> None:
    dataset = open_dataset("brats2023-gli", path=clean_trees["brats"])
    root = export_dataset(dataset, tmp_path / "raw", split="random-50-25-25").root
    file = root / "segbench_label_map.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(SegbenchError) as caught:
        open_dataset(root)
    assert caught.value.code == "SB110"


def test_a_slug_that_is_taken_is_told(clean_trees: dict[str, Path], tmp_path: Path) -> None:
    dataset = open_dataset("brats2023-gli", path=clean_trees["brats"])
    root = str(export_dataset(dataset, tmp_path / "raw", split="random-50-25-25").root)
    command = ["data", "import", "dataset", root, "--output"]
    taken = CliRunner().invoke(build_app(), [*command, str(tmp_path / "a")])
    free = CliRunner().invoke(build_app(), [*command, str(tmp_path / "b"), "--slug", "mine"])
    assert (taken.exit_code, free.exit_code) == (0, 0)
    assert "card brats2023-gli already" in taken.stderr
    assert "already" not in free.stderr


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (("liver", "kidney_left", "kidney_right"), ("z", "y")),
        (("Right Kidney", "Left Kidney"), ("z", "y")),
        (("lung_L", "lung_R"), ("z", "y")),
        (("kidney_left", "lung_right"), ("z", "y", "x")),
        (("anterior", "posterior"), ("z", "y", "x")),
    ],
)
def test_left_and_right_are_not_mirrored_into_each_other(
    own_tree: Tree, tmp_path: Path, names: tuple[str, ...], axes: tuple[str, ...]
) -> None:
    root = own_tree("msd")
    document = json.loads((root / "dataset.json").read_text())
    document["labels"] = {"0": "background", **{str(i): name for i, name in enumerate(names, start=1)}}
    (root / "dataset.json").write_text(json.dumps(document))
    assert open_dataset(root).card.geometry.mirror_axes == axes
    file, card = import_dataset(root, output=tmp_path / "cards", slug="mine")
    assert card.geometry.mirror_axes == axes
    assert f"mirror_axes = {json.dumps(list(axes))}" in file.read_text()


@pytest.mark.parametrize(
    ("names", "regions"),
    [
        (("Left Lung", "left-lung"), ["Left_Lung", "left_lung"]),
        (("a b", "a-b", "a_b_2"), ["a_b", "a_b_2", "a_b_2_2"]),
        (("Gr\u00f6\u00dfe", "Gro\u0308\u00dfe 2"), ["Gr\u00f6\u00dfe", "Gr\u00f6\u00dfe_2"]),
        (("\u809d", "\u813e"), ["\u809d", "\u813e"]),
        (("3rd", "+", "-"), ["r_3rd", "r_", "r__2"]),
    ],
)
def test_each_label_is_a_region_of_its_own_in_its_script(
    own_tree: Tree, tmp_path: Path, names: tuple[str, ...], regions: list[str]
) -> None:
    root = own_tree("msd")
    document = json.loads((root / "dataset.json").read_text())
    document["labels"] = {"0": "background", **{str(i): name for i, name in enumerate(names, start=1)}}
    (root / "dataset.json").write_text(json.dumps(document))
    file, card = import_dataset(root, output=tmp_path / "cards", slug="mine")
    assert card.regions == {name: (value,) for value, name in enumerate(regions, start=1)}
    assert parse_dataset_card(tomllib.loads(file.read_text(encoding="utf-8"))).regions == card.regions


@given(st.lists(st.text(max_size=40), max_size=6))
def test_any_labels_are_regions_that_a_card_takes(labels: list[str]) -> None:
    names = region_names(labels)
    assert len(set(names)) == len(names) == len(labels)
    assert all(name.isidentifier() and name[0] != "_" and len(name) <= 32 for name in names)


def test_the_imported_card_opens_where_the_data_is(
    clean_trees: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset("brats2023-gli", path=clean_trees["brats"])
    original = load_split("random-50-25-25", dataset)[0]
    root = export_dataset(dataset, tmp_path / "raw", split="random-50-25-25").root
    import_dataset(root, output=tmp_path / "cards", slug="mine")
    monkeypatch.setenv("SEGBENCH_CARDS", str(tmp_path / "cards"))
    monkeypatch.chdir(tmp_path)
    assert load_dataset_card("mine").availability.kind == "private"
    again = open_dataset("mine")
    assert again.root == root.resolve()
    split = load_split(None, again)[0]
    assert (split.train, split.validation, split.test) == (original.train, original.validation, original.test)


def test_a_plain_msd_folder_gets_a_card_and_the_default_split(own_tree: Tree, tmp_path: Path) -> None:
    root = own_tree("msd")
    file, card = import_dataset(root, output=tmp_path / "cards")
    assert card.slug == "phantom"
    assert file == tmp_path / "cards" / "datasets" / "phantom" / "card.toml"
    assert [p.name for p in file.parent.iterdir()] == ["card.toml"]
    with pytest.raises(SegbenchError) as caught:
        import_dataset(root, output=tmp_path / "cards")
    assert caught.value.code == "SB337"


def test_a_folder_that_is_not_there_is_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"dataset": "x", "to_source": {"0": 0}, "labels": {}, "regions": []}')
    for call in (
        lambda: import_dataset(tmp_path / "nowhere", output=tmp_path / "cards"),
        lambda: import_predictions(
            tmp_path / "nowhere", label_map=tmp_path / "map.json", output=tmp_path / "out"
        ),
    ):
        with pytest.raises(SegbenchError) as caught:
            call()
        assert caught.value.code == "SB301"


def test_what_has_a_card_or_no_description_is_refused(clean_trees: dict[str, Path], tmp_path: Path) -> None:
    for folder in (clean_trees["abdomenatlas"], tmp_path):
        with pytest.raises(SegbenchError) as caught:
            import_dataset(folder, output=tmp_path / "cards")
        assert caught.value.code == "SB302"
    assert not (tmp_path / "cards").exists()


def test_toml_text_survives_every_character() -> None:
    import tomllib

    document = {
        "text": 'quote " backslash \\ newline \n tab \t del \x7f ünï 😀 \x01',
        "number": 1.5,
        "yes": True,
        "list": [1, "a", [2.0]],
        "table": {"0": "zero", "odd key!": {"inner": [1]}, "plain-key": -3},
        "empty": {},
    }
    expected = {key: value for key, value in document.items() if key != "empty"}
    assert tomllib.loads(toml_text(document)) == expected


@pytest.mark.real_data
def test_the_real_hippocampus_in_place(real_data: Path, tmp_path: Path) -> None:
    file, card = import_dataset(real_data / "Task04_Hippocampus", output=tmp_path)
    assert card.slug == "hippocampus"
    assert card.expected.cases == 200
    assert file.is_file()


def nnunet_folder(root: Path, ids: list[str]) -> Path:
    """A raw dataset of nnU-Net with these case ids; its volumes hold nothing."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for case in ids:
        (root / "imagesTr" / f"{case}_0000.nii.gz").touch()
        (root / "labelsTr" / f"{case}.nii.gz").touch()
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "t": 1}, "numTraining": len(ids)}
    (root / "dataset.json").write_text(json.dumps({"name": "Two Visits", "file_ending": ".nii.gz"} | about))
    return root


GROUPED = {
    "patient[0-9]+": [f"patient{p:03d}_{v:02d}" for p in range(8) for v in (1, 2)],
    "BraTS-GLI-[0-9]+": [f"BraTS-GLI-{p:05d}-{v:03d}" for p in range(8) for v in (0, 1)],
    "embA[0-9]+|embB[0-9]+": [f"emb{e}{p:02d}_t{t}" for e in "AB" for p in range(4) for t in (0, 120)],
}


@pytest.mark.parametrize("pattern", GROUPED)
def test_ids_that_look_grouped_are_hinted_at_and_patient_groups_them(tmp_path: Path, pattern: str) -> None:
    root = nnunet_folder(tmp_path / "Dataset007_Two", GROUPED[pattern])
    command = ["data", "import", "dataset", str(root), "--output", str(tmp_path / "plain")]
    said = CliRunner().invoke(build_app(), command)
    assert said.exit_code == 0
    assert f"--patient '{pattern}'" in " ".join(said.stderr.split())
    command = [*command[:-1], str(tmp_path / "cards"), "--patient", pattern]
    done = CliRunner().invoke(build_app(), command)
    assert done.exit_code == 0, done.stderr
    assert "look like" not in done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGBENCH_CARDS", str(tmp_path / "cards"))
        dataset = open_dataset("two-visits")
        assert len({dataset.patient_of(case) for case in dataset.case_ids}) == 8
        for name in ("random-50-25-25", "folds-3"):
            for split in load_split(name, dataset):
                parts = [
                    {dataset.patient_of(c) for c in part}
                    for part in (split.train, split.validation, split.test)
                ]
                assert sum(map(len, parts)) == len(set().union(*parts)) == 8


@pytest.mark.parametrize(
    "ids", [[f"case_{i:03d}" for i in range(9)], ["a", "b"], [f"p{i}" for i in range(9)]]
)
def test_ordinary_ids_are_not_hinted_at(ids: list[str]) -> None:
    assert looks_grouped(ids) is None


@pytest.mark.parametrize("pattern", ["(patient[0-9]+)_", "(?P<patient>patient[0-9]+)_.*", "patient[0-9]+"])
def test_the_group_of_a_pattern_is_the_patient(pattern: str) -> None:
    found = re.compile(case_pattern_of(pattern, ["patient001_02"])).fullmatch("patient001_02")
    assert found is not None
    assert (found["case"], found["patient"]) == ("patient001_02", "patient001")


@pytest.mark.parametrize("pattern", ["(", "subject[0-9]+", "patient001"])
def test_a_pattern_that_does_not_fit_every_id_is_refused(tmp_path: Path, pattern: str) -> None:
    root = nnunet_folder(tmp_path / "Dataset007_Two", ["patient001_01", "patient002_01"])
    with pytest.raises(SegbenchError, match="--patient") as caught:
        import_dataset(root, output=tmp_path / "cards", patient=pattern)
    assert caught.value.code == "SB104"
    assert not (tmp_path / "cards").exists()


def test_patients_named_in_a_pattern_group_unless_the_card_says_otherwise(tmp_path: Path) -> None:
    root = nnunet_folder(tmp_path / "Dataset007_Two", ["p1_01", "p1_02", "p2_01"])
    _, card = import_dataset(root, output=tmp_path / "cards")
    document = card.model_dump(mode="json", exclude_unset=True)
    document["layout"]["case_pattern"] = "(?P<case>(?P<patient>p[0-9])_[0-9]+)"
    document.pop("patient", None)
    for said, count in ((None, 2), ({"group": "case"}, 3), ({"group": "patient"}, 2), ({}, 2)):
        told = document if said is None else document | {"patient": said}
        dataset = open_dataset(parse_dataset_card(told), path=root)
        assert len({dataset.patient_of(case) for case in dataset.case_ids}) == count


# ---- the patch that fits


def raw_dataset(
    root: Path, shapes: list[tuple[int, int, int]], spacing: float = 1.0, border: int = 0
) -> Path:
    """A dataset of nnU-Net with scans of these shapes (z, y, x), zero within `border` of each side."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    for index, shape in enumerate(shapes):
        image = np.zeros(shape, dtype=np.int16)
        inner = tuple(slice(border, n - border) for n in shape)
        image[inner] = 100
        write_scan(root / "imagesTr" / f"c{index}_0000.nii.gz", image, affine)
        labels = (image > 0).astype(np.uint8)
        write_label_map(root / "labelsTr" / f"c{index}.nii.gz", labels, Volume(labels, (1, 1, 1), affine))
    about = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(about | {"numTraining": len(shapes)}))
    return root


@pytest.mark.parametrize(
    ("shapes", "border", "patch"),
    [
        ([(37, 50, 36)], 0, (64, 64, 64)),
        ([(44, 71, 96), (44, 66, 96), (44, 90, 90)], 0, (64, 96, 96)),
        ([(20, 150, 140)], 0, (64, 128, 128)),  # never beyond the protocol's
        ([(20, 150, 140)], 30, (64, 96, 96)),  # what cropping leaves
    ],
)
def test_the_patch_is_the_median_scan_in_steps_that_networks_take(
    tmp_path: Path, shapes: list[tuple[int, int, int]], border: int, patch: tuple[int, int, int]
) -> None:
    if border:
        shapes = [(80, y, x) for _, y, x in shapes]
    fitting = fitting_patch(open_dataset(raw_dataset(tmp_path / "Dataset001_a", shapes, border=border)))
    assert fitting is not None and fitting[0] == patch
    refusing = {
        model.slug
        for model in map(load_model_card, list_model_cards())
        if model.input is not None
        and not all(n % model.input.divisor == 0 and n >= model.input.minimum for n in patch)
    }
    assert refusing <= {"waveformer"}  # its wavelets want multiples of 64


def test_the_imported_card_has_the_patch_and_says_so(tmp_path: Path) -> None:
    root = raw_dataset(tmp_path / "Dataset001_a", [(44, 71, 96)])
    words = ["data", "import", "dataset", str(root), "--output", str(tmp_path / "cards"), "--slug", "mine"]
    done = CliRunner().invoke(build_app(), words)
    assert done.exit_code == 0 and "1 channel," in done.stdout
    assert "64x96x96" in done.stderr
    card = read_dataset_card(tmp_path / "cards" / "datasets" / "mine" / "card.toml")
    assert card.geometry.patch == (64, 96, 96)
