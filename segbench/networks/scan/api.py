"""The selective scan as a function."""

from __future__ import annotations

import torch
from torch import Tensor

from segbench.networks.scan.arguments import ScanInputs, check_inputs
from segbench.networks.scan.choice import backend_of_call, call_backend

__all__ = ["selective_scan"]

# torch.compile runs the choice while tracing and keeps its answer: no graph break for probes and environment.
_resolve = torch.compiler.assume_constant_result(backend_of_call)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    backend: str = "auto",
) -> Tensor:
    """The output (b, d, l) of the selective state space, in u's type, differentiable in all eight tensors.

    dt = delta + delta_bias (softplus of it if asked); h_0 = 0; h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t;
    y_t = sum_n C_t[n] h_t[n] + D u_t, times silu(z_t) if there is a gate. State, exponentials and sums are
    float32 for inputs of 16 and 32 bits, float64 for float64. No input is changed.

    Args:
        u: (b, d, l) input; any strides, fastest where channels are contiguous (a transposed (b, l, d)).
        delta: (b, d, l) step sizes before bias and softplus.
        A: (d, n), real, normally negative.
        B: (b, n, l).
        C: (b, n, l).
        D: (d) direct path, or None.
        z: (b, d, l) gate, or None.
        delta_bias: (d) added to delta inside the softplus, or None.
        delta_softplus: Take softplus of delta + delta_bias.
        backend: `auto`, or one of `BACKENDS`.

    Raises:
        ValueError: Shapes that do not fit, an empty sequence, complex tensors, an unknown backend.
        BackendUnavailable: The named backend cannot run on this device (SB502).

    **Source:** Gu and Dao, Mamba, section 3; argument names and meaning of state-spaces/mamba
    mamba_ssm/ops/selective_scan_interface.py.
    """
    inputs = ScanInputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    check_inputs(inputs)
    return call_backend(_resolve(backend, u.device.type, u.dtype == torch.float64), inputs)
