"""The CPU kernel: bitwise the same for any number of threads, callable from several, exact vectors."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numba import njit
from scan_cases import run_scan, scan_inputs

from segbench.networks.scan import numba_backend
from segbench.networks.scan.numba_vectors import (
    cache_line,
    exp2,
    lanes_of,
    load,
    pointer,
    softplus_terms,
    store,
    sum_rows,
)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bitwise_the_same_for_any_number_of_threads(dtype: torch.dtype, threads) -> None:
    tensors = scan_inputs(3, 150, 6, 130)
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        results.append(run_scan(tensors, backend="numba", dtype=dtype))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_several_python_threads_may_call_at_once(threads) -> None:
    threads(2)
    tensors = scan_inputs(2, 70, 4, 200)
    alone = run_scan(tensors, backend="numba", dtype=torch.float32)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(run_scan, tensors, backend="numba", dtype=torch.float32) for _ in range(12)]
    for call in calls:
        assert all(torch.equal(a, b) for a, b in zip(alone, call.result(), strict=True))


def _parts_in_child(queue) -> None:
    parts = []
    numba_backend._spread(lambda first, last: parts.append((first, last)), 5)
    queue.put(sorted(parts))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_gets_workers_of_its_own(threads) -> None:
    threads(3)
    mine = []
    numba_backend._spread(lambda first, last: mine.append((first, last)), 5)
    assert sorted(mine) == [(0, 1), (1, 3), (3, 5)]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_parts_in_child, args=(queue,), daemon=True)
    child.start()
    assert queue.get(timeout=60) == sorted(mine)
    child.join()


def test_an_error_in_a_worker_reaches_the_caller(threads) -> None:
    threads(2)

    def work(first: int, last: int) -> None:
        if first > 0:
            raise ZeroDivisionError("in the worker")

    with pytest.raises(ZeroDivisionError, match="in the worker"):
        numba_backend._spread(work, 4)


def test_no_copy_of_token_major_inputs() -> None:
    wide = torch.randn(2, 30, 64)
    half = wide[..., 32:].transpose(1, 2)
    tokens = numba_backend._tokens(half, torch.float32)
    assert np.shares_memory(tokens.values, wide.numpy())
    assert (tokens.batch, tokens.step) == (30 * 64, 64)


@njit
def _apply_vectors(x: np.ndarray, powers: np.ndarray, plus: np.ndarray, sigmoid: np.ndarray) -> None:
    for at in range(0, x.size, lanes_of(pointer(x))):
        value = load(pointer(x), at)
        store(pointer(powers), at, exp2(value))
        first, second = softplus_terms(value)
        store(pointer(plus), at, first)
        store(pointer(sigmoid), at, second)


@njit
def _sum_rows(x: np.ndarray, sums: np.ndarray) -> None:
    store(pointer(sums), 0, sum_rows(pointer(x), 0))


@njit
def _misalignment(x: np.ndarray) -> int:
    return cache_line(pointer(x))[0]


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 2.5e-7), (np.float64, 5e-16)])
def test_elementary_functions_are_good_to_a_few_units(dtype: type, bound: float) -> None:
    x = np.concatenate([np.linspace(-125, 125, 64_000), np.linspace(-1, 1, 32_000)]).astype(dtype)
    powers, plus, sigmoid = (np.empty_like(x) for _ in range(3))
    _apply_vectors(x, powers, plus, sigmoid)
    wide = x.astype(np.longdouble)
    assert np.max(np.abs(powers / np.exp2(wide) - 1)) < bound
    exact = np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide)))
    inside = wide > -80  # beyond, float32 results are denormal or zero
    assert np.max(np.abs(plus / exact - 1)[inside]) < 2 * bound
    assert np.max(np.abs(sigmoid - 1 / (1 + np.exp(-wide)))) < bound


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementary_functions_at_the_ends(dtype: type) -> None:
    lanes = 64 // np.dtype(dtype).itemsize
    x = np.zeros(lanes, dtype)
    x[:6] = [np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0]
    powers, plus, sigmoid = (np.empty_like(x) for _ in range(3))
    _apply_vectors(x, powers, plus, sigmoid)
    np.testing.assert_array_equal(powers[:6], [np.nan, np.inf, 0, np.inf, 0, 1])
    np.testing.assert_array_equal(plus[:5], np.array([np.nan, np.inf, 0, 1e30, 0], dtype))
    np.testing.assert_array_equal(sigmoid[:6], [np.nan, 1, 0, 1, 0, 0.5])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_summed_in_their_order(dtype: type) -> None:
    lanes = 64 // np.dtype(dtype).itemsize
    x = np.random.default_rng(0).integers(-100, 100, (lanes, lanes)).astype(dtype)
    sums = np.empty(lanes, dtype)
    _sum_rows(x.ravel(), sums)
    np.testing.assert_array_equal(sums, x.sum(1))


def test_working_memory_begins_at_a_cache_line() -> None:
    memory = np.arange(64, dtype=np.float32)
    for skip in range(16):
        part = memory[skip:]
        first = int(_misalignment(part))
        assert memory[first:].ctypes.data % 64 == 0
        assert 0 <= first - skip < 16
