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
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

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


class CostCounter(TorchDispatchMode):
    """Counts FLOPs per operation and per module while it is entered, by torch's own registry of formulas.

    Operations of a backward pass go to the module whose output they differentiate.

    Attributes:
        by_op: FLOPs by kind of operation.
        by_module: FLOPs by module path, children of the network and theirs.
        uncounted: calls of operations that have no formula.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_op: Counter[str] = Counter()
        self.by_module: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()
        self._modules = ModuleTracker()
        self._entered = 0

    def __enter__(self) -> CostCounter:
        """Start counting."""
        # An operation made of others enters the counter again; a second entry of the tracker would leave its
        # first hooks on every module of the process for good.
        if self._entered == 0:
            self._modules.__enter__()
        self._entered += 1
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        """Stop counting and leave every module as it was."""
        super().__exit__(*exception)
        self._entered -= 1
        if self._entered == 0:
            self._modules.__exit__(*exception)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it; one that is made of others is counted by its parts."""
        kwargs = kwargs or {}
        packet = func._overloadpacket
        formula = flop_registry.get(packet)
        if formula is None and func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        name = packet._qualified_op_name
        if formula is not None:
            self._count(kind_of(name), int(formula(*args, **kwargs, out_val=result)))
        elif not (func.is_view or name.startswith(_FREE)):
            self.uncounted[name.replace("::", ".")] += 1
        return result

    def _count(self, kind: str, flops: int) -> None:
        self.by_op[kind] += flops
        for path in self._modules.parents:
            # The tracker's paths begin with the class of the network.
            _, _, inside = path.partition(".")
            if inside and inside.count(".") <= 1:
                self.by_module[inside] += flops


def kind_of(name: str) -> str:
    """Conv, matmul, attention or scan, from the name of an operation that has a formula."""
    for kind, parts in KINDS.items():
        if any(part in name for part in parts):
            return kind
    return "matmul"


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
    by_op = {kind: counter.by_op[kind] / 1e9 for kind in KINDS}
    counted = sum(by_op.values()) - by_op["scan"]
    return CostFacts(
        gmacs=counted / 2,
        gflops=counted + by_op["scan"],
        by_op=by_op,
        by_module={path: flops / 1e9 for path, flops in sorted(counter.by_module.items())},
        uncounted_ops=dict(sorted(counter.uncounted.items())),
    )


def mean_of(output: Tensor | Sequence[Tensor]) -> Tensor:
    """The loss of a measured training step: the mean of the output, summed over deep supervision's heads."""
    heads = [output] if isinstance(output, Tensor) else list(output)
    return torch.stack([head.float().mean() for head in heads]).sum()
