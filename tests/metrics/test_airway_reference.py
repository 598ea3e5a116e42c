"""The reference's side of the airway scores: pieces from runs, nearest branches, and the trees on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segbench.metrics.airways import tree as airway_tree
from segbench.metrics.airways.scores import evaluate_airway
from segbench.metrics.engine._runs import fill_holes, largest_piece

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)


def random_mask(shape: tuple[int, ...], seed: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


@pytest.mark.ci
@settings(max_examples=300, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0, 0.1, 0.3, 0.5, 0.7, 0.9, 1]))
def test_holes_and_the_largest_piece_are_those_of_scipy(
    shape: tuple[int, ...], seed: int, share: float
) -> None:
    mask = random_mask(shape, seed, share)
    before = mask.copy()
    filled: Any = ndimage.binary_fill_holes(mask)
    assert np.array_equal(fill_holes(mask), filled)
    labelled: Any = ndimage.label(mask)
    numbers, count = labelled
    sizes = np.bincount(numbers.ravel(), minlength=2)[1:]  # argmax: the first of equally large ones
    expected = numbers == sizes.argmax() + 1 if count else mask
    assert np.array_equal(largest_piece(mask), expected)
    assert np.array_equal(mask, before)


@settings(max_examples=200, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.01, 0.05, 0.2, 0.5]))
def test_of_equally_near_voxels_the_one_a_distance_transform_gives(
    shape: tuple[int, ...], seed: int, share: float
) -> None:
    mask = random_mask(shape, seed, share)
    mask[tuple(n // 2 for n in shape)] = True
    index: Any = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    targets = np.argwhere(mask)
    queries = np.indices(shape).reshape(3, -1).T
    found = airway_tree.nearest_voxel(queries, targets)
    assert np.array_equal(targets[found], index.reshape(3, -1).T)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    field = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal((30, 30, 30)), 2)
    truth = field > np.quantile(field, 0.8)
    return truth, truth & (ndimage.gaussian_filter(field, 1) > 0)


@pytest.fixture(autouse=True)
def no_tree_in_memory() -> None:
    airway_tree._cache.clear()


def test_a_tree_on_disk_is_used_by_every_prediction(
    pair: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, guess = pair
    first = evaluate_airway(truth, guess, spacing_mm=(1, 1, 1), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    airway_tree._cache.clear()
    monkeypatch.setattr(airway_tree, "thin", lambda *_: pytest.fail("thinned again"))
    assert dict(evaluate_airway(truth, guess, spacing_mm=(1, 1, 1), cache=tmp_path)) == dict(first)
    wide = guess.copy()
    wide[0, 0, 0] = True  # another box around both, the same tree
    evaluate_airway(truth, wide, spacing_mm=(1, 1, 1), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_tree_is_made_again(
    pair: tuple[np.ndarray, np.ndarray], tmp_path: Path, content: bytes
) -> None:
    truth, guess = pair
    first = evaluate_airway(truth, guess, spacing_mm=(1, 1, 1), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(content)
    airway_tree._cache.clear()
    assert dict(evaluate_airway(truth, guess, spacing_mm=(1, 1, 1), cache=tmp_path)) == dict(first)
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_changes_nothing(
    pair: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    truth, guess = pair
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    found = evaluate_airway(truth, guess, spacing_mm=(1, 1, 1), cache=blocked / "airway")
    airway_tree._cache.clear()
    assert dict(found) == dict(evaluate_airway(truth, guess, spacing_mm=(1, 1, 1)))
