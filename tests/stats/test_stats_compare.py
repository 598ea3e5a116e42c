"""The verdict on pairs of models: one test gives p, interval, sign and verdict."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import segbench.stats as s
from segbench.stats.family import decide, pair_tests
from segbench.stats.moderation import moderate, trigamma_inverse


def table(seed: int, seeds=(3, 3, 3), cases: int = 30, gain: float = 0.6, sd: float = 0.3) -> dict[str, Any]:
    """Models in points: shared difficulty, each model better than the one before by `gain`."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(80, 6, cases)
    return {
        f"m{i}": difficulty
        + gain * i
        + rng.normal(0, sd, (number, 1))
        + rng.normal(0, 1, cases)
        + rng.normal(0, 1, (number, cases))
        for i, number in enumerate(seeds)
    }


TABLES = st.builds(
    table,
    st.integers(0, 10_000),
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.integers(2, 25),
    st.sampled_from([0.0, 0.3, 2.0]),
)


@given(TABLES, st.booleans(), st.sampled_from([None, 0.5, 3.0]))
@settings(max_examples=80, deadline=None)
def test_p_interval_sign_and_verdict_agree(scores, higher, margin):
    for c in s.compare_models(scores, higher_is_better=higher, margin=margin):
        better = (c.difference > 0) == higher
        assert (c.verdict in ("better", "worse")) == (c.p_adjusted < 0.05)
        if c.verdict in ("better", "worse"):
            assert c.verdict == ("better" if better else "worse")
        if np.isnan(c.p_adjusted):
            assert c.note
            assert c.verdict == "inconclusive"
        else:
            assert c.p_adjusted >= c.p
        if c.verdict == "equivalent":
            assert margin is not None
            assert -margin <= c.low <= c.high <= margin
            assert c.confidence >= 0.9
        else:
            assert (c.low > 0 or c.high < 0) == (c.p < 0.05)
            assert c.low <= c.difference <= c.high
        assert c.claim == ("method" if min(c.seeds_a, c.seeds_b) >= 2 else "weights")


@given(TABLES, st.randoms())
@settings(max_examples=40, deadline=None)
def test_numbering_of_seeds_names_and_order_of_models_decide_nothing(scores, random):
    found = s.compare_models(scores, margin=1.0)
    shuffled = {name: random.sample(list(rows), len(rows)) for name, rows in scores.items()}
    assert repr(s.compare_models(shuffled, margin=1.0)) == repr(found)  # repr: nan equals nan
    turned = s.compare_models(dict(reversed(scores.items())), margin=1.0)
    opposite = {"better": "worse", "worse": "better"}
    mirrored = {(c.b, c.a): c for c in turned}
    for c in found:
        back = mirrored[c.a, c.b]
        assert c.claim == back.claim
        assert back.verdict == opposite.get(c.verdict, c.verdict)
        assert [back.difference, back.p, back.low] == pytest.approx([-c.difference, c.p, -c.high], rel=1e-9)
        assert back.wins == pytest.approx(1 - c.wins)


def test_a_patient_counts_once():
    scores = table(1)
    one_each = s.compare_models(scores, patients=[f"p{i}" for i in range(30)])
    plain = s.compare_models(scores)
    for a, b in zip(one_each, plain, strict=True):
        assert (a.n, a.verdict) == (b.n, b.verdict)
        assert a.p == pytest.approx(b.p, rel=1e-9)
    twice = {name: np.repeat(values, 2, axis=1) for name, values in scores.items()}
    for a, b in zip(s.compare_models(twice, patients=np.repeat(np.arange(30), 2)), plain, strict=True):
        assert a.n == 30
        assert (a.p, a.low, a.wilcoxon_p) == pytest.approx((b.p, b.low, b.wilcoxon_p), rel=1e-9)


def test_one_seed_is_the_paired_t_test():
    scores = table(2, seeds=(1, 1))
    (c,) = s.compare_models(scores)
    peer: Any = stats.ttest_rel(scores["m0"][0], scores["m1"][0])
    assert c.p == pytest.approx(peer.pvalue, rel=1e-9)
    interval = peer.confidence_interval()
    assert (c.low, c.high) == pytest.approx((interval.low, interval.high))
    assert (c.claim, c.p_adjusted) == ("weights", c.p)
    few = s.compare_models({name: values[:, :5] + 9.0 * (name == "m1") for name, values in scores.items()})
    assert (few[0].verdict, few[0].p < 0.05) == ("inconclusive", True)
    assert "no verdict below 6" in few[0].note


@pytest.mark.parametrize("patients", [2, 3, 5])
@pytest.mark.parametrize("seeds", [1, 2, 3, 8])
@pytest.mark.parametrize("models", [2, 3])
def test_a_few_patients_give_no_verdict_with_any_number_of_seeds(patients: int, seeds: int, models: int):
    rng = np.random.default_rng(patients)
    case = rng.normal(0, 1, patients)
    scores = {
        f"m{place}": 20.0 * place + case + rng.normal(0, 1e-3, (seeds, patients)) for place in range(models)
    }
    for pair in s.compare_models(scores, margin=50.0):
        assert (pair.verdict, np.isnan(pair.p_adjusted)) == ("inconclusive", True)
        assert f"{patients} cases: no verdict below 6 cases" in pair.note
    grouped = s.compare_models(
        {name: np.repeat(table, 10, axis=1) for name, table in scores.items()},
        patients=np.repeat(np.arange(patients), 10),
    )
    assert {pair.verdict for pair in grouped} == {"inconclusive"}  # scans of few patients are not patients


def test_the_family_is_corrected_by_shaffer_or_holm():
    scores = table(3, seeds=(3, 3, 3, 3))
    pairs = s.compare_models(scores)
    matrix = np.ones((4, 4))
    for c, (i, j) in zip(pairs, zip(*np.triu_indices(4, 1), strict=True), strict=True):
        matrix[i, j] = matrix[j, i] = c.p
    assert [c.p_adjusted for c in pairs] == pytest.approx(s.shaffer(matrix)[np.triu_indices(4, 1)])
    against = s.compare_models(scores, reference="m2")
    assert [(c.a, c.b) for c in against] == [("m0", "m2"), ("m1", "m2"), ("m3", "m2")]
    assert [c.p_adjusted for c in against] == pytest.approx(s.holm([c.p for c in against]))


def test_the_larger_p_decides_and_gives_the_interval():
    scores = table(4, seeds=(3, 4, 5), sd=1.0)
    tests = pair_tests(list(scores.values()), [(0, 1), (0, 2), (1, 2)], floor=1e-10)
    assert not np.allclose(tests[0].pvalue, tests[1].pvalue)
    chosen, p = decide(*tests)
    assert p == pytest.approx(np.maximum(tests[0].pvalue, tests[1].pvalue))
    assert [c.p for c in s.compare_models(scores)] == pytest.approx(list(p))
    assert 2 * chosen.tail(np.abs(chosen.difference)) == pytest.approx(p)


def test_two_seeds_among_three_models_give_no_verdict_and_do_not_help_the_others():
    scores = table(5, seeds=(2, 3, 3), gain=30.0)
    found = {(c.a, c.b): c for c in s.compare_models(scores, margin=100.0)}
    for pair in (("m0", "m1"), ("m0", "m2")):
        assert (found[pair].verdict, np.isnan(found[pair].p_adjusted)) == ("inconclusive", True)
        assert "Two seeds of m0" in found[pair].note
    assert found["m1", "m2"].p_adjusted == pytest.approx(3 * found["m1", "m2"].p)
    (two,) = s.compare_models(table(5, seeds=(2, 2), gain=30.0))
    assert two.verdict == "worse"


def test_equivalence_is_corrected_and_asks_for_a_margin():
    scores = table(6, seeds=(5, 5, 5), gain=0.0, sd=0.05, cases=200)
    assert all(c.verdict != "equivalent" and np.isnan(c.p_equivalence) for c in s.compare_models(scores))
    margin = max(max(-c.low, c.high) for c in s.compare_models(scores)) * 2
    found = s.compare_models(scores, margin=margin)
    assert [c.p_equivalence_adjusted for c in found] == pytest.approx(
        s.holm([c.p_equivalence for c in found])
    )
    assert {c.verdict for c in found} == {"equivalent"}
    with pytest.raises(s.StatsError, match="margin"):
        s.compare_models(scores, margin=0.0)


def test_the_winner_of_the_mean_is_not_called_the_winner_of_the_cases():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.85, 0.92, 40)
    better = base + rng.uniform(0.005, 0.02, 40)
    better[[3, 17, 29]] = 0.0
    (c,) = s.compare_models({"A": better[None], "B": base[None]})
    assert c.verdict == "inconclusive"
    assert (c.wins, c.difference < 0, c.shift > 0, c.wilcoxon_p < 0.01) == (37 / 40, True, True, True)
    assert c.note == "By the mean B is ahead, on 37 of 40 cases A is."
    (lower,) = s.compare_models({"A": -better[None], "B": -base[None]}, higher_is_better=False)
    assert lower.note == c.note


def test_intervals_end_where_the_metric_ends():
    rng = np.random.default_rng(0)
    scores = {"a": rng.choice([0.0, 1.0], (2, 4)), "b": 1 - rng.choice([0.0, 1.0], (2, 4))}
    (c,) = s.compare_models(scores, bounds=(0, 1))
    assert -1 <= c.low <= c.high <= 1
    (free,) = s.compare_models(scores)
    assert free.high - free.low > c.high - c.low
    interval = s.mean_interval(np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 0.9]]), bounds=(1, 0))
    assert 0 <= interval.low < interval.high == 1
    with pytest.raises(s.StatsError, match=r"the metric ends at 0 and 1, found 1\.5"):
        s.mean_interval([0.5, 1.5], bounds=(0, 1))


def test_what_does_not_vary_is_not_certain():
    (same,) = s.compare_models({"a": np.full((2, 8), 0.7), "b": np.full((3, 8), 0.7)})
    assert (same.p, same.verdict, same.degenerate, same.difference) == (1.0, "inconclusive", True, 0.0)
    (apart,) = s.compare_models({"a": np.full((2, 8), 0.7), "b": np.full((3, 8), 0.8)})
    assert (apart.verdict, np.isnan(apart.p_adjusted)) == ("inconclusive", True)
    assert "no error can be estimated" in apart.note
    (noise,) = s.compare_models({"a": np.full((2, 8), 0.1 + 0.2), "b": np.full((3, 8), 0.3)})
    assert (noise.difference, noise.wins, noise.wilcoxon_p) == (0.0, 0.5, 1.0)
    (one,) = s.compare_models({"a": [[0.7]], "b": [[0.8]]})
    assert (one.n, np.isnan(one.p), one.verdict) == (1, True, "inconclusive")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m0": [[1.0, np.nan]]}, "scores of m0: NaN or inf at"),
        ({"m0": [[1.0]]}, "share their cases"),
        ({"m0": [1.0, 2.0]}, "expected 2 axes"),
        ({"m0": [["x", "y"]]}, "expected numbers"),
    ],
)
def test_hostile_scores_are_refused_with_their_place(change, message):
    scores: dict[str, Any] = {"m0": np.ones((2, 2)), "m1": np.ones((2, 2))} | change
    for call in (s.compare_models, s.rank_models, s.null_check, s.models_differ):
        with pytest.raises(s.StatsError, match=message):
            call(scores)


def test_hostile_options_are_refused():
    scores = table(0)
    hostile: list[tuple[dict[str, Any], str]] = [
        ({"reference": "nobody"}, "reference"),
        ({"patients": ["p"]}, "one label per case"),
        ({"alpha": 2.0}, "alpha"),
        ({"bounds": (1.0, 1.0)}, "bounds"),
    ]
    for options, message in hostile:
        with pytest.raises(s.StatsError, match=message):
            s.compare_models(scores, **options)
    with pytest.raises(s.StatsError, match="at least 2 models"):
        s.compare_models({"a": [[1.0, 2.0]]})


def test_moderation_pools_what_is_alike_and_leaves_what_is_not():
    alike, df = moderate(np.array([1.0, 1.1, 0.9]), np.array([2.0, 2.0, 4.0]))
    assert alike == pytest.approx(np.full(3, (2 * 1.0 + 2 * 1.1 + 4 * 0.9) / 8))
    assert df == pytest.approx(np.full(3, 8.0))
    apart, df = moderate(np.array([1e-4, 1.0, 1e4]), np.full(3, 4.0))
    assert (apart[0] < 0.1, apart[2] > 2000, bool((df < 6).all())) == (True, True, True)
    copied, _ = moderate(np.array([0.0, 1.0, 1.1]), np.full(3, 2.0))
    assert copied[0] > 0.5  # a copied run does not count as a model that retraining does not move
    values = np.geomspace(1e-5, 1e5, 30)
    from scipy.special import polygamma

    assert polygamma(1, trigamma_inverse(values)) == pytest.approx(values, rel=1e-8)


def test_the_null_check_counts_retrainings():
    rng = np.random.default_rng(0)
    far = rng.normal(0, 1, 40) + np.array([[0.0], [5.0], [10.0]])
    check = s.null_check({"far": far, "same": np.ones((2, 40)), "single": np.ones((1, 40))})
    assert check.per_model == (("far", 3, 3), ("same", 1, 0))
    assert (check.pairs, check.significant, check.share, check.n) == (4, 3, 0.75, 40)
    assert np.isnan(s.null_check({"single": np.ones((1, 40))}).share)


def test_models_differ_equals_repeated_measures_for_two_models():
    scores = table(8, seeds=(1, 1))
    peer: Any = stats.ttest_rel(scores["m0"][0], scores["m1"][0])
    found = s.models_differ(scores)
    assert (found.p, found.statistic) == pytest.approx((peer.pvalue, peer.statistic**2))
    assert found.claim == "weights"
    far = s.models_differ(table(8, gain=20.0))
    assert far.p < 0.001
    assert 0.9 < far.reliability_low < far.reliability < 1
    assert s.models_differ({"a": np.ones((2, 5)), "b": np.ones((2, 5))}).p == 1.0


def test_ranks_draw_the_seeds():
    scores = table(9, seeds=(3, 3, 3), sd=3.0, gain=12.0, cases=200)
    both = s.rank_models(scores)
    means = {name: values.mean() for name, values in scores.items()}
    assert [both.models[place] for place in np.argsort(both.ranks)] == sorted(means, key=lambda m: -means[m])
    assert both.models == ("m0", "m1", "m2")
    for place, values in enumerate(scores.values()):
        cases_only = s.mean_interval(values.mean(axis=0))
        assert both.mean_high[place] - both.mean_low[place] > 2 * (cases_only.high - cases_only.low)
    again = s.rank_models({name: values[::-1] for name, values in scores.items()})
    assert np.array_equal(again.frequencies, both.frequencies)
    clear = s.rank_models(table(9, gain=20.0))
    assert (list(clear.ranks), clear.probability_best[2]) == ([3, 2, 1], 1.0)


def test_one_seed_has_an_order_and_no_probability():
    found = s.rank_models(table(9, seeds=(3, 1, 3)))
    assert list(found.ranks) == [3, 2, 1]
    assert np.isnan(found.probability_best).all()
    assert (found.rank_low.size, found.rank_high.size, found.kendall_tau.size) == (0, 0, 0)


@pytest.mark.parametrize("cases", [6, 15, 40])
@pytest.mark.parametrize("noise", [0.0, 1.0, 8.0])
def test_models_that_nothing_tells_apart_have_no_share_of_draws(cases, noise):
    """The noisiest model would be first most often, also with the lowest mean."""
    shares = 0
    for repeat in range(20):
        scores = table(repeat, seeds=(3, 3, 3, 3), cases=cases, gain=0.0, sd=0.3)
        scores["m0"] = scores["m0"] + np.random.default_rng(repeat).normal(-1, noise, (3, 1))
        found = s.rank_models(scores, resamples=200)
        told = s.models_differ(scores).p < 0.05
        assert np.isfinite(found.probability_best).all() == np.isfinite(found.frequencies).all() == told
        assert found.rank_low.size == 4, "the intervals of ranks stay"
        shares += told
    assert shares < 20


def test_results_are_frozen():
    (c,) = s.compare_models(table(0, seeds=(2, 2)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        c.verdict = "better"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(3,) * 6, (2, 2), (3, 5)])
def test_family_wise_error(seeds):
    wrong = 0
    for repeat in range(400):
        scores = table(repeat, seeds=seeds, cases=40, gain=0.0, sd=0.5)
        wrong += any(c.verdict in ("better", "worse") for c in s.compare_models(scores))
    assert wrong / 400 <= 0.07 + 2 * np.sqrt(0.07 * 0.93 / 400)


@pytest.mark.slow
def test_rank_intervals_cover_and_a_sure_winner_is_rare():
    covered, printed = [], 0
    for repeat in range(200):
        rng = np.random.default_rng(repeat)
        scores = {
            str(i): 0.1 * i
            + rng.normal(0, 0.5, (3, 1))
            + rng.normal(0, 0.7, 250)
            + rng.normal(0, 0.9, (3, 250))
            for i in range(6)
        }
        found = s.rank_models(scores, resamples=1000)
        true = 6 - np.arange(6)
        covered.append((found.rank_low <= true) & (true <= found.rank_high))
        printed += bool((found.probability_best >= 0.95).any() and found.probability_best.argmax() != 5)
    assert np.mean(covered) >= 0.88
    assert printed / 200 <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("models", [2, 3, 6])
def test_models_differ_keeps_its_size(models):
    found = [s.models_differ(table(i, (3,) * models, 40, 0.0, 0.5)).p < 0.05 for i in range(500)]
    assert np.mean(found) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 500)


def test_a_difference_that_the_grid_does_not_resolve_is_never_called_better() -> None:
    rng = np.random.default_rng(3)
    easy = rng.uniform(2.0, 9.0, 40)
    scores = {
        "far": easy + 5 + rng.normal(0, 0.3, (3, 40)),
        "near": easy + 1 + rng.normal(0, 0.3, (3, 40)),
        "first": easy + rng.normal(0, 0.3, (3, 40)),
    }
    free = {pair.a: pair for pair in s.compare_models(scores, higher_is_better=False, reference="first")}
    assert {name: pair.verdict for name, pair in free.items()} == {"far": "worse", "near": "worse"}
    held = s.compare_models(scores, higher_is_better=False, reference="first", resolution=1.9, margin=1.5)
    far, near = sorted(held, key=lambda pair: pair.a)
    assert (far.verdict, near.verdict) == ("worse", "equivalent")  # an interval within a margin still counts
    assert np.isnan(near.p_adjusted)
    assert "grid" in near.note
    assert (near.difference, near.p) == (free["near"].difference, free["near"].p)
    with pytest.raises(s.StatsError, match="resolution"):
        s.compare_models(scores, resolution=-1.0)
