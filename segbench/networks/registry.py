"""Networks by slug: the card says which class, with which arguments; this file builds it.

Nothing here imports torch before a network is built, so facts and names stay light.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from segbench.cards import list_model_cards, load_model_card
from segbench.cards.model_card import ModelCard
from segbench.core.errors import BackendUnavailable, SegbenchError

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

RESERVED = frozenset({"self", "in_channels", "out_channels", "spatial_dims"})
"""Parameters of a constructor that are no overrides: segbench sets them itself."""


class UnknownOverrideError(SegbenchError, TypeError):
    """An override that the network does not know (SB104); also a TypeError."""


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
        InputError: Arguments that cannot be (a ValueError).
    """
    card = network_card(name)
    _check_channels(in_channels, out_channels)
    constructor = resolve_implementation(card)
    _check_overrides(card, constructor, overrides)
    arguments: dict[str, Any] = dict(card.arguments)
    arguments |= {card.overrides.get(key, key): _frozen(value) for key, value in overrides.items()}
    network = _construct(constructor, in_channels=in_channels, out_channels=out_channels, **arguments)
    if not hasattr(network, "divisor"):
        # Foreign modules check nothing, or deep inside; ours say what they need before any compute.
        from segbench.networks.contract import add_contract

        fixed = arguments[card.overrides["patch_size"]] if card.input and card.input.fixed_size else None
        add_contract(network, card, in_channels=in_channels, size=fixed)
    return network


def build_on_meta(name: str, in_channels: int, out_channels: int, **overrides: Any) -> nn.Module:
    """The network of that slug as shapes only: no memory, no initialisation, whatever its size."""
    import torch

    with torch.device("meta"):
        return build_network(name, in_channels, out_channels, **overrides)


def resolve_implementation(card: ModelCard) -> Callable[..., Any]:
    """The class or function that a card names, from an installed package that its `requires` lists.

    Raises:
        SegbenchError: SB502 where a package is missing, SB110 where it has no such name.
    """
    module_name, _, attribute = card.implementation.partition(":")
    try:
        for package in card.requires:
            import_module(package)
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        wanted = f"'segbench[{card.extra}]'" if card.extra else error.name
        raise BackendUnavailable(
            f"model '{card.slug}' needs {error.name}, which is not installed", mend=f"pip install {wanted}"
        ) from error
    if not hasattr(module, attribute):
        raise SegbenchError(
            "SB110",
            f"model '{card.slug}': {module_name} has no '{attribute}'",
            expected=f"a class or function of {module_name}",
            found=attribute,
        )
    constructor: Callable[..., Any] = getattr(module, attribute)
    return constructor


def allowed_overrides(name: str) -> tuple[str, ...]:
    """Names of the overrides that `build_network` takes for this network, sorted."""
    card = network_card(name)
    return tuple(sorted(_override_names(card, resolve_implementation(card))))


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


def _override_names(card: ModelCard, constructor: Callable[..., Any]) -> set[str]:
    renamed = set(card.overrides.values())
    taken = {
        parameter.name
        for parameter in inspect.signature(constructor).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    return (taken - RESERVED - renamed) | set(card.overrides)


def _check_overrides(card: ModelCard, constructor: Callable[..., Any], overrides: Mapping[str, Any]) -> None:
    allowed = _override_names(card, constructor)
    unknown = sorted(set(overrides) - allowed)
    if unknown:
        raise UnknownOverrideError(
            "SB104",
            f"model '{card.slug}' takes no override {', '.join(unknown)}; "
            f"allowed: {', '.join(sorted(allowed))}",
            expected=sorted(allowed),
            found=unknown,
            mend="use one of the allowed overrides",
        )
    wrong = sorted(key for key, value in overrides.items() if not _is_plain(value))
    if wrong:
        raise UnknownOverrideError(
            "SB104",
            f"overrides are plain numbers, words and tuples; {', '.join(wrong)} is not",
            expected="numbers, words, tuples of them",
            found={key: type(overrides[key]).__name__ for key in wrong},
            mend="use a plain value",
        )
    _check_backend(overrides.get("backend", "auto"))


def _check_backend(backend: Any) -> None:
    from segbench.networks.blocks.inputs import InputError
    from segbench.networks.scan.choice import BACKENDS

    if backend not in ("auto", *BACKENDS):
        raise InputError(
            "SB104",
            f"no scan backend {backend!r}; there are auto, {', '.join(BACKENDS)}",
            expected=["auto", *BACKENDS],
            found=backend,
            mend="name one of them; 'segbench doctor --device' says which can run here",
        )


def _check_channels(in_channels: int, out_channels: int) -> None:
    from segbench.networks.blocks.inputs import InputError

    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(
                "SB104",
                f"{name} must be a whole number of at least 1; found {value!r}",
                expected="a whole number of at least 1",
                found=value,
                mend="count the channels of the image and the classes of the label map",
            )


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
