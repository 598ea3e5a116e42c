"""Networks by slug: the card says which class, with which arguments; this file builds it.

Nothing here imports torch before a network is built, so facts and names stay light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from segbench.cards import list_model_cards, load_model_card
from segbench.cards.model_card import ModelCard
from segbench.core.errors import SegbenchError
from segbench.networks.blocks.inputs import InputError
from segbench.networks.implementation import check_override_words, resolve_implementation
from segbench.networks.overrides import UnknownOverrideError, check_overrides, frozen, override_names

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "NetworkFacts",
    "UnknownOverrideError",
    "allowed_overrides",
    "build_network",
    "build_on_meta",
    "list_networks",
    "network_card",
    "network_facts",
    "resolve_implementation",
]


@dataclass(frozen=True)
class NetworkFacts:
    """What is known of a network without building it.

    `divisor` and `minimum` are in voxels per axis; `parameters` counts them with 4 inputs and 4 outputs;
    `gmacs` is at 1x4x128x128x128, convolutions and matrix products. What is not known is None or empty.
    """

    slug: str
    title: str
    family: str
    provenance: str
    divisor: int
    minimum: int
    fixed_size: bool
    deep_supervision: bool
    licence: str
    source: str
    official_keys: bool
    parameters: int | None
    gmacs: float | None


def list_networks() -> tuple[str, ...]:
    """Slugs of all networks, sorted; floors are models but no networks."""
    return tuple(slug for slug in list_model_cards() if load_model_card(slug).kind == "network")


def network_facts(name: str) -> NetworkFacts:
    """The facts of a network's card; imports no torch.

    Raises:
        SegbenchError: SB101 for an unknown slug, with the three nearest ones.
    """
    card = network_card(name)
    assert (
        card.input is not None and card.source is not None and card.fidelity is not None
    )  # the card's schema
    return NetworkFacts(
        slug=card.slug,
        title=card.title,
        family=card.family,
        provenance=card.provenance,
        divisor=card.input.divisor,
        minimum=card.input.minimum,
        fixed_size=card.input.fixed_size,
        deep_supervision=card.deep_supervision,
        licence=card.source.licence,
        source=f"{card.source.code}@{card.source.commit}" if card.source.commit else card.source.code,
        official_keys=card.fidelity.official_keys,
        parameters=card.fidelity.parameters,
        gmacs=card.fidelity.gmacs,
    )


def network_card(name: str) -> ModelCard:
    """The card of a network (not of a floor).

    Raises:
        SegbenchError: SB101 for a slug that no card has, with the three nearest ones; SB104 for a floor.
    """
    known = list_model_cards()
    if name not in known:
        near = get_close_matches(name.lower(), known, n=3, cutoff=0.0)
        hint = f"did you mean {', '.join(near[:-1])} or {near[-1]}?   " if len(near) > 1 else ""
        raise SegbenchError(
            "SB101",
            f"no model called '{name}'",
            found=name,
            expected=near,
            mend=f"{hint}all: segbench list models",
        )
    card = load_model_card(name)
    if card.kind != "network":
        raise SegbenchError(
            "SB104",
            f"'{name}' is a floor: it has no network to build",
            found=name,
            mend="floors run through segbench run like any model; name a network here",
        )
    return card


def build_network(name: str, in_channels: int, out_channels: int, **overrides: Any) -> nn.Module:
    """The network of that slug, freshly initialised.

    Args:
        name: Slug of a model card of kind `network`.
        in_channels: Channels of the image.
        out_channels: Classes (or regions) of the logits.
        **overrides: Plain numbers, words and tuples over the card's arguments; see `allowed_overrides`.

    Returns:
        A module that takes (B, in_channels, D, H, W) and returns logits (B, out_channels, D, H, W); with
        `deep_supervision=True`, in training, a list of logits, full resolution first. A network from an
        installed package is that package's own module, so its checkpoints load.

    Raises:
        SegbenchError: SB101 unknown slug, SB502 a package that the card requires is not installed.
        UnknownOverrideError: An override the network does not know, or no plain value (a TypeError).
        InputError: Values that cannot be (a ValueError), with the reason of a foreign constructor.
    """
    card = network_card(name)
    _check_channels(in_channels, out_channels)
    constructor = resolve_implementation(card)
    check_overrides(card, constructor, overrides)
    check_override_words(card, constructor, overrides)
    arguments: dict[str, Any] = dict(card.arguments)
    arguments |= {card.overrides.get(key, key): frozen(value) for key, value in overrides.items()}
    try:
        network = _construct(constructor, in_channels=in_channels, out_channels=out_channels, **arguments)
    except _REFUSALS as error:
        # Want of memory or of a device is no fault of the arguments.
        if not overrides or isinstance(error, SegbenchError) or _is_of_the_machine(error):
            raise
        raise _cannot_build(card, overrides, error) from error
    if not hasattr(network, "divisor"):
        # Foreign modules check nothing, or deep inside; ours say what they need before any compute.
        from segbench.networks.contract import add_contract

        fixed = arguments[card.overrides["patch_size"]] if card.input and card.input.fixed_size else None
        fixed = (fixed,) * 3 if isinstance(fixed, int) else fixed
        add_contract(network, card, in_channels=in_channels, size=fixed)
    return network


def build_on_meta(name: str, in_channels: int, out_channels: int, **overrides: Any) -> nn.Module:
    """The network of that slug as shapes only: no memory, no initialisation, whatever its size."""
    import torch

    with torch.device("meta"):
        return build_network(name, in_channels, out_channels, **overrides)


def allowed_overrides(name: str) -> tuple[str, ...]:
    """Names of the overrides that `build_network` takes for this network, sorted."""
    card = network_card(name)
    return tuple(sorted(override_names(card, resolve_implementation(card))))


_REFUSALS = (
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
)
"""How constructors say that an argument cannot be."""


def _cannot_build(card: ModelCard, overrides: dict[str, Any], error: Exception) -> InputError:
    given = ", ".join(f"{name} = {value!r}" for name, value in overrides.items())
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InputError(
        "SB104",
        f"model '{card.slug}' cannot be built with {given}: {reason}",
        expected=f"arguments that {card.implementation} takes",
        found=given,
        mend=f"segbench show model:{card.slug} prints the arguments of its card",
    )


def _is_of_the_machine(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in ("memory", "cuda", "driver"))


def _construct(constructor: Callable[..., Any], **arguments: Any) -> nn.Module:
    import torch

    try:
        network: nn.Module = constructor(**arguments)
    except RuntimeError:
        # Some constructors (MONAI's SwinUNETR) read numbers back, which meta tensors do not have.
        if torch.get_default_device().type != "meta":
            raise
        with torch.device("cpu"):
            network = constructor(**arguments).to("meta")
    return network


def _check_channels(in_channels: int, out_channels: int) -> None:
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(
                "SB104",
                f"{name} must be a whole number of at least 1; found {value!r}",
                expected="a whole number of at least 1",
                found=value,
                mend="count the channels of the image and the classes of the label map",
            )
