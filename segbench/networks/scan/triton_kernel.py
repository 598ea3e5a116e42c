"""The selective scan on a CUDA device, in Triton: a thread owns channels, with all their states in registers.

A program is one warp that walks the steps of one chunk for D adjacent channels. Its tiles are (N, D) with the
states first: that lays all states of a channel into one thread, so the recurrence and the sums over states
need no exchange between threads, and every row of tokens is read by adjacent threads. (In `gradients`, which
sums over channels too, Triton lays four states of four channels into a thread, and threads do exchange sums.)
Sequences are cut into
chunks of T steps that run in parallel: end states of all chunks from a zero state; the states carried from
chunk to chunk; the output from the right start states. Backward the same with adjoints, then one pass that
walks each chunk once more: forwards, leaving the state of every S-th step, then backwards by S steps at a
time, whose states it makes again.

Gradients of B and C are sums over channels: a program sums its own channels and writes one partial sum per
tile, and the tiles are added in a fixed order; nothing is added atomically, so results repeat to the bit.

Legend: b batch, l steps, d channels, n states; T, S, D, N are sizes (powers of two). Tensors of tokens are
(b, l, d) with adjacent channels, states (b, chunks, n, d), A is (n, d). Scratch of a program in `gradients`:
marks (T / S, N, D), trail (S, N, D), steps (T, D); a barrier stands between writing and reading, and before
writing again, since threads may read other parts than they wrote.
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
def _leave_marks(
    h, rate, bias, u_row, delta_row, B_row, marks_ptr, steps_ptr, own, d, n, count, channels, states, u_t,
    delta_t, SOFTPLUS: tl.constexpr, KIND: tl.constexpr, S: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Walk a chunk from its start state: the state before every S-th step, and all step sizes, to scratch."""
    tl.debug_barrier()
    for t in range(count):
        if t % S == 0:
            tl.store(marks_ptr + t // S * N * D + own, h)
        dt, _ = _step(delta_row + t * delta_t, bias, d, channels, SOFTPLUS, KIND)
        tl.store(steps_ptr + t * D, dt)
        u = _row(u_row + t * u_t, d, channels, KIND)
        B = _column(B_row + t * states, n, states, KIND)
        h = tl.exp2(dt[None, :] * rate) * h + (dt * u)[None, :] * B[:, None]


@triton.jit
def _leave_trail(
    rate, u_row, B_row, marks_ptr, trail_ptr, steps_ptr, own, d, n, begin, stop, channels, states, u_t,
    KIND: tl.constexpr, S: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The state before each of the steps from a mark on, to scratch."""
    tl.debug_barrier()
    h = tl.load(marks_ptr + begin // S * N * D + own)
    for t in range(begin, stop):
        tl.store(trail_ptr + (t - begin) * N * D + own, h)
        dt = tl.load(steps_ptr + t * D)
        u = _row(u_row + t * u_t, d, channels, KIND)
        B = _column(B_row + t * states, n, states, KIND)
        h = tl.exp2(dt[None, :] * rate) * h + (dt * u)[None, :] * B[:, None]
    tl.debug_barrier()


@triton.jit
def gradients(
    grad_ptr, u_ptr, delta_ptr, bias_ptr, A_ptr, B_ptr, C_ptr, D_ptr, z_ptr, starts_ptr, incoming_ptr,
    marks_ptr, trail_ptr, steps_ptr,
    g_u_ptr, g_delta_ptr, g_z_ptr, g_A_ptr, g_B_ptr, g_C_ptr, g_D_ptr, g_bias_ptr,
    length, channels, states, chunks, lines, tiles, grad_b, grad_t, u_b, u_t, delta_b, delta_t, z_b, z_t,
    SOFTPLUS: tl.constexpr, BIAS: tl.constexpr, DIRECT: tl.constexpr, GATE: tl.constexpr, KIND: tl.constexpr,
    T: tl.constexpr, S: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """All gradients of every chunk; a program takes one (chunk, tile of channels) after the other."""
    program = tl.program_id(0).to(tl.int64)
    lane, n = tl.arange(0, D), tl.arange(0, N)
    own = n[:, None] * D + lane[None, :]
    marks_ptr += program * (T // S) * N * D
    trail_ptr += program * S * N * D
    steps_ptr += program * T * D + lane
    for item in range(program, lines * tiles, tl.num_programs(0)):
        line, tile = item // tiles, item % tiles
        batch, first = line // chunks, line % chunks * T
        count = tl.minimum(T, length - first)
        d = (tile * D + lane).to(tl.int32)
        rate = _tile(A_ptr, d, n, channels, states)
        bias = _bias(bias_ptr, d, channels, BIAS, KIND)
        direct = _bias(D_ptr, d, channels, DIRECT, KIND)
        u_row, delta_row = u_ptr + batch * u_b + first * u_t, delta_ptr + batch * delta_b + first * delta_t
        grad_row, z_row = grad_ptr + batch * grad_b + first * grad_t, z_ptr + batch * z_b + first * z_t
        token = batch * length + first
        B_row, C_row = B_ptr + token * states, C_ptr + token * states
        start = _tile(starts_ptr + line * states * channels, d, n, channels, states)
        _leave_marks(
            start, rate, bias, u_row, delta_row, B_row, marks_ptr, steps_ptr, own, d, n, count,
            channels, states, u_t, delta_t, SOFTPLUS, KIND, S, D, N,
        )  # fmt: skip
        # g_t = C_t gy_t + exp(dt_{t+1} A) g_{t+1}; `flowing` is the second part, which comes in at the end.
        flowing = _tile(incoming_ptr + line * states * channels, d, n, channels, states)
        g_A, g_D, g_bias = tl.zeros((N, D), KIND), tl.zeros((D,), KIND), tl.zeros((D,), KIND)
        for back in range(tl.cdiv(count, S)):
            begin = (tl.cdiv(count, S) - 1 - back) * S
            stop = tl.minimum(begin + S, count)
            _leave_trail(
                rate, u_row, B_row, marks_ptr, trail_ptr, steps_ptr, own, d, n, begin, stop, channels, states,
                u_t, KIND, S, D, N,
            )  # fmt: skip
            for ahead in range(stop - begin):
                t = stop - 1 - ahead
                before, dt = tl.load(trail_ptr + (t - begin) * N * D + own), tl.load(steps_ptr + t * D)
                u = _row(u_row + t * u_t, d, channels, KIND)
                B, C = (
                    _column(B_row + t * states, n, states, KIND),
                    _column(C_row + t * states, n, states, KIND),
                )
                outer, grad, z, gate = _gated(grad_row + t * grad_t, z_row + t * z_t, d, channels, GATE, KIND)
                decay = tl.exp2(dt[None, :] * rate)
                h = decay * before + (dt * u)[None, :] * B[:, None]
                g = grad[None, :] * C[:, None] + flowing
                partial = ((tile * (lines // chunks) + batch) * length + first + t) * states + n
                tl.store(g_B_ptr + partial, tl.sum(g * (dt * u)[None, :], 1), mask=n < states)
                tl.store(g_C_ptr + partial, tl.sum(h * grad[None, :], 1), mask=n < states)
                g_dtu = tl.sum(g * B[:, None], 0)
                flowing = g * decay
                q = flowing * before
                g_A += q * dt[None, :]
                g_dt = tl.sum(q * rate, 0) * 0.6931471805599453 + u * g_dtu  # `rate` is A log2(e)
                if SOFTPLUS:
                    g_dt = g_dt * _sigmoid(_row(delta_row + t * delta_t, d, channels, KIND) + bias)
                target = (token + t) * channels + d
                tl.store(g_u_ptr + target, g_dtu * dt + grad * direct, mask=d < channels)
                tl.store(g_delta_ptr + target, g_dt, mask=d < channels)
                if GATE:
                    g_z = outer * (tl.sum(h * C[:, None], 0) + u * direct) * gate * (1.0 + z * (1.0 - gate))
                    tl.store(g_z_ptr + target, g_z, mask=d < channels)
                g_D += grad * u
                g_bias += g_dt
        _put_tile(g_A_ptr + line * states * channels, g_A, d, n, channels, states)
        tl.store(g_D_ptr + line * channels + d, g_D, mask=d < channels)
        tl.store(g_bias_ptr + line * channels + d, g_bias, mask=d < channels)
