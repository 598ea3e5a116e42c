"""NRRD and MetaImage: as SimpleITK reads them, but never truncated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from segbench.core.errors import SegbenchError
from segbench.volumes import read_header, read_label_map, read_volume

sitk = pytest.importorskip("SimpleITK")

KINDS = [
    np.uint8,
    np.int8,
    np.int16,
    np.uint16,
    np.int32,
    np.uint32,
    np.int64,
    np.uint64,
    np.float32,
    np.float64,
]


def image(array: np.ndarray, *, vector: bool = False):
    result = sitk.GetImageFromArray(array, isVector=vector)
    result.SetSpacing((0.7, 0.8, 2.5))
    result.SetOrigin((-90.0, 45.5, 12.25))
    result.SetDirection(Rotation.from_euler("xyz", (20, -10, 35), degrees=True).as_matrix().ravel().tolist())
    return result


def affine_of(scan) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array(scan.GetDirection()).reshape(3, 3) * np.array(scan.GetSpacing())
    affine[:3, 3] = scan.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine  # ITK is LPS


def noise(dtype=np.int16, shape=(5, 6, 7)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", KINDS)
def test_as_simpleitk_reads_it(tmp_path, ending, compressed, dtype):
    path = tmp_path / f"x.{ending}"
    sitk.WriteImage(image(noise(dtype)), str(path), useCompression=compressed)
    volume, theirs = read_volume(path, raw=True), sitk.ReadImage(str(path))
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(theirs))
    assert volume.array.dtype == dtype
    assert np.allclose(volume.affine, affine_of(theirs), atol=1e-9)
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert read_label_map(path).array.dtype == np.uint8


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
@pytest.mark.parametrize("compressed", [False, True])
def test_channels(tmp_path, ending, compressed):
    array = noise(np.float32, (5, 6, 7, 3))
    path = tmp_path / f"x.{ending}"
    sitk.WriteImage(image(array, vector=True), str(path), useCompression=compressed)
    volume = read_volume(path, allow_channels=True)
    assert np.array_equal(volume.array, np.moveaxis(array, -1, 0))
    with pytest.raises(SegbenchError, match="axes"):
        read_volume(path)


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("lost", [1, 8, 100, 600])
def test_cut_files_are_refused(tmp_path, ending, compressed, lost):
    path = tmp_path / f"x.{ending}"
    sitk.WriteImage(image(noise(shape=(20, 30, 30))), str(path), useCompression=compressed)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(SegbenchError) as caught:
        read_volume(path)
    assert caught.value.code == "SB204"


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
@pytest.mark.parametrize("compressed", [False, True])
def test_longer_files_are_refused(tmp_path, ending, compressed):
    path = tmp_path / f"x.{ending}"
    sitk.WriteImage(image(noise()), str(path), useCompression=compressed)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(SegbenchError) as caught:
        read_volume(path)
    assert caught.value.code == "SB206"


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_flipped_bits_are_refused(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    sitk.WriteImage(image(noise(shape=(20, 30, 30))), str(path), useCompression=True)
    good = path.read_bytes()
    expected = read_volume(path)
    for place in range(20):
        data = bytearray(good)
        data[-30 - place * 97] ^= 1 << (place % 8)
        path.write_bytes(bytes(data))
        try:
            volume = read_volume(path)
        except SegbenchError as error:
            assert error.code in {"SB204", "SB205", "SB206"}
        else:
            assert np.array_equal(volume.array, expected.array)


def nrrd(fields: str, payload: bytes) -> bytes:
    return ("NRRD0004\n" + fields + "\n\n").encode() + payload


PLAIN = "type: short\ndimension: 3\nsizes: 2 3 4\nencoding: raw\nendian: little"
DATA = np.arange(24, dtype="<i2").tobytes()


def test_nrrd_without_space_counts_as_lps(tmp_path):
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd(PLAIN + "\nspacings: 0.5 1 2", DATA))
    volume = read_volume(path)
    assert volume.array.shape == (4, 3, 2)
    assert np.array_equal(volume.affine, affine_of(sitk.ReadImage(str(path))))


def test_nrrd_big_endian_and_ras(tmp_path):
    fields = PLAIN.replace("little", "big") + (
        "\nspace: right-anterior-superior\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (4,5,6)"
        "\n# a remark\nkey:=value"
    )
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd(fields, np.arange(24, dtype=">i2").tobytes()))
    volume = read_volume(path)
    assert np.array_equal(volume.array.ravel(), np.arange(24))
    assert np.array_equal(volume.affine, [[1, 0, 0, 4], [0, 2, 0, 5], [0, 0, 3, 6], [0, 0, 0, 1]])
    assert read_header(path).format == "nrrd"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("encoding: raw", "encoding: bzip2"), "SB207"),
        (("encoding: raw", "encoding: ascii"), "SB207"),
        (("type: short", "type: block"), "SB207"),
        (("sizes: 2 3 4", "sizes: 2 -3 4"), "SB207"),
        (("sizes: 2 3 4", "sizes: 2 3 x"), "SB207"),
        (("sizes: 2 3 4", "sizes: 2 3.5 4"), "SB207"),
        (("dimension: 3", "dimension: 4"), "SB207"),
        (("endian: little", "encoding: raw"), "SB207"),
        (("endian: little", "endian: little\nsizes: 4 3 2"), "SB207"),
        (("endian: little", "endian: little\nspace directions: (1,0,0) (0,1,0)"), "SB207"),
        (("endian: little", "endian: little\nspace directions: (1,0,0) (0,1,0) (0,0,1) (0,0,1)"), "SB207"),
        (("endian: little", "endian: little\nspace directions: none none none"), "SB207"),
        (("sizes: 2 3 4", "sizes: 200000 300000 400000"), "SB208"),
        (("endian: little", "endian: little\nbyte skip: 7"), "SB207"),
        (("endian: little", "endian: little\ndata file: other.raw"), "SB202"),
        (("endian: little", "endian: little\nspace: scanner-xyz"), "SB207"),
        (("endian: little", "endian: little\nspacings: 1 0 1"), "SB209"),
        (("endian: little", "endian: little\nspace directions: (1,0,0) (1,0,0) (0,0,1)"), "SB209"),
        (("endian: little", "endian: little\nspace directions: (1,0,0) (0,nan,0) (0,0,1)"), "SB207"),
    ],
)
def test_nrrd_refusals(tmp_path, change, code):
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd(PLAIN.replace(*change), DATA))
    with pytest.raises(SegbenchError) as caught:
        read_volume(path)
    assert caught.value.code == code
    assert caught.value.expected is not None and caught.value.found is not None


GIVEN = PLAIN + "\nspace: LPS\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (4,5,6)"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (
            "space directions: (1,0,0) (0,2,0) (0,0,3)",
            ["2 2 2", "", "(", "(1,0,0) (0,2,0) (0,0,3", "((1,0,0)) (0,2,0) (0,0,3)",
             "(1,0,0) x (0,2,0) (0,0,3)",
             "(1,0) (0,2) (0,3)", "(1,,0,0) (0,2,0) (0,0,3)", "[1,0,0] [0,2,0] [0,0,3]",
             "(1,0,0)(0,2,0)(0,0,3)x",
             "(1_0,0,0) (0,2,0) (0,0,3)"],
        ),
        ("space origin: (4,5,6)", ["4 5 6", "", "(4,5)", "(4,5,6) (1,2,3)", "none", "(4,5,x)", "(4,5,inf)"]),
        ("space: LPS", ["", "lps lps"]),
        ("endian: little", ["", "middle"]),
        ("dimension: 3", ["", "three", "3 3"]),
    ],
)  # fmt: skip
def test_an_nrrd_field_that_is_there_and_malformed_is_refused_not_taken_as_absent(tmp_path, field, values):
    assert field in GIVEN
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd(GIVEN, DATA))
    read_volume(path)
    name = field.partition(":")[0]
    for line in [f"{name}: {value}" for value in values] + [field.replace(":", "")]:
        path.write_bytes(nrrd(GIVEN.replace(field, line), DATA))
        with pytest.raises(SegbenchError) as caught:
            read_volume(path)
        assert caught.value.code == "SB207", line


@pytest.mark.parametrize(
    "line", ["spacings: 1 2", "spacings: 1 2 3 4", "spacings:", "kinds: space", "units: mm"]
)
def test_an_nrrd_field_for_fewer_axes_is_refused(tmp_path, line):
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd(PLAIN + "\n" + line, DATA))
    with pytest.raises(SegbenchError) as caught:
        read_volume(path)
    assert caught.value.code == "SB207"


@pytest.mark.ci
@pytest.mark.parametrize(
    "field", ["space directions", "space origin", "space units", "units", "spacings", "sizes"]
)
@pytest.mark.parametrize("filling", ["(", ")", "none", "(1,0,0)", '"', " ", "1", "(((1"])
def test_a_header_of_a_megabyte_is_parsed_in_one_pass(tmp_path, field, filling):
    """A quadratic reading of these would not end within the hour."""
    path = tmp_path / "x.nrrd"
    text = PLAIN.replace("sizes: 2 3 4", "") if field == "sizes" else PLAIN
    path.write_bytes(nrrd(text + f"\n{field}: " + filling * (1_000_000 // len(filling)), DATA))
    with pytest.raises(SegbenchError) as caught:
        read_volume(path)
    assert caught.value.code == "SB207"


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_headers_that_never_end_and_foreign_content(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    start = b"NRRD0004\n" if ending == "nrrd" else b"ObjectType = Image\n"
    for content, code in (
        (start + b"a: b\n" * 9, "SB204"),
        (b"<html></html>", "SB202"),
        (b"\0" * 900, "SB202"),
    ):
        path.write_bytes(content)
        with pytest.raises(SegbenchError) as caught:
            read_volume(path)
        assert caught.value.code == code
    assert caught.value.expected is not None and caught.value.found is not None


def test_detached_mha_is_refused(tmp_path):
    path = tmp_path / "x.mha"
    path.write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = x.raw\n"
    )
    with pytest.raises(SegbenchError) as caught:
        read_volume(path)
    assert caught.value.code == "SB202"


MHA = (
    "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementSpacing = 0.5 1 2\nElementType = MET_SHORT\n"
    "ElementNumberOfChannels = 1\nElementDataFile = LOCAL\n"
)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("DimSize = 2 3 4", "DimSize = 2 3.5 4"), "SB207"),
        (("DimSize = 2 3 4", "DimSize = 24 1"), "SB207"),
        (("DimSize = 2 3 4", "DimSize = 2 3 4\nDimSize = 4 3 2"), "SB207"),
        (("Channels = 1", "Channels = -1"), "SB207"),
        (("Channels = 1", "Channels = 0"), "SB207"),
        (("ElementDataFile", "xElementDataFile"), "SB204"),
        (("ElementDataFile = LOCAL", "ElementDataFile = ../../other.raw"), "SB202"),
        (("0.5 1 2", "0.5 1"), "SB207"),
        (("0.5 1 2", "(0.5,1,2)"), "SB207"),
        (("0.5 1 2", ""), "SB207"),
        (("ElementSpacing = 0.5", "ElementSpacing 0.5"), "SB207"),
        (("Channels = 1", "Channels = 1 1"), "SB207"),
        (("Channels = 1", "Channels = 1\nCompressedData = maybe"), "SB207"),
        (("Channels = 1", "Channels = 1\nBinaryDataByteOrderMSB ="), "SB207"),
        (("Channels = 1", "Channels = 1\nRotation = 1 0 0"), "SB207"),
        (("Channels = 1", "Channels = 1\nDistanceUnits = furlong"), "SB207"),
        (("0.5 1 2", "1e308 1e308 1e308\nTransformMatrix = 9e307 0 0 0 1 0 0 0 1"), "SB209"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_mha_refusals(tmp_path, change, code):
    assert change[0] in MHA
    path = tmp_path / "x.mha"
    path.write_bytes(MHA.replace(*change).encode() + DATA)
    with pytest.raises(SegbenchError) as caught:
        read_volume(path)
    assert caught.value.code == code


def test_mha_of_one_time_step_is_a_volume(tmp_path):
    path = tmp_path / "x.mha"
    text = MHA.replace("NDims = 3", "NDims = 4").replace("2 3 4", "2 3 4 1").replace("0.5 1 2", "0.5 1 2 1")
    path.write_bytes(text.encode() + DATA)
    volume = read_volume(path, raw=True)
    assert np.array_equal(volume.array.ravel(), np.arange(24))
    assert volume.spacing_mm == (2, 1, 0.5)


@pytest.mark.parametrize("place", ["first", "last"])
def test_channels_of_a_slice_are_not_taken_for_its_depth(tmp_path, place):
    directions = ["(0.5,0,0)", "(0,1,0)"]
    directions.insert(0 if place == "first" else 2, "none")
    path = tmp_path / "x.nrrd"
    path.write_bytes(nrrd(PLAIN + f"\nspace: LPS\nspace directions: {' '.join(directions)}", DATA))
    volume = read_volume(path, allow_channels=True, raw=True)
    assert volume.array.shape == ((2, 1, 4, 3) if place == "first" else (4, 1, 3, 2))
    with pytest.raises(SegbenchError, match="axes"):
        read_volume(path)


@pytest.mark.ci
@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_whatever_a_header_says_nothing_but_a_refusal_escapes(tmp_path, ending):
    """Line breaks of other alphabets, deleted and doubled characters, absurd numbers."""
    good = nrrd(PLAIN + "\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace: LPS", DATA)
    good = good if ending == "nrrd" else MHA.encode() + DATA
    noise, path = np.random.default_rng(1), tmp_path / f"x.{ending}"
    for _ in range(400):
        data = bytearray(good)
        for _ in range(3):
            at = int(noise.integers(len(data) - len(DATA)))
            data[at : at + int(noise.integers(2))] = bytes(
                noise.choice(list(b"09-.e()\n\x0b\x85=: n"), 2).tolist()
            )
        path.write_bytes(bytes(data))
        try:
            volume = read_volume(path)
        except SegbenchError:
            continue
        assert np.isfinite(volume.affine).all() and volume.array.size
