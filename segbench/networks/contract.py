"""What every network promises, added to modules of other packages without wrapping them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from segbench.cards.model_card import ModelCard
from segbench.networks.blocks.inputs import check_volume

__all__ = ["add_contract"]


@dataclass(frozen=True)
class _CheckInput:
    """A forward pre-hook that refuses sizes and channels before any compute (picklable, unlike a closure)."""

    channels: int
    divisor: int
    minimum: int
    size: tuple[int, ...] | None

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        check_volume(
            inputs[0], channels=self.channels, divisor=self.divisor, minimum=self.minimum, size=self.size
        )


def _as_list(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | list[Tensor]:
    """Deep supervision is a list, full resolution first; some packages return a tuple."""
    return list(output) if isinstance(output, tuple) else output


def add_contract(
    network: nn.Module, card: ModelCard, *, in_channels: int, size: Sequence[int] | None = None
) -> None:
    """Make a foreign module check its input as its card says, and return lists under deep supervision.

    The module stays its own class with its own keys. `size` is the one patch a network of fixed size takes.
    """
    assert card.input is not None  # the schema of network cards
    divisor, minimum = card.input.divisor, card.input.minimum
    network.register_forward_pre_hook(
        _CheckInput(in_channels, divisor, minimum, None if size is None else tuple(size))
    )
    if card.deep_supervision:
        network.register_forward_hook(_as_list)
