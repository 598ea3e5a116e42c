"""Whatever comes in: a finite, lawful answer or a StatsError that says where, never a silent number."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import segbench.stats as s

HOSTILE = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, np.nan, np.inf, -np.inf, 1e-300, 1e300, 5e-324, 0.1 + 0.2, 0.3]),
    st.floats(0, 1),
)
VECTORS = hnp.arrays(float, st.integers(0, 25), elements=HOSTILE)
TABLES = hnp.arrays(float, st.tuples(st.integers(0, 9), st.integers(0, 4)), elements=HOSTILE)

ONE = [
    lambda x: s.wilcoxon_signed_rank(x),
    lambda x: s.wilcoxon_signed_rank(x, zeros="pratt"),
    lambda x: s.wilcoxon_signed_rank(x, method="exact"),
    lambda x: s.wilcoxon_signed_rank(x, method="permutation", resamples=50),
    lambda x: s.hodges_lehmann(x),
    lambda x: s.mean_interval(x, resamples=50),
    lambda x: s.mean_interval(x, method="bca", resamples=50),
    lambda x: s.mean_interval(x, method="percentile", resamples=50),
]
MANY = [
    lambda t: s.two_level_test(t, t[::-1]),
    lambda t: s.mean_interval(t, resamples=50),
    lambda t: s.rank_models({"a": t, "b": t[::-1]}, resamples=20),
]


def lawful(result):
    """P-values in [0, 1], bounds around their estimate, arrays that nobody can change."""
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if isinstance(value, np.ndarray):
            assert not value.flags.writeable
        if field.name.startswith("pvalue") or field.name.endswith("_pvalue"):
            assert 0 <= np.min(value)
            assert np.max(value) <= 1
    if isinstance(result, s.Interval) and not np.isnan(result.low):
        assert result.low <= result.high


@pytest.mark.ci
@pytest.mark.parametrize("call", range(len(ONE)))
@given(x=VECTORS)
@settings(max_examples=40, deadline=None)
def test_vectors(call, x):
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            result = ONE[call](x)
    except s.StatsError as error:
        assert str(error)
        return
    assert np.isfinite(x).all()
    assert x.size
    lawful(result)


@pytest.mark.parametrize("call", range(len(MANY)))
@given(table=TABLES)
@settings(max_examples=25, deadline=None)
def test_tables(call, table):
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            result = MANY[call](table)
    except s.StatsError as error:
        assert str(error)
        return
    assert np.isfinite(table).all()
    assert table.size
    lawful(result)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_positions_are_named(bad):
    x = np.linspace(0, 1, 30)
    x[[4, 17]] = bad
    with pytest.raises(s.StatsError, match=r"x: NaN or inf at 4, 17 \(2 of 30 values\)"):
        s.wilcoxon_signed_rank(x)
    with pytest.raises(s.StatsError, match=r"y: NaN or inf at 4, 17"):
        s.hodges_lehmann(np.zeros(30), x)
    with pytest.raises(s.StatsError, match=r"b: NaN or inf at \(0, 4\), \(0, 17\)"):
        s.two_level_test(np.zeros((2, 30)), np.stack([x, np.zeros(30)]))


@pytest.mark.parametrize("bad", [[], [["a"]], "text", [[1.0, 2.0], [3.0]], None, [1j], [2e100]], ids=str)
def test_what_is_not_a_vector_of_numbers_is_refused(bad):
    with pytest.raises(s.StatsError, match="x"):
        s.wilcoxon_signed_rank(bad)


def test_unequal_lengths_are_named():
    with pytest.raises(s.StatsError, match="equal lengths, found 3 and 2"):
        s.wilcoxon_signed_rank([1.0, 2.0, 3.0], [1.0, 2.0])


def test_a_hundred_thousand_cases():
    rng = np.random.default_rng(0)
    x, y = rng.beta(9, 1.5, 100_000), rng.beta(9, 1.6, 100_000)
    assert s.wilcoxon_signed_rank(x, y).pvalue < 1e-6
    shift = s.hodges_lehmann(x, y)
    assert shift.low < shift.estimate < shift.high
    assert s.mean_interval(x, resamples=100).low < x.mean()
    stability = s.rank_models({"x": x[None], "y": y[None]}, resamples=40)
    assert list(stability.ranks) == [1, 2]
    assert stability.leave_one_out_winner_changes == 0


def test_stats_error_is_a_value_error():
    assert issubclass(s.StatsError, ValueError)
    assert issubclass(s.NotEnoughSeeds, s.StatsError)


@pytest.mark.parametrize("name", [n for n in s.__all__ if n.endswith(("Result", "Interval", "Stability"))])
def test_results_are_frozen_and_slotted(name):
    kind = getattr(s, name)
    assert kind.__dataclass_params__.frozen
    assert "__slots__" in vars(kind)


@pytest.mark.parametrize("call", [s.holm, s.mean_interval, s.wilcoxon_signed_rank])
@pytest.mark.parametrize("values", [["a", "b"], [1j, 0.5], np.array([1j, 0.5]), [[0.1], [0.2, 0.3]]])
@pytest.mark.filterwarnings("error")
def test_what_is_no_number_is_named(call, values):
    with pytest.raises(s.StatsError, match="expected numbers"):
        call(values)
