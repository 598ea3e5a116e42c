"""The selective scan on a CUDA device, in Triton: all chunks in parallel, states carried between them.

A program holds a tile (T steps, D channels, N states) of one chunk and scans it along T in registers. Three
passes forward: end states of all chunks from a zero state; the states carried from chunk to chunk (a scan
over chunks, the same way); the output from the right start states. Backward the same with adjoints, then one
pass that recomputes a chunk's states and writes all gradients. There are always programs enough.

Gradients of B and C are sums over channels: a program walks a group of channel tiles and writes one partial
sum per group, and the groups are added in a fixed order; nothing is added atomically, so results repeat to
the bit.

Legend: b batch, l steps, d channels, n states; T, D, N sizes of a tile (powers of two). Tensors of tokens are
(b, l, d) with adjacent channels, states (b, chunks, n, d).
"""

# Triton reads no annotations: arguments that end in _ptr are pointers, capitals are compile-time constants.
# ruff: noqa: ANN001, ANN201, ANN202
# pyright: reportMissingImports=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["carry", "chunk_adjoints", "chunk_ends", "gradients", "outputs"]


@triton.jit
def _combine(decay_a, x_a, decay_b, x_b):
    return decay_a * decay_b, decay_b * x_a + x_b


@triton.jit
def _sigmoid(x):
    w = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, w) / (1.0 + w)


@triton.jit
def _softplus(x):
    """log(1 + exp(x)) as max(x, 0) + 2 artanh(w / (2 + w)), w = exp(-|x|): precise for very negative x."""
    w = tl.exp(-tl.abs(x))
    s = w / (2.0 + w)
    q = s * s
    series = 2.0 / 35
    for k in tl.static_range(16, -1, -1):
        series = series * q + 2.0 / (2 * k + 1)
    return tl.maximum(x, 0.0) + s * series


@triton.jit
def _steps(
    delta_ptr,
    bias_ptr,
    batch,
    t,
    d,
    length,
    channels,
    stride_b,
    stride_t,
    SOFTPLUS: tl.constexpr,
    BIAS: tl.constexpr,
    KIND: tl.constexpr,
):
    """Step sizes and their raw values at (t, d), both 0 past the end: such a step changes nothing."""
    inside = (t < length)[:, None] & (d < channels)[None, :]
    place = batch * stride_b + t[:, None] * stride_t + d[None, :]
    raw = tl.load(delta_ptr + place, mask=inside, other=0.0).to(KIND)
    if BIAS:
        raw += tl.load(bias_ptr + d, mask=d < channels, other=0.0).to(KIND)[None, :]
    dt = raw
    if SOFTPLUS:
        dt = _softplus(raw)
    return tl.where(inside, dt, 0.0), raw


@triton.jit
def _tokens(ptr, batch, t, d, length, channels, stride_b, stride_t, KIND: tl.constexpr):
    inside = (t < length)[:, None] & (d < channels)[None, :]
    place = batch * stride_b + t[:, None] * stride_t + d[None, :]
    return tl.load(ptr + place, mask=inside, other=0.0).to(KIND)


@triton.jit
def _rates(A_ptr, d, n, channels, states, KIND: tl.constexpr):
    """A log2(e) at (d, n), 0 for what does not exist."""
    inside = (d < channels)[:, None] & (n < states)[None, :]
    return tl.load(A_ptr + d[:, None] * states + n[None, :], mask=inside, other=0.0).to(KIND)


@triton.jit
def _projection(ptr, batch, t, n, length, states, KIND: tl.constexpr):
    """B or C, stored (b, l, n), at (t, n)."""
    inside = (t < length)[:, None] & (n < states)[None, :]
    place = (batch * length + t[:, None]) * states + n[None, :]
    return tl.load(ptr + place, mask=inside, other=0.0).to(KIND)


@triton.jit
def _state_place(batch, chunk, chunks, d, n, channels, states):
    """Where the state (d, n) of a chunk lies in (b, chunks, n, d)."""
    return ((batch * chunks + chunk) * states + n[None, :]) * channels + d[:, None]


@triton.jit
def chunk_ends(
    u_ptr, delta_ptr, bias_ptr, A_ptr, B_ptr, ends_ptr, sums_ptr,
    length, channels, states, chunks, u_b, u_t, delta_b, delta_t,
    SOFTPLUS: tl.constexpr, BIAS: tl.constexpr, KIND: tl.constexpr,
    T: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """State after each chunk from a zero state before it, and the sum of the chunk's steps."""
    batch, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    d, n = tl.program_id(1) * D + tl.arange(0, D), tl.arange(0, N)
    t = chunk * T + tl.arange(0, T)
    dt, _ = _steps(delta_ptr, bias_ptr, batch, t, d, length, channels, delta_b, delta_t, SOFTPLUS, BIAS, KIND)
    u = _tokens(u_ptr, batch, t, d, length, channels, u_b, u_t, KIND)
    rate = _rates(A_ptr, d, n, channels, states, KIND)
    B = _projection(B_ptr, batch, t, n, length, states, KIND)
    # h_T = sum over t of exp(A (dt_{t+1} + ... + dt_T)) dt_t u_t B_t: only sums of steps, never quotients.
    later = tl.cumsum(dt, 0, reverse=True) - dt
    end = tl.sum(tl.exp2(later[:, :, None] * rate[None, :, :]) * (dt * u)[:, :, None] * B[:, None, :], 0)
    inside = (d < channels)[:, None] & (n < states)[None, :]
    tl.store(ends_ptr + _state_place(batch, chunk, chunks, d, n, channels, states), end, mask=inside)
    tl.store(sums_ptr + (batch * chunks + chunk) * channels + d, tl.sum(dt, 0), mask=d < channels)


@triton.jit
def chunk_adjoints(
    grad_ptr, z_ptr, delta_ptr, bias_ptr, A_ptr, C_ptr, ends_ptr,
    length, channels, states, chunks, grad_b, grad_t, z_b, z_t, delta_b, delta_t,
    SOFTPLUS: tl.constexpr, BIAS: tl.constexpr, GATE: tl.constexpr, KIND: tl.constexpr,
    T: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """What flows back out of each chunk's start if nothing flows into its end."""
    batch, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    d, n = tl.program_id(1) * D + tl.arange(0, D), tl.arange(0, N)
    t = chunk * T + tl.arange(0, T)
    dt, _ = _steps(delta_ptr, bias_ptr, batch, t, d, length, channels, delta_b, delta_t, SOFTPLUS, BIAS, KIND)
    grad = _tokens(grad_ptr, batch, t, d, length, channels, grad_b, grad_t, KIND)
    if GATE:
        z = _tokens(z_ptr, batch, t, d, length, channels, z_b, z_t, KIND)
        grad = grad * z * _sigmoid(z)
    rate = _rates(A_ptr, d, n, channels, states, KIND)
    C = _projection(C_ptr, batch, t, n, length, states, KIND)
    until = tl.cumsum(dt, 0)
    out = tl.sum(tl.exp2(until[:, :, None] * rate[None, :, :]) * grad[:, :, None] * C[:, None, :], 0)
    inside = (d < channels)[:, None] & (n < states)[None, :]
    tl.store(ends_ptr + _state_place(batch, chunk, chunks, d, n, channels, states), out, mask=inside)


@triton.jit
def carry(
    ends_ptr, sums_ptr, A_ptr, starts_ptr, channels, states, chunks,
    REVERSE: tl.constexpr, KIND: tl.constexpr, T: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The state with which each chunk starts (in reverse: the adjoint that flows into its end).

    start_{j+1} = exp(A sum_j) start_j + end_j, start_0 = 0, over the chunks in order or in reverse order.
    """
    batch = tl.program_id(0)
    d, n = tl.program_id(1) * D + tl.arange(0, D), tl.arange(0, N)
    rate = _rates(A_ptr, d, n, channels, states, KIND)
    inside = (d < channels)[:, None] & (n < states)[None, :]
    first = chunks - 1 if REVERSE else 0
    state = tl.zeros((D, N), KIND)
    tl.store(starts_ptr + _state_place(batch, first, chunks, d, n, channels, states), state, mask=inside)
    for begin in range(0, chunks, T):
        j = begin + tl.arange(0, T)
        chunk = chunks - 1 - j if REVERSE else j
        there = (j < chunks)[:, None] & (d < channels)[None, :]
        place = ((batch * chunks + chunk[:, None, None]) * states + n[None, None, :]) * channels + d[
            None, :, None
        ]
        sums = tl.load(
            sums_ptr + (batch * chunks + chunk[:, None]) * channels + d[None, :], mask=there, other=0.0
        )
        decay = tl.exp2(sums[:, :, None] * rate[None, :, :])
        wanted = (j < chunks)[:, None, None] & inside[None, :, :]
        end = tl.load(ends_ptr + place, mask=wanted, other=0.0)
        x = end + tl.where(tl.arange(0, T)[:, None, None] == 0, decay * state[None, :, :], 0.0)
        _, after = tl.associative_scan((decay, x), 0, _combine)
        following = -channels * states if REVERSE else channels * states
        next_there = (j + 1 < chunks)[:, None, None] & inside[None, :, :]
        tl.store(starts_ptr + place + following, after, mask=next_there)
        state = tl.sum(tl.where(tl.arange(0, T)[:, None, None] == T - 1, after, 0.0), 0)


@triton.jit
def _scan_states(dt, u, rate, B, start, T: tl.constexpr):
    """(decay, input, state) of every step of a chunk, (T, D, N)."""
    decay = tl.exp2(dt[:, :, None] * rate[None, :, :])
    x = (dt * u)[:, :, None] * B[:, None, :]
    first = tl.arange(0, T)[:, None, None] == 0
    _, h = tl.associative_scan((decay, x + tl.where(first, decay * start[None, :, :], 0.0)), 0, _combine)
    return decay, x, h


@triton.jit
def outputs(
    u_ptr, delta_ptr, bias_ptr, A_ptr, B_ptr, C_ptr, D_ptr, z_ptr, starts_ptr, y_ptr,
    length, channels, states, chunks, u_b, u_t, delta_b, delta_t, z_b, z_t,
    SOFTPLUS: tl.constexpr, BIAS: tl.constexpr, DIRECT: tl.constexpr, GATE: tl.constexpr, KIND: tl.constexpr,
    T: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The output of every chunk from the state it starts with."""
    batch, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    d, n = tl.program_id(1) * D + tl.arange(0, D), tl.arange(0, N)
    t = chunk * T + tl.arange(0, T)
    dt, _ = _steps(delta_ptr, bias_ptr, batch, t, d, length, channels, delta_b, delta_t, SOFTPLUS, BIAS, KIND)
    u = _tokens(u_ptr, batch, t, d, length, channels, u_b, u_t, KIND)
    rate = _rates(A_ptr, d, n, channels, states, KIND)
    B = _projection(B_ptr, batch, t, n, length, states, KIND)
    C = _projection(C_ptr, batch, t, n, length, states, KIND)
    inside = (d < channels)[:, None] & (n < states)[None, :]
    place = _state_place(batch, chunk, chunks, d, n, channels, states)
    start = tl.load(starts_ptr + place, mask=inside, other=0.0)
    _, _, h = _scan_states(dt, u, rate, B, start, T)
    y = tl.sum(h * C[:, None, :], 2)
    if DIRECT:
        y += u * tl.load(D_ptr + d, mask=d < channels, other=0.0).to(KIND)[None, :]
    if GATE:
        z = _tokens(z_ptr, batch, t, d, length, channels, z_b, z_t, KIND)
        y = y * z * _sigmoid(z)
    there = (t < length)[:, None] & (d < channels)[None, :]
    tl.store(y_ptr + (batch * length + t[:, None]) * channels + d[None, :], y, mask=there)


@triton.jit
def gradients(
    grad_ptr, u_ptr, delta_ptr, bias_ptr, A_ptr, B_ptr, C_ptr, D_ptr, z_ptr, starts_ptr, incoming_ptr,
    g_u_ptr, g_delta_ptr, g_z_ptr, g_A_ptr, g_B_ptr, g_C_ptr, g_D_ptr, g_bias_ptr,
    length, channels, states, chunks, batches, grad_b, grad_t, u_b, u_t, delta_b, delta_t, z_b, z_t,
    SOFTPLUS: tl.constexpr, BIAS: tl.constexpr, DIRECT: tl.constexpr, GATE: tl.constexpr, KIND: tl.constexpr,
    GROUP: tl.constexpr, T: tl.constexpr, D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """All gradients of a chunk, for a group of channel tiles."""
    batch, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    group = tl.program_id(1)
    n, t = tl.arange(0, N), chunk * T + tl.arange(0, T)
    last = tl.arange(0, T)[:, None, None] == T - 1
    B = _projection(B_ptr, batch, t, n, length, states, KIND)
    C = _projection(C_ptr, batch, t, n, length, states, KIND)
    g_B, g_C = tl.zeros((T, N), KIND), tl.zeros((T, N), KIND)
    for tile in range(GROUP):
        d = (group * GROUP + tile) * D + tl.arange(0, D)
        inside = (d < channels)[:, None] & (n < states)[None, :]
        there = (t < length)[:, None] & (d < channels)[None, :]
        target = (batch * length + t[:, None]) * channels + d[None, :]
        place = _state_place(batch, chunk, chunks, d, n, channels, states)
        dt, raw = _steps(
            delta_ptr, bias_ptr, batch, t, d, length, channels, delta_b, delta_t, SOFTPLUS, BIAS, KIND
        )
        u = _tokens(u_ptr, batch, t, d, length, channels, u_b, u_t, KIND)
        rate = _rates(A_ptr, d, n, channels, states, KIND)
        start = tl.load(starts_ptr + place, mask=inside, other=0.0)
        _, x, h = _scan_states(dt, u, rate, B, start, T)
        outer = _tokens(grad_ptr, batch, t, d, length, channels, grad_b, grad_t, KIND)
        grad = outer
        if GATE:
            z = _tokens(z_ptr, batch, t, d, length, channels, z_b, z_t, KIND)
            gate = _sigmoid(z)
            grad = outer * z * gate
        # g_t = C_t gy_t + exp(dt_{t+1} A) g_{t+1}; what flows into the chunk's end already is that product.
        dt_next, _ = _steps(
            delta_ptr, bias_ptr, batch, t + 1, d, length, channels, delta_b, delta_t, SOFTPLUS, BIAS, KIND
        )
        incoming = tl.load(incoming_ptr + place, mask=inside, other=0.0)
        own = grad[:, :, None] * C[:, None, :] + tl.where(last, incoming[None, :, :], 0.0)
        decay_next = tl.exp2(dt_next[:, :, None] * rate[None, :, :])
        _, g = tl.associative_scan((decay_next, own), 0, _combine, reverse=True)
        g_B += tl.sum(g * (dt * u)[:, :, None], 1)
        g_C += tl.sum(grad[:, :, None] * h, 1)
        g_dtu = tl.sum(g * B[:, None, :], 2)
        q = g * (h - x)  # h - x is exp(dt A) times the state before
        g_A = tl.sum(q * dt[:, :, None], 0)
        g_dt = tl.sum(q * rate[None, :, :], 2) * 0.6931471805599453 + u * g_dtu
        if SOFTPLUS:
            g_dt = g_dt * _sigmoid(raw)
        g_dt = tl.where(there, g_dt, 0.0)
        g_u = g_dtu * dt
        if DIRECT:
            direct = tl.load(D_ptr + d, mask=d < channels, other=0.0).to(KIND)[None, :]
            g_u += grad * direct
        tl.store(g_u_ptr + target, g_u, mask=there)
        tl.store(g_delta_ptr + target, g_dt, mask=there)
        if GATE:
            plain = tl.sum(h * C[:, None, :], 2)
            if DIRECT:
                plain += u * direct
            tl.store(g_z_ptr + target, outer * plain * gate * (1.0 + z * (1.0 - gate)), mask=there)
        tl.store(g_A_ptr + place, g_A, mask=inside)
        line = (batch * chunks + chunk) * channels + d
        tl.store(g_D_ptr + line, tl.sum(grad * u, 0), mask=d < channels)
        tl.store(g_bias_ptr + line, tl.sum(g_dt, 0), mask=d < channels)
    partial = ((group * batches + batch) * length + t[:, None]) * states + n[None, :]
    wanted = (t < length)[:, None] & (n < states)[None, :]
    tl.store(g_B_ptr + partial, g_B, mask=wanted)
    tl.store(g_C_ptr + partial, g_C, mask=wanted)
