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
from torch.utils.flop_counter import flop_registry, shape_wrapper

from segbench.networks.scan.arguments import ScanInputs, chunks, compute_dtype

__all__ = ["KERNELS", "scan_backward_flops", "scan_flops", "selective_scan_op"]

KERNELS = {
    "torch": "segbench.networks.scan.lockstep",
    "numba": "segbench.networks.scan.numba_backend",
    "triton": "segbench.networks.scan.triton_backend",
}
"""Backends behind the operator: modules with `forward` and `backward`, imported when first used."""
_INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "bool delta_softplus"
)
"""`ScanInputs` in the words of torch.library."""
_EIGHT = ", ".join(["Tensor"] * 8)


@torch.library.custom_op(
    "segbench::selective_scan",
    mutates_args=(),
    schema=f"({_INPUTS}, bool save_states, str backend) -> (Tensor, Tensor)",
)
def selective_scan_op(*arguments: Any) -> tuple[Tensor, Tensor]:
    """The output (b, d, l) and the saved states (b, chunks, n, d), empty unless `save_states`."""
    *values, save_states, backend = arguments
    return import_module(KERNELS[backend]).forward(ScanInputs(*values), save_states)


@selective_scan_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    *values, save_states, _ = arguments
    u, A = ScanInputs(*values).u, ScanInputs(*values).A
    shape = (u.shape[0], chunks(u.shape[2]), A.shape[1], u.shape[1]) if save_states else (0,)
    return _token_major_like(u), u.new_empty(shape, dtype=compute_dtype(u.dtype))


@torch.library.custom_op(
    "segbench::selective_scan_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {_INPUTS}, Tensor states, str backend) -> ({_EIGHT})",
)
def selective_scan_backward_op(*arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of (u, delta, A, B, C, D, z, delta_bias); empty tensors where the input is absent."""
    grad, *values, states, backend = arguments
    return import_module(KERNELS[backend]).backward(grad, ScanInputs(*values), states)


@selective_scan_backward_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    u, delta, A, B, C, D, z, delta_bias, _ = ScanInputs(*arguments[1:-2])

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


def scan_flops(*shapes: Any, **others: object) -> int:
    """FLOPs of the forward: 9 b l d n, and 2 b l d each for D and the gate.

    **Source:** the convention of state-spaces/mamba issue 110.
    """
    (batch, channels, length), _, (_, states), _, _, D, z, *_ = shapes
    return batch * length * channels * (9 * states + 2 * (D is not None) + 2 * (z is not None))


def scan_backward_flops(*shapes: Any, **others: object) -> int:
    """FLOPs of the backward: 20 b l d n."""
    _, (batch, channels, length), _, (_, states), *_ = shapes
    return 20 * batch * length * channels * states


# `register_flop_formula` of torch 2.4 keeps operators under names that its counter does not look up.
flop_registry[torch.ops.segbench.selective_scan] = shape_wrapper(scan_flops)
flop_registry[torch.ops.segbench.selective_scan_backward] = shape_wrapper(scan_backward_flops)
