"""The selective scan on a CUDA device, in Triton: tiles of (states, channels) that walk through the steps.

A program is one warp that walks the steps of one chunk for D adjacent channels, with all their states in its
registers: no products are scanned, and every row of tokens is read by adjacent threads. Sequences are cut
into chunks of T steps that run in parallel: end states of all chunks from a zero state; the states carried
from chunk to chunk; the output from the right start states. Backward the same with adjoints, then
`gradients`, which goes over each chunk five times: step sizes and gates of R steps at once; a walk that
leaves the state before every S-th step; then, S steps at a time from the end, a walk that leaves every state
and the walk back; at last what is left to do for each token, R steps at once.

Gradients of B and C are sums over channels: a program sums its own channels and writes one partial sum per
tile, and the tiles are added in a fixed order; nothing is added atomically, so results repeat to the bit.

Legend: b batch, l steps, d channels, n states; T, S, R, D, N are sizes (powers of two). Tensors of tokens are
(b, l, d) with adjacent channels, states (b, chunks, n, d), A is (n, d), in `gradients` (d, n). Scratch of a
program in `gradients`: states (T / S marks, then a trail of S; D, N) and rows (T, 6, D) of each step: step
size, the same times u, gradient before the gate, and three sums over states. There states lie adjacent:
Triton then gives a thread 4 states of 4 channels, the cheapest shape for sums over both. A barrier stands
between writing and reading, and before writing again: threads may read other parts than they wrote.
"""

# Triton reads no annotations: arguments that end in _ptr are pointers, capitals are compile-time constants.
# ruff: noqa: ANN001, ANN201, ANN202, SIM108, SIM300
# pyright: reportMissingImports=false, reportPossiblyUnboundVariable=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["carry", "chunk_adjoints", "chunk_ends", "gradients", "outputs"]


@triton.jit
def _sigmoid(x):
    w = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, w) / (1.0 + w)


@triton.jit
def _softplus(x, KIND: tl.constexpr):
    """log(1 + exp(x)) as max(x, 0) + 2 artanh(w / (2 + w)), w = exp(-|x|): precise for very negative x."""
    w = tl.exp(-tl.abs(x))
    s = w / (2.0 + w)
    q = s * s
    TERMS: tl.constexpr = 18 if KIND == tl.float64 else 7
    series = q * 0.0 + 2.0 / (2 * TERMS - 1)
    for k in tl.static_range(TERMS - 2, -1, -1):
        series = series * q + 2.0 / (2 * k + 1)
    return tl.maximum(x, 0.0) + s * series


@triton.jit
def _row(ptr, d, channels, KIND: tl.constexpr):
    """One value per channel, 0 for channels that do not exist."""
    return tl.load(ptr + d, mask=d < channels, other=0.0).to(KIND)


@triton.jit
def _column(ptr, n, states, KIND: tl.constexpr):
    """One value per state, 0 for states that do not exist."""
    return tl.load(ptr + n, mask=n < states, other=0.0).to(KIND)


@triton.jit
def _step(delta_ptr, bias, d, channels, SOFTPLUS: tl.constexpr, KIND: tl.constexpr):
    """The step size of each channel and its raw value."""
    raw = _row(delta_ptr, d, channels, KIND) + bias
    return (_softplus(raw, KIND) if SOFTPLUS else raw), raw


@triton.jit
def _bias(ptr, d, channels, THERE: tl.constexpr, KIND: tl.constexpr):
    """One value per channel, zeros where there are none."""
    if THERE:
        found = _row(ptr, d, channels, KIND)
    else:
        found = tl.zeros_like(d).to(KIND)
    return found


@triton.jit
def _tile(ptr, d, n, channels, states):
    """A value per state and channel, 0 for those that do not exist."""
    inside = (n < states)[:, None] & (d < channels)[None, :]
    return tl.load(ptr + n[:, None] * channels + d[None, :], mask=inside, other=0.0)


@triton.jit
def _put_tile(ptr, values, d, n, channels, states):
    inside = (n < states)[:, None] & (d < channels)[None, :]
    tl.store(ptr + n[:, None] * channels + d[None, :], values, mask=inside)


@triton.jit
def _gated(grad_ptr, z_ptr, d, channels, GATE: tl.constexpr, KIND: tl.constexpr):
    """The gradient of the output after and before the gate; the gate's input and its sigmoid, else 1."""
    outer = _row(grad_ptr, d, channels, KIND)
    if GATE:
        z = _row(z_ptr, d, channels, KIND)
        gate = _sigmoid(z)
    else:
        z, gate = tl.full(outer.shape, 1.0, KIND), tl.full(outer.shape, 1.0, KIND)
    return outer, outer * z * gate, z, gate


@triton.jit
def chunk_ends(
    u_ptr, delta_ptr, bias_ptr, A_ptr, B_ptr, ends_ptr, sums_ptr,
    length, channels, states, chunks, u_b, u_t, delta_b, delta_t,
    SOFTPLUS: tl.constexpr, BIAS: tl.constexpr, KIND: tl.constexpr,
    T: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The state at the end of every chunk from a zero state, and the sum of the chunk's steps."""
    line = tl.program_id(0).to(tl.int64)
    batch, first = line // chunks, line % chunks * T
    d, n = tl.program_id(1) * D + tl.arange(0, D), tl.arange(0, N)
    rate = _tile(A_ptr, d, n, channels, states)
    bias = _bias(bias_ptr, d, channels, BIAS, KIND)
    h, total = tl.zeros((N, D), KIND), tl.zeros((D,), KIND)
    for t in range(first, tl.minimum(first + T, length)):
        dt, _ = _step(delta_ptr + batch * delta_b + t * delta_t, bias, d, channels, SOFTPLUS, KIND)
        u = _row(u_ptr + batch * u_b + t * u_t, d, channels, KIND)
        B = _column(B_ptr + (batch * length + t) * states, n, states, KIND)
        h = tl.exp2(dt[None, :] * rate) * h + (dt * u)[None, :] * B[:, None]
        total += dt
    _put_tile(ends_ptr + line * states * channels, h, d, n, channels, states)
    tl.store(sums_ptr + line * channels + d, total, mask=d < channels)


@triton.jit
def chunk_adjoints(
    grad_ptr, z_ptr, delta_ptr, bias_ptr, A_ptr, C_ptr, ends_ptr, sums_ptr,
    length, channels, states, chunks, grad_b, grad_t, z_b, z_t, delta_b, delta_t,
    SOFTPLUS: tl.constexpr, BIAS: tl.constexpr, GATE: tl.constexpr, KIND: tl.constexpr,
    T: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """What flows out of the start of every chunk backwards when nothing flows into its end; sums as above."""
    line = tl.program_id(0).to(tl.int64)
    batch, first = line // chunks, line % chunks * T
    d, n = tl.program_id(1) * D + tl.arange(0, D), tl.arange(0, N)
    rate = _tile(A_ptr, d, n, channels, states)
    bias = _bias(bias_ptr, d, channels, BIAS, KIND)
    flowing, total = tl.zeros((N, D), KIND), tl.zeros((D,), KIND)
    last = tl.minimum(first + T, length) - 1
    for back in range(last - first + 1):
        t = last - back
        dt, _ = _step(delta_ptr + batch * delta_b + t * delta_t, bias, d, channels, SOFTPLUS, KIND)
        grad_row, z_row = grad_ptr + batch * grad_b + t * grad_t, z_ptr + batch * z_b + t * z_t
        _, grad, _, _ = _gated(grad_row, z_row, d, channels, GATE, KIND)
        C = _column(C_ptr + (batch * length + t) * states, n, states, KIND)
        flowing = (flowing + grad[None, :] * C[:, None]) * tl.exp2(dt[None, :] * rate)
        total += dt
    _put_tile(ends_ptr + line * states * channels, flowing, d, n, channels, states)
    tl.store(sums_ptr + line * channels + d, total, mask=d < channels)


@triton.jit
def carry(
    ends_ptr, sums_ptr, A_ptr, starts_ptr, channels, size, chunks,
    REVERSE: tl.constexpr, KIND: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """The state that each chunk starts with (or, in reverse, what flows into its end).

    start_{j+1} = exp(A sum_j) start_j + end_j, start_0 = 0, over the chunks in order or in reverse order.
    `size` is states times channels; a program takes E of them.
    """
    batch = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * E + tl.arange(0, E)
    inside = place < size
    rate = tl.load(A_ptr + place, mask=inside, other=0.0)
    state = tl.zeros((E,), KIND)
    for j in tl.range(0, chunks, loop_unroll_factor=4):
        line = batch * chunks + (chunks - 1 - j if REVERSE else j)
        tl.store(starts_ptr + line * size + place, state, mask=inside)
        total = tl.load(sums_ptr + line * channels + place % channels, mask=inside, other=0.0)
        end = tl.load(ends_ptr + line * size + place, mask=inside, other=0.0)
        state = tl.exp2(total * rate) * state + end


@triton.jit
def outputs(
    u_ptr, delta_ptr, bias_ptr, A_ptr, B_ptr, C_ptr, D_ptr, z_ptr, starts_ptr, y_ptr,
    length, channels, states, chunks, u_b, u_t, delta_b, delta_t, z_b, z_t,
    SOFTPLUS: tl.constexpr, BIAS: tl.constexpr, DIRECT: tl.constexpr, GATE: tl.constexpr, KIND: tl.constexpr,
    T: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The output of every chunk from the state it starts with."""
    line = tl.program_id(0).to(tl.int64)
    batch, first = line // chunks, line % chunks * T
    d, n = tl.program_id(1) * D + tl.arange(0, D), tl.arange(0, N)
    rate = _tile(A_ptr, d, n, channels, states)
    bias = _bias(bias_ptr, d, channels, BIAS, KIND)
    if DIRECT:
        direct = _row(D_ptr, d, channels, KIND)
    h = _tile(starts_ptr + line * states * channels, d, n, channels, states)
    for t in range(first, tl.minimum(first + T, length)):
        dt, _ = _step(delta_ptr + batch * delta_b + t * delta_t, bias, d, channels, SOFTPLUS, KIND)
        u = _row(u_ptr + batch * u_b + t * u_t, d, channels, KIND)
        B = _column(B_ptr + (batch * length + t) * states, n, states, KIND)
        C = _column(C_ptr + (batch * length + t) * states, n, states, KIND)
        h = tl.exp2(dt[None, :] * rate) * h + (dt * u)[None, :] * B[:, None]
        y = tl.sum(h * C[:, None], 0)
        if DIRECT:
            y += u * direct
        if GATE:
            z = _row(z_ptr + batch * z_b + t * z_t, d, channels, KIND)
            y = y * z * _sigmoid(z)
        tl.store(y_ptr + (batch * length + t) * channels + d, y, mask=d < channels)


@triton.jit
def _rows(row_ptr, stride, steps, d, inside, KIND: tl.constexpr):
    """A tile (R, D) of a chunk's tokens, 0 beyond its end and for channels that do not exist."""
    return tl.load(row_ptr + steps[:, None] * stride + d[None, :], mask=inside, other=0.0).to(KIND)


@triton.jit
def _leave_rows(
    rows_ptr, grad_row, z_row, delta_row, u_row, grad_t, z_t, delta_t, u_t, bias, d, lane, count, channels,
    SOFTPLUS: tl.constexpr, GATE: tl.constexpr, KIND: tl.constexpr, R: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Step size, step size times u, and the gradient before the gate, of every step, to scratch."""
    for block in range(tl.cdiv(count, R)):
        steps = block * R + tl.arange(0, R)
        inside = (steps < count)[:, None] & (d < channels)[None, :]
        u, grad = _rows(u_row, u_t, steps, d, inside, KIND), _rows(grad_row, grad_t, steps, d, inside, KIND)
        dt = _rows(delta_row, delta_t, steps, d, inside, KIND) + bias[None, :]
        if SOFTPLUS:
            dt = _softplus(dt, KIND)
        if GATE:
            z = _rows(z_row, z_t, steps, d, inside, KIND)
            grad = grad * z * _sigmoid(z)
        place = steps[:, None] * (6 * D) + lane[None, :]
        tl.store(rows_ptr + place, dt)
        tl.store(rows_ptr + D + place, dt * u)
        tl.store(rows_ptr + 2 * D + place, grad)


@triton.jit
def _ahead(h, rate, row, B_row, D: tl.constexpr, KIND: tl.constexpr, n, states):
    """The state one step further."""
    dt, dt_u = tl.load(row), tl.load(row + D)
    B = _column(B_row, n, states, KIND)
    return tl.exp2(dt[None, :] * rate) * h + dt_u[None, :] * B[:, None]


@triton.jit
def _back(
    flowing, g_A, rate, before_ptr, row, B_row, C_row, g_B_row, g_C_row, n, states,
    GATE: tl.constexpr, KIND: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """One step back: what flows on, the gradient of A so far; sums over channels and over states, stored.

    The order of the sums decides over registers (decision 111).
    """
    before = tl.load(before_ptr)
    dt, dt_u, grad = tl.load(row), tl.load(row + D), tl.load(row + 2 * D)
    B, C = _column(B_row, n, states, KIND), _column(C_row, n, states, KIND)
    decay = tl.exp2(dt[None, :] * rate)
    before = decay * before
    h = before + dt_u[None, :] * B[:, None]
    g = grad[None, :] * C[:, None] + flowing
    flowing = g * decay
    q = g * before
    g_A += q * dt[None, :]
    tl.store(row + 4 * D, tl.sum(q * rate, 0))
    tl.store(row + 3 * D, tl.sum(g * B[:, None], 0))
    tl.store(g_B_row, tl.sum(g * dt_u[None, :], 1), mask=n < states)
    tl.store(g_C_row, tl.sum(h * grad[None, :], 1), mask=n < states)
    if GATE:
        tl.store(row + 5 * D, tl.sum(h * C[:, None], 0))
    return flowing, g_A


@triton.jit
def _finish_rows(
    rows_ptr, grad_row, z_row, delta_row, u_row, g_u_row, g_delta_row, g_z_row, grad_t, z_t, delta_t, u_t,
    bias, direct, d, lane, count, channels,
    SOFTPLUS: tl.constexpr, GATE: tl.constexpr, KIND: tl.constexpr, R: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Gradients of u, delta and z of every step, from the sums in scratch; gives those of D and the bias."""
    g_D, g_bias = tl.zeros((R, D), KIND), tl.zeros((R, D), KIND)
    for block in range(tl.cdiv(count, R)):
        steps = block * R + tl.arange(0, R)
        place = steps[:, None] * (6 * D) + lane[None, :]
        inside = (steps < count)[:, None] & (d < channels)[None, :]
        u = _rows(u_row, u_t, steps, d, inside, KIND)
        dt, grad = tl.load(rows_ptr + place), tl.load(rows_ptr + 2 * D + place)
        g_dtu, g_dt = tl.load(rows_ptr + 3 * D + place), tl.load(rows_ptr + 4 * D + place)
        g_dt = g_dt * 0.6931471805599453 + u * g_dtu  # `rate` is A log2(e)
        if SOFTPLUS:
            g_dt = g_dt * _sigmoid(_rows(delta_row, delta_t, steps, d, inside, KIND) + bias[None, :])
        here = steps[:, None] * channels + d[None, :]
        tl.store(g_u_row + here, g_dtu * dt + grad * direct[None, :], mask=inside)
        tl.store(g_delta_row + here, g_dt, mask=inside)
        if GATE:
            outer, z = (
                _rows(grad_row, grad_t, steps, d, inside, KIND),
                _rows(z_row, z_t, steps, d, inside, KIND),
            )
            gate, y = _sigmoid(z), tl.load(rows_ptr + 5 * D + place) + u * direct[None, :]
            tl.store(g_z_row + here, outer * y * gate * (1.0 + z * (1.0 - gate)), mask=inside)
        g_D += tl.where(inside, grad * u, 0.0)
        g_bias += tl.where(inside, g_dt, 0.0)
    return tl.sum(g_D, 0), tl.sum(g_bias, 0)


@triton.jit
def gradients(
    grad_ptr, u_ptr, delta_ptr, bias_ptr, A_ptr, B_ptr, C_ptr, D_ptr, z_ptr, starts_ptr, incoming_ptr,
    states_ptr, rows_ptr,
    g_u_ptr, g_delta_ptr, g_z_ptr, g_A_ptr, g_B_ptr, g_C_ptr, g_D_ptr, g_bias_ptr,
    length, channels, states, chunks, lines, tiles, grad_b, grad_t, u_b, u_t, delta_b, delta_t, z_b, z_t,
    SOFTPLUS: tl.constexpr, BIAS: tl.constexpr, DIRECT: tl.constexpr, GATE: tl.constexpr, KIND: tl.constexpr,
    T: tl.constexpr, S: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """All gradients of every chunk; a program takes one (chunk, tile of channels) after the other."""
    R: tl.constexpr = S // 2
    program, lane, n = tl.program_id(0).to(tl.int64), tl.arange(0, D), tl.arange(0, N)
    own = n[:, None] + lane[None, :] * N
    marks_ptr = states_ptr + program * (T // S + S) * N * D
    trail_ptr = marks_ptr + T // S * N * D
    rows_ptr += program * T * 6 * D
    for item in range(program, lines * tiles, tl.num_programs(0)):
        line, tile = (item // tiles).to(tl.int64), (item % tiles).to(tl.int64)
        batch, first = line // chunks, line % chunks * T
        count = tl.minimum(T, length - first).to(tl.int32)  # steps inside a chunk count in 32 bits
        d, blocks = (tile * D + lane).to(tl.int32), tl.cdiv(count, S)
        bias = _bias(bias_ptr, d, channels, BIAS, KIND)
        u_row, delta_row = u_ptr + batch * u_b + first * u_t, delta_ptr + batch * delta_b + first * delta_t
        grad_row, z_row = grad_ptr + batch * grad_b + first * grad_t, z_ptr + batch * z_b + first * z_t
        token, at = batch * length + first, line * states * channels
        B_row, C_row = B_ptr + token * states, C_ptr + token * states
        partial = (tile * (lines // chunks) * length + token) * states + n
        tl.debug_barrier()
        tl.store(marks_ptr + own, _tile(starts_ptr + at, d, n, channels, states))
        tl.store(trail_ptr + own, _tile(incoming_ptr + at, d, n, channels, states))
        _leave_rows(
            rows_ptr, grad_row, z_row, delta_row, u_row, grad_t, z_t, delta_t, u_t, bias, d, lane, count,
            channels, SOFTPLUS, GATE, KIND, R, D,
        )  # fmt: skip
        tl.debug_barrier()
        real = (n < states)[:, None] & (d < channels)[None, :]
        rate = tl.load(A_ptr + n[:, None] + d[None, :] * states, mask=real, other=0.0)
        h = tl.load(marks_ptr + own)
        # g_t = C_t gy_t + exp(dt_{t+1} A) g_{t+1}; `flowing` is the second part, which comes in at the end.
        flowing, g_A = tl.load(trail_ptr + own), tl.zeros((N, D), KIND)
        for block in range(blocks - 1):
            for t in range(block * S, block * S + S):
                h = _ahead(h, rate, rows_ptr + t * 6 * D + lane, B_row + t * states, D, KIND, n, states)
            tl.store(marks_ptr + (block + 1) * N * D + own, h)
        for back in range(blocks):
            begin = (blocks - 1 - back) * S
            stop = tl.minimum(begin + S, count)
            tl.debug_barrier()
            h = tl.load(marks_ptr + begin // S * N * D + own)
            for t in range(begin, stop):
                tl.store(trail_ptr + (t - begin) * N * D + own, h)
                h = _ahead(h, rate, rows_ptr + t * 6 * D + lane, B_row + t * states, D, KIND, n, states)
            tl.debug_barrier()
            for ahead in range(stop - begin):
                t = stop - 1 - ahead
                flowing, g_A = _back(
                    flowing, g_A, rate, trail_ptr + (t - begin) * N * D + own, rows_ptr + t * 6 * D + lane,
                    B_row + t * states, C_row + t * states, g_B_ptr + partial + t * states,
                    g_C_ptr + partial + t * states, n, states, GATE, KIND, D,
                )  # fmt: skip
        _put_tile(g_A_ptr + at, g_A, d, n, channels, states)
        tl.debug_barrier()
        g_D, g_bias = _finish_rows(
            rows_ptr, grad_row, z_row, delta_row, u_row, g_u_ptr + token * channels,
            g_delta_ptr + token * channels, g_z_ptr + token * channels, grad_t, z_t, delta_t, u_t, bias,
            _bias(D_ptr, d, channels, DIRECT, KIND), d, lane, count, channels, SOFTPLUS, GATE, KIND, R, D,
        )  # fmt: skip
        tl.store(g_D_ptr + line * channels + d, g_D, mask=d < channels)
        tl.store(g_bias_ptr + line * channels + d, g_bias, mask=d < channels)
