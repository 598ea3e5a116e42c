"""Official checkpoints in and out: the authors' parameter names on one side, ours on the other.

A layout is a table of name templates, read in both directions, plus the aliases under which some checkpoints
repeat a tensor. Nothing is loaded by halves: every key is checked before the first one is copied.

Files are safetensors, or a plain state_dict that torch reads without unpickling objects. There is no
fallback: a file that needs objects to be rebuilt is refused (SB406), and nothing in it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from segbench.core.errors import SegbenchError
from segbench.networks.released.layouts import Layout, layout_of

__all__ = [
    "LoadReport",
    "export_official_weights",
    "load_official_weights",
    "plain_weights",
    "read_weights",
    "unreadable",
]

WRAPPERS = ("module", "state_dict", "network_weights")
"""Keys under which training programs store the weights; one level is unwrapped."""
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before each name."""

PICKLED = (".pt", ".pth", ".ckpt", ".bin")
_ADVICE = ("weights_only", "Weights only load failed", "Please file an issue", "Check the documentation")
"""Lines of torch's refusals that say what its users could do, and not what is wrong with the file."""


@dataclass(frozen=True)
class LoadReport:
    """What `load_official_weights` did.

    `loaded` and `missing` are our names, `unexpected` and `ignored_aliases` those of the file. A tensor of
    the wrong shape counts as missing and as unexpected.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    ignored_aliases: tuple[str, ...]


def load_official_weights(
    network: nn.Module, weights: Mapping[str, object] | Path | str, *, strict: bool = True
) -> LoadReport:
    """Copy weights in the authors' layout, or in ours, into a network.

    Args:
        network: Built by `build_network` with the widths and channels of the weights.
        weights: A mapping of names to tensors, or a `.safetensors`, `.pt` or `.pth` file. One wrapping level
            and the prefixes of data-parallel and compiled modules are taken off.
        strict: Refuse any missing, unexpected or wrong-shaped key. Otherwise load what fits.

    Returns:
        What was loaded, missing, unexpected, and which aliases were ignored.

    Raises:
        SegbenchError: SB406 with the complete list of faults; the network is then unchanged.
    """
    given = read_weights(weights) if isinstance(weights, str | Path) else weights
    found = plain_weights(given)
    own = network.state_dict()
    tensors, report, reshaped, faults = _match(own, found, layout_of(network))
    faults += _unfit_values(own, tensors) + (_lines(own, found, report, reshaped) if strict else [])
    if faults:
        raise SegbenchError(
            "SB406",
            f"the weights do not fit the network: {len(faults)} faults; nothing was loaded",
            path=weights if isinstance(weights, str | Path) else None,
            expected=f"{len(own)} tensors of {type(network).__name__}",
            found=f"{len(found)} tensors",
            mend="build the model these weights were trained with: same slug, channels and overrides",
            details=faults,
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return report


def export_official_weights(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors under the authors' names, aliases included: what their own code loads strictly.

    The tensors share the network's memory. A network without an official layout keeps its names.
    """
    layout = layout_of(network)
    exported: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        official = layout.to_official(name) or name
        exported[official] = tensor
        exported.update({alias: tensor for alias in layout.aliases(official)})
    return exported


def plain_weights(weights: Mapping[str, object]) -> dict[str, Tensor]:
    """Names and tensors, one wrapping level and the prefixes of wrapped modules taken off.

    Raises:
        SegbenchError: SB406 where there are no named tensors.
    """
    for wrapper in WRAPPERS:
        inner = weights.get(wrapper)
        if isinstance(inner, Mapping):
            weights = inner
            break
    plain: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise SegbenchError(
                "SB406",
                f"the entry {name!r} is not a named tensor but a {type(tensor).__name__}",
                expected="a mapping of names to tensors (a state_dict)",
                found=type(tensor).__name__,
            )
        plain[_without_prefixes(name)] = tensor
    if not plain:
        raise SegbenchError("SB406", "the weights hold no tensors", expected="a state_dict", found="nothing")
    return plain


def _lines(
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], report: LoadReport, reshaped: Mapping[str, str]
) -> list[str]:
    """One line for each tensor that strict loading does not allow."""
    known = {*reshaped, *reshaped.values()}
    return [
        *(
            f"wrong shape: {theirs} {tuple(found[theirs].shape)}, expected {tuple(own[ours].shape)}"
            for ours, theirs in reshaped.items()
        ),
        *(f"missing: {name} {tuple(own[name].shape)}" for name in report.missing if name not in reshaped),
        *(
            f"unexpected: {name} {tuple(found[name].shape)}"
            for name in report.unexpected
            if name not in known
        ),
    ]


def _without_prefixes(name: str) -> str:
    while (shorter := next((name[len(p) :] for p in PREFIXES if name.startswith(p)), None)) is not None:
        name = shorter
    return name


def _unfit_values(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """What a copy would lose or carry on silently: another kind of number, values that are none."""
    faults = []
    for name, tensor in tensors.items():
        if tensor.is_floating_point() != own[name].is_floating_point() or tensor.is_complex():
            faults.append(f"kind of numbers: {name} is {tensor.dtype}, expected {own[name].dtype}")
        elif tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            faults.append(f"values: {name} holds NaN or infinity")
    return faults


def _match(
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], layout: Layout
) -> tuple[dict[str, Tensor], LoadReport, dict[str, str], list[str]]:
    """The tensors of a file that fit, by our name, and everything that does not.

    Returns:
        Those tensors; the report; our name to the file's where only the shape differs (these are missing and
        unexpected too); a line for each alias that repeats other values.
    """
    tensors: dict[str, Tensor] = {}
    reshaped: dict[str, str] = {}
    unexpected, aliases, faults = list[str](), list[str](), list[str]()
    repeated: list[tuple[str, str]] = []
    for name, tensor in found.items():
        ours = name if name in own else layout.to_ours(name)
        if ours is not None and ours in own and ours not in tensors:
            if tensor.shape == own[ours].shape:
                tensors[ours] = tensor
                continue
            reshaped[ours] = name
        canonical = layout.canonical(name)
        if canonical != name:
            repeated.append((name, canonical))
        else:
            unexpected.append(name)
    for name, canonical in repeated:
        ours = layout.to_ours(canonical) or canonical
        if ours not in tensors:
            unexpected.append(name)
        elif torch.equal(found[name], tensors[ours]):
            aliases.append(name)
        else:
            faults.append(f"alias differs: {name} repeats {canonical} with other values")
    missing = tuple(name for name in own if name not in tensors)
    return tensors, LoadReport(tuple(tensors), missing, tuple(unexpected), tuple(aliases)), reshaped, faults


def read_weights(path: Path | str) -> dict[str, Any]:
    """The content of a weights file: names to tensors, possibly one level deeper for `.pt` files.

    Args:
        path: A `.safetensors` file, or a `.pt`, `.pth`, `.ckpt` or `.bin` file that holds tensors only.

    Raises:
        SegbenchError: SB406 where the file is absent, damaged, of another kind, or not made of plain tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise SegbenchError(
            "SB406", f"there is no weights file {path}", path=path, mend="name an existing file"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLED:
        return _read_plain_tensors(path)
    raise SegbenchError(
        "SB406",
        f"weights files end in .safetensors, {', '.join(PICKLED)}; found '{path.suffix}'",
        path=path,
        expected=".safetensors",
        found=path.suffix,
    )


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from None


def _read_plain_tensors(path: Path) -> dict[str, Any]:
    # The refusals of torch's restricted reader have no common type: unpickling, EOF, zip and key errors.
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise unreadable(path, error) from None
    if not isinstance(content, dict):
        raise SegbenchError(
            "SB406",
            f"{path} holds a {type(content).__name__}, not named tensors",
            path=path,
            expected="a mapping of names to tensors (a state_dict)",
            found=type(content).__name__,
        )
    return content


def unreadable(path: Path, error: Exception) -> SegbenchError:
    """The refusal of a file that is damaged or holds more than tensors, with the reader's reason."""
    # torch's own text begins with the advice to load the file without protection; only what it met is told.
    lines = [line.split("WeightsUnpickler error:")[-1].strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not any(words in line for words in _ADVICE)]
    telling = [line for line in lines if "nsupported" in line] or lines
    reason = telling[0].split(" Please use")[0] if telling else type(error).__name__
    return SegbenchError(
        "SB406",
        f"{path} cannot be read as plain tensors; nothing in it was executed",
        path=path,
        expected="tensors only",
        found=reason[:300],
    )
