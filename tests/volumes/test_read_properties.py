"""No mutation of a valid file is read as another volume: the same voxels at the same places, or a refusal."""

from __future__ import annotations

import gzip
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nifti_bytes import nifti

from segbench.core.errors import SegbenchError
from segbench.volumes import Volume, read_label_map, read_volume

ARRAY = (np.arange(5 * 6 * 7).reshape(5, 6, 7) * 37 % 251).astype("i2")
AFFINE = np.array([[-1.5, 0, 0, 40], [0, 2.0, 0, -30], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
PLAIN = nifti(ARRAY, affine=AFFINE)
PACKED = gzip.compress(PLAIN, mtime=0)
TWO_MEMBERS = gzip.compress(PLAIN[:300], mtime=0) + gzip.compress(PLAIN[300:], mtime=0)

EDITS = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 1 << 20), st.integers(0, 7)),
    st.tuples(st.just("set"), st.integers(0, 1 << 20), st.integers(0, 255)),
    st.tuples(st.just("cut"), st.integers(1, 1 << 20), st.just(0)),
    st.tuples(st.just("add"), st.integers(0, 1 << 20), st.integers(0, 255)),
    st.tuples(st.just("drop"), st.integers(0, 1 << 20), st.integers(1, 40)),
    st.tuples(st.just("double"), st.integers(0, 1 << 20), st.integers(1, 40)),
)


def mutate(data: bytes, edits) -> bytes:
    result = bytearray(data)
    for kind, where, how in edits:
        if not result:
            break
        at = where % len(result)
        if kind == "flip":
            result[at] ^= 1 << how
        elif kind == "set":
            result[at] = how
        elif kind == "cut":
            del result[at:]
        elif kind == "add":
            result.insert(at, how)
        elif kind == "drop":
            del result[at : at + how]
        else:
            result[at:at] = result[at : at + how]
    return bytes(result)


def read(data: bytes, name: str, reader=read_volume) -> Volume | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            return reader(path)
        except SegbenchError as error:
            assert error.path is not None
            assert error.code.startswith("SB2")
            return None


SETTINGS = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.ci
@SETTINGS
@given(st.lists(EDITS, min_size=1, max_size=4), st.sampled_from([PACKED, TWO_MEMBERS]))
def test_gzip_gives_the_same_volume_or_none(edits, data):
    volume = read(mutate(data, edits), "x.nii.gz")
    if volume is not None:
        assert np.array_equal(volume.array, ARRAY)
        assert np.array_equal(volume.affine, AFFINE)


@pytest.mark.ci
@SETTINGS
@given(st.lists(EDITS, min_size=1, max_size=4))
def test_plain_files_never_fail_otherwise(edits):
    """Without a checksum a changed voxel cannot be seen, but nothing else may come out."""
    volume = read(mutate(PLAIN, edits), "x.nii")
    if volume is not None:
        assert np.isfinite(volume.array).all()
        assert np.isfinite(volume.affine).all()
        assert all(s > 0 for s in volume.spacing_mm)


@pytest.mark.ci
@SETTINGS
@given(st.binary(max_size=600), st.sampled_from(["x.nii", "x.nii.gz", "x.nrrd", "x.mha"]))
def test_any_bytes_are_refused(data, name):
    assert read(data, name) is None or name == "x.nii"


HEADER_WORDS = st.one_of(
    st.floats(width=32).map(lambda value: struct.pack("<f", value)),
    st.integers(-(2**15), 2**15 - 1).map(lambda value: struct.pack("<h", value)),
    st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\x7f", b"\0\0\x80\x7f", b"\0\0\xc0\x7f"]),
)


@pytest.mark.ci
@SETTINGS
@given(st.integers(0, 347), HEADER_WORDS)
def test_any_header_is_refused_or_sane(at, word):
    """A header field of any value, correctly compressed: refused with a code, or a usable volume."""
    data = bytearray(PLAIN)
    data[at : at + len(word)] = word
    for reader in (read_volume, read_label_map):
        volume = read(gzip.compress(bytes(data)), "x.nii.gz", reader)
        if volume is not None:
            assert volume.array.ndim == 3
            assert np.isfinite(volume.array).all()
            assert np.isfinite(volume.affine).all()
            assert abs(np.linalg.det(volume.affine)) > 0
