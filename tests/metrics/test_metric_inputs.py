"""Arguments that cannot be are refused with both values named; there is no silent default."""

import numpy as np
import pytest

from segbench.metrics import evaluate_case

ONE = np.ones((3, 3, 3), np.uint8)
OK = {"spacing_mm": (1, 1, 1), "regions": {"a": (1,)}}


def case(reference=ONE, prediction=ONE, **changes):
    return evaluate_case(reference, prediction, **(OK | changes))


def test_spacing_is_required():
    with pytest.raises(TypeError):
        evaluate_case(ONE, ONE, regions={"a": (1,)})


@pytest.mark.parametrize(
    "spacing",
    [
        (1, 1),
        (1, 1, 1, 1),
        1.0,
        (1, 1, 0),
        (1, 1, -1),
        (1, 1, float("nan")),
        (1, 1, float("inf")),
        (1e-200, 1, 1),  # its square is 0: two masks far apart would be at distance 0
        (1, 1e200, 1),
    ],
)
def test_spacing_must_be_three_positive_numbers(spacing):
    with pytest.raises(ValueError, match="spacing_mm"):
        case(spacing_mm=spacing)


def test_unequal_shapes_name_both():
    with pytest.raises(ValueError, match=r"\(3, 3, 3\).*\(3, 3, 4\)"):
        case(prediction=np.ones((3, 3, 4), np.uint8))


@pytest.mark.parametrize("shape", [(3, 3), (1, 3, 3, 3)])
def test_rank_must_be_three(shape):
    with pytest.raises(ValueError, match="3-D"):
        case(np.ones(shape, np.uint8), np.ones(shape, np.uint8))


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e300])
def test_floats_that_are_no_labels(value):
    array = ONE.astype(np.float64)
    array[1, 1, 1] = value
    with pytest.raises(ValueError, match="prediction"):
        case(prediction=array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.filterwarnings("error")
def test_floats_that_are_labels(dtype):
    assert case(ONE.astype(dtype))["a"]["dice"] == 1.0


@pytest.mark.parametrize("dtype", ["U3", object, complex])
def test_other_types(dtype):
    with pytest.raises(ValueError, match="reference"):
        case(ONE.astype(dtype))


@pytest.mark.parametrize(
    "regions",
    [{}, *({"a": labels} for labels in [(), (0, 1), (1.5,), 1, ("x",), "12", (None,), (np.inf,), (np.nan,)])],
)
def test_regions_that_cannot_be(regions):
    with pytest.raises(ValueError, match="region"):
        case(regions=regions)


def test_unknown_names_come_with_suggestions():
    with pytest.raises(ValueError, match="did you mean dice"):
        case(metrics=["dise"])
    with pytest.raises(ValueError, match="did you mean worst"):
        case(empty_policy="wurst")
    with pytest.raises(ValueError, match="sequence of names"):
        case(metrics="dice")
    with pytest.raises(ValueError, match="unknown metric 3"):
        case(metrics=[3])
    with pytest.raises(ValueError, match="unknown empty policy None"):
        case(empty_policy=None)


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf"), {"b": 1.0}, {}])
def test_tolerances_that_cannot_be(tolerance):
    with pytest.raises(ValueError, match="nsd_tolerance_mm"):
        case(nsd_tolerance_mm=tolerance)


def test_tolerance_by_region_with_a_default():
    found = case(regions={"a": (1,), "b": (2,)}, nsd_tolerance_mm={"default": 1.0, "b": 2.0})
    assert found["a"]["nsd"] == 1.0


def test_a_2d_map_takes_an_axis_of_length_one():
    flat = np.zeros((1, 9, 9), np.uint8)
    flat[0, 2:7, 2:7] = 1
    found = evaluate_case(flat, flat, spacing_mm=(5, 1, 1), regions={"a": (1,)})["a"]
    assert (found["dice"], found["hd"]) == (1.0, 0.0)


def test_empty_arrays_hold_nothing():
    empty = np.zeros((0, 4, 4), np.uint8)
    assert case(empty, empty)["a"].status == "both_empty"
