"""The digest of content: equal voxels, equal digest, whatever the storage."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from segbench.volumes import Volume, digest_canonical, spacing_of, to_canonical

ARRAY = (np.arange(4 * 5 * 6).reshape(4, 5, 6) - 20).astype(np.int16)


def test_definition():
    expected = hashlib.sha256(
        np.array([4, 5, 6], dtype="<i8").tobytes() + ARRAY.astype("<i2").tobytes()
    ).hexdigest()
    assert digest_canonical(ARRAY) == expected


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64, ">i2", ">f4"])
def test_the_stored_type_does_not_count(dtype):
    assert digest_canonical(ARRAY.astype(dtype)) == digest_canonical(ARRAY)


def test_neither_does_memory_order():
    assert digest_canonical(np.asfortranarray(ARRAY)) == digest_canonical(ARRAY)
    assert digest_canonical(ARRAY[::-1][::-1]) == digest_canonical(ARRAY)


@pytest.mark.parametrize("value", [0.5, 40000.0, -40000.0])
def test_what_is_no_int16_is_float32(value):
    array = ARRAY.astype(np.float64)
    array[0, 0, 0] = value
    expected = hashlib.sha256(
        np.array([4, 5, 6], "<i8").tobytes() + array.astype("<f4").tobytes()
    ).hexdigest()
    assert digest_canonical(array) == expected == digest_canonical(array.astype(np.float32))


def test_shape_and_values_count():
    digests = {digest_canonical(a) for a in (ARRAY, ARRAY.reshape(5, 4, 6), ARRAY + 1, ARRAY[:-1])}
    assert len(digests) == 4


def test_large_arrays_are_hashed_in_pieces():
    array = np.random.default_rng(0).integers(-9, 9, (40, 300, 300)).astype(np.int16)
    expected = hashlib.sha256(np.array(array.shape, "<i8").tobytes() + array.tobytes()).hexdigest()
    assert digest_canonical(array) == expected
    assert digest_canonical(array.astype(np.float32)) == expected


def test_spacing_does_not_count_but_orientation_does():
    def digest(affine):
        return digest_canonical(to_canonical(Volume(ARRAY, spacing_of(affine), affine)).array)

    assert digest(np.eye(4)) == digest(np.diag([2.0, 3.0, 4.0, 1.0]))
    assert digest(np.eye(4)) != digest(np.diag([-1.0, 1.0, 1.0, 1.0]))
