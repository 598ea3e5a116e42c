"""Backend `reference`: the definition, one step after the other, differentiated by autograd. The oracle.

Any device, any floating type. Its backward costs O(l^2), because autograd pads each slice to full length.
Legend: b batch, d channels, n states, l steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from segbench.networks.scan.arguments import ScanInputs, compute_dtype

__all__ = ["scan"]


def scan(inputs: ScanInputs) -> Tensor:
    """The output (b, d, l), step by step.

    h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t, y_t = <C_t, h_t> + D u_t.

    **Source:** Gu and Dao, Mamba, algorithm 2; argument semantics after state-spaces/mamba
    mamba_ssm/ops/selective_scan_interface.py.
    """
    u, delta, A, B, C, D, z, delta_bias, delta_softplus = inputs
    dtype = compute_dtype(u.dtype)
    x, dt, A_, B_, C_ = (tensor.to(dtype) for tensor in (u, delta, A, B, C))
    if delta_bias is not None:
        dt = dt + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        dt = functional.softplus(dt)
    h_bdn = torch.zeros((*u.shape[:2], A.shape[1]), dtype=dtype, device=u.device)
    outputs = []
    for t in range(u.shape[2]):
        decay_bdn = torch.exp(dt[:, :, t, None] * A_)
        h_bdn = decay_bdn * h_bdn + (dt[:, :, t] * x[:, :, t])[:, :, None] * B_[:, None, :, t]
        outputs.append((h_bdn * C_[:, None, :, t]).sum(-1))
    y = torch.stack(outputs, dim=2)
    if D is not None:
        y = y + D.to(dtype)[:, None] * x
    if z is not None:
        y = y * functional.silu(z.to(dtype))
    return y.to(u.dtype)
