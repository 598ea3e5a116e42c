"""The operators `segbench::selective_scan` and `segbench::selective_scan_backward`.

Registered with torch.library: a fake for each (meta tensors, torch.compile in one graph), autograd that calls
the second, and FLOP formulas for FlopCounterMode. Autocast does not know them, so A, D and the bias keep
their type.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from segbench.networks.scan.arguments import chunks, compute_dtype

__all__ = ["KERNELS", "scan_backward_flops", "scan_flops", "selective_scan_op"]

KERNELS = {
    "torch": "segbench.networks.scan.lockstep",
    "numba": "segbench.networks.scan.numba_backend",
    "triton": "segbench.networks.scan.triton_backend",
}
"""Backends behind the operator: modules with `forward` and `backward`, imported when first used."""


@torch.library.custom_op("segbench::selective_scan", mutates_args=())
def selective_scan_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    save_states: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """The output (b, d, l) and the saved states (b, chunks, n, d), empty unless `save_states`."""
    kernel = import_module(KERNELS[backend])
    return kernel.forward(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save_states)


@selective_scan_op.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    save_states: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    shape = (u.shape[0], chunks(u.shape[2]), A.shape[1], u.shape[1]) if save_states else (0,)
    return _token_major_like(u), u.new_empty(shape, dtype=compute_dtype(u.dtype))


@torch.library.custom_op("segbench::selective_scan_backward", mutates_args=())
def selective_scan_backward_op(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    states: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of (u, delta, A, B, C, D, z, delta_bias); empty tensors where the input is absent."""
    kernel = import_module(KERNELS[backend])
    return kernel.backward(grad, u, delta, A, B, C, D, z, delta_bias, delta_softplus, states)


@selective_scan_backward_op.register_fake
def _(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    states: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:

    def nothing() -> Tensor:
        return u.new_empty((0,), dtype=compute_dtype(u.dtype))

    return (
        _token_major_like(u),
        _token_major_like(delta),
        A.new_empty(A.shape),
        B.new_empty(B.shape),
        C.new_empty(C.shape),
        nothing() if D is None else D.new_empty(D.shape),
        nothing() if z is None else _token_major_like(z),
        nothing() if delta_bias is None else delta_bias.new_empty(delta_bias.shape),
    )


def _token_major_like(x_bdl: Tensor) -> Tensor:
    """An empty (b, d, l) whose memory lies as (b, l, d): the layout of every result of the scan."""
    batch, channels, length = x_bdl.shape
    return x_bdl.new_empty((batch, length, channels)).transpose(1, 2)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, delta_softplus, _, backend = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.delta_softplus, ctx.backend = delta_softplus, backend
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, states = ctx.saved_tensors
    if grad is None:
        return (None,) * 11
    gradients = selective_scan_backward_op(grad, *tensors, ctx.delta_softplus, states, ctx.backend)
    wanted = (
        gradient if tensor is not None and ctx.needs_input_grad[i] else None
        for i, (gradient, tensor) in enumerate(zip(gradients, tensors, strict=True))
    )
    return (*wanted, None, None, None)


def _no_second_backward(ctx: Any, *gradients: Tensor | None) -> None:
    raise NotImplementedError(
        "selective_scan has no second derivative: its backward cannot be differentiated again "
        "(backend='reference' can)"
    )


selective_scan_op.register_autograd(_backward, setup_context=_save_for_backward)
selective_scan_backward_op.register_autograd(_no_second_backward)


@register_flop_formula(torch.ops.segbench.selective_scan)
def scan_flops(
    u_shape: tuple[int, ...],
    delta_shape: tuple[int, ...],
    A_shape: tuple[int, ...],
    B_shape: tuple[int, ...],
    C_shape: tuple[int, ...],
    D_shape: tuple[int, ...] | None,
    z_shape: tuple[int, ...] | None,
    *args: object,
    **kwargs: object,
) -> int:
    """FLOPs of the forward: 9 b l d n, and 2 b l d each for D and the gate.

    **Source:** the convention of state-spaces/mamba issue 110.
    """
    batch, channels, length = u_shape
    tokens = batch * length * channels
    return tokens * (9 * A_shape[1] + 2 * (D_shape is not None) + 2 * (z_shape is not None))


@register_flop_formula(torch.ops.segbench.selective_scan_backward)
def scan_backward_flops(
    grad_shape: tuple[int, ...],
    u_shape: tuple[int, ...],
    delta_shape: tuple[int, ...],
    A_shape: tuple[int, ...],
    *args: object,
    **kwargs: object,
) -> int:
    """FLOPs of the backward: 20 b l d n."""
    batch, channels, length = u_shape
    return 20 * batch * length * channels * A_shape[1]
