"""Backend `numba`: the CPU kernel behind torch tensors, spread over torch's threads.

Threads are Python threads that leave the interpreter lock inside the kernel: no threading layer of numba's
(one of which aborts when two threads enter it), no spinning workers, and nothing that a fork would break.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segbench.networks.scan import numba_kernel as kernel
from segbench.networks.scan.arguments import CHUNK, ScanInputs, chunks, compute_dtype

__all__ = ["backward", "forward"]

assert kernel.STEPS == CHUNK


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Workers of this process (a forked child has another id and so gets its own)."""
    return ThreadPoolExecutor(threads, thread_name_prefix="segbench-scan")


def _spread(work: Callable[[int, int], None], items: int) -> None:
    """Call `work(first, last)` for consecutive parts of the items, one part per thread."""
    threads = min(torch.get_num_threads(), items)
    if threads <= 1:
        work(0, items)
        return
    edges = [items * i // threads for i in range(threads + 1)]
    pool = _pool(os.getpid(), torch.get_num_threads())
    pending = [pool.submit(work, edges[i], edges[i + 1]) for i in range(1, threads)]
    work(edges[0], edges[1])
    for future in pending:
        future.result()


def _lanes(dtype: torch.dtype) -> int:
    """Channels of a block: the lanes of a vector."""
    return 16 if dtype == torch.float32 else 8


def _blocks(channels: int, dtype: torch.dtype) -> int:
    return -(-channels // _lanes(dtype))


def _flat(x: Tensor) -> np.ndarray:
    """The memory of a tensor from its first element to its last, as one flat array."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.detach().as_strided((span,), (1,)).numpy()


def _tokens(x_bdl: Tensor, dtype: torch.dtype) -> kernel.Tokens:
    """A (b, d, l) tensor as tokens, without a copy where the type fits and channels are adjacent."""
    x = x_bdl.transpose(1, 2).to(dtype)
    if (x.shape[2] > 1 and x.stride(2) != 1) or min(x.stride()) < 0:
        x = x.contiguous()
    return kernel.Tokens(_flat(x), x.stride(0), x.stride(1))


def _padded(vector: Tensor | None, size: int, like: Tensor) -> Tensor:
    if vector is None:
        return like.new_zeros(size)
    return functional.pad(vector.to(like.dtype), (0, size - vector.shape[0])).contiguous()


def _even(x_bnl: Tensor, n: int, dtype: torch.dtype) -> np.ndarray:
    x = x_bnl.to(dtype)
    if n != x.shape[1]:
        x = functional.pad(x, (0, 0, 0, n - x.shape[1]))
    return _flat(x.contiguous())


def _problem(inputs: ScanInputs) -> kernel.Problem:
    u, delta, A, B, C, D, z, delta_bias, softplus = inputs
    dtype = compute_dtype(u.dtype)
    _, channels, length = u.shape
    n, padded = A.shape[1] + A.shape[1] % 2, _blocks(channels, dtype) * _lanes(dtype)
    rate = u.new_zeros((n, padded), dtype=dtype)
    rate[: A.shape[1], :channels] = A.detach().t().to(torch.float64) * math.log2(math.e)
    steps = _tokens(u, dtype)
    return kernel.Problem(
        u=steps,
        delta=_tokens(delta, dtype),
        gate=steps if z is None else _tokens(z, dtype),
        rate=_flat(rate),
        B=_even(B, n, dtype),
        C=_even(C, n, dtype),
        D=_flat(_padded(D, padded, rate)),
        bias=_flat(_padded(delta_bias, padded, rate)),
        length=length,
        channels=channels,
        n=n,
        softplus=softplus,
        gated=z is not None,
    )


def _memory(problem: kernel.Problem) -> np.ndarray:
    return np.empty(kernel.scratch_size(problem.n, 64 // problem.B.itemsize), problem.B.dtype)


def _like(x_bdl: Tensor, dtype: torch.dtype) -> Tensor:
    batch, channels, length = x_bdl.shape
    return x_bdl.new_empty((batch, length, channels), dtype=dtype)


def forward(inputs: ScanInputs, save_states: bool) -> tuple[Tensor, Tensor]:
    """Output and states at the starts of chunks, as `ScanInputs` says."""
    u, A, problem = inputs.u, inputs.A, _problem(inputs)
    batch, channels, length = u.shape
    y = _like(u, compute_dtype(u.dtype))
    states = y.new_empty((batch, chunks(length), problem.n, channels) if save_states else (0,))
    y_flat, states_flat = _flat(y), states.flatten().numpy()

    def work(first: int, last: int) -> None:
        kernel.forward_items(first, last, problem, y_flat, states_flat, save_states, _memory(problem))

    _spread(work, batch * _blocks(channels, y.dtype))
    if save_states and problem.n != A.shape[1]:
        states = states[:, :, : A.shape[1]].contiguous()
    return y.to(u.dtype).transpose(1, 2), states


def backward(grad: Tensor, inputs: ScanInputs, states: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the eight tensors, as `ScanInputs` says."""
    u, delta, A, B, C, D, z, delta_bias, _ = inputs
    problem = _problem(inputs)
    dtype = compute_dtype(u.dtype)
    batch, channels, length = u.shape
    n, states_n = A.shape[1], problem.n
    if states_n != n:
        states = functional.pad(states, (0, 0, 0, states_n - n))
    blocks = _blocks(channels, dtype)
    groups, padded = -(-blocks // kernel.GROUP), blocks * _lanes(dtype)
    g_u, g_delta = _like(u, dtype), _like(u, dtype)
    g_z = _like(u, dtype) if z is not None else g_u.new_empty(0)
    g_A = g_u.new_empty((batch, states_n, padded))
    g_B, g_C = (g_u.new_zeros((batch, groups, states_n, chunks(length) * CHUNK)) for _ in range(2))
    g_D, g_bias = (g_u.new_empty((batch, padded)) for _ in range(2))
    gradients = kernel.Gradients(
        *(tensor.flatten().numpy() for tensor in (g_u, g_delta, g_z, g_A, g_B, g_C, g_D, g_bias))
    )
    steps, flat_states = _tokens(grad, dtype), states.contiguous().flatten().numpy()

    def work(first: int, last: int) -> None:
        kernel.backward_items(first, last, problem, steps, flat_states, gradients, _memory(problem))

    _spread(work, batch * groups)
    return (
        g_u.to(u.dtype).transpose(1, 2),
        g_delta.to(delta.dtype).transpose(1, 2),
        g_A.sum(0)[:n, :channels].t().to(A.dtype).contiguous(),
        g_B.sum(1)[:, :n, :length].to(B.dtype).contiguous(),
        g_C.sum(1)[:, :n, :length].to(C.dtype).contiguous(),
        g_u.new_empty(0) if D is None else g_D.sum(0)[:channels].to(D.dtype),
        g_u.new_empty(0) if z is None else g_z.to(z.dtype).transpose(1, 2),
        g_u.new_empty(0) if delta_bias is None else g_bias.sum(0)[:channels].to(delta_bias.dtype),
    )
