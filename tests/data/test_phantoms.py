"""Phantoms: the same bits everywhere, volumes that are known, traps where they are named."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.core.errors import SegbenchError
from segbench.data import open_dataset
from segbench.data.phantoms import FOLDERS, KINDS, PHANTOM_VERSION, generate
from segbench.data.phantoms.plan import LAYOUTS, Case
from segbench.data.phantoms.writing import array_sha256, make_case, write_case
from segbench.volumes import read_volume, to_canonical

CARD_OF = {
    "crc": "crc-2000",
    "brats": "brats2023-gli",
    "aiib": "aiib2023",
    "abdomenatlas": "abdomenatlas-1.0-mini",
}

# Case 1, size tiny, seed 0: image of each channel, then the label. PHANTOM_VERSION changes with any of them.
GOLDEN = {
    "crc": ["d3c6684204e3281a", "8712bb2b51d833ed"],
    "brats": [
        "60db98ca761c706c",
        "47a84de720ece151",
        "9530facd2fa02a43",
        "9ed7619c63cc7e2d",
        "15094d5d61661bf5",
    ],
    "aiib": ["23076031fc1bc349", "23d24462dc76b649"],
    "abdomenatlas": ["5b108922c2160d6a", "e4b80d80c36bd2c3"],
    "msd": ["d3c0f376d64a73b2", "068e9b0a020bc135", "099706d2c83b6df9"],
}


def tree_digest(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def described(root: Path) -> dict:
    return json.loads((root / "phantom.json").read_text())


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Twelve tiny cases of each kind with their traps, as `all` writes them."""
    base = tmp_path_factory.mktemp("all") / "data"
    generate("all", base)
    return {kind: base / folder for kind, folder in FOLDERS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_of_a_case_are_those_of_this_version(kind: str) -> None:
    assert PHANTOM_VERSION == 1
    images, labels, _ = make_case(Case(kind, "tiny", 0, 1))
    digests = [array_sha256(image, "<i2")[:16] for image in images.values()]
    assert [*digests, array_sha256(labels, "<u1")[:16]] == GOLDEN[kind]


@pytest.mark.ci
def test_files_do_not_depend_on_number_order_or_workers(tmp_path: Path) -> None:
    few = generate("abdomenatlas", tmp_path / "few", cases=2)
    many = generate("abdomenatlas", tmp_path / "many", cases=3, workers=2)
    again = generate("abdomenatlas", tmp_path / "again", cases=3)
    assert tree_digest(many) == tree_digest(again)
    first = tree_digest(few)
    assert {k: v for k, v in first.items() if k != "phantom.json"}.items() <= tree_digest(many).items()
    other = generate("abdomenatlas", tmp_path / "other", cases=2, seed=1)
    drawn = [name for name in first if name.startswith("BDMAP_90000001")]
    assert drawn
    assert all(tree_digest(other)[name] != first[name] for name in drawn)


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_volumes_are_those_of_the_closed_forms(kind: str) -> None:
    case = Case(kind, "tiny", 0, 0)
    _, labels, analytic_ml = make_case(case)
    voxel_ml = math.prod(case.grid.spacing) / 1000
    assert set(analytic_ml) == set(LAYOUTS[kind].labels)
    checked = 0
    for value, analytic in analytic_ml.items():
        voxels = int((labels == value).sum())
        if voxels >= 500:
            checked += 1
            assert voxels * voxel_ml == pytest.approx(analytic, rel=0.05)
    assert checked


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["small", "full"])
def test_calibration_volumes_of_larger_sizes(kind: str, size: str) -> None:
    if size == "full" and kind in ("aiib", "abdomenatlas"):
        pytest.skip("needs several GB of memory")
    case = Case(kind, size, 0, 0)
    _, labels, analytic_ml = make_case(case)
    voxel_ml = math.prod(case.grid.spacing) / 1000
    for value, analytic in analytic_ml.items():
        voxels = int((labels == value).sum())
        tolerance = 0.02 if voxels >= 5000 else 0.05 if voxels >= 500 else None
        if tolerance:
            assert voxels * voxel_ml == pytest.approx(analytic, rel=tolerance)


@pytest.mark.ci
def test_phantom_json_says_all_that_was_promised(trapped: dict[str, Path]) -> None:
    for kind, root in trapped.items():
        content = described(root)
        assert {k: content[k] for k in ("schema_version", "kind", "version", "size", "seed")} == {
            "schema_version": 1, "kind": kind, "version": PHANTOM_VERSION, "size": "tiny", "seed": 0,
        }  # fmt: skip
        labelled = [case for case in content["cases"] if case["label_sha256"]]
        assert len(labelled) == 12
        assert [case["calibration"] for case in labelled] == [True] + [False] * 11
        for case in content["cases"]:
            assert set(case) == {
                "case", "patient", "site", "calibration", "traps", "shape_zyx", "spacing_mm", "orientation",
                "labels", "image_sha256", "label_sha256",
            }  # fmt: skip
            known = [entry["analytic_ml"] is not None for entry in case["labels"].values()]
            assert all(known) if case["calibration"] else not any(known)
            assert max(case["shape_zyx"]) <= 48


def test_every_trap_of_five_percent_is_in_the_twelve_tiny_cases(trapped: dict[str, Path]) -> None:
    for kind, root in trapped.items():
        laid = {trap for case in described(root)["cases"] for trap in case["traps"]}
        assert laid == {name for name, (period, _) in LAYOUTS[kind].traps.items() if period <= 20}
        assert described(root)["cases"][0]["traps"] == []


def test_sites_and_patients(trapped: dict[str, Path]) -> None:
    for root in trapped.values():
        labelled = [case for case in described(root)["cases"] if case["label_sha256"]]
        assert [i for i, case in enumerate(labelled) if case["site"] == "B"] == [4, 9]
    brats = described(trapped["brats"])["cases"]
    assert brats[7]["case"] == "BraTS-GLI-90006-001"
    assert brats[7]["patient"] == brats[6]["patient"]
    assert len({case["patient"] for case in brats}) == 11
    assert brats[4]["spacing_mm"][0] == pytest.approx(1.2 * brats[0]["spacing_mm"][0])


class TestContent:
    def labels(self, trapped: dict[str, Path], kind: str) -> dict[int, tuple[np.ndarray, np.ndarray, dict]]:
        root = trapped[kind]
        dataset = open_dataset(CARD_OF.get(kind, root), path=root)
        rows = {case["case"]: case for case in described(root)["cases"]}
        found = {}
        for index, name in enumerate(dataset.case_ids):
            found[index] = dataset.read_reference(name).array, dataset.read_image(name).array, rows[name]
        return found

    def by_trap(self, trapped: dict[str, Path], kind: str, trap: str) -> tuple[np.ndarray, np.ndarray, dict]:
        return next(entry for entry in self.labels(trapped, kind).values() if trap in entry[2]["traps"])

    def test_glioma(self, trapped: dict[str, Path]) -> None:
        for labels, image, row in self.labels(trapped, "brats").values():
            brain = (image != 0).all(axis=0)
            np.testing.assert_array_equal((image != 0).any(axis=0), brain)
            assert 0.1 < brain.mean() < 0.9
            assert not labels[~brain].any()
            assert image.min() >= 0
            if row["traps"] or row["site"] == "B":
                continue
            t2w, t2f, _, t1c = image
            assert np.median(t2f[labels == 2]) > np.median(t2f[brain & (labels == 0)])
            assert np.median(t2w[labels == 2]) > np.median(t2w[brain & (labels == 0)])
            assert np.median(t1c[labels == 3]) > np.median(t1c[brain & (labels == 0)])
            assert np.median(t1c[labels == 1]) < np.median(t1c[labels == 3])
        labels, _, _ = self.by_trap(trapped, "brats", "no_enhancing_tumour")
        assert not (labels == 3).any()
        assert (labels == 1).any()
        labels, _, _ = self.by_trap(trapped, "brats", "tiny_lesion")
        assert 0 < (labels > 0).sum() < 50

    def test_colon(self, trapped: dict[str, Path]) -> None:
        for labels, image, row in self.labels(trapped, "crc").values():
            volume = labels.sum() * math.prod(row["spacing_mm"]) / 1000
            slices = int(labels.any(axis=(1, 2)).sum())
            if "empty_label" in row["traps"]:
                assert volume == 0
            elif "thin_tumour" in row["traps"]:
                assert 0 < slices < 3
            elif not row["calibration"]:
                assert 0.45 < volume < 20.5
            assert image.min() < -800
            assert image.max() > 150

    def test_airways(self, trapped: dict[str, Path]) -> None:
        for labels, image, row in self.labels(trapped, "aiib").values():
            pieces = ndimage.label(labels, structure=np.ones((3, 3, 3)))[1]
            assert (pieces > 1) == ("satellites" in row["traps"])
            assert np.median(image[0][labels == 1]) < -650  # thin branches are blurred

    def test_abdomen(self, trapped: dict[str, Path]) -> None:
        labels, _, row = self.by_trap(trapped, "abdomenatlas", "cut_field_of_view")
        assert row["shape_zyx"][0] < 20
        absent = [v for v in range(1, 10) if not (labels == v).any()]
        assert absent
        orders = {
            row["orientation"]
            for _, _, row in self.labels(trapped, "abdomenatlas").values()
            if "other_axis_order" in row["traps"]
        }
        assert len(orders) == 3
        assert "RAS" not in orders

    def test_abutting_parts(self, trapped: dict[str, Path]) -> None:
        for labels, _, row in self.labels(trapped, "msd").values():
            touching = ndimage.binary_dilation(labels == 1) & (labels == 2)
            assert touching.any() != row["calibration"]


def test_another_axis_order_leaves_the_canonical_arrays_alone(trapped: dict[str, Path]) -> None:
    root = trapped["abdomenatlas"]
    dataset = open_dataset(root)
    for row in described(root)["cases"]:
        stored = read_volume(dataset.case(row["case"]).images["CT"], raw=True)
        assert list(stored.array.shape) == row["shape_zyx"]
        assert stored.spacing_mm == pytest.approx(tuple(row["spacing_mm"]))
        assert array_sha256(to_canonical(stored).array, "<i2") == row["image_sha256"]["CT"]
        labels = to_canonical(dataset.read_reference(row["case"])).array
        assert array_sha256(labels, "<u1") == row["label_sha256"]


def test_the_combined_map_differs_only_where_the_trap_says(tmp_path: Path) -> None:
    def maps(case: Case) -> tuple[np.ndarray, np.ndarray]:
        write_case(case, tmp_path)
        folder = tmp_path / case.name
        masks = folder / "segmentations"
        united = sum(v * read_volume(masks / f"{n}.nii.gz").array for v, n in case.layout.labels.items())
        return read_volume(folder / "combined_labels.nii.gz").array, united

    combined, masks = maps(Case("abdomenatlas", "tiny", 0, 17))
    assert set(masks[combined != masks].tolist()) == {5}
    for case in (Case("abdomenatlas", "tiny", 0, 17, with_traps=False), Case("abdomenatlas", "tiny", 0, 2)):
        np.testing.assert_array_equal(*maps(case))


def test_without_traps_the_other_cases_stay_the_same() -> None:
    for kind in KINDS:
        with_traps, without = Case(kind, "tiny", 0, 2), Case(kind, "tiny", 0, 2, with_traps=False)
        assert with_traps.traps == ()
        np.testing.assert_array_equal(make_case(with_traps)[1], make_case(without)[1])


class TestDestination:
    def test_nothing_is_written_over(self, tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        assert generate("msd", tmp_path / "x", cases=1).parent == tmp_path / "x"
        before = tree_digest(tmp_path)
        for target in (tmp_path / "x", tmp_path):
            with pytest.raises(SegbenchError) as caught:
                generate("msd", target, cases=1)
            assert (caught.value.code, caught.value.exit_code) == ("SB337", 4)
        (tmp_path / "y" / FOLDERS["aiib"]).mkdir(parents=True)
        (tmp_path / "y" / FOLDERS["aiib"] / "file").touch()
        with pytest.raises(SegbenchError):
            generate("all", tmp_path / "y", cases=1)
        assert sorted(p.name for p in (tmp_path / "y").iterdir()) == [FOLDERS["aiib"]]
        assert {k: v for k, v in tree_digest(tmp_path).items() if not k.startswith("y")} == before

    def test_a_failure_leaves_nothing_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from segbench.data.phantoms import writing

        def broken(case: Case, root: Path) -> dict:
            raise RuntimeError("no more")

        monkeypatch.setattr(writing, "write_case", broken)
        with pytest.raises(RuntimeError):
            generate("crc", tmp_path / "x", cases=2)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            ({"kind": "bratz"}, "SB101"),
            ({"size": "huge"}, "SB104"),
            ({"cases": 0}, "SB104"),
            ({"seed": -1}, "SB104"),
        ],
    )
    def test_arguments_that_cannot_be(self, tmp_path: Path, arguments: dict, code: str) -> None:
        with pytest.raises(SegbenchError) as caught:
            generate(**({"kind": "crc", "destination": tmp_path / "x"} | arguments))
        assert caught.value.code == code
        assert list(tmp_path.iterdir()) == []


def test_the_four_mission_cards_find_their_phantoms(trapped: dict[str, Path]) -> None:
    base = trapped["crc"].parent
    for slug in CARD_OF.values():
        dataset = open_dataset(slug, data_dir=base)
        assert dataset.stands_in
        assert len(dataset.case_ids) == 12
        assert not [f for f in dataset.layout_findings if f.severity != "info"]


class TestPhantomCards:
    @pytest.mark.ci
    @pytest.mark.parametrize("kind", ["brats", "msd"])
    def test_generated_on_first_use_and_found_on_the_second(self, kind: str, tmp_path: Path) -> None:
        dataset = open_dataset(f"phantom-{kind}", data_dir=tmp_path)
        assert len(dataset.case_ids) == 12
        assert dataset.is_generated
        assert not dataset.stands_in
        before = tree_digest(tmp_path)
        again = open_dataset(f"phantom-{kind}", data_dir=tmp_path)
        assert again.case_ids == dataset.case_ids
        assert tree_digest(tmp_path) == before
        assert not [f for f in dataset.layout_findings if f.code == "SB305"]

    @pytest.mark.ci
    @pytest.mark.parametrize("kind", ["crc", "msd"])
    def test_a_lost_race_is_no_failure(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from segbench.data.phantoms import writing

        real = writing.os.rename

        def beaten(source: Path, target: Path) -> None:
            monkeypatch.setattr(writing.os, "rename", real)
            generate(kind, target, cases=12, traps=False)  # another process was faster
            real(source, target)

        monkeypatch.setattr(writing.os, "rename", beaten)
        lost = open_dataset(f"phantom-{kind}", data_dir=tmp_path)
        assert len(lost.case_ids) == 12
        assert [p.name for p in tmp_path.iterdir()] == [f"phantom-{kind}"]
        assert open_dataset(f"phantom-{kind}", data_dir=tmp_path).root == lost.root


def test_the_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(build_app(), ["data", "phantom", *arguments])
        return done.exit_code, done.stdout, done.stderr

    code, out, _ = run("msd", str(tmp_path / "a"), "--cases", "2", "--no-traps", "--json", "--no-progress")
    tree = json.loads(out)["trees"][0]
    assert (code, tree["cases"]) == (0, ["phantom_000", "phantom_001"])
    assert len(open_dataset(tree["root"]).case_ids) == 2
    code, _, err = run("msd", str(tmp_path / "a"))
    assert (code, "SB337" in err) == (4, True)
    code, _, err = run("msq", str(tmp_path / "b"))
    assert (code, "'msd'" in err) == (2, True)


@pytest.mark.slow
def test_small_abdomen_is_neither_trivial_nor_hopeless(tmp_path: Path) -> None:
    from segbench.data.baselines import fit

    root = generate("abdomenatlas", tmp_path / "x", "small", 32, traps=False)
    dataset = open_dataset(root)
    train, test = dataset.case_ids[:24], dataset.case_ids[24:]
    dice = {}
    for name in ("intensity", "mean-atlas", "atlas-intensity"):
        baseline = fit(name, dataset, train)
        scores = []
        for case in test:
            predicted, reference = baseline.predict(case), dataset.read_reference(case).array
            for value in dataset.card.foreground:
                a, b = predicted == value, reference == value
                scores.append(2 * (a & b).sum() / max(1, a.sum() + b.sum()))
        dice[name] = float(np.mean(scores))
    assert dice["intensity"] < 0.05 < dice["mean-atlas"] < dice["atlas-intensity"] < 0.75
