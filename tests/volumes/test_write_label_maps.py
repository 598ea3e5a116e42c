"""What is written lies on its scan, in any viewer, and carries nothing of the scan's header but geometry."""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nifti_bytes import extension, nifti, write
from scipy.spatial.transform import Rotation

from segbench.volumes import Volume, read_header, read_label_map, read_volume, write_label_map

SHAPE = (7, 5, 6)
LABELS = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 5


def oblique(seed: int, *, mirrored: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * rng.uniform(0.4, 5.0, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    if mirrored:
        affine[:3, 0] *= -1
    return affine.astype(np.float32).astype(np.float64)


def grid(affine: np.ndarray, *, sform_code: int = 1, qform_code: int = 1) -> Volume:
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))[::-1]
    return Volume(
        np.zeros(SHAPE, np.int16),
        tuple(spacing.tolist()),
        affine,
        sform_code=sform_code,
        qform_code=qform_code,
    )


@pytest.mark.parametrize("name", ["p.nii.gz", "p.nii"])
@pytest.mark.parametrize(
    ("dtype", "highest", "stored"),
    [
        (np.uint8, 4, np.uint8),
        (np.int64, 255, np.uint8),
        (np.int32, 256, np.uint16),
        (np.uint16, 65535, np.uint16),
    ],
)
def test_round_trip(tmp_path, name, dtype, highest, stored):
    array = LABELS.astype(dtype)
    array[0, 0, 0] = highest
    like = grid(oblique(1))
    path = write_label_map(tmp_path / name, array, like)
    back = read_label_map(path)
    assert back.array.dtype == stored
    assert np.array_equal(back.array, array)
    assert np.allclose(back.affine, like.affine, atol=1e-6)
    assert back.spacing_mm == pytest.approx(like.spacing_mm, abs=1e-6)
    assert np.array_equal(np.asarray(nib.load(path).dataobj).T, array)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_sform_and_qform_say_the_same(tmp_path, seed, mirrored):
    affine = oblique(seed, mirrored=mirrored)
    path = write_label_map(tmp_path / "p.nii.gz", LABELS, grid(affine))
    image = nib.load(path)
    assert np.allclose(image.get_sform(), affine, atol=1e-6)
    assert np.allclose(image.get_qform(), affine, atol=2e-4)
    assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(
    ("angles", "order"),
    [((180, 0, 0), "xyz"), ((0, 180, 0), "xyz"), ((0, 0, 180), "xyz"), ((90, 90, 0), "zyx")],
)
def test_half_turns_keep_their_quaternion(tmp_path, angles, order):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler(order, angles, degrees=True).as_matrix()
    path = write_label_map(tmp_path / "p.nii", LABELS, grid(affine))
    assert np.allclose(nib.load(path).get_qform(), affine, atol=1e-5)


@pytest.mark.parametrize(
    ("codes", "written"),
    [((1, 1), (1, 1)), ((2, 0), (2, 1)), ((0, 3), (1, 3)), ((0, 0), (1, 1)), ((4, 2), (4, 2))],
)
def test_codes_are_those_of_the_scan(tmp_path, codes, written):
    like = grid(oblique(3), sform_code=codes[0], qform_code=codes[1])
    head = read_header(write_label_map(tmp_path / "p.nii.gz", LABELS, like))
    assert (head.sform_code, head.qform_code) == written


def test_no_qform_for_axes_that_are_not_at_right_angles(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 8e-4
    head = read_header(write_label_map(tmp_path / "p.nii.gz", LABELS, grid(affine)))
    assert (head.sform_code, head.qform_code) == (1, 0)
    assert np.allclose(head.affine, affine, atol=1e-6)


def test_nothing_personal_travels(tmp_path):
    """A name planted everywhere in a scan's header is in no byte of a label map written for it."""
    scan = nifti(
        LABELS.astype("i2"),
        affine=oblique(5),
        descrip=b"DOE^JANE 1970",
        aux_file=b"DOE^JANE",
        db_name=b"DOE^JANE",
        extensions=extension(2, b"DOE^JANE") + extension(6, b"DOE^JANE"),
    )
    like = read_volume(write(tmp_path / "scan.nii.gz", scan))
    for name in ("p.nii.gz", "p.nii"):
        path = write_label_map(tmp_path / name, LABELS, like)
        data = path.read_bytes()
        assert b"DOE" not in data
        if name.endswith(".gz"):
            assert data[3] == 0, "the gzip header must name no file"
            assert data[4:8] == bytes(4), "the gzip header must hold no time"
            data = gzip.decompress(data)
        assert b"DOE" not in data
        assert struct.unpack_from("<f", data, 108)[0] == 352.0
        assert not any(data[148:252]), "descrip and aux_file must be empty"
        assert not any(data[328:344]) and not any(data[4:32]) and not any(data[348:352])


def test_equal_labels_give_equal_bytes(tmp_path):
    first = write_label_map(tmp_path / "a.nii.gz", LABELS, grid(oblique(2))).read_bytes()
    second = write_label_map(
        tmp_path / "b.nii.gz", LABELS.astype(np.int16)[:, ::1], grid(oblique(2))
    ).read_bytes()
    assert first == second


def test_nothing_is_left_beside_the_target(tmp_path):
    write_label_map(tmp_path / "deep" / "p.nii.gz", LABELS, grid(np.eye(4)))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["p.nii.gz"]


def test_masks_may_be_boolean(tmp_path):
    path = write_label_map(tmp_path / "p.nii.gz", LABELS > 2, grid(np.eye(4)))
    assert np.array_equal(read_label_map(path).array, LABELS > 2)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (LABELS[:-1], "shape"),
        (LABELS[np.newaxis], "shape"),
        (LABELS - 1, "-1"),
        (LABELS + 65535, "65539"),
        (LABELS.astype(float), "integers"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, array, words):
    with pytest.raises(ValueError, match=words):
        write_label_map(tmp_path / "p.nii.gz", array, grid(np.eye(4)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["p.nrrd", "p.nii.gz.bak", "p"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"\.nii\.gz or \.nii"):
        write_label_map(tmp_path / name, LABELS, grid(np.eye(4)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_affine_survives_reading_and_writing(tmp_path_factory, seed, mirrored):
    like = grid(oblique(seed, mirrored=mirrored))
    path = write_label_map(tmp_path_factory.mktemp("w") / "p.nii", LABELS, like)
    assert np.allclose(read_label_map(path).affine, like.affine, rtol=1e-6, atol=1e-6)
