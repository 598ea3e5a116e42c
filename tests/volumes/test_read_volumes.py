"""Valid files of every kind are read, and read as nibabel reads them."""

from __future__ import annotations

import gzip
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
from nifti_bytes import CODES, extension, header, nifti, write

from segbench.volumes import read_header, read_label_map, read_volume

AFFINE = np.array(
    [[-0.8, 0.0, 0.1, 90.0], [0.0, 0.9, 0.0, -126.5], [0.1 * 8 / 15, 0.0, 1.5, -72.25], [0, 0, 0, 1]]
)
AFFINE[:3, 0] = [-0.8, 0, 0.8 * 0.1 / 1.5]  # columns x and z at right angles
SHAPE = (4, 5, 6)


def ramp(kind: str) -> np.ndarray:
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 100
    return (values - (30 if kind[0] in "if" else 0)).astype(kind)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", sorted(CODES))
def test_every_type_order_and_version_as_nibabel_reads_it(tmp_path, name, order, version, kind):
    path = write(tmp_path / name, nifti(ramp(kind), version=version, order=order, affine=AFFINE))
    ours, theirs = read_volume(path, raw=True), nib.load(path)
    stored = np.asarray(theirs.dataobj)
    assert np.array_equal(ours.array, stored.T)
    assert ours.array.dtype == stored.dtype.newbyteorder("=")
    assert ours.array.flags.c_contiguous and ours.array.dtype.isnative
    assert np.allclose(ours.affine, theirs.affine, atol=1e-6)
    assert ours.spacing_mm == pytest.approx(theirs.header.get_zooms()[::-1], rel=1e-6)
    assert read_volume(path).array.dtype == np.float32


def test_axes_are_reversed(tmp_path):
    path = write(tmp_path / "x.nii", nifti(ramp("i2")))
    volume, image = read_volume(path), nib.load(path)
    assert volume.array.shape == (4, 5, 6)
    assert volume.array[1, 2, 3] == image.dataobj[3, 2, 1]
    assert volume.shape_zyx == (4, 5, 6)


@pytest.mark.parametrize(
    ("dims", "shape"),
    [((6, 5, 4, 1, 1), (4, 5, 6)), ((6, 5), (1, 5, 6)), ((6,), (1, 1, 6)), ((6, 5, 1, 1), (1, 5, 6))],
)
def test_trailing_axes_of_length_one_are_dropped(tmp_path, dims, shape):
    data = header(dims) + np.arange(np.prod(shape), dtype="<i2").tobytes()
    volume = read_volume(write(tmp_path / "x.nii.gz", data))
    assert volume.array.shape == shape


def test_channels_come_first(tmp_path):
    stack = np.stack([ramp("i2"), 2 * ramp("i2")])
    path = write(tmp_path / "x.nii.gz", nifti(stack))
    volume = read_volume(path, allow_channels=True)
    assert np.array_equal(volume.array, stack)
    assert volume.shape_zyx == SHAPE
    assert np.array_equal(volume.array, np.asarray(nib.load(path).dataobj).T)


@pytest.mark.parametrize(("slope", "inter"), [(2.5, -7.0), (1.0, 3.0), (-1.0, 0.0), (1e-3, 1024.0)])
def test_scaling_is_applied(tmp_path, slope, inter):
    path = write(tmp_path / "x.nii.gz", nifti(ramp("i2"), scl_slope=slope, scl_inter=inter))
    expected = nib.load(path).get_fdata().T
    assert np.allclose(read_volume(path).array, expected, rtol=1e-6)
    assert read_volume(path, raw=True).array.dtype == np.float32  # there is no stored type to keep


@pytest.mark.parametrize(("slope", "inter"), [(0.0, 5.0), (1.0, 0.0)])
def test_no_scaling_keeps_the_stored_type(tmp_path, slope, inter):
    path = write(tmp_path / "x.nii", nifti(ramp("i2"), scl_slope=slope, scl_inter=inter))
    assert read_volume(path, raw=True).array.dtype == np.int16
    assert np.array_equal(read_volume(path).array, ramp("i2"))


def test_qform_is_used_without_sform(tmp_path):
    path = tmp_path / "x.nii.gz"
    image = nib.Nifti1Image(ramp("i2").T, None)
    image.set_qform(AFFINE, 1)
    image.set_sform(None, 0)
    nib.save(image, path)
    volume = read_volume(path)
    assert np.allclose(volume.affine, nib.load(path).affine, atol=1e-6)
    assert (volume.sform_code, volume.qform_code) == (0, 1)


def test_sform_wins_over_qform(tmp_path):
    image = nib.Nifti1Image(ramp("i2").T, AFFINE)
    image.set_qform(np.diag([0.9, 0.9, 1.5, 1.0]), 2)
    image.set_sform(AFFINE, 3)
    nib.save(image, tmp_path / "x.nii.gz")
    volume = read_volume(tmp_path / "x.nii.gz")
    assert np.allclose(volume.affine, AFFINE, atol=1e-6)
    assert (volume.sform_code, volume.qform_code) == (3, 2)


def test_extensions_are_skipped_and_told(tmp_path):
    blocks = extension(6, b"a comment") + extension(2, b"DOE^JANE" * 9)
    path = write(tmp_path / "x.nii.gz", nifti(ramp("i2"), extensions=blocks))
    assert np.array_equal(read_volume(path).array, ramp("i2"))
    assert read_header(path).extension_codes == (6, 2)


@pytest.mark.parametrize("cuts", [(100,), (348, 352), (1, 2, 3), (360, 400, 400)])
def test_several_gzip_members_are_one_stream(tmp_path, cuts):
    data = nifti(ramp("i2"))
    edges = [0, *cuts, len(data)]
    members = [gzip.compress(data[a:b]) for a, b in pairwise(edges)]
    path = tmp_path / "x.nii.gz"
    path.write_bytes(b"".join(members) + gzip.compress(b""))  # bgzip closes with an empty member
    assert np.array_equal(read_volume(path).array, ramp("i2"))


@pytest.mark.parametrize("level", [0, 1, 9])
def test_large_and_incompressible_data_pass_the_block_borders(tmp_path, level):
    rng = np.random.default_rng(0)
    array = rng.integers(-1000, 1000, (70, 128, 128), dtype=np.int16)
    array[:30] = 0
    path = write(tmp_path / "x.nii.gz", nifti(array), level=level)
    assert np.array_equal(read_volume(path, raw=True).array, array)


def test_header_alone(tmp_path):
    head = read_header(write(tmp_path / "x.nii.gz", nifti(ramp("f4"), affine=AFFINE, scl_slope=2.0)))
    assert (head.shape_zyx, head.channels, head.dtype.name, head.scaled) == (SHAPE, 1, "float32", True)
    assert head.payload_bytes == 4 * 5 * 6 * 4


@pytest.mark.parametrize(
    ("values", "dtype"), [([0, 1, 255], np.uint8), ([0, 256], np.uint16), ([0, 65535], np.uint16)]
)
@pytest.mark.parametrize("kind", ["u2", "i4", "f4", "i8", "f8"])
def test_labels_are_uint8_or_uint16(tmp_path, values, dtype, kind):
    array = np.resize(np.array(values), SHAPE).astype(kind)
    volume = read_label_map(write(tmp_path / "x.nii.gz", nifti(array)))
    assert volume.array.dtype == dtype
    assert np.array_equal(volume.array, array)


def test_scaled_labels_are_scaled_first(tmp_path):
    array = np.resize(np.array([0, 2, 4]), SHAPE).astype("i2")
    path = write(tmp_path / "x.nii", nifti(array, scl_slope=0.5))
    assert np.array_equal(read_label_map(path, labels={1, 2}).array, array // 2)


def test_labels_with_gaps_are_accepted_when_declared(tmp_path):
    array = np.resize(np.array([0, 2, 9]), SHAPE).astype("u1")
    path = write(tmp_path / "x.nii", nifti(array))
    assert read_label_map(path, labels=[2, 5, 9]).array.max() == 9
