"""Networks by slug: the card says which class, with which arguments; this file builds it.

What a constructor of segbench says of its own arguments is what overrides are checked by, so that a wrong
value is refused by name instead of failing deep inside a layer, or building another network than was meant.
Nothing here imports torch before a network is built, so facts and names stay light.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from segbench.cards import list_model_cards, load_model_card
from segbench.cards.model_card import ModelCard
from segbench.core.errors import SegbenchError, unknown_name
from segbench.networks.blocks.inputs import InputError, check_volume
from segbench.networks.implementation import check_override_words, leaves, resolve_implementation

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "UnknownOverrideError",
    "allowed_overrides",
    "build_network",
    "build_on_meta",
    "check_overrides",
    "list_networks",
    "network_card",
    "resolve_implementation",
]

RESERVED = frozenset({"self", "in_channels", "out_channels", "spatial_dims"})
"""Parameters of a constructor that are no overrides: segbench sets them itself."""
SIZES = frozenset(
    {"features", "depths", "hidden", "blocks", "strides", "kernel_sizes", "kernel_size", "patch_size"}
    | {"slices", "dw_kernel", "mlp_expansion", "heads", "head_width", "map_codes", "projected"}
)
"""Overrides that count something: channels, layers, voxels. None of them can be less than 1."""


class UnknownOverrideError(SegbenchError, TypeError):
    """An override that the network does not know (SB104); also a TypeError."""


def list_networks() -> tuple[str, ...]:
    """Slugs of all networks, sorted; floors are models but no networks."""
    return tuple(slug for slug in list_model_cards() if load_model_card(slug).kind == "network")


def network_card(name: str) -> ModelCard:
    """The card of a network (not of a baseline): all that is known without building it; imports no torch.

    Raises:
        SegbenchError: SB101 for a slug that no card has; SB104 for a floor.
    """
    known = list_model_cards()
    if name not in known:
        raise unknown_name("model", name, known, listing="segbench list models")
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
        InputError: Values that are not valid (a ValueError), with the reason of a foreign constructor.
    """
    import torch

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
        # Too little memory, or no device, is not the fault of the arguments.
        if not overrides or isinstance(error, SegbenchError) or _is_of_the_machine(error):
            raise
        raise _cannot_build(card, overrides, error) from error
    if not isinstance(network, torch.nn.Module):
        what = f"{card.implementation} returns a {type(network).__name__}, not a network"
        mend = "return a torch.nn.Module"
        raise SegbenchError("SB110", f"model '{card.slug}': {what}", found=repr(network)[:80], mend=mend)
    if not hasattr(network, "divisor"):
        fixed = arguments[card.overrides["patch_size"]] if card.input and card.input.fixed_size else None
        _add_contract(network, card, in_channels, (fixed,) * 3 if isinstance(fixed, int) else fixed)
    from segbench.networks.blocks.fast import made_fast

    return made_fast(network)


def _add_contract(
    network: nn.Module, card: ModelCard, in_channels: int, size: tuple[int, ...] | None
) -> None:
    """Make a foreign module check its input as its card says, and return lists under deep supervision.

    Foreign modules check nothing, or deep inside; ours say what they need before any compute. The module
    stays its own class with its own keys. `size` is the one patch a network of fixed size takes.
    """
    assert card.input is not None  # the schema of network cards
    needs = {"channels": in_channels, "divisor": card.input.divisor, "minimum": card.input.minimum}
    network.register_forward_pre_hook(partial(_check_input, size=size, **needs))
    if card.deep_supervision:
        network.register_forward_hook(_as_list)


def _check_input(module: nn.Module, inputs: tuple[Any, ...], **needs: Any) -> None:
    check_volume(inputs[0], **needs)


def _as_list(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """Deep supervision is a list, full resolution first; some packages return a tuple."""
    return list(output) if isinstance(output, tuple) else output


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
"""How constructors say that an argument is not valid."""


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


def override_names(card: ModelCard, constructor: Callable[..., Any]) -> set[str]:
    """The names that `build_network` takes for this card, those that the card renames included."""
    renamed = set(card.overrides.values())
    taken = {
        parameter.name
        for parameter in inspect.signature(constructor).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    return (taken - RESERVED - renamed) | set(card.overrides)


def check_overrides(card: ModelCard, constructor: Callable[..., Any], overrides: Mapping[str, Any]) -> None:
    """Refuse overrides that the network does not know, or whose values it cannot have.

    Raises:
        UnknownOverrideError: An unknown name, or no plain value (SB104, a TypeError).
        InputError: A value of the wrong kind, or a size below 1 (SB104, a ValueError).
    """
    allowed = override_names(card, constructor)
    unknown = sorted(set(overrides) - allowed)
    if unknown:
        near = get_close_matches(unknown[0], allowed, n=1)
        raise UnknownOverrideError(
            "SB104",
            f"model '{card.slug}' takes no override {', '.join(unknown)}; "
            f"allowed: {', '.join(sorted(allowed))}",
            expected=sorted(allowed),
            found=unknown,
            mend=f"did you mean {near[0]}?" if near else "use one of the allowed overrides",
        )
    plain = bool | int | float | str | None
    wrong = sorted(
        key for key, value in overrides.items() if not all(isinstance(v, plain) for v in leaves(value))
    )
    if wrong:
        raise UnknownOverrideError(
            "SB104",
            f"overrides are plain numbers, words and tuples; {', '.join(wrong)} is not",
            expected="numbers, words, tuples of them",
            found={key: type(overrides[key]).__name__ for key in wrong},
            mend="use a plain value",
        )
    if "backend" in overrides:
        from segbench.networks.scan.choice import check_backend_name

        check_backend_name(overrides["backend"])
    hints = _hints_of(constructor)
    for name, value in overrides.items():
        argument = card.overrides.get(name, name)
        if argument in hints:
            _check_kind(card, name, frozen(value), hints[argument])
        if name in SIZES:
            _check_size(card, name, value)


def frozen(value: Any) -> Any:
    """The value with tuples in the place of lists (cards and JSON have lists)."""
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _hints_of(constructor: Callable[..., Any]) -> dict[str, Any]:
    """Types of the arguments by name.

    Packages other than segbench annotate more narrowly than they accept, so of theirs only switches count:
    any word is true to Python, and "no" would build what True builds.
    """
    if constructor.__module__.startswith("segbench."):
        return get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    parameters = inspect.signature(constructor).parameters.values()
    return {parameter.name: bool for parameter in parameters if isinstance(parameter.default, bool)}


def _check_kind(card: ModelCard, name: str, value: object, hint: Any) -> None:
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        faults = error.errors()
        if {fault["type"] for fault in faults} <= {"missing", "too_long"}:
            return  # how many entries there must be, the constructor says better
        reason = faults[0]["msg"]
        raise InputError(
            "SB104",
            f"model '{card.slug}': {name} = {value!r} is not valid: {reason[0].lower()}{reason[1:]}",
            expected=_written(hint),
            found=value,
            mend=f"{name} is {_written(hint)}; segbench show model:{card.slug} prints its arguments",
        ) from None


def _written(hint: Any) -> str:
    """A type as a reader would write it."""
    return (
        (hint.__name__ if isinstance(hint, type) else str(hint))
        .replace("collections.abc.", "")
        .replace("typing.", "")
    )


def _check_size(card: ModelCard, name: str, value: object) -> None:
    numbers = [number for number in leaves(value) if isinstance(number, int | float)]
    wanted = None
    if any(number < 1 for number in numbers):
        wanted = "at least 1"
    elif "kernel" in name and any(number % 2 == 0 for number in numbers):
        wanted = "odd"  # an even one cannot be padded to keep the size
    if wanted is not None:
        raise InputError(
            "SB104",
            f"model '{card.slug}': {name} must be {wanted}; found {value!r}",
            expected=wanted,
            found=value,
            mend=f"give {name} of {wanted} numbers" if wanted == "odd" else f"give {name} of {wanted}",
        )
