"""The selective scan of one channel block after the other, on explicit vectors, for numba.

A block is as many channels as a vector has lanes. Per chunk of 64 steps the block's dt, dt u and output are staged
in a small scratch that stays in the first-level cache; then pairs of states walk the 64 steps with state and decay
rate in registers. The backward recomputes a chunk from its saved start state, keeps decays and states of two
states n at a time, and walks back.

Gradients of B and C are sums over channels: they are summed per group of blocks, in a fixed order, and the groups
are summed by the caller. Which thread does which group does not enter, so results are bitwise independent of the
number of threads.

Legend: b batch, l steps, d channels, n states (even: the caller pads). Arrays are flat.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from segbench.networks.scan.numba_vectors import (
    exp2,
    fill,
    fma,
    load,
    pointer,
    softplus_terms,
    splat,
    store,
    sum_rows,
)

__all__ = ["GROUP", "Gradients", "Problem", "Tokens", "backward_items", "forward_items", "scratch_size"]

STEPS = 64  # arguments.CHUNK, as a constant that the compiler sees
GROUP = 4  # blocks whose gradients of B and C are summed together
LN_2 = 0.6931471805599453

_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "boundscheck": False}


class Tokens(NamedTuple):
    """A (b, l, d) tensor with adjacent channels: its memory and the strides of a batch entry and of a step."""

    values: np.ndarray
    batch: int
    step: int


class Problem(NamedTuple):
    """The inputs of the scan."""

    u: Tokens
    delta: Tokens
    gate: Tokens
    rate: np.ndarray  # (n, padded d): A log2(e)
    B: np.ndarray  # (b, n, l)
    C: np.ndarray  # (b, n, l)
    D: np.ndarray  # (padded d), zeros without a direct path
    bias: np.ndarray  # (padded d), zeros without one
    length: int
    channels: int
    n: int
    lanes: int
    softplus: bool
    gated: bool


class Gradients(NamedTuple):
    """Where the backward writes."""

    u: np.ndarray  # (b, l, d)
    delta: np.ndarray  # (b, l, d), before bias and softplus
    gate: np.ndarray  # (b, l, d)
    A: np.ndarray  # (b, n, padded d): to be summed over b
    B: np.ndarray  # (b, groups, n, padded l): to be summed over groups
    C: np.ndarray
    D: np.ndarray  # (b, padded d): to be summed over b
    bias: np.ndarray


class Scratch(NamedTuple):
    """Working memory of one item: tables of one vector per step, by the index at which they begin."""

    values: np.ndarray
    spare: int
    dt: int
    dtu: int
    out: int
    grad: int
    slope: int
    g_dtu: int
    g_rate: int
    rows: int
    kept: int
    state: int
    g_A: int


class Block(NamedTuple):
    """Where an item stands: batch entry, first channel, channels that exist."""

    batch: int
    column: int
    valid: int


@njit(**_OPTIONS)
def _opened(problem: Problem) -> Problem:
    """The problem with plain pointers in the place of arrays."""
    return Problem(
        Tokens(pointer(problem.u.values), problem.u.batch, problem.u.step),
        Tokens(pointer(problem.delta.values), problem.delta.batch, problem.delta.step),
        Tokens(pointer(problem.gate.values), problem.gate.batch, problem.gate.step),
        pointer(problem.rate),
        pointer(problem.B),
        pointer(problem.C),
        pointer(problem.D),
        pointer(problem.bias),
        problem.length,
        problem.channels,
        problem.n,
        problem.lanes,
        problem.softplus,
        problem.gated,
    )


def scratch_size(n: int, lanes: int) -> int:
    """Elements of the working memory that one call needs."""
    return 5 * lanes + 12 * STEPS * lanes + 4 * lanes * lanes + 2 * n * lanes


@njit(**_OPTIONS)
def _scratch(memory: np.ndarray, problem: Problem) -> Scratch:
    lanes, table = problem.lanes, STEPS * problem.lanes
    spare = (-memory.ctypes.data % 64) // memory.itemsize
    dt = spare + 4 * lanes
    kept = dt + 8 * table
    rows = kept + 4 * table
    state = rows + 4 * lanes * lanes
    return Scratch(
        pointer(memory),
        spare,
        dt,
        dt + table,
        dt + 2 * table,
        dt + 3 * table,
        dt + 4 * table,
        dt + 5 * table,
        dt + 6 * table,
        rows,
        kept,
        state,
        state + problem.n * lanes,
    )


@njit(**_OPTIONS)
def _read(tokens: Tokens, token: int, block: Block, scratch: Scratch, lanes: int) -> Any:
    """One step of a block's channels; where the block is cut, zeros follow and nothing beyond is read."""
    at = block.batch * tokens.batch + token * tokens.step + block.column
    if block.valid == lanes:
        return load(tokens.values, at)
    for lane in range(lanes):
        scratch.values[scratch.spare + lane] = tokens.values[at + lane] if lane < block.valid else 0.0
    return load(scratch.values, scratch.spare)


@njit(**_OPTIONS)
def _write(target: np.ndarray, at: int, vector: Any, block: Block, scratch: Scratch, lanes: int) -> None:
    """Write those lanes whose channels exist."""
    if block.valid == lanes:
        store(target, at, vector)
        return
    store(scratch.values, scratch.spare, vector)
    for lane in range(block.valid):
        target[at + lane] = scratch.values[scratch.spare + lane]


@njit(**_OPTIONS)
def _stage(problem: Problem, block: Block, start: int, count: int, scratch: Scratch) -> None:
    """The chunk's dt, dt u, D u and slope of the softplus, from memory into the scratch."""
    lanes, work = problem.lanes, scratch.values
    bias, direct = load(problem.bias, block.column), load(problem.D, block.column)
    for t in range(count):
        at = t * lanes
        x = _read(problem.u, start + t, block, scratch, lanes)
        step = _read(problem.delta, start + t, block, scratch, lanes) + bias
        if problem.softplus:
            step, slope = softplus_terms(step)
            store(work, scratch.slope + at, slope)
        store(work, scratch.dt + at, step)
        store(work, scratch.dtu + at, step * x)
        store(work, scratch.out + at, direct * x)


@njit(**_OPTIONS)
def _walk(
    problem: Problem, scratch: Scratch, row: int, count: int, rate0: Any, rate1: Any, h0: Any, h1: Any
) -> tuple[Any, Any]:
    """Two states through `count` steps; adds <C, h> to the output and gives the states after the last step."""
    lanes, work, B, C, next_row = problem.lanes, scratch.values, problem.B, problem.C, row + problem.length
    for t in range(count):
        at = t * lanes
        step, x = load(work, scratch.dt + at), load(work, scratch.dtu + at)
        h0 = fma(exp2(step * rate0), h0, x * splat(B, row + t))
        h1 = fma(exp2(step * rate1), h1, x * splat(B, next_row + t))
        y = fma(h0, splat(C, row + t), load(work, scratch.out + at))
        store(work, scratch.out + at, fma(h1, splat(C, next_row + t), y))
    return h0, h1


@njit(**_OPTIONS)
def _finish(problem: Problem, block: Block, start: int, count: int, scratch: Scratch, y: np.ndarray) -> None:
    """The chunk's output, gated, from the scratch to memory."""
    lanes = problem.lanes
    for t in range(count):
        value = load(scratch.values, scratch.out + t * lanes)
        if problem.gated:
            z = _read(problem.gate, start + t, block, scratch, lanes)
            value = value * z * softplus_terms(z)[1]
        at = (block.batch * problem.length + start + t) * problem.channels + block.column
        _write(y, at, value, block, scratch, lanes)


@njit(**_OPTIONS)
def forward_items(
    first: int,
    last: int,
    arrays: Problem,
    y_array: np.ndarray,
    states_array: np.ndarray,
    saved: bool,
    memory: np.ndarray,
) -> None:
    """Write y (b, l, d), and the states at chunk starts (b, chunks, n, d) if wanted, for items first to last - 1.

    Item i is block i % blocks of batch entry i // blocks. `memory` is working memory of `scratch_size`.
    """
    problem, scratch = _opened(arrays), _scratch(memory, arrays)
    y, states, work = pointer(y_array), pointer(states_array), scratch.values
    length, channels, n, lanes = problem.length, problem.channels, problem.n, problem.lanes
    blocks, chunks = (channels + lanes - 1) // lanes, (length + STEPS - 1) // STEPS
    padded = blocks * lanes
    for item in range(first, last):
        column = item % blocks * lanes
        block = Block(item // blocks, column, min(lanes, channels - column))
        for k in range(n):
            store(work, scratch.state + k * lanes, fill(work, 0.0))
        for chunk in range(chunks):
            start = chunk * STEPS
            count = min(STEPS, length - start)
            _stage(problem, block, start, count, scratch)
            for k in range(0, n, 2):
                place = scratch.state + k * lanes
                h0, h1 = load(work, place), load(work, place + lanes)
                if saved:
                    at = ((block.batch * chunks + chunk) * n + k) * channels + column
                    _write(states, at, h0, block, scratch, lanes)
                    _write(states, at + channels, h1, block, scratch, lanes)
                at = k * padded + column
                rate0, rate1 = load(problem.rate, at), load(problem.rate, at + padded)
                row = (block.batch * n + k) * length + start
                h0, h1 = _walk(problem, scratch, row, count, rate0, rate1, h0, h1)
                store(work, place, h0)
                store(work, place + lanes, h1)
            _finish(problem, block, start, count, scratch, y)


@njit(**_OPTIONS)
def _recompute(
    problem: Problem, scratch: Scratch, row: int, count: int, rate0: Any, rate1: Any, h0: Any, h1: Any
) -> None:
    """Two states through a chunk, keeping per step decay 0, decay 1, state 0, state 1; the output for a gate.

    The two places before the first step hold the start states.
    """
    lanes, work, B, C, next_row = problem.lanes, scratch.values, problem.B, problem.C, row + problem.length
    store(work, scratch.kept - 2 * lanes, h0)
    store(work, scratch.kept - lanes, h1)
    for t in range(count):
        at, slot = t * lanes, scratch.kept + 4 * t * lanes
        step, x = load(work, scratch.dt + at), load(work, scratch.dtu + at)
        decay0, decay1 = exp2(step * rate0), exp2(step * rate1)
        h0 = fma(decay0, h0, x * splat(B, row + t))
        h1 = fma(decay1, h1, x * splat(B, next_row + t))
        store(work, slot, decay0)
        store(work, slot + lanes, decay1)
        store(work, slot + 2 * lanes, h0)
        store(work, slot + 3 * lanes, h1)
        if problem.gated:
            y = fma(h0, splat(C, row + t), load(work, scratch.out + at))
            store(work, scratch.out + at, fma(h1, splat(C, next_row + t), y))


@njit(**_OPTIONS)
def _walk_back(
    problem: Problem,
    scratch: Scratch,
    row: int,
    low: int,
    high: int,
    rate0: Any,
    rate1: Any,
    p0: Any,
    p1: Any,
    a0: Any,
    a1: Any,
) -> tuple[Any, Any, Any, Any]:
    """Two states backwards from step high - 1 to step low of a chunk, at most as many steps as lanes.

    p is exp(dt A) g of the step after, `a` sums the gradient of A. Per step the lanes of the gradients of B and C
    go to four tables of rows (B 0, B 1, C 0, C 1), to be summed over lanes afterwards.
    """
    lanes, work, B, C, next_row = problem.lanes, scratch.values, problem.B, problem.C, row + problem.length
    table = lanes * lanes
    for back in range(high - low):
        t = high - 1 - back
        at, slot, line = t * lanes, scratch.kept + 4 * t * lanes, scratch.rows + (t - low) * lanes
        step, x = load(work, scratch.dt + at), load(work, scratch.dtu + at)
        gy = load(work, scratch.grad + at)
        g0 = fma(gy, splat(C, row + t), p0)
        g1 = fma(gy, splat(C, next_row + t), p1)
        store(work, line, g0 * x)
        store(work, line + table, g1 * x)
        store(work, line + 2 * table, gy * load(work, slot + 2 * lanes))
        store(work, line + 3 * table, gy * load(work, slot + 3 * lanes))
        through = fma(g0, splat(B, row + t), load(work, scratch.g_dtu + at))
        store(work, scratch.g_dtu + at, fma(g1, splat(B, next_row + t), through))
        p0, p1 = g0 * load(work, slot), g1 * load(work, slot + lanes)
        q0, q1 = p0 * load(work, slot - 2 * lanes), p1 * load(work, slot - lanes)
        a0, a1 = fma(q0, step, a0), fma(q1, step, a1)
        rates = fma(q1, rate1, fma(q0, rate0, load(work, scratch.g_rate + at)))
        store(work, scratch.g_rate + at, rates)
    return p0, p1, a0, a1


@njit(**_OPTIONS)
def _sum_lanes(work: np.ndarray, rows: int, count: int, lanes: int, target: np.ndarray, at: int) -> None:
    """Add each of `count` rows, summed over its lanes, to consecutive places of the target."""
    for t in range(count, lanes):
        store(work, rows + t * lanes, fill(work, 0.0))
    store(target, at, sum_rows(work, rows) + load(target, at))


@njit(**_OPTIONS)
def _stage_gradient(
    problem: Problem, grad: Tokens, block: Block, start: int, count: int, scratch: Scratch
) -> None:
    """The gradient of the ungated output into the scratch, and zeros where the chunk's sums begin."""
    lanes, work = problem.lanes, scratch.values
    for t in range(count):
        at = t * lanes
        value = _read(grad, start + t, block, scratch, lanes)
        if problem.gated:
            z = _read(problem.gate, start + t, block, scratch, lanes)
            value = value * z * softplus_terms(z)[1]
        store(work, scratch.grad + at, value)
        store(work, scratch.g_dtu + at, fill(work, 0.0))
        store(work, scratch.g_rate + at, fill(work, 0.0))


@njit(**_OPTIONS)
def _finish_gradient(
    problem: Problem,
    grad: Tokens,
    block: Block,
    start: int,
    count: int,
    scratch: Scratch,
    gradients: Gradients,
    g_D: Any,
    g_bias: Any,
) -> tuple[Any, Any]:
    """The chunk's gradients of u, delta and gate to memory; those of D and bias are summed on."""
    lanes, work = problem.lanes, scratch.values
    direct = load(problem.D, block.column)
    for t in range(count):
        at, token = t * lanes, start + t
        target = (block.batch * problem.length + token) * problem.channels + block.column
        x = _read(problem.u, token, block, scratch, lanes)
        gy, g_dtu = load(work, scratch.grad + at), load(work, scratch.g_dtu + at)
        # The walk summed q times `rate`, which is A log2(e).
        g_dt = fma(load(work, scratch.g_rate + at), fill(work, LN_2), x * g_dtu)
        if problem.softplus:
            g_dt = g_dt * load(work, scratch.slope + at)
        g_D, g_bias = fma(gy, x, g_D), g_bias + g_dt
        g_u = fma(gy, direct, g_dtu * load(work, scratch.dt + at))
        _write(gradients.u, target, g_u, block, scratch, lanes)
        _write(gradients.delta, target, g_dt, block, scratch, lanes)
        if problem.gated:
            z = _read(problem.gate, token, block, scratch, lanes)
            sigmoid = softplus_terms(z)[1]
            # d silu(z) / dz = s + z s (1 - s)
            slope = fma(z * sigmoid, fill(work, 1.0) - sigmoid, sigmoid)
            g_z = _read(grad, token, block, scratch, lanes) * load(work, scratch.out + at) * slope
            _write(gradients.gate, target, g_z, block, scratch, lanes)
    return g_D, g_bias


@njit(**_OPTIONS)
def _chunk_back(
    problem: Problem,
    block: Block,
    chunk: int,
    count: int,
    scratch: Scratch,
    states: np.ndarray,
    gradients: Gradients,
    group: int,
) -> None:
    """All states of a block backwards through one chunk."""
    length, channels, n, lanes = problem.length, problem.channels, problem.n, problem.lanes
    chunks = (length + STEPS - 1) // STEPS
    padded = (channels + lanes - 1) // lanes * lanes
    work, square = scratch.values, lanes * lanes
    start = chunk * STEPS
    saved = Tokens(states, chunks * n * channels, channels)
    for k in range(0, n, 2):
        h0 = _read(saved, chunk * n + k, block, scratch, lanes)
        h1 = _read(saved, chunk * n + k + 1, block, scratch, lanes)
        at = k * padded + block.column
        rate0, rate1 = load(problem.rate, at), load(problem.rate, at + padded)
        row = (block.batch * n + k) * length + start
        _recompute(problem, scratch, row, count, rate0, rate1, h0, h1)
        state, total = scratch.state + k * lanes, scratch.g_A + k * lanes
        p0, p1 = load(work, state), load(work, state + lanes)
        a0, a1 = load(work, total), load(work, total + lanes)
        for low in range((count - 1) // lanes * lanes, -1, -lanes):
            high = min(low + lanes, count)
            p0, p1, a0, a1 = _walk_back(problem, scratch, row, low, high, rate0, rate1, p0, p1, a0, a1)
            line = (group * n + k) * chunks * STEPS + start + low
            below = line + chunks * STEPS
            _sum_lanes(work, scratch.rows, high - low, lanes, gradients.B, line)
            _sum_lanes(work, scratch.rows + square, high - low, lanes, gradients.B, below)
            _sum_lanes(work, scratch.rows + 2 * square, high - low, lanes, gradients.C, line)
            _sum_lanes(work, scratch.rows + 3 * square, high - low, lanes, gradients.C, below)
        store(work, state, p0)
        store(work, state + lanes, p1)
        store(work, total, a0)
        store(work, total + lanes, a1)


@njit(**_OPTIONS)
def backward_items(
    first: int,
    last: int,
    arrays: Problem,
    grad_array: Tokens,
    states_array: np.ndarray,
    gradient_arrays: Gradients,
    memory: np.ndarray,
) -> None:
    """Write all gradients for items first to last - 1; item i is group i % groups of batch entry i // groups.

    Gradients of B and C must come in as zeros. `memory` is working memory of `scratch_size`.
    """
    problem, scratch = _opened(arrays), _scratch(memory, arrays)
    grad = Tokens(pointer(grad_array.values), grad_array.batch, grad_array.step)
    states, work = pointer(states_array), scratch.values
    gradients = Gradients(
        pointer(gradient_arrays.u),
        pointer(gradient_arrays.delta),
        pointer(gradient_arrays.gate),
        pointer(gradient_arrays.A),
        pointer(gradient_arrays.B),
        pointer(gradient_arrays.C),
        pointer(gradient_arrays.D),
        pointer(gradient_arrays.bias),
    )
    length, channels, n, lanes = problem.length, problem.channels, problem.n, problem.lanes
    blocks, chunks = (channels + lanes - 1) // lanes, (length + STEPS - 1) // STEPS
    groups, padded = (blocks + GROUP - 1) // GROUP, blocks * lanes
    for item in range(first, last):
        batch, group = item // groups, item % groups
        for index in range(group * GROUP, min((group + 1) * GROUP, blocks)):
            block = Block(batch, index * lanes, min(lanes, channels - index * lanes))
            for k in range(2 * n):
                store(work, scratch.state + k * lanes, fill(work, 0.0))
            g_D, g_bias = fill(work, 0.0), fill(work, 0.0)
            for chunk in range(chunks - 1, -1, -1):
                start = chunk * STEPS
                count = min(STEPS, length - start)
                _stage(problem, block, start, count, scratch)
                _stage_gradient(problem, grad, block, start, count, scratch)
                _chunk_back(problem, block, chunk, count, scratch, states, gradients, item)
                g_D, g_bias = _finish_gradient(
                    problem, grad, block, start, count, scratch, gradients, g_D, g_bias
                )
            for k in range(n):
                store(
                    gradients.A,
                    (batch * n + k) * padded + block.column,
                    load(work, scratch.g_A + k * lanes),
                )
            store(gradients.D, batch * padded + block.column, g_D)
            store(gradients.bias, batch * padded + block.column, g_bias)
