"""Every check of verification: the defect is planted in a tree of phantoms and must be the only finding."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from segbench.data.phantoms import generate

SLUGS = {
    "crc": "crc-2000",
    "brats": "brats2023-gli",
    "aiib": "aiib2023",
    "abdomenatlas": "abdomenatlas-1.0-mini",
}
CASES = 6


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Callable[[str], Path]:
    """Trees without traps, made once."""
    base = tmp_path_factory.mktemp("phantoms")
    made: dict[str, Path] = {}

    def tree(kind: str) -> Path:
        if kind not in made:
            made[kind] = generate(kind, base / kind, cases=CASES, traps=False)
        return made[kind]

    return tree


@dataclass
class Tree:
    """A copy of a tree of phantoms that may be damaged."""

    kind: str
    root: Path
    options: list[str] = field(default_factory=list)
    real: bool = False

    def files(self, pattern: str) -> list[Path]:
        found = sorted(self.root.glob(pattern))
        assert found, pattern
        return found

    def edit(self, path: Path, change=None, *, dtype=None, affine=None, header=None) -> None:
        """Rewrite a file with other voxels (file order x, y, z), type, affine or header fields."""
        image = nib.load(path)
        array = np.array(np.asarray(image.dataobj))
        array = array if change is None else change(array)
        new = nib.Nifti1Image(array, image.affine if affine is None else affine, image.header, dtype=dtype)
        if dtype is not None or change is not None:
            new.set_data_dtype(dtype or array.dtype)
        if affine is not None:
            new.set_sform(affine, 1)
            new.set_qform(affine, 1)
        if header is not None:
            header(new.header)
        data = new.to_bytes()
        path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)

    def patch(self, path: Path, at: int, data: bytes) -> None:
        """Overwrite bytes of the uncompressed file."""
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[at : at + len(data)] = data
        path.write_bytes(gzip.compress(bytes(content)))

    def json(self, change) -> None:
        path = self.root / "dataset.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


def verified(tree: Tree, tmp_path: Path) -> tuple[int, dict]:
    if tree.real:
        (tree.root / "phantom.json").unlink()
    status, text = verify(tree, "--json")
    assert status in {0, 4}, text
    return status, json.loads(text)


def verify(tree: Tree, *flags: str) -> tuple[int, str]:
    """Exit status and standard output of `segbench data verify`; the second reading is remembered."""
    from segbench.cli.main import build_app

    slug = SLUGS.get(tree.kind)
    target = [slug, "--path", str(tree.root)] if slug else [str(tree.root)]
    arguments = ["data", "verify", *target, "--no-progress", *tree.options, *flags]
    run = CliRunner().invoke(build_app(), arguments, env={"SEGBENCH_THREADS": "1"})
    return run.exit_code, run.stdout


def brief(report: dict) -> list[tuple[str, str, str | None, str | None]]:
    return [(f["code"], f["severity"], f["case"], f["file"]) for f in report["findings"]]


def shift(affine: np.ndarray, mm: float) -> np.ndarray:
    moved = affine.copy()
    moved[0, 3] += mm
    return moved


PLANTS: dict[str, tuple[str, Callable[[Tree], list[tuple[str, str, str | None, str | None]]]]] = {}


def plant(kind: str):
    """Register a defect: the function damages the tree and returns the findings it must give."""

    def register(function):
        PLANTS[function.__name__] = (kind, function)
        return function

    return register


def case_of(path: Path, tree: Tree) -> str:
    return {"msd": path.name.split(".")[0], "crc": path.name.split(".")[0]}.get(tree.kind, path.parent.name)


def at(tree: Tree, path: Path, code: str, severity: str = "error", case: str | None = None):
    return code, severity, case or case_of(path, tree), path.relative_to(tree.root).as_posix()


# ---- files


@plant("crc")
def empty_file(tree):
    path = tree.files("Image/*")[1]
    path.write_bytes(b"")
    return [at(tree, path, "SB201")]


@plant("crc")
def html_page(tree):
    path = tree.files("ROI/*")[1]
    path.write_bytes(b"<html>please log in</html>")
    return [at(tree, path, "SB202")]


@plant("crc")
def name_says_gzip(tree):
    path = tree.files("Image/*")[2]
    path.write_bytes(gzip.decompress(path.read_bytes()))
    return [at(tree, path, "SB203")]


@plant("brats")
def cut_in_the_middle(tree):
    path = tree.files("*/*t1c*")[0]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return [at(tree, path, "SB204")]


@plant("brats")
def flipped_trailer(tree):
    path = tree.files("*/*t2f*")[3]
    data = bytearray(path.read_bytes())
    data[-6] ^= 4
    path.write_bytes(bytes(data))
    return [at(tree, path, "SB205")]


@plant("brats")
def bytes_left_over(tree):
    path = tree.files("*/*seg*")[2]
    path.write_bytes(path.read_bytes() + b"\0" * 512)
    return [at(tree, path, "SB206")]


@plant("crc")
def complex_voxels(tree):
    path = tree.files("Image/*")[0]
    tree.patch(path, 70, np.array([32, 64], "<i2").tobytes())
    return [at(tree, path, "SB207")]


@plant("crc")
def bomb(tree):
    path = tree.files("Image/*")[0]
    tree.patch(path, 42, np.array([32767, 32767, 32767], "<i2").tobytes())
    return [at(tree, path, "SB208")]


@plant("crc")
def sheared(tree):
    path = tree.files("ROI/*")[0]
    tree.patch(path, 284, np.float32(0.4).tobytes())
    return [at(tree, path, "SB209")]


@plant("crc")
def scaling_of_nan(tree):
    path = tree.files("Image/*")[0]
    tree.patch(path, 112, np.float32(np.nan).tobytes())
    return [at(tree, path, "SB210")]


@plant("msd")
def nan_voxels(tree):
    path = tree.files("imagesTr/*")[0]

    def change(array):
        array = array.astype(np.float32)
        array[0, 0, 0] = np.nan
        return array

    tree.edit(path, change)
    return [at(tree, path, "SB211")]


@plant("msd")
def half_a_label(tree):
    path = tree.files("labelsTr/*")[0]
    tree.edit(path, lambda a: a.astype(np.float32) * 0.5)
    return [at(tree, path, "SB212")]


# ---- tree


@plant("brats")
def missing_channel(tree):
    path = tree.files("*/*t1n*")[1]
    path.unlink()
    return [at(tree, path, "SB303")]


@plant("abdomenatlas")
def missing_mask_and_combined(tree):
    folder = tree.files("BDMAP*")[1]
    (folder / "combined_labels.nii.gz").unlink()
    path = folder / "segmentations" / "spleen.nii.gz"
    path.unlink()
    return [at(tree, path, "SB303", case=folder.name)]


@plant("msd")
def listed_but_absent(tree):
    path = tree.files("labelsTr/*")[2]
    path.unlink()
    return [at(tree, path, "SB303"), ("SB305", "warning", None, None)]


@plant("msd")
def unlisted(tree):
    path = tree.files("labelsTr/*")[0].with_name("stranger.nii.gz")
    shutil.copy(tree.files("labelsTr/*")[0], path)
    return [at(tree, path, "SB304")]


@plant("crc")
def label_without_image(tree):
    path = tree.files("Image/*")[3]
    path.unlink()
    return [at(tree, tree.root / "ROI" / path.name, "SB304")]


@plant("crc")
def ids_that_differ_in_case(tree):
    for folder in ("Image", "ROI"):
        shutil.copy(tree.root / folder / "crc_0000.nii.gz", tree.root / folder / "CRC_0000.nii.gz")
    return [("SB306", "error", "crc_0000", None)]


@plant("crc")
def no_case_at_all(tree):
    shutil.rmtree(tree.root / "Image")
    (tree.root / "Image").mkdir()
    return [("SB311", "error", None, None)]


@plant("msd")
def broken_dataset_json(tree):
    (tree.root / "dataset.json").write_text("{ not json")
    return [("SB331", "error", None, "dataset.json")]


@plant("aiib")
def pseudo_labels(tree):
    goal = tree.root / "Val_semi_postprocess"
    (tree.root / "AIIB23_Train_T1").rename(goal)
    return [("SB330", "error", None, None)]


@plant("crc")
def unsafe_id(tree):
    for folder in ("Image", "ROI"):
        shutil.copy(tree.root / folder / "crc_0000.nii.gz", tree.root / folder / "a..b.nii.gz")
    return [("SB339", "error", None, None), ("SB304", "error", "a..b", None)]


@plant("brats")
def two_forms(tree):
    folder = tree.files("BraTS*")[0]
    for path in folder.iterdir():
        path.rename(folder / path.name.removeprefix(f"{folder.name}-"))
    return [("SB340", "info", None, None)]


# ---- grids


@plant("brats")
def shape(tree):
    path = tree.files("*/*t2w*")[0]
    tree.edit(path, lambda a: a[:-1])
    others = [p for p in sorted(path.parent.iterdir()) if p != path]
    return [at(tree, p, "SB307") for p in others]


@plant("crc")
def label_of_another_shape(tree):
    path = tree.files("ROI/*")[0]
    tree.edit(path, lambda a: a[:, :-2])
    return [at(tree, path, "SB307")]


@plant("crc")
def spacing(tree):
    path = tree.files("ROI/*")[0]
    affine = nib.load(path).affine
    tree.edit(path, affine=affine @ np.diag([1.0, 1.0, 1.01, 1.0]))
    return [at(tree, path, "SB308")]


@plant("crc")
def origin(tree):
    path = tree.files("ROI/*")[0]
    tree.edit(path, affine=shift(nib.load(path).affine, 2.0))
    return [at(tree, path, "SB309")]


@plant("crc")
def origin_a_little(tree):
    path = tree.files("ROI/*")[0]
    image = nib.load(path)
    tree.edit(path, affine=shift(image.affine, 0.1 * float(min(image.header.get_zooms()))))
    return [at(tree, path, "SB309", "warning")]


@plant("crc")
def label_in_another_order(tree):
    path = tree.files("ROI/*")[0]
    image = nib.load(path)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = image.shape[0] - 1
    tree.edit(path, lambda a: a[::-1], affine=image.affine @ flip)
    return [at(tree, path, "SB309", "warning")]


@plant("crc")
def forms_that_disagree(tree):
    path = tree.files("ROI/*")[0]
    affine = nib.load(path).affine
    tree.edit(path, header=lambda h: h.set_qform(shift(affine, 30.0), 1))
    return [at(tree, path, "SB310", "warning")]


@plant("msd")
def no_form_at_all(tree):
    found = []
    for folder in ("imagesTr", "labelsTr"):
        path = tree.files(f"{folder}/*")[0]
        tree.patch(path, 252, bytes(4))
        found.append(at(tree, path, "SB310", "warning"))
    return found


@plant("msd")
def unit_micrometre(tree):
    paths = [tree.files(f"{folder}/*")[0] for folder in ("imagesTr", "labelsTr")]
    for path in paths:
        tree.patch(path, 123, b"\3")
    return [at(tree, paths[0], "SB336", "warning")]  # said once a case


@plant("msd")
def unit_of_the_label_alone(tree):
    path = tree.files("labelsTr/*")[0]
    tree.patch(path, 123, b"\1")
    return [at(tree, path, "SB336", "warning"), at(tree, path, "SB308")]


@plant("msd")
def unit_unknown(tree):
    path = tree.files("labelsTr/*")[0]
    tree.patch(path, 123, b"\0")
    return [at(tree, path, "SB336", "info")]


@plant("msd")
def wide_spacing(tree):
    found = []
    for folder in ("imagesTr", "labelsTr"):
        path = tree.files(f"{folder}/*")[0]
        tree.edit(path, affine=np.diag([1.0, 1.0, 25.0, 1.0]))
        found.append(at(tree, path, "SB329", "warning"))
    return found[:1]


@plant("msd")
def few_slices(tree):
    for folder in ("imagesTr", "labelsTr"):
        path = tree.files(f"{folder}/*")[0]
        tree.edit(path, lambda a: a[:, :, a.shape[2] // 2 :][:, :, :5])
    image = tree.files("imagesTr/*")[0]
    return [at(tree, image, "SB329", "warning")]


@plant("brats")
def shape_unlike_the_card(tree):
    tree.real = True
    images = [p.parent / f"{p.parent.name}-t2w.nii.gz" for p in tree.files("*/*seg*")]
    return [("SB305", "warning", None, None), *(at(tree, p, "SB329", "warning") for p in images)]


# ---- voxels


@plant("brats")
def constant_channel(tree):
    path = tree.files("*/*t1c*")[0]
    tree.edit(path, np.zeros_like)
    return [at(tree, path, "SB313")]


@plant("crc")
def shifted_hounsfield(tree):
    path = tree.files("Image/*")[0]
    tree.edit(path, lambda a: (a - a.min()).astype(np.int16))
    return [at(tree, path, "SB314", "warning")]


@plant("crc")
def undeclared_label(tree):
    path = tree.files("ROI/*")[0]

    def change(array):
        array[0, 0, 0] = 7
        return array

    tree.edit(path, change)
    return [at(tree, path, "SB315")]


@plant("abdomenatlas")
def mask_of_two(tree):
    folder = tree.files("BDMAP*")[0]
    path = folder / "segmentations" / "liver.nii.gz"
    tree.edit(path, lambda a: a * 2)
    return [at(tree, path, "SB315", case=folder.name)]


@plant("brats")
def old_brats_value(tree):
    path = tree.files("*/*seg*")[0]
    tree.edit(path, lambda a: np.where(a == 3, 4, a).astype(a.dtype))
    return [at(tree, path, "SB327")]


@plant("msd")
def float_labels(tree):
    path = tree.files("labelsTr/*")[0]
    tree.edit(path, lambda a: a.astype(np.float32))
    return [at(tree, path, "SB317", "info")]


@plant("msd")
def empty_label(tree):
    path = tree.files("labelsTr/*")[0]
    tree.edit(path, np.zeros_like)
    return [at(tree, path, "SB318", "warning")]


@plant("msd")
def absent_class(tree):
    for path in tree.files("labelsTr/*"):
        tree.edit(path, lambda a: np.where(a == 2, 0, a).astype(a.dtype))
    return [("SB319", "warning", None, None)]


@plant("msd")
def same_image(tree):
    first, second = tree.files("imagesTr/*")[:2]
    labels = tree.files("labelsTr/*")
    image = nib.load(first)
    # stored in another order of axes, another type and compression: the content is the same
    flip = np.diag([1.0, -1, 1, 1])
    flip[1, 3] = image.shape[1] - 1
    for source, goal in ((first, second), (labels[0], labels[1])):
        array = np.asarray(nib.load(source).dataobj)[:, ::-1].astype(np.float64)
        nib.save(nib.Nifti1Image(array, image.affine @ flip), goal)
        tree.patch(goal, 123, b"\2")
    return [at(tree, second, "SB321", "warning"), at(tree, labels[1], "SB317", "info")]


@plant("brats")
def same_channel_twice(tree):
    folder = tree.files("BraTS*")[0]
    path = folder / f"{folder.name}-t1c.nii.gz"
    shutil.copy(folder / f"{folder.name}-t1n.nii.gz", path)
    return [at(tree, path, "SB321", "warning")]


@plant("msd")
def same_label(tree):
    first, second = tree.files("labelsTr/*")[:2]
    image = tree.files("imagesTr/*")
    shutil.copy(first, second)
    affine = nib.load(image[0]).affine
    shape_now = nib.load(first).shape
    rng = np.random.default_rng(0)
    tree.edit(
        image[1], lambda a: rng.integers(0, 999, (*shape_now, *a.shape[3:])).astype(np.int16), affine=affine
    )
    return [at(tree, second, "SB322", "warning")]


@plant("abdomenatlas")
def combined_that_differs(tree):
    folder = tree.files("BDMAP*")[0]
    path = folder / "combined_labels.nii.gz"

    def change(array):
        array[:4, :4, :4] = 5
        return array

    tree.edit(path, change)
    return [at(tree, path, "SB325", "warning", case=folder.name)]


@plant("abdomenatlas")
def masks_that_overlap(tree):
    folder = tree.files("BDMAP*")[0]
    liver, stomach = (folder / "segmentations" / f"{n}.nii.gz" for n in ("liver", "stomach"))
    inside = np.argwhere(np.asarray(nib.load(stomach).dataobj) > 0)[:20]

    def change(array):
        array[tuple(inside.T)] = 1
        return array

    tree.edit(liver, change)  # stomach is painted later and wins, so the combined labels stay right
    return [at(tree, stomach, "SB326", "warning", case=folder.name)]


@plant("msd")
def a_name_in_the_header(tree):
    path = tree.files("imagesTr/*")[0]
    tree.patch(path, 148, b"DOE^JANE 1970-01-01")
    return [at(tree, path, "SB328", "warning")]


@plant("msd")
def a_comment_extension(tree):
    path = tree.files("labelsTr/*")[0]
    tree.edit(
        path, header=lambda h: h.extensions.append(nib.nifti1.Nifti1Extension("comment", b"seen by Dr X"))
    )
    return [at(tree, path, "SB328", "warning")]


@plant("msd")
def a_dicom_extension(tree):
    path = tree.files("labelsTr/*")[0]
    data = gzip.decompress(path.read_bytes())
    head = bytearray(data[:352])
    head[348] = 1
    head[108:112] = np.float32(352 + 32).tobytes()
    block = np.array([32, 2], "<i4").tobytes() + b"DOE^JANE".ljust(24, b"\0")
    path.write_bytes(gzip.compress(bytes(head) + block + data[352:]))
    return [at(tree, path, "SB328", "warning")]


# ---- splits


def split_file(tree: Tree, *, slug: str, acknowledged: bool = False, **parts: list[str]) -> None:
    path = tree.root.parent / "split.json"
    fold = {"train": [], "validation": [], "test": []} | parts
    path.write_text(
        json.dumps(
            {
                "schema_version": 1,
                "dataset": slug,
                "name": "mine",
                "kind": "list",
                "source": "test",
                "acknowledged_leaks": acknowledged,
                "folds": [fold],
            }
        )
    )
    tree.options = ["--split", str(path)]


def brats_pair(tree: Tree) -> tuple[list[str], str]:
    """All cases, and the second visit of the first patient, which is made."""
    folder = tree.files("BraTS*")[0]
    twin = folder.with_name(folder.name[:-3] + "009")
    shutil.copytree(tree.files("BraTS*")[1], twin)
    for path in twin.iterdir():
        path.rename(twin / (twin.name + path.name[len(folder.name) :]))
        path = twin / (twin.name + path.name[len(folder.name) :])
        if "seg" not in path.name:
            tree.edit(path, lambda a: (a + (a > 0)).astype(a.dtype))
        else:
            tree.edit(path, lambda a: np.roll(a, 1, 0))
    return [p.name for p in tree.files("BraTS*")], twin.name


@plant("brats")
def patient_in_two_parts(tree):
    cases, twin = brats_pair(tree)
    split_file(tree, slug="brats2023-gli", train=[c for c in cases if c != twin], test=[twin])
    return [("SB323", "error", twin, None)]


@plant("brats")
def patient_in_two_parts_acknowledged(tree):
    cases, twin = brats_pair(tree)
    split_file(
        tree, slug="brats2023-gli", train=[c for c in cases if c != twin], test=[twin], acknowledged=True
    )
    return [("SB323", "warning", twin, None)]


@plant("crc")
def unknown_id(tree):
    cases = [p.name.split(".")[0] for p in tree.files("Image/*")]
    split_file(tree, slug="crc-2000", train=cases[1:], test=[cases[0], "nobody"])
    return [("SB324", "error", "nobody", None)]


@plant("crc")
def id_twice(tree):
    cases = [p.name.split(".")[0] for p in tree.files("Image/*")]
    split_file(tree, slug="crc-2000", train=cases, test=cases[:1])
    return [("SB324", "error", cases[0], None)]


@plant("crc")
def uncovered_id(tree):
    cases = [p.name.split(".")[0] for p in tree.files("Image/*")]
    split_file(tree, slug="crc-2000", train=cases[2:], test=cases[:1])
    return [("SB324", "warning", cases[1], None)]


@plant("crc")
def split_of_another_dataset(tree):
    split_file(tree, slug="aiib2023", train=["a"])
    return [("SB324", "error", None, None)]


@plant("msd")
def class_absent_from_training(tree):
    paths = tree.files("labelsTr/*")
    for path in paths[:-1]:
        tree.edit(path, lambda a: np.where(a == 2, 0, a).astype(a.dtype))
    cases = [p.name.split(".")[0] for p in paths]
    split_file(tree, slug="phantom", train=cases[:-1], test=cases[-1:])
    return [("SB319", "warning", None, None)]


@plant("msd")
def same_image_in_two_parts(tree):
    first, second = tree.files("imagesTr/*")[:2]
    labels = tree.files("labelsTr/*")
    shutil.copy(first, second)
    shutil.copy(labels[0], labels[1])
    cases = [p.name.split(".")[0] for p in labels]
    split_file(tree, slug="phantom", train=[cases[0], *cases[2:]], test=[cases[1]])
    return [at(tree, second, "SB321")]


ANY_PLACE = {"SB306", "SB330", "SB339", "SB340", "SB311"}
"""Codes whose file (and case) the adapter names in its own way; its tests hold it to that."""


@pytest.mark.ci
@pytest.mark.parametrize("name", sorted(PLANTS))
def test_planted(name, phantoms, tmp_path):
    kind, damage = PLANTS[name]
    tree = Tree(kind, tmp_path / "tree")
    shutil.copytree(phantoms(kind), tree.root)
    expected = damage(tree)
    status, report = verified(tree, tmp_path)
    found = brief(report)
    if {code for code, *_ in expected} & ANY_PLACE:
        assert {(c, s) for c, s, *_ in found} == {(c, s) for c, s, *_ in expected}, report["findings"]
    else:
        assert sorted(map(str, found)) == sorted(map(str, expected)), report["findings"]
    errors = any(severity == "error" for _, severity, *_ in expected)
    assert status == (4 if errors else 0)
    for entry in report["findings"]:
        assert entry["message"] and entry["check"] and (entry["mend"] or entry["severity"] == "info")
    assert_told(verify(tree, "-v"), status, report["findings"])


def assert_told(printed: tuple[int, str], status: int, findings: list[dict]) -> None:
    """What a person reads: each code with its severity, the case and file, and how to mend it."""
    assert printed[0] == status
    for entry in findings:
        word = "note" if entry["severity"] == "info" else entry["severity"]
        section = printed[1].split(f"{word}[{entry['code']}] ")[1].split("] ")[0]
        place = " ".join(part for part in (entry["case"], entry["file"]) if part)
        assert place in section and entry["message"] in section
        assert "\n  fix: " in section or entry["severity"] == "info"


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["crc", "brats", "aiib", "abdomenatlas", "msd"])
def test_clean(kind, phantoms, tmp_path):
    tree = Tree(kind, phantoms(kind), options=["--strict"])
    status, report = verified(tree, tmp_path)
    assert status == 0
    assert report["counts"]["error"] == report["counts"]["warning"] == 0, report["findings"]
    assert report["cases_found"] == CASES


@pytest.mark.parametrize("plant_name", ["origin_a_little", "empty_label"])
def test_strict_makes_warnings_count(plant_name, phantoms, tmp_path):
    kind, damage = PLANTS[plant_name]
    tree = Tree(kind, tmp_path / "tree", options=["--strict"])
    shutil.copytree(phantoms(kind), tree.root)
    damage(tree)
    assert verified(tree, tmp_path)[0] == 4


def test_strict_leaves_infos_alone(phantoms, tmp_path):
    tree = Tree("msd", tmp_path / "tree", options=["--strict"])
    shutil.copytree(phantoms("msd"), tree.root)
    float_labels(tree)
    status, report = verified(tree, tmp_path)
    assert status == 0 and report["counts"] == {"error": 0, "warning": 0, "info": 1}
