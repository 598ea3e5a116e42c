"""Lesion-wise scores of BraTS 2026: the package's own numbers, and the rules in brute force.

`benchmarks/brats.py` runs the package itself; here are numbers that brats-evaluation 0.0.10 printed for one
case, and every matching of small maps tried one by one.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segbench.metrics.lesions.matched import evaluate_matched_lesions
from segbench.metrics.policies import filled_value

R = {"r": (1,)}
MEANS = ("lesionwise_dice", "lesionwise_hd95", "lesionwise_nsd")
COUNTS = ("lesions_tp", "lesions_fn", "lesions_fp", "lesions_ignored", "small_lesions_found")


def one_case() -> tuple[np.ndarray, np.ndarray]:
    """A large lesion shifted, a small one found, one missed, one invented."""
    truth, guess = np.zeros((2, 30, 30, 30), np.uint8)
    truth[5:10, 5:10, 5:10] = guess[7:12, 5:10, 6:11] = 1
    truth[20, 20, 20:24] = guess[20, 20, 21:24] = 1
    truth[20, 5, 5:8] = guess[25, 25, 25:29] = 1
    return truth, guess


def test_the_numbers_that_the_package_prints():
    scores = evaluate_matched_lesions(*one_case(), spacing_mm=(3.0, 1.0, 2.0), regions=R)["r"]
    assert [scores[name] for name in MEANS] == pytest.approx(
        [0.6685714285714286, 3.174999999999999, 0.6313775510204082], abs=1e-12
    )
    whole = [scores[name] for name in ("legacy_dice", "legacy_hd95", "legacy_nsd")]
    assert whole == pytest.approx([0.4772727272727273, 2.23606797749979, 0.3142857142857143], abs=1e-12)
    assert [scores[name] for name in COUNTS] == [2, 1, 1, 0, 0]


def test_metastases_every_large_miss_and_every_false_one_counts():
    # lesions of 750, 24 and 18 mm3: the last is small, so two are scored with the false component
    scores = evaluate_matched_lesions(*one_case(), spacing_mm=(3.0, 1.0, 2.0), regions=R, large_mm3=20.0)["r"]
    assert scores["lesionwise_dice"] == pytest.approx((0.48 + 0.8571428571428571) / 3)
    assert scores["lesionwise_hd95"] == pytest.approx((4.25 + 2.1 + 373) / 3)
    assert [scores[name] for name in COUNTS] == [2, 0, 1, 1, 0]
    # from 25 mm3 on the found one is small too, from 751 on nothing is left to score
    scores = evaluate_matched_lesions(*one_case(), spacing_mm=(3.0, 1.0, 2.0), regions=R, large_mm3=25.0)["r"]
    assert [scores[name] for name in COUNTS] == [1, 0, 1, 2, 1]
    scores = evaluate_matched_lesions(*one_case(), spacing_mm=(3.0, 1.0, 2.0), regions=R, large_mm3=751)["r"]
    assert all(math.isnan(scores[name]) for name in MEANS)
    assert [scores[name] for name in COUNTS] == [0, 0, 1, 3, 2]


def test_metastases_a_poor_match_is_in_the_means_and_counts_as_a_miss():
    truth, guess = np.zeros((2, 20, 20, 20), np.uint8)
    truth[2:8, 2:8, 2:8] = 1
    guess[7:13, 7:13, 7:13] = 1  # one voxel of 216 + 216 in common
    scores = evaluate_matched_lesions(truth, guess, spacing_mm=(1, 1, 1), regions=R, large_mm3=20.0)["r"]
    assert scores["lesionwise_dice"] == pytest.approx(2 / 432)
    assert [scores[name] for name in COUNTS] == [0, 1, 0, 0, 0]
    scores = evaluate_matched_lesions(truth, guess, spacing_mm=(1, 1, 1), regions=R)["r"]
    assert [scores[name] for name in COUNTS] == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("large", [None, 20.0])
def test_empty_sides(large: float | None):
    truth, _ = one_case()
    nothing = np.zeros_like(truth)

    def means(reference: np.ndarray, prediction: np.ndarray) -> list[float]:
        found = evaluate_matched_lesions(
            reference, prediction, spacing_mm=(3, 1, 2), regions=R, large_mm3=large
        )
        return [found["r"][name] for name in (*MEANS, "legacy_hd95")]

    nan = math.nan
    assert means(nothing, nothing) == pytest.approx([nan] * 4, nan_ok=True)
    assert means(truth, nothing) == [0.0, 373.0, 0.0, 373.0]
    invented = [0.0, 373.0, 0.0, 373.0] if large is None else [nan, nan, nan, 373.0]
    assert means(nothing, truth) == pytest.approx(invented, nan_ok=True)


def test_a_missing_case_costs_what_the_package_says_on_the_brats_grid():
    grid = math.dist((0, 0, 0), (155, 240, 240))
    for policy, diagonal, cost in (
        ("brats2026", grid, 373),
        ("brats2026", math.nan, 373),
        ("brats2026", 900.5, 900),
        ("brats", 900.5, 900.5),
    ):
        found = filled_value("lesionwise_hd95", "missing", policy=policy, diagonal_mm=diagonal)
        assert found == cost


def literal(truth: np.ndarray, guess: np.ndarray, spacing: tuple[float, ...]) -> dict[str, float]:
    """The rules, sentence by sentence, with every one-to-one matching tried."""
    every = np.ones((3, 3, 3))
    (owners, n), (parts, m) = ndimage.label(truth, every), ndimage.label(guess, every)
    dice = {
        (i, j): 2 * (a & b).sum() / (a.sum() + b.sum())
        for i, j in itertools.product(range(1, n + 1), range(1, m + 1))
        if ((a := owners == i) & (b := parts == j)).any()
    }
    best: tuple[float, list[tuple[int, int]]] = (0.0, [])
    for size in range(1, min(n, m) + 1):
        for chosen in itertools.combinations(dice, size):
            once = all(len({pair[side] for pair in chosen}) == size for side in (0, 1))
            if once and sum(dice[pair] for pair in chosen) > best[0] + 1e-12:
                best = sum(dice[pair] for pair in chosen), list(chosen)
    scores = [(dice[i, j], *distances(owners == i, parts == j, spacing[::-1])) for i, j in best[1]]
    means = np.mean(scores, axis=0) if scores else [0.0, 373.0, 0.0] if n or m else [math.nan] * 3
    return dict(zip(MEANS, means, strict=True)) | {
        "lesions_tp": len(scores), "lesions_fn": n - len(scores), "lesions_fp": m - len(scores),
    }  # fmt: skip


def distances(one: np.ndarray, other: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """Pooled HD95, and the mean of the two shares within the smallest spacing, from all pairs of voxels."""
    edges = [
        mask & ~ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 1)) for mask in (one, other)
    ]
    a, b = (np.argwhere(edge) * np.array(spacing) for edge in edges)
    between = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    there, back = between.min(axis=1), between.min(axis=0)
    limit = min(spacing) * (1 + 1e-12)
    share = ((there <= limit).mean() + (back <= limit).mean()) / 2
    return float(np.percentile(np.concatenate((there, back)), 95)), float(share)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_equal_to_the_literal_rules(seed: int):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(4, 9, 3))
    noise = [ndimage.gaussian_filter(rng.standard_normal(shape), 0.8) for _ in range(2)]
    noise[1] += rng.choice([0, 1]) * noise[0]
    truth, guess = (labelled > rng.uniform(0.3, 0.8) for labelled in noise)
    spacing = tuple(float(s) for s in rng.choice([0.5, 1.0, 2.0], 3))
    ours = evaluate_matched_lesions(truth, guess, spacing_mm=spacing, regions=R)["r"]
    expected = literal(truth, guess, spacing)
    # Where two matchings have the same sum either may be taken: the mean of Dice is equal all the same.
    either = ("lesionwise_hd95", "lesionwise_nsd") if tied(truth, guess) else ()
    names = [name for name in expected if name not in either]
    assert {n: ours[n] for n in names} == pytest.approx(
        {n: expected[n] for n in names}, abs=1e-9, nan_ok=True
    )


def tied(truth: np.ndarray, guess: np.ndarray) -> bool:
    """Whether two pairs have the same Dice, so that two matchings may have the same sum."""
    every = np.ones((3, 3, 3))
    (owners, n), (parts, m) = ndimage.label(truth, every), ndimage.label(guess, every)
    values = [
        round(2 * (a & b).sum() / (a.sum() + b.sum()), 12)
        for i, j in itertools.product(range(1, n + 1), range(1, m + 1))
        if ((a := owners == i) & (b := parts == j)).any()
    ]
    return len(set(values)) < len(values)


@pytest.mark.parametrize("large", [-1.0, math.nan, math.inf])
def test_a_size_that_means_nothing(large: float):
    with pytest.raises(ValueError, match="large_mm3"):
        evaluate_matched_lesions(*one_case(), spacing_mm=(1, 1, 1), regions=R, large_mm3=large)
