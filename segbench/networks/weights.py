"""Weights with what they say of themselves: written as safetensors, imported and exported by model."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from segbench.core.atomic import atomic_write
from segbench.core.errors import SegbenchError
from segbench.core.outputs import check_targets
from segbench.networks.registry import build_network, build_on_meta, network_card
from segbench.networks.released.layouts import layout_of
from segbench.networks.released.official import (
    LoadReport,
    export_official_weights,
    load_official_weights,
    plain_weights,
    read_weights,
    unreadable,
)
from segbench.networks.tensor_bytes import tensor_bytes

__all__ = [
    "WeightsMetadata",
    "build_for_file",
    "export_weights",
    "import_weights",
    "load_start",
    "read_metadata",
    "write_weights",
]

FORMAT = "segbench.weights/1"
ENTRY_BYTES = 32
"""What the entry of a tensor takes in the head of a file, at least."""


@dataclass(frozen=True)
class WeightsMetadata:
    """What a weights file of segbench says of itself.

    `arguments` are the overrides that `build_network` was called with, beside the slug and the channels.
    `channels` are the names of the input channels in order, `labels` those of the outputs; empty where the
    file does not know them. `extra` holds further plain values (normalisation, spacing) of its writer.
    """

    model: str
    in_channels: int
    out_channels: int
    arguments: Mapping[str, Any]
    channels: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    extra: Mapping[str, Any] | None = None

    def as_strings(self) -> dict[str, str]:
        """The metadata as safetensors stores it: words only, the rest as JSON."""
        return {
            "format": FORMAT,
            "model": self.model,
            "in_channels": str(self.in_channels),
            "out_channels": str(self.out_channels),
            "arguments": json.dumps(dict(self.arguments), sort_keys=True),
            "channels": json.dumps(list(self.channels)),
            "labels": json.dumps(list(self.labels)),
            "extra": json.dumps(dict(self.extra or {}), sort_keys=True),
        }


def read_metadata(path: Path | str) -> WeightsMetadata | None:
    """What a safetensors file says of itself; None where segbench did not write it.

    Raises:
        SegbenchError: SB406 where the file is not a safetensors file, or its metadata are damaged.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            words: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from None
    if words.get("format") != FORMAT:
        return None
    try:
        return WeightsMetadata(
            model=words["model"],
            in_channels=int(words["in_channels"]),
            out_channels=int(words["out_channels"]),
            arguments=_decoded(words, "arguments", dict),
            channels=tuple(map(str, _decoded(words, "channels", list))),
            labels=tuple(map(str, _decoded(words, "labels", list))),
            extra=_decoded(words, "extra", dict),
        )
    except (KeyError, ValueError, RecursionError) as error:
        raise SegbenchError("SB406", f"the metadata of {path} are damaged: {error}", path=path) from None


def _decoded(words: Mapping[str, str], name: str, kind: type) -> Any:
    value = json.loads(words[name])
    if not isinstance(value, kind):
        raise ValueError(f"{name} is not a {kind.__name__}")
    return value


def write_weights(path: Path | str, tensors: Mapping[str, Tensor], metadata: WeightsMetadata) -> None:
    """Write tensors and metadata as safetensors, whole or not at all.

    Tensors that share memory are stored once each under every name.
    """
    apart = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    atomic_write(Path(path), tensor_bytes(apart, metadata.as_strings()))


def build_for_file(
    path: Path | str, model: str, in_channels: int, out_channels: int, **overrides: Any
) -> nn.Module:
    """The network that a weights file says it belongs to, once its size on paper fits the file.

    Raises:
        SegbenchError: SB406 for a network that is larger than the file; nothing was allocated for it.
    """
    with _no_larger_than(Path(path), model):
        build_on_meta(model, in_channels, out_channels, **overrides)
    return build_network(model, in_channels, out_channels, **overrides)


@contextmanager
def _no_larger_than(path: Path, model: str) -> Generator[None]:
    """Stop a construction inside the block as soon as it has more numbers than the file has bytes."""
    room, built = path.stat().st_size, 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal built
        # A tensor has an entry in the head of the file, and a number takes a byte at least.
        built += 0 if tensor is None else max(tensor.numel(), ENTRY_BYTES)
        if built > room:
            raise SegbenchError(
                "SB406",
                f"the file says that it holds weights of a '{model}' that would be larger than the file",
                path=path,
                expected=f"at most {room:,} numbers",
                found=f"{built:,} and more",
                mend="the file is damaged or made to harm: get it again from where it came",
            )

    hooks = [register_module_parameter_registration_hook(count)]
    hooks.append(register_module_buffer_registration_hook(count))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def import_weights(
    file: Path | str,
    model: str,
    output: Path | str,
    *,
    channels: Sequence[str] = (),
    labels: Sequence[str] = (),
    strict: bool = True,
    **overrides: Any,
) -> LoadReport:
    """Turn an official checkpoint, or a plain state_dict, into a safetensors file of segbench.

    The numbers of input and output channels are read from the weights themselves.

    Args:
        file: What `read_weights` takes.
        model: Slug of the network the weights belong to.
        output: The `.safetensors` file to write.
        channels: Names of the input channels in order, where known.
        labels: Names of the outputs in order, where known.
        strict: Refuse weights that do not fit wholly.
        **overrides: Overrides that the weights were trained with.

    Raises:
        SegbenchError: SB406 for a file that cannot be read or does not fit, SB101 for an unknown model, SB337
            when a file stands at `output`.
    """
    output = _safetensors_name(output)
    check_targets([output], inputs=[Path(file)])
    network_card(model)
    network, weights, (inputs, outputs) = _built_for(Path(file), model, overrides)
    for what, names, count in (("channels", channels, inputs), ("labels", labels, outputs)):
        if names and len(names) != count:
            raise SegbenchError(
                "SB103",
                f"{len(names)} names of {what} for weights with {count} {what}",
                expected=count,
                found=list(names),
            )
    report = load_official_weights(network, weights, strict=strict)
    metadata = WeightsMetadata(model, inputs, outputs, overrides, tuple(channels), tuple(labels))
    write_weights(output, network.state_dict(), metadata)
    return report


def load_start(network: nn.Module, file: Path | str) -> str:
    """Copy what fits of a weights file into a network that is about to be trained; gives one line about it.

    Heads of other classes and first convolutions of other channels stay as they were, and so does what the
    file does not hold (an encoder alone).

    Raises:
        SegbenchError: SB406 where less than half of the file's numbers fit: it belongs to another network.
    """
    weights = plain_weights(read_weights(file))
    report = load_official_weights(network, weights, strict=False)
    own = network.state_dict()
    loaded = sum(own[name].numel() for name in report.loaded)
    unused = sum(weights[name].numel() for name in report.unexpected)
    left = f"fresh: {', '.join(report.missing[:6])}{', ...' if len(report.missing) > 6 else ''}"
    if loaded <= unused:
        raise SegbenchError(
            "SB406",
            f"only {loaded:,} of {loaded + unused:,} numbers in the file fit {type(network).__name__}",
            path=file,
            expected="weights of this model, or of its encoder",
            found=f"{len(report.unexpected)} tensors that do not fit, the first called {report.unexpected[0]}"
            if report.unexpected
            else "no tensor",
            mend="name the model these weights belong to",
            details=report.unexpected,
        )
    count = len(report.loaded)
    return f"init: {count} of {len(own)} tensors from {Path(file).name}; {left if report.missing else 'all'}"


def export_weights(file: Path | str, model: str, output: Path | str) -> tuple[str, ...]:
    """Write weights of segbench under the authors' names, so that their own code loads them.

    Args:
        file: A weights file of segbench (or one that already has official names).
        model: Slug of the network.
        output: `.safetensors`, or `.pt` or `.pth` for a plain state_dict as torch saves it.

    Returns:
        The names written.

    Raises:
        SegbenchError: SB406 for weights that do not fit or an ending that cannot be written, SB337 when a
            file stands at `output`.
    """
    file, output = Path(file), Path(output)
    if output.suffix not in (".pt", ".pth"):
        output = _safetensors_name(output)
    check_targets([output], inputs=[file])
    metadata = read_metadata(file) if file.suffix == ".safetensors" else None
    if metadata is not None and metadata.model != model:
        raise SegbenchError(
            "SB406",
            f"the file holds weights of '{metadata.model}', not of '{model}'",
            expected=model,
            found=metadata.model,
        )
    overrides = {} if metadata is None else dict(metadata.arguments)
    network, weights, (inputs, outputs) = _built_for(file, model, overrides)
    load_official_weights(network, weights)
    official = export_official_weights(network)
    if output.suffix in (".pt", ".pth"):
        atomic_write(output, lambda stream: torch.save(official, stream))
    else:
        known = metadata or WeightsMetadata(model, inputs, outputs, {})
        write_weights(output, official, known)
    return tuple(official)


def _safetensors_name(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise SegbenchError(
            "SB406",
            f"weights are written as .safetensors; found '{path.name}'",
            path=path,
            expected=".safetensors",
            found=path.suffix,
            mend="give the output file the ending .safetensors",
        )
    return path


def _built_for(
    file: Path, model: str, overrides: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Tensor], tuple[int, int]]:
    """The network that fits the weights in a file, those weights, and its input and output channels."""
    weights = plain_weights(read_weights(file))
    inputs, outputs = _channel_counts(model, weights, path=file, overrides=overrides)
    build = partial(build_for_file, file) if overrides else build_network
    return build(model, inputs, outputs, **overrides), weights, (inputs, outputs)


def _channel_counts(
    model: str, weights: Mapping[str, Tensor], *, path: Path, overrides: Mapping[str, Any]
) -> tuple[int, int]:
    """Input and output channels of weights, found by where the shapes of a probe network depend on them."""
    if overrides:  # the sizes of the card alone are not the file's word
        with _no_larger_than(path, model):
            build_on_meta(model, 1, 1, **overrides)
    networks = [build_on_meta(model, *c, **overrides) for c in ((1, 1), (2, 1), (1, 2))]
    layout = layout_of(networks[0])
    probes = [
        {name: tuple(tensor.shape) for name, tensor in export_official_weights(network).items()}
        for network in networks
    ]
    found: list[int] = []
    for changed in probes[1:]:
        name, axis = next(
            (name, axis)
            for name, shape in probes[0].items()
            for axis, (one, two) in enumerate(zip(shape, changed[name], strict=True))
            if one != two
        )
        tensor = weights.get(name, weights.get(layout.to_ours(name) or name))
        if tensor is None or tensor.ndim != len(probes[0][name]):
            raise SegbenchError(
                "SB406",
                f"{path} holds no weights of '{model}': '{name}' is missing or of another shape",
                path=path,
                expected=name,
                found=f"{len(weights)} tensors, the first called '{next(iter(weights))}'",
            )
        found.append(int(tensor.shape[axis]))
    return found[0], found[1]
