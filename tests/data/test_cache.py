"""The prepared cache: what is stored, what is read back, and that no damaged byte becomes a number."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from segbench.core.errors import SegbenchError
from segbench.data.prepared.cache import (
    LOCATIONS_PER_LABEL,
    Cache,
    CacheDamagedError,
    class_locations,
    widened,
    write_case,
)
from segbench.data.prepared.prepare import PreparedCase, prepare_case
from segbench.volumes import Volume

STATISTICS = {"p005": -900.0, "p995": 900.0, "mean": 12.3, "std": 321.0}


def scan(shape=(70, 66, 40), seed=0):
    r = np.random.default_rng(seed)
    image = r.integers(-1000, 1000, size=shape).astype(np.int16)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[10:30, 20:50, 5:30], labels[40:44, 3:6, 7:9] = 1, 5
    return Volume(image, (1.0, 1.0, 1.0), np.eye(4)), Volume(labels, (1.0, 1.0, 1.0), np.eye(4))


def prepared(scheme="zscore"):
    image, labels = scan()
    statistics = [STATISTICS] if scheme == "ct" else None
    return prepare_case(
        [image],
        labels,
        spacing_mm="native",
        normalisation=[scheme],
        normalisation_statistics=statistics,
        crop=False,
    )


@pytest.fixture
def stored(tmp_path):
    case = prepared()
    write_case(tmp_path, "a", case)
    return tmp_path, case


def test_read_back_within_half_precision_labels_exactly(stored):
    folder, case = stored
    cache = Cache(folder)
    assert cache.case_ids == ("a",)
    assert "a" in cache
    assert "b" not in cache
    assert cache.shape("a") == (1, 70, 66, 40)
    np.testing.assert_array_equal(cache.image("a"), case.image.astype(np.float16).astype(np.float32))
    assert np.abs(cache.image("a") - case.image).max() <= np.abs(case.image).max() * 2**-11
    np.testing.assert_array_equal(cache.labels("a"), case.labels)
    assert cache.properties("a") == case.properties
    assert cache.label_values("a") == (1, 5)
    assert cache.voxels("a", 1) == int((case.labels == 1).sum())


def test_every_finite_half_is_widened_exactly():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    for block in (halves.reshape(2, -1), np.tile(halves, 3)[::2]):
        wide = widened(block)
        assert wide.shape == block.shape
        np.testing.assert_array_equal(wide.view(np.uint32), block.astype(np.float32).view(np.uint32))


def test_ct_that_was_not_resampled_is_stored_as_integers_and_read_bit_for_bit(tmp_path):
    case = prepared("ct")
    write_case(tmp_path, "a", case)
    record = json.loads((tmp_path / "cases" / "a" / "case.json").read_text())
    assert record["arrays"]["image"]["dtype"] == "int16"
    cache = Cache(tmp_path)
    np.testing.assert_array_equal(cache.image("a"), case.image)
    np.testing.assert_array_equal(
        cache.image_patch("a", (5, 60, 30), (9, 6, 10))[0], case.image[0, 5:14, 60:66, 30:40]
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.integers(-80, 80), st.integers(-80, 80), st.integers(-80, 80)),
    st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60)),
)
def test_any_patch_is_the_scan_padded_with_zeros(stored, start, size):
    folder, case = stored
    at = np.ix_(*[np.arange(s, s + n) for s, n in zip(start, size, strict=True)])
    inside = np.ones(size, dtype=bool)
    for axis, (index, extent) in enumerate(zip(at, case.labels.shape, strict=True)):
        inside &= (index >= 0) & (index < extent)
        assert index.shape[axis] == size[axis]
    clipped = tuple(np.clip(index, 0, n - 1) for index, n in zip(at, case.labels.shape, strict=True))
    image = np.where(inside, case.image[0][clipped].astype(np.float16).astype(np.float32), 0)
    cache = Cache(folder)
    np.testing.assert_array_equal(cache.image_patch("a", start, size)[0], image)
    labels = np.where(inside, case.labels[clipped], 9)
    np.testing.assert_array_equal(cache.labels_patch("a", start, size, outside=9), labels)


def test_locations_are_sorted_voxels_of_their_label_at_most_ten_thousand(stored):
    folder, case = stored
    cache = Cache(folder)
    many, few = cache.locations("a", 1), cache.locations("a", 5)
    assert many.dtype == np.int32
    assert many.size == LOCATIONS_PER_LABEL
    assert few.size == (case.labels == 5).sum()
    for label, flat in ((1, many), (5, few)):
        assert (case.labels.reshape(-1)[flat] == label).all()
        assert (np.diff(flat) > 0).all()
    assert cache.locations("a", 3).size == 0
    # a function of the case's name, spread over the whole structure
    again, _ = class_locations(case.labels, "a")
    np.testing.assert_array_equal(again[: many.size], many)
    other, _ = class_locations(case.labels, "b")
    assert not np.array_equal(other[: many.size], many)
    assert abs(np.median(many) - np.median(np.flatnonzero(case.labels == 1))) < 66 * 40 * 2


def test_a_case_without_labels(tmp_path):
    image, _ = scan()
    write_case(tmp_path, "a", prepare_case([image], spacing_mm="native", normalisation=["zscore"]))
    cache = Cache(tmp_path)
    with pytest.raises(ValueError, match="no labels"):
        cache.labels("a")
    assert cache.label_values("a") == ()
    with pytest.raises(ValueError, match="no labels"):
        cache.labels("a")


@pytest.mark.parametrize("value", [70_000.0, -70_000.0, np.nan, np.inf])
def test_values_that_half_precision_cannot_hold_are_refused(tmp_path, value):
    image = np.zeros((1, 4, 4, 4), dtype=np.float32)
    image[0, 1, 2, 3] = value
    with pytest.raises(SegbenchError) as caught:
        write_case(tmp_path, "hot", PreparedCase(image, None, {}))
    assert caught.value.code == "SB410"
    assert caught.value.case == "hot"
    assert Cache(tmp_path).case_ids == ()


@pytest.mark.ci
@pytest.mark.parametrize("name", ["image", "labels", "locations"])
def test_no_flipped_bit_becomes_a_number(stored, name):
    folder, case = stored
    path = folder / "cases" / "a" / f"{name}.b2nd"
    whole = path.read_bytes()
    expected = case.image.astype(np.float16).astype(np.float32)
    header = np.arange(140, 200)  # where the shapes of chunks and blocks stand
    for offset in (*np.random.default_rng(0).integers(0, len(whole), size=25), *header):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << int(offset) % 8
        path.write_bytes(bytes(damaged))
        cache = Cache(folder)
        try:
            cache.verify("a")
            image, labels, flat = cache.image("a"), cache.labels("a"), cache.locations("a", 5)
        except CacheDamagedError as error:
            assert error.case == "a"
            assert error.path.name.startswith(name)
            continue
        # a bit that nothing reads: the numbers are those that were written
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(labels, case.labels)
        assert (case.labels.reshape(-1)[flat] == 5).all()
    path.write_bytes(whole)


def test_a_cut_file_and_a_broken_record_are_refused(stored):
    folder, _ = stored
    path = folder / "cases" / "a" / "image.b2nd"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(CacheDamagedError, match="bytes"):
        Cache(folder).image("a")
    path.write_bytes(whole)
    (folder / "cases" / "a" / "case.json").write_text('{"arrays": ')
    with pytest.raises(CacheDamagedError, match="not readable"):
        Cache(folder).image("a")


def test_only_touched_chunks_are_checked(stored):
    """A patch does not pay for the rest of the file, and does not hide what it needs."""
    folder, _ = stored
    path = folder / "cases" / "a" / "image.b2nd"
    record = json.loads((folder / "cases" / "a" / "case.json").read_text())
    record["arrays"]["image"]["crc32"][-1] ^= 1
    (folder / "cases" / "a" / "case.json").write_text(json.dumps(record))
    cache = Cache(folder)
    assert cache.image_patch("a", (0, 0, 0), (20, 20, 20)).any()
    with pytest.raises(CacheDamagedError, match="chunk 3"):
        cache.image_patch("a", (60, 60, 0), (10, 6, 10))
    assert path.is_file()


def test_writing_again_replaces_and_leaves_nothing_behind(stored):
    folder, case = stored
    before = Cache(folder).digest(["a"])
    write_case(folder, "a", case)
    assert Cache(folder).digest(["a"]) == before
    assert sorted(p.name for p in (folder / "cases").iterdir()) == ["a"]
    image, labels = scan(seed=3)
    write_case(
        folder, "a", prepare_case([image], labels, spacing_mm="native", normalisation=["zscore"], crop=False)
    )
    assert Cache(folder).digest(["a"]) != before


@pytest.mark.ci
@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits file sizes of a child")
def test_a_full_disk_leaves_nothing_and_says_so(tmp_path):
    """RLIMIT_FSIZE stands for the disk: a write beyond it fails with EFBIG."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "sys.path.insert(0, sys.argv[1]); from test_cache import prepared, write_case, SegbenchError;"
        "case = prepared(); resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: write_case(sys.argv[2], 'a', case)\n"
        "except SegbenchError as error: print(error.code)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "SB505"
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []
    assert Cache(tmp_path / "cache").case_ids == ()


def _write(folder):
    write_case(folder, "a", prepared())


@pytest.mark.slow
def test_writers_at_once_leave_one_whole_case(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    Cache(tmp_path).verify("a")
    assert sorted(os.listdir(tmp_path / "cases")) == ["a"]  # noqa: PTH208


def test_stored_objects_are_never_revived(tmp_path, stored):
    """A file that holds a lazy expression in place of an array is not evaluated."""
    blosc2 = pytest.importorskip("blosc2")
    folder, _ = stored
    target = folder / "cases" / "a" / "image.b2nd"
    one = blosc2.asarray(np.ones(4), urlpath=str(tmp_path / "one.b2nd"), mode="w")
    (one + 1).save(urlpath=str(target), mode="w") if hasattr(one + 1, "save") else target.write_bytes(b"")
    with pytest.raises(CacheDamagedError):
        Cache(folder).image("a")


def test_single_precision_is_stored_on_demand_and_moves_the_recipe(tmp_path):
    from segbench.data.prepared.recipe import PreparationRecipe

    image = np.random.default_rng(0).standard_normal((1, 9, 10, 11)).astype(np.float32)
    prepared = PreparedCase(image, None, {"spacing_out": [1.0, 1.0, 1.0]})
    write_case(tmp_path, "a", prepared, dtype="float32")
    np.testing.assert_array_equal(Cache(tmp_path).image("a"), image)
    write_case(tmp_path, "b", prepared)
    assert 0 < np.abs(Cache(tmp_path).image("b") - image).max() < 2e-3
    plain = PreparationRecipe(channels=("x",), normalisation=("zscore",), spacing_mm="native")
    fine = PreparationRecipe(channels=("x",), normalisation=("zscore",), spacing_mm="native", dtype="float32")
    assert plain.digest() != fine.digest()
    assert "dtype" not in plain.as_dict()
