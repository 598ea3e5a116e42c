"""Whether a network keeps what every network promises, seen on one small patch and said in words.

For networks of one's own, before hours are spent: it builds, takes a patch, gives finite logits of the right
shape, and learns from all of them. Nothing here is slow: the patch is the smallest that the card allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segbench.core.errors import SegbenchError
from segbench.core.text import some
from segbench.networks.registry import build_network, network_card

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["NetworkCheck", "check_network"]

ENOUGH = 8
"""Voxels an axis: the few values of a smaller patch lie between 0 and 1 by chance."""
SUMS_TO_ONE = 1e-3
BATCH = 2
"""Patches in the batch: a network that mixes up batch and channels shows it."""


@dataclass(frozen=True)
class NetworkCheck:
    """What was tried; every fault, one line each, none for a sound network; notes, which stop nothing."""

    model: str
    in_channels: int
    out_channels: int
    patch: tuple[int, int, int]
    parameters: int
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def raise_faults(self) -> None:
        """Refuse a network with faults.

        Raises:
            SegbenchError: SB110 with every fault.
        """
        if self.faults:
            raise SegbenchError(
                "SB110",
                f"the network of model '{self.model}': {self.faults[0]}",
                expected=f"logits (B, {self.out_channels}, D, H, W) for (B, {self.in_channels}, D, H, W)",
                mend=f"change its code, then: segbench check model:{self.model}",
                details=self.faults[1:],
            )


def check_network(
    model: str,
    *,
    in_channels: int = 1,
    out_channels: int = 2,
    patch: Sequence[int] | None = None,
    **overrides: Any,
) -> NetworkCheck:
    """Build a network, send a patch of noise through it in evaluation, two in training and back, on the CPU.

    Args:
        model: Slug of a model card of kind `network`.
        in_channels: Channels of the image.
        out_channels: Classes (or regions) of the logits.
        patch: (D, H, W); None for the smallest that the card allows, of 8 voxels an axis or more.
        **overrides: As for `build_network`.

    Raises:
        SegbenchError: What keeps it from being built at all: SB101 unknown, SB110 a broken card, SB502 a
            package that is not installed, SB104 arguments that it does not take.
    """
    import torch

    card = network_card(model)
    assert card.input is not None  # the schema of network cards
    least, divisor = max(card.input.minimum, ENOUGH), card.input.divisor
    size = tuple(patch) if patch is not None else (-(-least // divisor) * divisor,) * 3
    more = divisor if patch is None and not card.input.fixed_size else 0
    uneven = (size[0], size[1] + more, size[2] + 2 * more)  # shows a network that swaps axes
    if card.input.fixed_size:
        overrides = {"patch_size": size, **overrides}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _built(model, in_channels, out_channels, overrides)
        one, batch = torch.randn(1, in_channels, *uneven), torch.randn(BATCH, in_channels, *size)
        # What is wrong in evaluation is wrong in training too, and said once.
        faults = _evaluation_faults(network, one, out_channels)
        faults = faults or _training_faults(network, batch, out_channels)
    return NetworkCheck(
        model=model,
        in_channels=in_channels,
        out_channels=out_channels,
        patch=(size[0], size[1], size[2]),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        faults=tuple(faults),
        notes=() if faults else _unused(network),
    )


def _built(model: str, in_channels: int, out_channels: int, overrides: dict[str, Any]) -> nn.Module:
    try:
        return build_network(model, in_channels, out_channels, **overrides)
    except SegbenchError:
        raise
    except (Exception, SystemExit) as error:  # whatever a constructor of somebody else raises
        raise SegbenchError(
            "SB110",
            f"model '{model}' cannot be built: {_first_line(error)}",
            expected=f"a network for {in_channels} input and {out_channels} output channels",
            found=_first_line(error),
            mend="call its class with in_channels and out_channels and see where it stops",
        ) from error


def _evaluation_faults(network: nn.Module, x: Tensor, classes: int) -> list[str]:
    import torch

    network.eval()
    try:
        with torch.no_grad():
            y: object = network(x)
    except (Exception, SystemExit) as error:
        return [f"forward fails on {tuple(x.shape)}: {_first_line(error)}"]
    return _output_faults(y, x, classes, "in evaluation")


def _training_faults(network: nn.Module, x: Tensor, classes: int) -> list[str]:
    """Faults of one step of training without an optimiser."""
    import torch

    network.train()
    try:
        y: object = network(x)
    except (Exception, SystemExit) as error:
        return [f"forward in training fails on {tuple(x.shape)}: {_first_line(error)}"]
    heads = y if isinstance(y, list) and getattr(network, "deep_supervision", False) else [y]
    faults = _output_faults(heads[0] if heads else y, x, classes, "in training")
    logits = [head for head in heads if isinstance(head, torch.Tensor) and head.is_floating_point()]
    if faults or not logits:
        return faults
    if not all(head.requires_grad for head in logits):
        return [
            "the output is cut off from the parameters (detach, numpy or no_grad inside): nothing can learn"
        ]
    try:
        torch.stack([head.float().square().mean() for head in logits]).sum().backward()
    except (Exception, SystemExit) as error:
        return [f"backward fails: {_first_line(error)}"]
    return _gradient_faults(network)


def _output_faults(y: object, x: Tensor, classes: int, when: str) -> list[str]:
    import torch

    if not isinstance(y, torch.Tensor):
        count = f" of {len(y)}" if isinstance(y, list | tuple | dict) else ""
        return [
            f"gives a {type(y).__name__}{count} {when}, not one tensor: return the logits at full resolution "
            "(a list only with deep_supervision, in training)"
        ]
    wanted = (x.shape[0], classes, *x.shape[2:])
    if tuple(y.shape) != wanted:
        return [f"gives {tuple(y.shape)} {when}; expected {wanted}{_shape_hint(tuple(y.shape), wanted)}"]
    if not y.is_floating_point():
        return [f"gives {y.dtype} {when}, not logits: leave out argmax or rounding"]
    values = y.detach().float()
    if not bool(torch.isfinite(values).all()):
        return [f"gives NaN or infinity {when}, on noise of mean 0 and deviation 1"]
    if float(values.min()) >= 0 and float(values.max()) <= 1:
        sums = values.sum(1)
        if classes > 1 and float((sums - 1).abs().max()) <= SUMS_TO_ONE:
            return [f"gives probabilities {when} (softmax): return logits, the loss takes the softmax itself"]
        return [f"gives values between 0 and 1 only {when} (sigmoid?): return logits, the loss does the rest"]
    return []


def _shape_hint(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What a wrong shape most likely means."""
    if len(found) != len(wanted):
        return f": {len(found)} axes in the place of {len(wanted)}"
    if found[2:] != wanted[2:] and found[:2] == wanted[:2]:
        swapped = sorted(found) == sorted(wanted)
        return ": axes swapped" if swapped else ": another resolution; upsample the logits to the size of x"
    if found[1] != wanted[1] and (found[0], *found[2:]) == (wanted[0], *wanted[2:]):
        return ": the last layer takes its channels from out_channels"
    if found == (wanted[0], *wanted[2:], wanted[1]):
        return ": channels come second, not last"
    return ""


def _gradient_faults(network: nn.Module) -> list[str]:
    import torch

    grads = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    broken = [name for name, grad in grads.items() if not bool(torch.isfinite(grad).all())]
    if not grads:
        return ["no parameter gets a gradient: nothing can learn"]
    return [f"gradients are NaN or infinite: {some(broken)}"] if broken else []


def _unused(network: nn.Module) -> tuple[str, ...]:
    """Parameters that a backward pass left alone, but for those that the network says it leaves."""
    left = set(getattr(network, "_ddp_params_and_buffers_to_ignore", ()))
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    without = [name for name, p in named if p.grad is None and name not in left]
    if not without:
        return ()
    many = f"{len(without)} of {len(named)} parameters are never used: {some(without)}"
    return (f"{many} (on several GPUs its training would stop)",)


def _first_line(error: BaseException) -> str:
    text = error.message if isinstance(error, SegbenchError) else f"{type(error).__name__}: {error}"
    return (text.strip().splitlines() or [type(error).__name__])[0][:300]
