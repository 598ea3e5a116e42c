"""The selective scan: values and gradients of every CPU backend against the definition, within bounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_cases import relative_errors, run_scan, scan_inputs
from torch.nn import functional

from segbench.networks.scan import selective_scan

FAST = ("torch", "numba")


def by_hand(u, delta, A, B, C, D, z, bias) -> np.ndarray:
    """The recurrence in plain loops over single numbers."""
    u, delta, A, B, C, D, z, bias = (t.numpy() for t in (u, delta, A, B, C, D, z, bias))
    y = np.zeros_like(u)
    for b, d in itertools.product(range(u.shape[0]), range(u.shape[1])):
        h = np.zeros(A.shape[1])
        for t in range(u.shape[2]):
            dt = np.log1p(np.exp(delta[b, d, t] + bias[d]))
            for n in range(A.shape[1]):
                h[n] = np.exp(dt * A[d, n]) * h[n] + dt * u[b, d, t] * B[b, n, t]
            gate = z[b, d, t] / (1 + np.exp(-z[b, d, t]))
            y[b, d, t] = (C[b, :, t] @ h + D[d] * u[b, d, t]) * gate
    return y


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_equals_single_numbers_by_hand(backend: str) -> None:
    tensors = scan_inputs(2, 3, 4, 9)
    found = selective_scan(*tensors, True, backend=backend).numpy()
    np.testing.assert_allclose(found, by_hand(*tensors), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("present", ["", "D", "z", "+s", "Dz", "Dz+s", "s"])
def test_every_combination_of_parts(backend: str, present: str) -> None:
    tensors = scan_inputs(2, 19, 5, 70)
    exact = run_scan(tensors, backend="reference", present=present)
    found = run_scan(tensors, backend=backend, present=present)
    assert max(relative_errors(found, exact)) < 1e-12


@pytest.mark.ci
@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 40),
    states=st.integers(1, 9),
    length=st.sampled_from([1, 2, 3, 15, 16, 17, 61, 63, 64, 65, 97, 127, 128, 129, 131, 193]),
    seed=st.integers(0, 10**6),
)
def test_any_shape(backend: str, batch: int, channels: int, states: int, length: int, seed: int) -> None:
    tensors = scan_inputs(batch, channels, states, length, seed=seed)
    exact = run_scan(tensors, backend="reference")
    found = run_scan(tensors, backend=backend)
    assert max(relative_errors(found, exact)) < 1e-11


@pytest.mark.parametrize("backend", FAST)
def test_sixty_four_states(backend: str) -> None:
    tensors = scan_inputs(1, 5, 64, 40)
    exact = run_scan(tensors, backend="reference")
    assert max(relative_errors(run_scan(tensors, backend=backend), exact)) < 1e-12


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("length", [33, 512, 4096])
def test_bounds_of_single_precision(backend: str, length: int) -> None:
    """float32: y within 1e-6, every gradient within 4e-6 of a float64 run of the same float32 inputs."""
    tensors = [t.float().double() for t in scan_inputs(1, 20, 16, length)]
    exact = run_scan(tensors, backend="torch")
    y, *gradients = relative_errors(run_scan(tensors, backend=backend, dtype=torch.float32), exact)
    assert y <= 1e-6
    assert max(gradients) <= 4e-6


@pytest.mark.parametrize("backend", FAST)
def test_bounds_of_double_precision(backend: str) -> None:
    tensors = scan_inputs(1, 4, 3, 700)
    exact = run_scan(tensors, backend="reference")
    y, *gradients = relative_errors(run_scan(tensors, backend=backend), exact)
    assert y <= 1e-12
    assert max(gradients) <= 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("backend", FAST)
def test_bounds_of_double_precision_at_full_length(backend: str) -> None:
    tensors = scan_inputs(1, 3, 16, 4096)
    exact = run_scan(tensors, backend="reference")
    y, *gradients = relative_errors(run_scan(tensors, backend=backend), exact)
    assert y <= 1e-12
    assert max(gradients) <= 1e-11


@pytest.mark.parametrize("backend", ["reference", *FAST])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_compute_in_float32(backend: str, dtype: torch.dtype) -> None:
    """Only the inputs and the result are rounded: the state is not."""
    tensors = [t.to(dtype) for t in scan_inputs(2, 17, 6, 300)]
    A, D, bias = (tensors[i].float() for i in (2, 5, 7))
    mixed = [*tensors[:2], A, *tensors[3:5], D, tensors[6], bias]
    y = selective_scan(*mixed, True, backend=backend)
    exact = selective_scan(*(t.double() for t in mixed), True, backend="torch")
    assert y.dtype == dtype
    unit = torch.finfo(dtype).eps
    assert ((y.double() - exact).abs() <= 0.51 * unit * exact.abs() + 1e-6 * exact.abs().max()).all()


@pytest.mark.parametrize("backend", FAST)
def test_gradients_keep_the_types_of_their_inputs(backend: str) -> None:
    tensors = scan_inputs(1, 6, 3, 20)
    kinds = (
        [torch.bfloat16] * 2
        + [torch.float32]
        + [torch.bfloat16] * 2
        + [torch.float32, torch.bfloat16, torch.float32]
    )
    leaves = [t.to(kind).requires_grad_() for t, kind in zip(tensors, kinds, strict=True)]
    selective_scan(*leaves, True, backend=backend).float().sum().backward()
    assert [leaf.grad.dtype for leaf in leaves] == kinds


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_underflow_and_standstill_are_finite(backend: str) -> None:
    u, delta, A, B, C, *rest = (t.float() for t in scan_inputs(1, 18, 4, 90))
    dt = functional.softplus(delta)
    dt[:, :, 10] = 0.0
    dt[:, :, 20] = 1e10
    A[0] = -1e6
    results = run_scan([u, dt, A, B, C, *rest], backend=backend, dtype=torch.float32, present="Dz")
    assert all(result.isfinite().all() for result in results)


@pytest.mark.parametrize("backend", FAST)
def test_a_step_of_zero_leaves_the_state(backend: str) -> None:
    u, delta, A, B, C, *_ = scan_inputs(1, 5, 3, 140)
    dt = functional.softplus(delta)
    dt[:, :, 50:] = 0.0
    same = C.clone()
    same[:, :, 50:] = same[:, :, 49:50]
    y = selective_scan(u, dt, A, B, same, backend=backend)
    torch.testing.assert_close(y[:, :, 50:], y[:, :, 49:50].expand(-1, -1, 90))


@pytest.mark.parametrize("backend", FAST)
def test_growing_states_overflow_like_the_definition(backend: str) -> None:
    u, delta, A, B, C, *_ = (t.float() for t in scan_inputs(1, 3, 2, 30))
    dt = functional.softplus(delta)
    grown = selective_scan(u, dt, -A * 5, B, C, backend=backend)
    torch.testing.assert_close(
        grown, selective_scan(u, dt, -A * 5, B, C, backend="reference"), rtol=1e-4, atol=1e-5
    )
    burst = selective_scan(u, dt * 0 + 100.0, -A * 100, B, C, backend=backend)
    assert not burst.isfinite().all()


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_a_nan_stays_in_its_channel_and_after_its_step(backend: str) -> None:
    u, delta, A, B, C, *_ = (t.float() for t in scan_inputs(1, 20, 4, 100))
    u = u.clone()
    u[0, 3, 40] = float("nan")
    y = selective_scan(u, functional.softplus(delta), A, B, C, backend=backend)
    assert y[0, 3, 40:].isnan().all()
    assert not y[0, 3, :40].isnan().any()
    assert not y[0, 4:].isnan().any()


@pytest.mark.parametrize("backend", FAST)
def test_inputs_of_any_strides_are_left_as_they_were(backend: str) -> None:
    plain = scan_inputs(2, 12, 4, 80)
    exact = run_scan([t.contiguous() for t in plain], backend="reference")
    wide = torch.cat([plain[0], plain[6]], 1).transpose(1, 2).contiguous()
    u, z = (half.transpose(1, 2) for half in wide.chunk(2, -1))
    every_second = [torch.stack([t, t], -1).flatten(-2)[..., ::2] for t in plain[1:6]]
    strided = [u, *every_second, z, plain[7]]
    before = [t.clone() for t in strided]
    y = selective_scan(*strided, True, backend=backend)
    assert relative_errors([y], exact[:1])[0] < 1e-12
    assert all(torch.equal(now, then) for now, then in zip(strided, before, strict=True))
    assert max(relative_errors(run_scan(strided, backend=backend), exact)) < 1e-12


@pytest.mark.parametrize("backend", FAST)
def test_no_later_step_reaches_an_earlier_one(backend: str) -> None:
    tensors = scan_inputs(1, 6, 3, 150)
    later = [t.clone() for t in tensors]
    for index in (0, 1, 3, 4, 6):
        later[index][..., 77:] += 1.0
    first, second = (selective_scan(*given, True, backend=backend) for given in (tensors, later))
    assert torch.equal(first[..., :77], second[..., :77])
    assert not torch.equal(first[..., 77:], second[..., 77:])


def test_shapes_that_do_not_fit_are_refused_with_their_numbers() -> None:
    u, delta, A, B, C, D, *_ = scan_inputs(2, 6, 3, 10)
    wrong = {
        r"delta must be \(2, 6, 10\).*found \(2, 6, 9\)": (u, delta[..., :9], A, B, C),
        r"A must be \(6, 3\).*found \(5, 3\)": (u, delta, A[:5], B, C),
        r"B must be \(2, 3, 10\).*found \(2, 2, 10\)": (u, delta, A, B[:, :2], C),
        r"ungrouped.*found B \(2, 1, 3, 10\)": (u, delta, A, B[:, None], C),
        r"D must be \(6,\).*found \(5,\)": (u, delta, A, B, C, D[:5]),
        r"empty sequence.*\(2, 6, 0\)": (u[..., :0], delta[..., :0], A, B[..., :0], C[..., :0]),
        r"A is complex": (u, delta, A.to(torch.complex128), B, C),
        r"u must be.*found u \(6, 10\)": (u[0], delta, A, B, C),
    }
    for message, arguments in wrong.items():
        with pytest.raises(ValueError, match=message):
            selective_scan(*arguments)
