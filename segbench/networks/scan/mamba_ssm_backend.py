"""Backend `mamba_ssm`: adapter to the CUDA kernel of an installed mamba-ssm, used once its probe passed.

The package is never imported at module level: on a machine without a GPU its import alone can fail.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segbench.networks.scan.arguments import ScanInputs

__all__ = ["scan"]


@torch.compiler.disable
def scan(inputs: ScanInputs) -> Tensor:
    """The output (b, d, l) by mamba-ssm's own function, differentiated by its own backward.

    The kernel wants A, D and the bias in float32 and the rest in one type.

    **Source:** call of state-spaces/mamba mamba_ssm/ops/selective_scan_interface.py, `selective_scan_fn`.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]

    u, delta, A, B, C, D, z, delta_bias, delta_softplus = inputs
    return selective_scan_fn(
        u,
        delta.to(u.dtype),
        A.float(),
        B.to(u.dtype),
        C.to(u.dtype),
        None if D is None else D.float(),
        None if z is None else z.to(u.dtype),
        None if delta_bias is None else delta_bias.float(),
        delta_softplus,
    )
