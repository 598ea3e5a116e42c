"""Ways to compute a network faster, asked for by name in `SEGBENCH_FAST`; results change by rounding only.

They belong to the execution, not to the network: parameters keep their names, number and initial values, so
any weights load with or without them. None is on by default; what was on is recorded with the run.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from segbench.networks.blocks.inputs import InputError

__all__ = ["WAYS", "fast_ways", "made_fast", "named_ways"]

WAYS = ("channels-last", "compile", "fused-norm", "inert-bias", "no-benchmark")
"""channels-last: convolutions, and so what they give, lie channels-last in memory.
compile: every Mamba block is compiled by torch.compile, at its first call.
fused-norm: channels-last, and on CUDA norm, sum and activation in one kernel (`norm_act`).
inert-bias: a bias that an instance norm takes away again is neither added nor trained.
no-benchmark: cuDNN names its algorithms at once, where the level `none` lets them race (`prepare_device`).
"""


def fast_ways() -> frozenset[str]:
    """What `SEGBENCH_FAST` asks for, names separated by commas; empty by default.

    Raises:
        InputError: SB104 for a name that is not one of `WAYS`.
    """
    named = frozenset(filter(None, (part.strip() for part in os.environ.get("SEGBENCH_FAST", "").split(","))))
    if not named <= set(WAYS):
        raise InputError(
            "SB104",
            f"SEGBENCH_FAST does not know {', '.join(sorted(named - set(WAYS)))}",
            expected=WAYS,
            found=os.environ["SEGBENCH_FAST"],
            mend=f"name some of {', '.join(WAYS)}, separated by commas, or unset it",
        )
    return named


def named_ways() -> str | None:
    """What is on, as one word for the record; None for nothing."""
    return "+".join(sorted(fast_ways())) or None


class _WithoutBias(nn.Conv3d):
    """A convolution that keeps its bias, and so its keys and its count, without adding it."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, D, H, W) -> (B, out, D', H', W')."""
        return self._conv_forward(input, self.weight, None)


def made_fast(network: nn.Module) -> nn.Module:
    """The same network, computing in the ways that `SEGBENCH_FAST` asks for.

    A module whose convolutions stand directly before an instance norm names them in `before_norm`.
    """
    ways = fast_ways()
    if ways & {"channels-last", "fused-norm"}:
        for parameter in network.parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.to(memory_format=torch.channels_last_3d)
    if "inert-bias" in ways:
        for module in network.modules():
            for name in getattr(module, "before_norm", ()):
                conv = getattr(module, name)
                if conv.bias is not None:
                    conv.__class__ = _WithoutBias
                    conv.bias.requires_grad_(False)  # nobody waits for its gradient, nothing decays it
    if "compile" in ways:
        from segbench.networks.blocks.mamba import StateSpaceModule  # loads the compiler's machinery

        for module in network.modules():
            if isinstance(module, StateSpaceModule) and not next(module.parameters()).is_meta:
                module.compile()
    return network
