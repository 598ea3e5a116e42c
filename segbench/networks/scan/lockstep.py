"""Backend `torch`: all chunks of a sequence walk in lock step, with plain tensor operations on any device.

The sequence is cut into S segments of K steps. One pass from a zero state gives each segment's end state, S
short steps carry the states from segment to segment, a second pass from the right start states writes the
output: 2K + S groups of kernels instead of l. The backward mirrors it and recomputes states between
checkpoints, so that (l, d, n) is never held. Decays are exponentials of differences <= 0 for A <= 0, never
quotients of cumulated products, so nothing under- or overflows that the recurrence itself would not.

Legend: b batch, d channels, n states, l steps, S segments, K steps of a segment. d is the fastest axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from segbench.networks.scan.arguments import CHUNK, ScanInputs, as_token_major, chunks, compute_dtype

__all__ = ["backward", "forward"]

STRIDE = 8
"""Steps between the checkpoints of the backward inside a segment: sqrt(CHUNK)."""


@dataclass(frozen=True)
class Segments:
    """The inputs cut into segments, the last one padded with steps that leave the state unchanged (dt = 0).

    `raw` and `u` are (b, l, d); `dt`, `dtu` (b, S, K, d); `B`, `C` (b, S, K, n); `A` (n, d).
    """

    length: int
    raw: Tensor
    u: Tensor
    dt: Tensor
    dtu: Tensor
    B: Tensor
    C: Tensor
    A: Tensor

    @property
    def steps(self) -> int:
        """K."""
        return self.dt.shape[2]

    def decay(self, k: int) -> Tensor:
        """exp(dt A) of step k of every segment: (b, S, n, d)."""
        return torch.exp(self.dt[:, :, k, None, :] * self.A)

    def decay_of_segments(self) -> Tensor:
        """The product of a segment's decays: (b, S, n, d)."""
        return torch.exp(self.dt.sum(2)[:, :, None, :] * self.A)

    def advance(self, h_bSnd: Tensor, k: int, decay_bSnd: Tensor) -> Tensor:
        """The state after step k."""
        return (h_bSnd * decay_bSnd).addcmul_(self.B[:, :, k, :, None], self.dtu[:, :, k, None, :])


def _split(x_bl: Tensor, count: int, steps: int) -> Tensor:
    padding = count * steps - x_bl.shape[1]
    padded = functional.pad(x_bl, (0, 0, 0, padding)) if padding else x_bl
    return padded.reshape(x_bl.shape[0], count, steps, x_bl.shape[2])


def _join(x_bSK: Tensor, length: int) -> Tensor:
    return x_bSK.flatten(1, 2)[:, :length]


def _segments(inputs: ScanInputs) -> Segments:
    u, delta, A, B, C, _, _, delta_bias, softplus = inputs
    dtype = compute_dtype(u.dtype)
    length = u.shape[2]
    count = chunks(length)
    steps = CHUNK if count > 1 else length
    u_bld = as_token_major(u, dtype)
    raw_bld = as_token_major(delta, dtype)
    if delta_bias is not None:
        raw_bld = raw_bld + delta_bias.to(dtype)
    dt_bld = functional.softplus(raw_bld) if softplus else raw_bld
    return Segments(
        length=length,
        raw=raw_bld,
        u=u_bld,
        dt=_split(dt_bld, count, steps),
        dtu=_split(dt_bld * u_bld, count, steps),
        B=_split(as_token_major(B, dtype), count, steps),
        C=_split(as_token_major(C, dtype), count, steps),
        A=A.to(dtype).t().contiguous(),
    )


def _start_states(cut: Segments) -> Tensor:
    """The state before each segment, (b, S, n, d)."""
    batch, count, _, channels = cut.dt.shape
    start = cut.u.new_zeros((batch, count, cut.A.shape[0], channels))
    if count == 1:
        return start
    ends = torch.zeros_like(start)
    for k in range(cut.steps):
        ends = cut.advance(ends, k, cut.decay(k))
    decay = cut.decay_of_segments()
    for s in range(1, count):
        torch.addcmul(ends[:, s - 1], decay[:, s - 1], start[:, s - 1], out=start[:, s])
    return start


def forward(inputs: ScanInputs, save_states: bool) -> tuple[Tensor, Tensor]:
    """Output and states at the starts of chunks, as `ScanInputs` says."""
    u, D, z = inputs.u, inputs.D, inputs.z
    cut = _segments(inputs)
    start = _start_states(cut)
    y_bSKd = torch.empty_like(cut.dt)
    h = start
    for k in range(cut.steps):
        h = cut.advance(h, k, cut.decay(k))
        torch.sum(h * cut.C[:, :, k, :, None], dim=2, out=y_bSKd[:, :, k])
    y_bld = _join(y_bSKd, cut.length)
    if D is not None:
        y_bld = torch.addcmul(y_bld, cut.u, D.to(y_bld.dtype))
    if z is not None:
        y_bld = y_bld * functional.silu(as_token_major(z, y_bld.dtype))
    y = y_bld.to(u.dtype).contiguous().transpose(1, 2)
    return y, start if save_states else start.new_empty(0)


def _incoming_adjoints(cut: Segments, grad_bSKd: Tensor) -> Tensor:
    """What flows back into each segment's end from all later ones: exp(dt A) g of the next step."""
    batch, count, _, channels = cut.dt.shape
    incoming = grad_bSKd.new_zeros((batch, count, cut.A.shape[0], channels))
    if count == 1:
        return incoming
    local = torch.zeros_like(incoming)
    for k in reversed(range(cut.steps)):
        local = torch.addcmul(local, cut.C[:, :, k, :, None], grad_bSKd[:, :, k, None, :])
        local.mul_(cut.decay(k))
    decay = cut.decay_of_segments()
    for s in reversed(range(count - 1)):
        torch.addcmul(local[:, s + 1], decay[:, s + 1], incoming[:, s + 1], out=incoming[:, s])
    return incoming


@dataclass(frozen=True)
class Sums:
    """Where the backward writes, cut like the inputs: (b, S, K, d) or (b, S, K, n); A (b, S, n, d)."""

    dtu: Tensor  # d loss / d (dt u)
    rate: Tensor  # sum over n of q A: the part of d loss / d dt that comes through the decay
    plain: Tensor  # the scan's own output, before D and the gate
    B: Tensor
    C: Tensor
    A: Tensor


def _walk_back(cut: Segments, start_bSnd: Tensor, grad_bSKd: Tensor) -> Sums:
    sums = Sums(
        dtu=torch.empty_like(cut.dt),
        rate=torch.empty_like(cut.dt),
        plain=torch.empty_like(cut.dt),
        B=torch.empty_like(cut.B),
        C=torch.empty_like(cut.C),
        A=torch.zeros_like(start_bSnd),
    )
    checkpoints, h = [], start_bSnd
    for k in range(cut.steps):
        if k % STRIDE == 0:
            checkpoints.append(h)
        h = cut.advance(h, k, cut.decay(k))
    adjoint = _incoming_adjoints(cut, grad_bSKd)
    for first in reversed(range(0, cut.steps, STRIDE)):
        states, decays = [checkpoints.pop()], []
        for k in range(first, min(first + STRIDE, cut.steps)):
            decays.append(cut.decay(k))
            states.append(cut.advance(states[-1], k, decays[-1]))
        for k in reversed(range(first, first + len(decays))):
            h, decay = states.pop(), decays.pop()
            adjoint = _step_back(cut, k, grad_bSKd[:, :, k, None, :], h, states[-1], decay, adjoint, sums)
    return sums


def _step_back(
    cut: Segments,
    k: int,
    grad: Tensor,
    h: Tensor,
    h_before: Tensor,
    decay: Tensor,
    adjoint: Tensor,
    sums: Sums,
) -> Tensor:
    """One step k of all segments backwards; the adjoint that flows on to step k - 1."""
    C = cut.C[:, :, k, :, None]
    g = torch.addcmul(adjoint, C, grad)
    torch.sum(h * C, dim=2, out=sums.plain[:, :, k])
    torch.sum(h * grad, dim=3, out=sums.C[:, :, k])
    torch.sum(g * cut.dtu[:, :, k, None, :], dim=3, out=sums.B[:, :, k])
    torch.sum(g * cut.B[:, :, k, :, None], dim=2, out=sums.dtu[:, :, k])
    flowing = g.mul_(decay)
    q = h_before * flowing
    sums.A.addcmul_(q, cut.dt[:, :, k, None, :])
    torch.sum(q.mul_(cut.A), dim=2, out=sums.rate[:, :, k])
    return flowing


def backward(grad: Tensor, inputs: ScanInputs, states: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the eight tensors, as `ScanInputs` says."""
    u, delta, A, B, C, D, z, delta_bias, delta_softplus = inputs
    cut = _segments(inputs)
    count, steps, length = states.shape[1], cut.steps, cut.length
    dtype = cut.u.dtype
    grad_bld = as_token_major(grad, dtype)
    outer_bld = grad_bld
    z_bld = gate = grad_bld
    if z is not None:
        z_bld = as_token_major(z, dtype)
        gate = torch.sigmoid(z_bld)
        grad_bld = grad_bld * z_bld * gate
    sums = _walk_back(cut, states, _split(grad_bld, count, steps))
    g_dtu = _join(sums.dtu, length)
    dt_bld = _join(cut.dt, length)
    g_u = g_dtu * dt_bld
    g_raw = torch.addcmul(_join(sums.rate, length), cut.u, g_dtu)
    if delta_softplus:
        g_raw = g_raw * torch.sigmoid(cut.raw)
    g_D = g_z = g_bias = grad_bld
    plain_bld = _join(sums.plain, length)
    if D is not None:
        g_D = (grad_bld * cut.u).sum((0, 1))
        g_u = torch.addcmul(g_u, grad_bld, D.to(dtype))
        plain_bld = torch.addcmul(plain_bld, cut.u, D.to(dtype))
    if z is not None:
        g_z = outer_bld * plain_bld * gate * (1 + z_bld * (1 - gate))
    if delta_bias is not None:
        g_bias = g_raw.sum((0, 1))

    def channel_major(x_bl: Tensor, like: Tensor) -> Tensor:
        return x_bl.to(like.dtype).contiguous().transpose(1, 2)

    return (
        channel_major(g_u, u),
        channel_major(g_raw, delta),
        sums.A.sum((0, 1)).t().to(A.dtype).contiguous(),
        _join(sums.B, length).transpose(1, 2).to(B.dtype).contiguous(),
        _join(sums.C, length).transpose(1, 2).to(C.dtype).contiguous(),
        g_u.new_empty(0) if D is None else g_D.to(D.dtype),
        g_u.new_empty(0) if z is None else channel_major(g_z, z),
        g_u.new_empty(0) if delta_bias is None else g_bias.to(delta_bias.dtype),
    )
