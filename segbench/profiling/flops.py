"""Parameters and operations of one pass, counted on meta tensors: no memory, no computing, any size.

Convention (models.md 4.2): `gmacs` = half the FLOPs of convolutions, matrix products and attention; `gflops`
= 2 gmacs + the selective scan. Norms, activations and interpolation are left out and listed. Many tools print
multiply-accumulates under the name FLOPs and miss scans; here both numbers are always given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from segbench.profiling.schema import CostFacts, ParameterFacts

__all__ = ["CostCounter", "count_cost", "count_parameters", "kind_of", "mean_of"]

KINDS = {
    "conv": ("convolution",),
    "matmul": ("::mm", "::bmm", "::addmm", "::baddbmm", "_mm"),
    "attention": ("attention",),
    "scan": ("segbench::selective_scan",),
}
"""Kinds of operations, by parts of their names."""
_FREE = ("aten::empty", "aten::detach", "aten::alias", "aten::_unsafe_view", "aten::new_empty", "aten::zeros",
         "aten::ones", "aten::full", "aten::lift_fresh", "aten::fill_", "prim::")  # fmt: skip
"""Operations that compute nothing: they are neither counted nor listed."""


def count_parameters(network: nn.Module) -> ParameterFacts:
    """Elements of parameters (all, and those that train) and of buffers; shared tensors once."""
    parameters = list(network.parameters())
    return ParameterFacts(
        total=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        buffers=sum(b.numel() for b in network.buffers()),
    )


class CostCounter(FlopCounterMode):
    """torch's counter, which also lists what it has no formula for.

    Operations of a backward pass go to the module whose output they differentiate.

    Attributes:
        uncounted: calls of operations that have no formula.
    """

    def __init__(self) -> None:
        super().__init__(display=False)
        self.flop_registry = flop_registry  # itself, not a copy: the scan registers when it is first used
        self.uncounted: Counter[str] = Counter()

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        name = func_packet._qualified_op_name
        view = getattr(func_packet, func_packet.overloads()[0]).is_view
        if func_packet not in self.flop_registry and not view and not name.startswith(_FREE):
            self.uncounted[name.replace("::", ".")] += 1
        return super()._count_flops(func_packet, out, args, kwargs)

    @property
    def by_op(self) -> Counter[str]:
        """FLOPs by kind of operation."""
        found: Counter[str] = Counter()
        for packet, flops in self.get_flop_counts().get("Global", {}).items():
            found[kind_of(packet._qualified_op_name)] += int(flops)
        return found

    @property
    def by_module(self) -> dict[str, int]:
        """FLOPs by module path, children of the network and theirs."""
        found: dict[str, int] = {}
        for path, counts in self.get_flop_counts().items():
            # The tracker's paths begin with the class of the network.
            _, _, inside = path.partition(".")
            if inside and inside.count(".") <= 1 and counts:
                found[inside] = sum(map(int, counts.values()))
        return dict(sorted(found.items()))


def kind_of(name: str) -> str:
    """Conv, matmul, attention or scan, from the name of an operation that has a formula."""
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "matmul")


def count_cost(network: nn.Module, input_shape: Sequence[int], *, train: bool) -> CostFacts:
    """The operations of one forward pass, or with `train` of forward and backward (counted, not estimated).

    Args:
        network: On the meta device; its mode is restored.
        input_shape: (B, C, D, H, W).
        train: In training mode, with the backward of the mean of the output(s).
    """
    mode, counter = network.training, CostCounter()
    x = torch.empty(tuple(input_shape), device="meta")
    network.train(train)
    try:
        with torch.set_grad_enabled(train), counter:
            output = network(x)
            if train:
                mean_of(output).backward()
    finally:
        network.train(mode)
        network.zero_grad(set_to_none=True)
    kinds = counter.by_op
    by_op = {kind: kinds[kind] / 1e9 for kind in KINDS}
    counted = sum(by_op.values()) - by_op["scan"]
    return CostFacts(
        gmacs=counted / 2,
        gflops=counted + by_op["scan"],
        by_op=by_op,
        by_module={path: flops / 1e9 for path, flops in counter.by_module.items()},
        uncounted_ops=dict(sorted(counter.uncounted.items())),
    )


def mean_of(output: Tensor | Sequence[Tensor]) -> Tensor:
    """The loss of a measured training step: the mean of the output, summed over deep supervision's heads."""
    heads = [output] if isinstance(output, Tensor) else list(output)
    return torch.stack([head.float().mean() for head in heads]).sum()
