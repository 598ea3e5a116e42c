"""Fingerprints: a network rebuilt from its card must give the same numbers for ever.

Weights and inputs come from numpy's PCG64, never from torch's generator, so a fingerprint is stable over
versions of torch and over machines (to the tolerance it carries).

`python scripts/fingerprints.py` compares all, `--write` writes them anew.

The cost in them is by the convention of the model cards: giga multiply-accumulates of one forward pass,
counted on meta tensors: convolutions, transposed convolutions, matrix products and attention, one each (half
of what FlopCounterMode counts). Norms, activations, interpolation and the selective scan are left out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segbench.cards import find_card_folder
from segbench.cards.model_card import ModelCard
from segbench.core.errors import SegbenchError
from segbench.networks.registry import build_network, build_on_meta, network_card
from segbench.networks.released.official import export_official_weights

__all__ = [
    "check_fingerprint",
    "fingerprint_lines",
    "gmacs",
    "gmacs_at_128",
    "keys_digest",
    "pcg64_input",
    "read_fingerprint",
    "set_pcg64_weights",
    "take_fingerprint",
]

SCHEMA = "segbench.fingerprint/1"
FILE = "fingerprint.json"
SEED = 20_260
INPUT_OFFSET = 99_991
SAMPLES = 16
LARGE = 64
IN_CHANNELS, OUT_CHANNELS = 2, 3
TOLERANCE = {"float64": 1e-10, "float32": 5e-4}
COUNTED = ("convolution", "mm", "addmm", "bmm", "baddbmm", "attention")
"""Parts of the names of the operations that count."""


def check_fingerprint(slug: str, *, full: bool = True) -> tuple[str, ...]:
    """Rebuild a network from its card and compare it with its stored fingerprint; a line for each difference.

    Args:
        slug: A network's slug.
        full: Also count parameters and cost at full size (on meta tensors).

    Raises:
        SegbenchError: SB101 for an unknown slug, SB110 where there is no fingerprint or it cannot be read.
    """
    stored = read_fingerprint(slug)
    fresh = take_fingerprint(slug, stored=stored, full=full)
    skipped = {"verified_against", "tolerance"} if full else {"verified_against", "tolerance", "gmacs_128"}
    tolerance = float(stored["tolerance"]["float64"])
    return tuple(_differences(stored, fresh, tolerance=tolerance, skipped=skipped))


def fingerprint_lines(slug: str, differences: Sequence[str]) -> list[str]:
    """The result of `check_fingerprint` for people: the verdict, then the differences."""
    verdict = f"differs in {len(differences)} fields" if differences else "as stored"
    return [f"{slug}: {verdict}", *(f"  {line}" for line in differences)]


def read_fingerprint(slug: str) -> dict[str, Any]:
    """The stored fingerprint of a network.

    Raises:
        SegbenchError: SB101 for an unknown slug, SB110 where the file is missing or damaged.
    """
    path = find_card_folder("models", network_card(slug).slug) / FILE
    mend = f"in a checkout: python scripts/fingerprints.py --write {slug}"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise SegbenchError("SB110", f"model '{slug}' has no {FILE}", path=path, mend=mend) from None
    except ValueError as error:
        raise SegbenchError("SB110", f"{path} is not JSON: {error}", path=path, mend=mend) from None
    if content.get("schema") != SCHEMA:
        found = content.get("schema")
        raise SegbenchError("SB110", f"{path} has schema {found}", path=path, expected=SCHEMA, found=found)
    return content


def take_fingerprint(
    slug: str, *, stored: Mapping[str, Any] | None = None, full: bool = True
) -> dict[str, Any]:
    """The fingerprint of a network as it builds now.

    Args:
        slug: A network's slug.
        stored: Take seed and input shape from this one; else from the card.
        full: Also count parameters and cost at full size. Otherwise those of `stored` are repeated.
    """
    card = network_card(slug)
    overrides = dict(card.fingerprint)
    network = build_network(slug, IN_CHANNELS, OUT_CHANNELS, **overrides).double().eval()
    probe: Mapping[str, Any] = stored["probe"] if stored else {}
    seed = int(probe.get("seed", SEED))
    shape = tuple(probe.get("input_shape", (1, IN_CHANNELS, *_probe_size(card, network))))
    set_pcg64_weights(network, seed)
    x = pcg64_input(shape, seed).requires_grad_()
    y = network(x)
    loss = (y * torch.from_numpy(_normal(seed + 2 * INPUT_OFFSET, y.shape))).mean()
    loss.backward()
    parameters = {"tiny": _count(network)}
    if full:
        whole = build_on_meta(slug, 4, 4)
        parameters["full"] = _count(whole)
        cost = round(gmacs_at_128(whole), 4)
    elif stored:
        parameters["full"], cost = stored["parameters"]["full"], stored["gmacs_128"]
    else:
        raise ValueError("a first fingerprint must be full")
    official = card.fidelity is not None and card.fidelity.official_keys
    return {
        "schema": SCHEMA,
        "slug": slug,
        "build": {"in_channels": IN_CHANNELS, "out_channels": OUT_CHANNELS, "overrides": _plain(overrides)},
        "parameters": parameters,
        "tensors": len(network.state_dict()),
        "keys_sha256": keys_digest(network.state_dict()),
        "official_keys_sha256": keys_digest(export_official_weights(network)) if official else None,
        "gmacs_128": cost,
        "probe": {"input_shape": list(shape), "weights": "pcg64-v1", "seed": seed, **_statistics(y.detach())},
        "gradient": {
            "loss": "mean of y*w, w ~ pcg64",
            "input_norm": _norm([x.grad]),
            "norm_by_top_module": _gradient_norms(network),
        },
        "tolerance": TOLERANCE,
        "verified_against": None,
    }


def gmacs(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Giga multiply-accumulates of one forward pass in evaluation mode.

    Args:
        network: On the meta device; its mode is restored.
        shape: (B, C, D, H, W) of the input.
    """
    training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(shape, device="meta"))
    network.train(training)
    flops = counter.get_flop_counts()["Global"]
    return sum(count for op, count in flops.items() if any(part in str(op) for part in COUNTED)) / 2e9


def gmacs_at_128(network: nn.Module) -> float:
    """`gmacs` at 1x4x128x128x128, the size of the table in the model cards."""
    return gmacs(network, (1, 4, 128, 128, 128))


def set_pcg64_weights(network: nn.Module, seed: int) -> None:
    """Fill every named parameter by the rule `pcg64-v1`, a function of its name, shape and place alone.

    With r standard normal (rounded to float32) from PCG64(seed + i), i the place in sorted order: two or more
    axes 1.2 r / sqrt(product of shape[1:]); one-axis `weight` 1 + 0.2 r; A_log log(1..N) + 0.1 r;
    D 1 + 0.2 r; dt_proj.bias -3.5 + 0.8 r; all others 0.1 r. Suffixes _b and _s count as their base.
    """
    with torch.no_grad():
        for i, (name, parameter) in enumerate(sorted(network.named_parameters())):
            values = _pcg64_values(name, tuple(parameter.shape), seed + i)
            parameter.copy_(torch.from_numpy(np.asarray(values)))  # one number is not an array to numpy


def pcg64_input(shape: Sequence[int], seed: int) -> Tensor:
    """Standard normal float64 input, rounded to float32, from PCG64(seed + 99991)."""
    return torch.from_numpy(_normal(seed + INPUT_OFFSET, shape))


def keys_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the sorted lines "name (shape)" of a state_dict."""
    lines = sorted(f"{name} {tuple(tensor.shape)}\n" for name, tensor in tensors.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _normal(seed: int, shape: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(shape))
    return np.asarray(values).astype(np.float32).astype(np.float64)


def _pcg64_values(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    r = _normal(seed, shape)
    parts = [part.removesuffix("_b").removesuffix("_s") for part in name.split(".")]
    if parts[-1] in ("A_log", "A_b_log", "A_s_log"):
        return np.log(np.arange(1, shape[1] + 1))[None, :] + 0.1 * r
    if parts[-1] == "D":
        return 1 + 0.2 * r
    if parts[-2:] == ["dt_proj", "bias"]:
        return -3.5 + 0.8 * r
    if len(shape) >= 2:
        return r * 1.2 / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.2 * r if parts[-1] == "weight" and len(shape) == 1 else 0.1 * r


def _probe_size(card: ModelCard, network: nn.Module) -> tuple[int, int, int]:
    """The smallest anisotropic volume: a wrong permutation of axes cannot be seen on a cube.

    Networks that need 64 voxels take a cube all the same: float64 convolutions of more would cost minutes.
    """
    fixed = card.fingerprint.get("patch_size")
    if isinstance(fixed, tuple):
        depth, height, width = (int(str(n)) for n in fixed)
        return depth, height, width
    assert card.input is not None  # the schema of network cards
    # Networks of ours know their divisor under these overrides; others need what their card says.
    divisor = int(getattr(network, "divisor", card.input.divisor))
    minimum = int(getattr(network, "minimum", card.input.minimum))
    return minimum, minimum + (divisor if minimum < LARGE else 0), minimum


def _statistics(y: Tensor) -> dict[str, Any]:
    flat = y.flatten()
    places = [math.floor(k * (flat.numel() - 1) / (SAMPLES - 1)) for k in range(SAMPLES)]
    return {
        "mean": flat.mean().item(),
        "std": flat.std().item(),
        "abs_max": flat.abs().max().item(),
        "samples": [flat[place].item() for place in places],
    }


def _gradient_norms(network: nn.Module) -> dict[str, float]:
    grouped: dict[str, list[Tensor | None]] = {}
    for name, parameter in network.named_parameters():
        grouped.setdefault(name.split(".")[0], []).append(parameter.grad)
    return {name: _norm(gradients) for name, gradients in sorted(grouped.items())}


def _norm(gradients: Iterable[Tensor | None]) -> float:
    return math.sqrt(sum(g.square().sum().item() for g in gradients if g is not None))


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


def _differences(
    stored: Any, fresh: Any, *, tolerance: float, skipped: set[str], where: str = ""
) -> Iterable[str]:
    if isinstance(stored, Mapping) and isinstance(fresh, Mapping):
        for key in sorted({*stored, *fresh} - skipped):
            inner = f"{where}.{key}" if where else str(key)
            yield from _differences(
                stored.get(key), fresh.get(key), tolerance=tolerance, skipped=set(), where=inner
            )
    elif isinstance(stored, list) and isinstance(fresh, list) and len(stored) == len(fresh):
        for index, (old, new) in enumerate(zip(stored, fresh, strict=True)):
            yield from _differences(old, new, tolerance=tolerance, skipped=set(), where=f"{where}[{index}]")
    elif isinstance(stored, float) and isinstance(fresh, int | float):
        if abs(stored - fresh) > tolerance * max(1.0, abs(stored)):
            yield f"{where}: stored {stored!r}, now {fresh!r}"
    elif stored != fresh:
        yield f"{where}: stored {stored!r}, now {fresh!r}"
