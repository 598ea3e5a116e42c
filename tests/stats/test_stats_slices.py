"""Do models compare alike on all groups: the size on shuffled groups, the power for a planted gap."""

import numpy as np
import pytest

import segbench.stats as s


def tables(seed: int, n: int = 250, models: int = 3) -> np.ndarray:
    """(models, patients): hard patients are hard for all."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 8, n)
    return 80 + hard + rng.normal(0, 3, (models, n))


def sites(seed: int, n: int = 250) -> list[str]:
    return np.random.default_rng(seed + 1000).choice(["A", "B", "C", "D"], n).tolist()


def test_size_on_groups_that_mean_nothing() -> None:
    found = [s.slices_differ(tables(seed, 60), sites(seed, 60), draws=199)[0] < 0.05 for seed in range(400)]
    assert 0.03 <= np.mean(found) <= 0.075


def test_a_gap_of_two_points_between_two_sites_is_found_and_named() -> None:
    found = []
    for seed in range(12):
        scores, group = tables(seed), np.where(np.array(sites(seed)) < "C", "A", "B")
        scores[1, group == "B"] -= 2.0
        p, model, worst = s.slices_differ(scores, group.tolist())
        found.append(p < 0.05 and (model, worst) == (1, "B"))
    assert sum(found) >= 11


def test_a_site_of_hard_patients_is_no_interaction_but_a_gap_for_one_model() -> None:
    scores, group = tables(5), sites(5)
    scores[:, np.array(group) == "B"] -= 6.0
    assert s.slices_differ(scores, group)[0] == s.slices_differ(tables(5), group)[0]
    p, model, worst = s.slices_differ(scores[:1], group)
    assert p < 0.01
    assert (model, worst) == (0, "B")


def test_equal_scores_say_nothing_and_order_decides_nothing() -> None:
    assert s.slices_differ(np.full((2, 20), 0.5), ["a", "b"] * 10)[0] == 1.0
    scores, group = tables(1, 40), sites(1, 40)
    assert s.slices_differ(scores, group) == s.slices_differ(scores, group)


@pytest.mark.parametrize(
    ("scores", "groups"),
    [
        (np.zeros((2, 4)), ["a", "a", "b"]),
        (np.zeros((2, 3)), ["a", "a", "b"]),
        (np.zeros((2, 4)), ["a"] * 4),
        (np.full((2, 4), np.nan), ["a", "a", "b", "b"]),
        (np.zeros(4), ["a", "a", "b", "b"]),
    ],
)
def test_hostile_groups(scores: np.ndarray, groups: list[str]) -> None:
    with pytest.raises(s.StatsError):
        s.slices_differ(scores, groups)
