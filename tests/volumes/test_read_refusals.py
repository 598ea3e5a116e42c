"""Every file that cannot be trusted is refused with its own code, quickly and in little memory."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from nifti_bytes import extension, header, nifti, write

from segbench.core.errors import SegbenchError
from segbench.volumes import read_header, read_label_map, read_volume

ARRAY = (np.arange(10 * 12 * 14).reshape(10, 12, 14) % 7).astype("i2")
GOOD = nifti(ARRAY)
PACKED = gzip.compress(GOOD, mtime=0)
NOISE = gzip.compress(nifti(np.random.default_rng(0).integers(0, 9999, (40, 64, 64)).astype("i2")), mtime=0)


def refusal(path: Path, code: str, *, read=read_volume, **options) -> SegbenchError:
    """The error, after checking what every refusal must carry."""
    with pytest.raises(SegbenchError) as caught:
        read(path, **options)
    error = caught.value
    assert error.code == code, (error.code, error.message, error.expected, error.found)
    assert error.path is not None
    assert error.mend
    assert error.expected is not None and error.found is not None, error.message
    assert error.exit_code == 4
    assert error.message
    return error


def put(tmp_path: Path, data: bytes, name: str = "x.nii.gz") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


# ---- SB201 no usable file


def test_absent(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.nii.gz", "SB201").message


def test_empty(tmp_path):
    assert "empty" in refusal(put(tmp_path, b""), "SB201").message


def test_folder(tmp_path):
    (tmp_path / "x.nii.gz").mkdir()
    assert "folder" in refusal(tmp_path / "x.nii.gz", "SB201").message


def test_loop_of_links(tmp_path):
    (tmp_path / "a.nii.gz").symlink_to(tmp_path / "b.nii.gz")
    (tmp_path / "b.nii.gz").symlink_to(tmp_path / "a.nii.gz")
    assert "loop" in refusal(tmp_path / "a.nii.gz", "SB201").message


def test_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "x.nii.gz")
    assert "pipe" in refusal(tmp_path / "x.nii.gz", "SB201").message


@pytest.mark.parametrize("name", ["a\0b.nii", "x" * 300 + ".nii.gz", "file/x.nii.gz"])
def test_impossible_names(tmp_path, name):
    (tmp_path / "file").write_bytes(b"1")
    refusal(tmp_path / name, "SB201")


def test_device(tmp_path):
    refusal(Path(os.devnull), "SB201")


# ---- SB202 and SB203 not a volume, or not the one its name says


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html><body>log in</body></html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "git-lfs pointer"),
        (b'{"message": "not found"}', "JSON"),
        (b"NRRD0004\ntype: short\n\n", "NRRD"),
        (b"\0" * 128 + b"DICM" + b"\0" * 300, "DICOM"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 400, "PNG"),
        (b"PK\x03\x04" + b"\0" * 400, "zip"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "error answer"),
        (b"\0" * 5000, "zero bytes"),
        (b"just some words", "text"),
        (b"\x93NUMPY\x01\0" + b"\0" * 500, "NumPy"),
        (os.urandom(8) and bytes(range(200, 256)) * 8, "unknown"),
    ],
)
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_foreign_content_is_named(tmp_path, content, words, name):
    assert words in refusal(put(tmp_path, content, name), "SB202").message


def test_foreign_content_inside_gzip(tmp_path):
    assert "HTML" in refusal(put(tmp_path, gzip.compress(b"<html>" + b" " * 900)), "SB202").message
    assert "gzip" in refusal(put(tmp_path, gzip.compress(PACKED)), "SB202").message


@pytest.mark.parametrize("magic", [b"ni1\0", b"\0\0\0\0"])
def test_pair_of_files(tmp_path, magic):
    error = refusal(write(tmp_path / "x.nii.gz", nifti(ARRAY, magic=magic)), "SB202")
    assert ".nii.gz" in error.mend


@pytest.mark.parametrize(("version", "magic"), [(1, b"n+9\0"), (2, b"n+2\0\n\r\x1a\n")])
def test_damaged_magic(tmp_path, version, magic):
    refusal(write(tmp_path / "x.nii", nifti(ARRAY, version=version, magic=magic)), "SB202")


def test_names_that_lie(tmp_path):
    assert ".nii" in refusal(put(tmp_path, GOOD), "SB203").mend
    assert ".nii.gz" in refusal(put(tmp_path, PACKED, "x.nii"), "SB203").mend


# ---- SB204 cut short


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_gzip_cut(tmp_path, share):
    refusal(put(tmp_path, NOISE[: int(len(NOISE) * share)]), "SB204")


@pytest.mark.parametrize("lost", [1, 4, 8, 9, 20])
def test_gzip_without_its_trailer(tmp_path, lost):
    refusal(put(tmp_path, PACKED[:-lost]), "SB204")


@pytest.mark.parametrize("length", [1, 2, 3, 10, 18])
def test_gzip_of_a_few_bytes(tmp_path, length):
    refusal(put(tmp_path, PACKED[:length]), "SB204" if length > 1 else "SB202")


def test_share_of_what_is_missing(tmp_path):
    error = refusal(put(tmp_path, NOISE[: int(len(NOISE) * 0.6)]), "SB204")
    assert "% of the voxels are missing" in error.message


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("missing", [1, 2, 500, len(GOOD) - 352])
def test_payload_short_in_a_whole_stream(tmp_path, version, name, missing):
    data = nifti(ARRAY, version=version)
    code = {"SB207"} if missing == len(GOOD) - 352 else {"SB204"}
    with pytest.raises(SegbenchError) as caught:
        read_volume(write(tmp_path / name, data[:-missing]))
    assert caught.value.code in code | {"SB204"}


@pytest.mark.parametrize("length", [4, 100, 347])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_cut_inside_the_header(tmp_path, length, name):
    refusal(write(tmp_path / name, GOOD[:length]), "SB204")


def test_plain_file_says_what_is_missing(tmp_path):
    error = refusal(put(tmp_path, GOOD[: 352 + ARRAY.nbytes // 2], "x.nii"), "SB204")
    assert "50 % of the voxels are missing" in error.message


# ---- SB205 damaged


def test_wrong_crc(tmp_path):
    data = bytearray(PACKED)
    data[-8] ^= 1
    refusal(put(tmp_path, bytes(data)), "SB205")


def test_wrong_length_in_the_trailer(tmp_path):
    data = bytearray(PACKED)
    data[-1] ^= 1
    refusal(put(tmp_path, bytes(data)), "SB205")


def test_garbage_in_the_middle(tmp_path):
    data = bytearray(PACKED)
    data[len(data) // 2 : len(data) // 2 + 16] = b"\xff" * 16
    refusal(put(tmp_path, bytes(data)), "SB205")


@pytest.mark.parametrize("place", range(20))
def test_one_flipped_bit_never_passes(tmp_path, place):
    rng = np.random.default_rng(place)
    packed = gzip.compress(nifti(rng.integers(0, 50, (12, 20, 20)).astype("u1")), mtime=0)
    data = bytearray(packed)
    at = 12 + int(rng.integers(0, len(data) - 12))
    data[at] ^= 1 << int(rng.integers(0, 8))
    with pytest.raises(SegbenchError) as caught:
        read_volume(put(tmp_path, bytes(data)))
    assert caught.value.code in {"SB202", "SB204", "SB205", "SB206", "SB207", "SB208", "SB209", "SB210"}


# ---- SB206 more than announced


@pytest.mark.parametrize("surplus", [b"\0", b"x" * 1000])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_payload_left_over(tmp_path, surplus, name):
    assert f"{len(surplus):,} bytes" in refusal(write(tmp_path / name, GOOD + surplus), "SB206").message


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 512, b"junk", b"\x1f"])
def test_bytes_after_the_gzip_stream(tmp_path, tail):
    refusal(put(tmp_path, PACKED + tail), "SB206")


def test_second_member_with_payload(tmp_path):
    refusal(put(tmp_path, PACKED + gzip.compress(b"more")), "SB206")


def test_row_of_empty_members(tmp_path):
    refusal(put(tmp_path, PACKED + gzip.compress(b"") * 5000), "SB206")


# ---- SB207 header nonsense


@pytest.mark.parametrize(
    "fields",
    [
        {"dim": [0, 14, 12, 10, 1, 1, 1, 1]},
        {"dim": [8, 14, 12, 10, 1, 1, 1, 1]},
        {"dim": [-3, 14, 12, 10, 1, 1, 1, 1]},
        {"dim": [3, 0, 12, 10, 1, 1, 1, 1]},
        {"dim": [3, -14, 12, 10, 1, 1, 1, 1]},
        {"dim": [4, 14, 12, 5, 2, 1, 1, 1]},
        {"dim": [5, 14, 12, 5, 1, 2, 1, 1]},
        {"dim": [7, 14, 12, 5, 1, 1, 1, 2]},
        {"datatype": 0},
        {"datatype": 1},
        {"datatype": 32},
        {"datatype": 128},
        {"datatype": 1536},
        {"datatype": 1792},
        {"datatype": 2304},
        {"datatype": 77},
        {"bitpix": 8},
        {"bitpix": 0},
        {"vox_offset": 0},
        {"vox_offset": 348},
        {"vox_offset": 1 << 20},
    ],
)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_header_nonsense(tmp_path, fields, version, name):
    refusal(write(tmp_path / name, nifti(ARRAY, version=version, **fields)), "SB207")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 352.5, 3e38])
def test_offsets_that_are_no_offsets(tmp_path, value):
    refusal(write(tmp_path / "x.nii.gz", nifti(ARRAY, vox_offset=value)), "SB207")


def test_channels_only_when_asked_for(tmp_path):
    path = write(tmp_path / "x.nii.gz", nifti(np.stack([ARRAY, ARRAY])))
    refusal(path, "SB207")
    refusal(path, "SB207", read=read_label_map)
    assert read_volume(path, allow_channels=True).array.shape == (2, 10, 12, 14)


# ---- SB208 too large


def test_larger_than_allowed(tmp_path):
    refusal(write(tmp_path / "x.nii.gz", GOOD), "SB208", max_bytes=ARRAY.nbytes - 1)
    assert read_volume(write(tmp_path / "x.nii.gz", GOOD), max_bytes=ARRAY.nbytes).array.size == ARRAY.size


def test_claim_of_terabytes(tmp_path):
    for name in ("x.nii", "x.nii.gz"):
        refusal(write(tmp_path / name, header((32767, 32767, 32767), "f8")), "SB208")
        refusal(write(tmp_path / name, header((32767, 32767, 32767), "f8")), "SB208", read=read_header)


@pytest.mark.parametrize("dims", [(2**62, 2**62, 2**62), (2**63 - 1, 1, 1)])
def test_claim_beyond_machine_words(tmp_path, dims):
    refusal(write(tmp_path / "x.nii.gz", header(dims, "f8", version=2)), "SB208")


def test_claim_that_no_compression_can_keep(tmp_path):
    error = refusal(write(tmp_path / "x.nii.gz", header((1000, 1000, 1000), "u1")), "SB204")
    assert "best possible compression" in str(error.found)


def test_gzip_that_goes_on_and_on(tmp_path):
    refusal(put(tmp_path, zeros_after(GOOD, 64)), "SB208")


def test_memory_budget(tmp_path, monkeypatch):
    monkeypatch.setattr("segbench.volumes.header.memory_budget", lambda: 80 * 2**20)
    packed = zeros_after(header((1024, 1024, 100), "u1"), 100)
    assert "memory" in refusal(put(tmp_path, packed), "SB208").message
    monkeypatch.setattr("segbench.volumes.header.memory_budget", lambda: None)
    assert not read_volume(put(tmp_path, packed), raw=True).array.any()


# ---- SB209 geometry

SHEAR = np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    "fields",
    [
        {"spacing": (float("nan"), 1, 1)},
        {"spacing": (1, float("inf"), 1)},
        {"spacing": (1, 1, 0)},
        {"spacing": (-1, 1, 1)},
        {"srow": [float("nan")] * 12},
        {"srow": [1, 0, 0, float("inf"), 0, 1, 0, 0, 0, 0, 1, 0]},
        {"srow": [0.0] * 12},
        {"srow": [1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]},
        {"srow": list(SHEAR[:3].ravel())},
        {"sform_code": 0, "qform_code": 1, "quatern": [1.0, 1.0, 1.0]},
        {"sform_code": 0, "qform_code": 1, "quatern": [float("nan"), 0, 0]},
        {"sform_code": 0, "qform_code": 1, "qoffset": [float("inf"), 0, 0]},
        {"sform_code": 0, "spacing": (1, 0, 1)},
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_unusable_geometry(tmp_path, fields, version):
    refusal(write(tmp_path / "x.nii.gz", nifti(ARRAY, version=version, **fields)), "SB209")


@pytest.mark.filterwarnings("error")
def test_axes_too_long_for_a_square_are_refused_without_a_warning(tmp_path):
    fields = {"srow": [1e200, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]}
    refusal(write(tmp_path / "x.nii.gz", nifti(ARRAY, version=2, **fields)), "SB209")


def test_shear_limit(tmp_path):
    for shear, fine in ((5e-4, True), (5e-3, False)):
        affine = np.eye(4)
        affine[0, 1] = shear
        path = write(tmp_path / "x.nii.gz", nifti(ARRAY, affine=affine))
        if fine:
            assert read_volume(path).array.size
        else:
            assert "sheared" in refusal(path, "SB209").message


# ---- SB210 to SB213


@pytest.mark.parametrize("field", ["scl_slope", "scl_inter"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("version", [1, 2])
def test_scaling_that_is_no_number(tmp_path, field, value, version):
    refusal(write(tmp_path / "x.nii.gz", nifti(ARRAY, version=version, **{field: value})), "SB210")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_voxels_that_are_no_numbers(tmp_path, value, kind):
    array = ARRAY.astype(kind)
    array[3, 4, 5] = value
    path = write(tmp_path / "x.nii.gz", nifti(array))
    assert "1" in str(refusal(path, "SB211").found)
    refusal(path, "SB211", raw=True)
    refusal(path, "SB211", read=read_label_map)


def test_scaling_that_overflows(tmp_path):
    refusal(write(tmp_path / "x.nii.gz", nifti(ARRAY, scl_slope=3e38, scl_inter=3e38)), "SB211")


@pytest.mark.parametrize("value", [0.5, 1.00001, 2.999, -1.0, 65536.0, -0.5])
def test_labels_that_are_no_labels(tmp_path, value):
    array = ARRAY.astype("f8")
    array[1, 1, 1] = value
    error = refusal(write(tmp_path / "x.nii.gz", nifti(array)), "SB212", read=read_label_map)
    assert f"{value:.9g}" in str(error.found)


@pytest.mark.parametrize(("value", "kind"), [(-1, "i2"), (70000, "i4"), (-1, "i8"), (2**40, "u8")])
def test_integers_that_are_no_labels(tmp_path, value, kind):
    array = ARRAY.astype(kind)
    array[1, 1, 1] = value
    refusal(write(tmp_path / "x.nii.gz", nifti(array)), "SB212", read=read_label_map)


def test_labels_a_millionth_off_are_fine(tmp_path):
    array = ARRAY.astype("f8") + 4e-7
    assert np.array_equal(read_label_map(write(tmp_path / "x.nii.gz", nifti(array))).array, ARRAY)


def test_undeclared_labels_are_listed(tmp_path):
    path = write(tmp_path / "x.nii.gz", nifti(ARRAY))
    error = refusal(path, "SB213", read=read_label_map, labels=[1, 2, 3, 5])
    assert error.found == f"4 ({(ARRAY == 4).sum():,} voxels), 6 ({(ARRAY == 6).sum():,} voxels)"
    assert read_label_map(path, labels=range(7)).array.max() == 6


def test_old_brats_value_gets_a_hint(tmp_path):
    array = np.where(ARRAY > 4, 0, ARRAY)
    path = write(tmp_path / "x.nii.gz", nifti(np.where(array == 3, 0, array)))
    assert "BraTS" in refusal(path, "SB213", read=read_label_map, labels=[0, 1, 2, 3]).mend


# ---- whatever the file claims


def zeros_after(data: bytes, megabytes: int, *, whole: bool = True) -> bytes:
    """A gzip stream of `data` and many zeros, made fast: one compressed megabyte is repeated."""
    block, deflate = bytes(1 << 20), zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH)
    once = deflate.compress(block) + deflate.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(data)
    for _ in range(megabytes):
        crc = zlib.crc32(block, crc)
    tail = deflate.flush() + struct.pack("<II", crc, (len(data) + (megabytes << 20)) % 2**32)
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + packed + once * megabytes + (tail if whole else b"")


def test_refusals_take_little_memory(tmp_path):
    """All bombs in one fresh interpreter: the peak stays below 300 MB beyond what the imports take."""
    put(tmp_path, zeros_after(GOOD, 600), "endless.nii.gz")
    write(tmp_path / "claim.nii.gz", header((32767, 32767, 32767), "f8"))
    write(tmp_path / "claim.nii", header((2000, 2000, 2000), "u1"))
    write(tmp_path / "claim2.nii.gz", header((2**40, 2**20, 1), "u1", version=2))
    write(tmp_path / "modest.nii.gz", header((1900, 1900, 1900), "u1"))
    # one gigabyte announced, 700 MB of zeros in under 1 MB, then the end
    put(tmp_path, zeros_after(header((1024, 1024, 1000), "u1"), 700, whole=False), "cut.nii.gz")
    put(tmp_path, zeros_after(header((1024, 1024, 1000), "u1"), 700), "short.nii.gz")
    long_name = struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, 8, 0, 0, 3) + b"n" * 5_000_000
    put(tmp_path, long_name, "name.nii.gz")
    block = struct.pack("<ii", 1 << 30, 6)
    write(tmp_path / "extension.nii", nifti(ARRAY, extensions=block + bytes(8)))
    write(tmp_path / "extension2.nii", nifti(ARRAY, extensions=extension(6, b"x"), vox_offset=1 << 25))
    script = """
import resource, sys
from pathlib import Path
from segbench.core.errors import SegbenchError
from segbench.volumes import read_volume
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_volume(path)
        print(path.name, "read")
    except SegbenchError as error:
        print(path.name, error.code)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    *lines, peak = done.stdout.splitlines()
    codes = dict(line.split() for line in lines)
    assert codes == {
        "claim.nii": "SB204",
        "claim.nii.gz": "SB208",
        "claim2.nii.gz": "SB208",
        "cut.nii.gz": "SB204",
        "endless.nii.gz": "SB208",
        "extension.nii": "read",  # an extension that lies about its length is none of our business
        "extension2.nii": "SB207",
        "modest.nii.gz": "SB204",
        "name.nii.gz": "SB204",
        "short.nii.gz": "SB204",
    }
    assert int(peak) < 300, f"{peak} MB"
