"""The compiled way to inflate a label map: zlib's bytes or no answer, whatever the file."""

from __future__ import annotations

import gzip
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nifti_bytes import nifti

from segbench.core.errors import SegbenchError
from segbench.volumes import inflate as whole
from segbench.volumes import read_label_map

pytest.importorskip("numba")
assert whole.load_kernels()
kernels = sys.modules[whole.KERNELS]

STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)
GUARD = 64


def packed(
    payload: bytes, level: int = 6, strategy: int = zlib.Z_DEFAULT_STRATEGY, window: int = 31
) -> bytes:
    maker = zlib.compressobj(level, zlib.DEFLATED, window, 8, strategy)
    return maker.compress(payload) + maker.flush()


def payload_of(seed: int, size: int, kind: str) -> bytes:
    """Bytes of the kinds that files hold: runs, rows that repeat, wide types, noise."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.bytes(size)
    lengths = rng.geometric(0.01 if kind == "runs" else 0.2, size=size + 1)
    values = rng.integers(0, 4, size=size + 1) * (rng.random(size + 1) < 0.5)
    flat = np.repeat(values, lengths)[:size]
    if kind == "rows":
        row = flat[: max(1, size // 40)]
        flat = np.resize(row, size)
    if kind in ("wide", "real"):
        return flat.astype("<u2" if kind == "wide" else "<f4").tobytes()[:size]
    return flat.astype(np.uint8).tobytes()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 200_000) | st.integers(1, 300),
    kind=st.sampled_from(["runs", "short", "rows", "wide", "real", "noise"]),
    level=st.integers(0, 9),
    strategy=st.sampled_from(STRATEGIES),
)
def test_equals_zlib(seed: int, size: int, kind: str, level: int, strategy: int) -> None:
    payload = payload_of(seed, size, kind)
    found = whole.inflate_whole(packed(payload, level, strategy), len(payload))
    assert found is not None
    assert found.tobytes() == payload


@settings(max_examples=400, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 3000),
    kind=st.sampled_from(["runs", "short", "rows", "wide", "noise"]),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    cut=st.booleans(),
    claim=st.integers(-2, 2),
)
def test_a_damaged_stream_gives_no_answer_and_writes_nowhere_else(
    seed: int, size: int, kind: str, place: float, bit: int, cut: bool, claim: int
) -> None:
    payload = payload_of(seed, size, kind)
    raw = bytearray(packed(payload, window=-15))
    at = int(place * len(raw))
    if cut:
        del raw[at:]
    else:
        raw[at] ^= 1 << bit
    source = np.frombuffer(bytes(raw) + bytes(kernels.PADDING), dtype=np.uint8)
    arena = np.full(max(0, len(payload) + claim) + 2 * GUARD, 0xA5, dtype=np.uint8)
    out = arena[GUARD : len(arena) - GUARD]
    end, crc = kernels.inflate(source, 0, out, kernels.CRC_TABLES, kernels.ZERO_OPERATORS)
    assert (arena[:GUARD] == 0xA5).all()
    assert (arena[-GUARD:] == 0xA5).all()
    if end >= 0:  # the damage made another sound stream: then zlib must read the same from it
        decoder = zlib.decompressobj(-15)
        assert decoder.decompress(bytes(raw)) == out.tobytes()
        assert decoder.eof
        assert len(raw) - len(decoder.unused_data) == end
        assert crc == zlib.crc32(out.tobytes())


def test_a_flipped_bit_is_answered_only_where_it_means_nothing() -> None:
    payload = payload_of(1, 5000, "runs")
    data, answered = packed(payload), 0
    for at in range(10, len(data)):
        for bit in range(8):
            hurt = bytearray(data)
            hurt[at] ^= 1 << bit
            found = whole.inflate_whole(bytes(hurt), len(payload))
            # Such bits mean nothing (the rest of the last byte, codes never used); zlib passes over them too.
            assert found is None or found.tobytes() == payload == zlib.decompress(hurt, 31)
            answered += found is not None
    assert answered < len(data)


@pytest.mark.parametrize("end", [10, 11, 20, -9, -8, -1])
def test_a_cut_file_gives_no_answer(end: int) -> None:
    payload = payload_of(2, 5000, "runs")
    assert whole.inflate_whole(packed(payload)[:end], len(payload)) is None


@pytest.mark.parametrize("claim", [-1, 1, 5000])
def test_another_size_gives_no_answer(claim: int) -> None:
    payload = payload_of(2, 5000, "runs")
    assert whole.inflate_whole(packed(payload), len(payload) + claim) is None


def test_members_and_surplus_are_left_to_the_careful_reader() -> None:
    payload = payload_of(3, 5000, "runs")
    data = packed(payload)
    assert whole.inflate_whole(data + data, len(payload)) is None
    assert whole.inflate_whole(data + b"\0", len(payload)) is None


def test_names_and_extra_fields_in_the_header_are_passed_over() -> None:
    payload = payload_of(4, 5000, "runs")
    plain = packed(payload)
    head = plain[:3] + bytes([4 | 8 | 16]) + plain[4:10] + b"\x03\x00abc" + b"name\0" + b"comment\0"
    found = whole.inflate_whole(head + plain[10:], len(payload))
    assert found is not None
    assert found.tobytes() == payload
    assert whole.inflate_whole(head, len(payload)) is None


def test_checksum_of_long_stretches_of_zeros() -> None:
    rng = np.random.default_rng(5)
    data = np.zeros(1_000_000, dtype=np.uint8)
    data[rng.integers(0, data.size, 40)] = 7
    for start, stop in ((0, data.size), (13, 999_999), (500, 501), (7, 7)):
        register = kernels.checksum(
            data, start, stop, np.uint32(0xFFFFFFFF), kernels.CRC_TABLES, kernels.ZERO_OPERATORS
        )
        assert int(register) ^ 0xFFFFFFFF == zlib.crc32(data[start:stop].tobytes())


@pytest.fixture
def label_file(tmp_path: Path) -> Path:
    labels = np.zeros((40, 60, 50), dtype=np.uint8)
    labels[10:20, 20:40, 10:30] = 2
    path = tmp_path / "case.nii.gz"
    path.write_bytes(gzip.compress(nifti(labels), 6))
    return path


def test_a_label_map_is_read_this_way_and_equal(label_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    inflate = whole.inflate_whole

    def watched(data: bytes, size: int) -> object:
        found = inflate(data, size)
        taken.append(found is not None)
        return found

    monkeypatch.setattr("segbench.volumes.read.inflate_whole", watched)
    fast = read_label_map(label_file)
    assert taken == [True]
    monkeypatch.setattr("segbench.volumes.read.worth_it", lambda *_: False)
    slow = read_label_map(label_file)
    assert taken == [True]
    assert fast.array.dtype == slow.array.dtype
    assert (fast.array == slow.array).all()
    assert fast.array.flags.c_contiguous


@pytest.mark.parametrize("hurt", ["flip", "cut", "surplus", "trailer"])
def test_refusals_are_those_of_the_careful_reader(
    label_file: Path, monkeypatch: pytest.MonkeyPatch, hurt: str
) -> None:
    data = bytearray(label_file.read_bytes())
    if hurt == "flip":
        data[len(data) // 2] ^= 4
    elif hurt == "cut":
        del data[len(data) // 2 :]
    elif hurt == "surplus":
        data += b"more"
    else:
        data[-6] ^= 1
    label_file.write_bytes(bytes(data))
    with pytest.raises(SegbenchError) as fast:
        read_label_map(label_file)
    monkeypatch.setattr("segbench.volumes.read.worth_it", lambda *_: False)
    with pytest.raises(SegbenchError) as slow:
        read_label_map(label_file)
    assert fast.value.as_dict() == slow.value.as_dict()
