"""The selective scan of one channel block after the other, on explicit vectors, for numba.

A block is as many channels as a vector has lanes. Per chunk of 64 steps the block's dt, dt u and output are
staged in working memory that stays in the first-level cache; then pairs of states walk the 64 steps with
state and decay rate in registers. The backward recomputes a chunk from its saved start state, keeps decays
and states of two states n at a time, and walks back.

Gradients of B and C are sums over channels: they are summed per group of blocks, in a fixed order, and the
groups are summed by the caller. Which thread does which group does not enter, so results are bitwise
independent of the number of threads.

Legend: b batch, l steps, d channels, n states (even: the caller pads). Arrays are flat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from segbench.networks.scan.numba_vectors import (
    cache_line,
    exp2,
    fill,
    fma,
    keep_apart,
    lanes_of,
    load,
    pointer,
    softplus_terms,
    splat,
    store,
    sum_rows,
)  # fmt: skip

__all__ = ["GROUP", "Gradients", "Problem", "Tokens", "backward_items", "forward_items", "scratch_size"]

STEPS = 64  # arguments.CHUNK, as a constant that the compiler sees
GROUP = 4  # blocks whose gradients of B and C are summed together
LN_2 = 0.6931471805599453

# Working memory, counted in vectors: tables of one vector per step, then what is kept per step of two states.
SPARE = 0
DT = 2
DTU = DT + STEPS
OUT = DTU + STEPS
GRAD = OUT + STEPS
SLOPE = GRAD + STEPS
G_DTU = SLOPE + STEPS
G_RATE = G_DTU + STEPS
KEPT = (
    G_RATE + STEPS + 2
)  # decay 0, decay 1, state 0, state 1 of each step; start states in the two places before
ROWS = KEPT + 4 * STEPS  # four squares of at most 16 rows, to be summed over lanes
STATE = ROWS + 64  # n states (forward) or adjoints (backward), then n sums for the gradient of A

_INNER: dict[str, Any] = {"error_model": "numpy", "boundscheck": False}


def _entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile what Python calls, and keep it on disk with all that it calls, where a folder is writable."""
    try:
        return njit(**_INNER, nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to keep it: compiled anew in every process
        return njit(**_INNER, nogil=True)(function)


class Tokens(NamedTuple):
    """A (b, l, d) tensor with adjacent channels: its memory, the strides of batch and step."""

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


class Block(NamedTuple):
    """Where an item stands: batch entry, first channel, channels that exist."""

    batch: int
    column: int
    valid: int


@njit(**_INNER)
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
        problem.softplus,
        problem.gated,
    )


@njit(**_INNER)
def _opened_gradients(gradients: Gradients) -> Gradients:
    return Gradients(
        pointer(gradients.u),
        pointer(gradients.delta),
        pointer(gradients.gate),
        pointer(gradients.A),
        pointer(gradients.B),
        pointer(gradients.C),
        pointer(gradients.D),
        pointer(gradients.bias),
    )


def scratch_size(n: int, lanes: int) -> int:
    """Elements of the working memory that one call needs, 64 bytes to spare for its alignment."""
    return (STATE + 2 * n + 1) * lanes


@njit(**_INNER)
def _block(batch: int, index: int, channels: int, lanes: int) -> Block:
    return Block(batch, index * lanes, min(lanes, channels - index * lanes))


@njit(**_INNER)
def _read(tokens: Tokens, token: int, block: Block, work: Any) -> Any:
    """One step of a block's channels; where the block is cut, zeros follow and nothing beyond is read."""
    lanes = lanes_of(work)
    at = block.batch * tokens.batch + token * tokens.step + block.column
    if block.valid == lanes:
        return load(tokens.values, at)
    for lane in range(lanes):
        work[SPARE + lane] = tokens.values[at + lane] if lane < block.valid else 0.0
    return load(work, SPARE)


@njit(**_INNER)
def _write(target: Any, at: int, vector: Any, block: Block, work: Any) -> None:
    """Write those lanes whose channels exist."""
    if block.valid == lanes_of(work):
        store(target, at, vector)
        return
    store(work, SPARE, vector)
    for lane in range(block.valid):
        target[at + lane] = work[SPARE + lane]


@njit(**_INNER)
def _stage(problem: Problem, block: Block, start: int, count: int, work: Any) -> None:
    """The chunk's dt, dt u, D u and slope of the softplus, from memory into the working memory."""
    keep_apart()
    lanes = lanes_of(work)
    bias, direct = load(problem.bias, block.column), load(problem.D, block.column)
    for t in range(count):
        x = _read(problem.u, start + t, block, work)
        step = _read(problem.delta, start + t, block, work) + bias
        if problem.softplus:
            step, slope = softplus_terms(step)
            store(work, (SLOPE + t) * lanes, slope)
        store(work, (DT + t) * lanes, step)
        store(work, (DTU + t) * lanes, step * x)
        store(work, (OUT + t) * lanes, direct * x)


@njit(**_INNER)
def _walk(
    work: Any, B: Any, C: Any, row: int, length: int, count: int, rate0: Any, rate1: Any, h0: Any, h1: Any
) -> tuple[Any, Any]:
    """Two states through `count` steps; adds <C, h> to the output, gives the last states."""
    keep_apart()
    lanes = lanes_of(work)
    next_row = row + length
    for t in range(count):
        step, x = load(work, (DT + t) * lanes), load(work, (DTU + t) * lanes)
        h0 = fma(exp2(step * rate0), h0, x * splat(B, row + t))
        h1 = fma(exp2(step * rate1), h1, x * splat(B, next_row + t))
        y = fma(h0, splat(C, row + t), load(work, (OUT + t) * lanes))
        store(work, (OUT + t) * lanes, fma(h1, splat(C, next_row + t), y))
    return h0, h1


@njit(**_INNER)
def _finish(problem: Problem, block: Block, start: int, count: int, work: Any, y: Any) -> None:
    """The chunk's output, gated, from the working memory to its place."""
    keep_apart()
    lanes = lanes_of(work)
    for t in range(count):
        value = load(work, (OUT + t) * lanes)
        if problem.gated:
            z = _read(problem.gate, start + t, block, work)
            value = value * z * softplus_terms(z)[1]
        at = (block.batch * problem.length + start + t) * problem.channels + block.column
        _write(y, at, value, block, work)


@_entry
def forward_items(
    first: int,
    last: int,
    arrays: Problem,
    y_array: np.ndarray,
    states_array: np.ndarray,
    saved: bool,
    memory: np.ndarray,
) -> None:
    """Write y (b, l, d), and the states at chunk starts (b, chunks, n, d) if wanted, for items first to last
    - 1.

    Item i is block i % blocks of batch entry i // blocks. `memory` is working memory of `scratch_size`.
    """
    problem, work = _opened(arrays), cache_line(pointer(memory))
    y, states, lanes = pointer(y_array), pointer(states_array), lanes_of(work)
    length, channels, n = problem.length, problem.channels, problem.n
    blocks, chunks = (channels + lanes - 1) // lanes, (length + STEPS - 1) // STEPS
    padded = blocks * lanes
    for item in range(first, last):
        block = _block(item // blocks, item % blocks, channels, lanes)
        column = block.column
        for k in range(n):
            store(work, (STATE + k) * lanes, fill(work, 0.0))
        for chunk in range(chunks):
            start = chunk * STEPS
            count = min(STEPS, length - start)
            _stage(problem, block, start, count, work)
            for k in range(0, n, 2):
                place = (STATE + k) * lanes
                h0, h1 = load(work, place), load(work, place + lanes)
                if saved:
                    at = ((block.batch * chunks + chunk) * n + k) * channels + column
                    _write(states, at, h0, block, work)
                    _write(states, at + channels, h1, block, work)
                at = k * padded + column
                rate0, rate1 = load(problem.rate, at), load(problem.rate, at + padded)
                row = (block.batch * n + k) * length + start
                h0, h1 = _walk(work, problem.B, problem.C, row, length, count, rate0, rate1, h0, h1)
                store(work, place, h0)
                store(work, place + lanes, h1)
            _finish(problem, block, start, count, work, y)


@njit(**_INNER)
def _recompute(
    work: Any, B: Any, row: int, length: int, count: int, rate0: Any, rate1: Any, h0: Any, h1: Any
) -> None:
    """Two states through a chunk, keeping per step decay 0, decay 1, state 0, state 1.

    The two places before the first step hold the start states.
    """
    keep_apart()
    lanes = lanes_of(work)
    next_row = row + length
    store(work, (KEPT - 2) * lanes, h0)
    store(work, (KEPT - 1) * lanes, h1)
    for t in range(count):
        slot = (KEPT + 4 * t) * lanes
        step, x = load(work, (DT + t) * lanes), load(work, (DTU + t) * lanes)
        decay0, decay1 = exp2(step * rate0), exp2(step * rate1)
        h0 = fma(decay0, h0, x * splat(B, row + t))
        h1 = fma(decay1, h1, x * splat(B, next_row + t))
        store(work, slot, decay0)
        store(work, slot + lanes, decay1)
        store(work, slot + 2 * lanes, h0)
        store(work, slot + 3 * lanes, h1)


@njit(**_INNER)
def _output(work: Any, C: Any, row: int, length: int, count: int) -> None:
    """Add <C, h> of the two kept states to the output, which the gradient of a gate needs."""
    keep_apart()
    lanes = lanes_of(work)
    for t in range(count):
        slot = (KEPT + 4 * t) * lanes
        y = fma(load(work, slot + 2 * lanes), splat(C, row + t), load(work, (OUT + t) * lanes))
        y = fma(load(work, slot + 3 * lanes), splat(C, row + length + t), y)
        store(work, (OUT + t) * lanes, y)


@njit(**_INNER)
def _walk_back(
    work: Any,
    B: Any,
    C: Any,
    row: int,
    length: int,
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

    p is exp(dt A) g of the step after, `a` sums the gradient of A. Per step the lanes of the gradients of B
    and C go to four squares of rows (B 0, B 1, C 0, C 1), to be summed over lanes afterwards.
    """
    keep_apart()
    lanes = lanes_of(work)
    square, next_row = lanes * lanes, row + length
    for back in range(high - low):
        t = high - 1 - back
        slot, line = (KEPT + 4 * t) * lanes, (ROWS + t - low) * lanes
        step, x = load(work, (DT + t) * lanes), load(work, (DTU + t) * lanes)
        gy = load(work, (GRAD + t) * lanes)
        g0 = fma(gy, splat(C, row + t), p0)
        g1 = fma(gy, splat(C, next_row + t), p1)
        store(work, line, g0 * x)
        store(work, line + square, g1 * x)
        store(work, line + 2 * square, gy * load(work, slot + 2 * lanes))
        store(work, line + 3 * square, gy * load(work, slot + 3 * lanes))
        through = fma(g0, splat(B, row + t), load(work, (G_DTU + t) * lanes))
        store(work, (G_DTU + t) * lanes, fma(g1, splat(B, next_row + t), through))
        p0, p1 = g0 * load(work, slot), g1 * load(work, slot + lanes)
        q0, q1 = p0 * load(work, slot - 2 * lanes), p1 * load(work, slot - lanes)
        a0, a1 = fma(q0, step, a0), fma(q1, step, a1)
        rates = fma(q1, rate1, fma(q0, rate0, load(work, (G_RATE + t) * lanes)))
        store(work, (G_RATE + t) * lanes, rates)
    return p0, p1, a0, a1


@njit(**_INNER)
def _sum_squares(work: Any, count: int, B: Any, C: Any, at: int, next_row: int) -> None:
    """Add the `count` rows of each square, summed over lanes, to consecutive places of the gradients."""
    keep_apart()
    lanes = lanes_of(work)
    for square in range(4):
        rows = (ROWS + square * lanes) * lanes
        for t in range(count, lanes):
            store(work, rows + t * lanes, fill(work, 0.0))
        place = at + (square % 2) * next_row
        total = sum_rows(work, rows)
        if square < 2:
            store(B, place, total + load(B, place))
        else:
            store(C, place, total + load(C, place))


@njit(**_INNER)
def _stage_gradient(problem: Problem, grad: Tokens, block: Block, start: int, count: int, work: Any) -> None:
    """The gradient of the ungated output into the working memory, and zeros for the chunk's sums."""
    keep_apart()
    lanes = lanes_of(work)
    for t in range(count):
        value = _read(grad, start + t, block, work)
        if problem.gated:
            z = _read(problem.gate, start + t, block, work)
            value = value * z * softplus_terms(z)[1]
        store(work, (GRAD + t) * lanes, value)
        store(work, (G_DTU + t) * lanes, fill(work, 0.0))
        store(work, (G_RATE + t) * lanes, fill(work, 0.0))


@njit(**_INNER)
def _finish_gradient(
    problem: Problem,
    grad: Tokens,
    block: Block,
    start: int,
    count: int,
    work: Any,
    gradients: Gradients,
    g_D: Any,
    g_bias: Any,
) -> tuple[Any, Any]:
    """The chunk's gradients of u, delta and gate to memory; those of D and bias are summed on."""
    keep_apart()
    lanes = lanes_of(work)
    direct = load(problem.D, block.column)
    for t in range(count):
        target = (block.batch * problem.length + start + t) * problem.channels + block.column
        x = _read(problem.u, start + t, block, work)
        gy, g_dtu = load(work, (GRAD + t) * lanes), load(work, (G_DTU + t) * lanes)
        # The walk summed q times `rate`, which is A log2(e).
        g_dt = fma(load(work, (G_RATE + t) * lanes), fill(work, LN_2), x * g_dtu)
        if problem.softplus:
            g_dt = g_dt * load(work, (SLOPE + t) * lanes)
        g_D, g_bias = fma(gy, x, g_D), g_bias + g_dt
        g_u = fma(gy, direct, g_dtu * load(work, (DT + t) * lanes))
        _write(gradients.u, target, g_u, block, work)
        _write(gradients.delta, target, g_dt, block, work)
        if problem.gated:
            z = _read(problem.gate, start + t, block, work)
            sigmoid = softplus_terms(z)[1]
            # d silu(z) / dz = s + z s (1 - s)
            slope = fma(z * sigmoid, fill(work, 1.0) - sigmoid, sigmoid)
            g_z = _read(grad, start + t, block, work) * load(work, (OUT + t) * lanes) * slope
            _write(gradients.gate, target, g_z, block, work)
    return g_D, g_bias


@njit(**_INNER)
def _chunk_back(
    problem: Problem,
    block: Block,
    chunk: int,
    count: int,
    work: Any,
    states: Any,
    gradients: Gradients,
    item: int,
) -> None:
    """All states of a block backwards through one chunk."""
    length, channels, n, lanes = problem.length, problem.channels, problem.n, lanes_of(work)
    chunks = (length + STEPS - 1) // STEPS
    padded, wide = (channels + lanes - 1) // lanes * lanes, chunks * STEPS
    start = chunk * STEPS
    saved = Tokens(states, chunks * n * channels, channels)
    for k in range(0, n, 2):
        h0 = _read(saved, chunk * n + k, block, work)
        h1 = _read(saved, chunk * n + k + 1, block, work)
        at = k * padded + block.column
        rate0, rate1 = load(problem.rate, at), load(problem.rate, at + padded)
        row = (block.batch * n + k) * length + start
        _recompute(work, problem.B, row, length, count, rate0, rate1, h0, h1)
        if problem.gated:
            _output(work, problem.C, row, length, count)
        state, total = (STATE + k) * lanes, (STATE + n + k) * lanes
        p0, p1 = load(work, state), load(work, state + lanes)
        a0, a1 = load(work, total), load(work, total + lanes)
        for low in range((count - 1) // lanes * lanes, -1, -lanes):
            high = min(low + lanes, count)
            p0, p1, a0, a1 = _walk_back(
                work, problem.B, problem.C, row, length, low, high, rate0, rate1, p0, p1, a0, a1
            )
            _sum_squares(
                work, high - low, gradients.B, gradients.C, (item * n + k) * wide + start + low, wide
            )
        store(work, state, p0)
        store(work, state + lanes, p1)
        store(work, total, a0)
        store(work, total + lanes, a1)


@_entry
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
    problem, work = _opened(arrays), cache_line(pointer(memory))
    grad = Tokens(pointer(grad_array.values), grad_array.batch, grad_array.step)
    gradients = _opened_gradients(gradient_arrays)
    states, lanes = pointer(states_array), lanes_of(work)
    length, channels, n = problem.length, problem.channels, problem.n
    blocks, chunks = (channels + lanes - 1) // lanes, (length + STEPS - 1) // STEPS
    groups, padded = (blocks + GROUP - 1) // GROUP, blocks * lanes
    for item in range(first, last):
        batch, group = item // groups, item % groups
        for index in range(group * GROUP, min((group + 1) * GROUP, blocks)):
            block = _block(batch, index, channels, lanes)
            for k in range(2 * n):
                store(work, (STATE + k) * lanes, fill(work, 0.0))
            g_D, g_bias = fill(work, 0.0), fill(work, 0.0)
            for chunk in range(chunks - 1, -1, -1):
                start = chunk * STEPS
                count = min(STEPS, length - start)
                _stage(problem, block, start, count, work)
                _stage_gradient(problem, grad, block, start, count, work)
                _chunk_back(problem, block, chunk, count, work, states, gradients, item)
                g_D, g_bias = _finish_gradient(
                    problem, grad, block, start, count, work, gradients, g_D, g_bias
                )
            for k in range(n):
                at = (batch * n + k) * padded + block.column
                store(gradients.A, at, load(work, (STATE + n + k) * lanes))
            store(gradients.D, batch * padded + block.column, g_D)
            store(gradients.bias, batch * padded + block.column, g_bias)
