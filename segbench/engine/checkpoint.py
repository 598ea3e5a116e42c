"""Checkpoints that hold everything: a killed run resumed from one ends in the same bytes.

`checkpoints/step-<9 digits>/{weights.safetensors, ema.safetensors?, optimiser.safetensors, state.json,
MANIFEST.json}`. The folder is built under a temporary name and renamed; MANIFEST.json (bytes and sha256 of
each file) is written last; two checkpoints are kept. Nothing is pickled. On load every digest is checked; a
damaged checkpoint is set aside and the one before is used.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from segbench.core.atomic import atomic_folder, atomic_write, atomic_write_json, json_text
from segbench.core.errors import SegbenchError
from segbench.core.faults import fault
from segbench.core.foreign import parse_json
from segbench.core.hashing import sha256_bytes, sha256_file
from segbench.engine.optimiser import optimiser_names
from segbench.networks.tensor_bytes import tensor_bytes

KEEP = 2
BEST = "best.safetensors"
MANIFEST = "MANIFEST.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint in memory."""

    folder: Path
    weights: dict[str, Tensor]
    ema: dict[str, Tensor] | None
    optimiser: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    *,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: dict[str, Any],
    ema: dict[str, Tensor] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a checkpoint under `folder` and drop all but the last two.

    Args:
        folder: The run's `checkpoints` folder.
        network: The network; its whole state_dict is saved.
        optimiser: Its tensors are saved as `<parameter name>.<slot>`, scalars go to `state.json`.
        state: Must hold "step"; JSON-able. Random states and the optimiser's scalars are added.
        ema: Averaged weights, where the protocol keeps them.
        metadata: Strings stored in the header of the weights file (model, channels, ...).

    Returns:
        The checkpoint's folder.
    """
    step = int(state["step"])
    target = folder / f"step-{step:09d}"
    tensors, scalars = optimiser_state(network, optimiser)
    content = {
        **state,
        "schema_version": SCHEMA_VERSION,
        "optimiser_scalars": scalars,
        "random": random_states(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    parts: dict[str, Callable[[], bytes]] = {
        "weights.safetensors": lambda: tensor_bytes(network.state_dict(), metadata),
        "optimiser.safetensors": lambda: tensor_bytes(tensors),
        "state.json": lambda: json_text(content).encode(),
    }
    if ema is not None:
        parts["ema.safetensors"] = lambda: tensor_bytes(ema, metadata)
    with atomic_folder(target) as building:
        manifest: dict[str, dict[str, object]] = {}
        for name, make in parts.items():  # one at a time: the bytes of a large network are held once
            data = make()
            atomic_write(building / name, data)
            manifest[name] = {"bytes": len(data), "sha256": sha256_bytes(data)}
            fault("checkpoint")
        atomic_write_json(building / MANIFEST, {"schema_version": SCHEMA_VERSION, "files": manifest})
        fault("checkpoint")
    for old in checkpoint_folders(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def save_best(folder: Path, network: nn.Module, metadata: dict[str, str]) -> str:
    """Write the weights that are the best on the validation cases so far; gives their sha256."""
    data = tensor_bytes(network.state_dict(), metadata)
    atomic_write(folder / BEST, data)
    return sha256_bytes(data)


def load_best(folder: Path, sha256: str | None) -> dict[str, Tensor]:
    """The weights that `save_best` wrote last, of that digest where it is known.

    Raises:
        SegbenchError: SB405 when they are gone or damaged.
    """
    best = folder / BEST
    data = best.read_bytes() if best.is_file() else b""
    if sha256 not in (None, sha256_bytes(data)) or not data:
        raise SegbenchError(
            "SB405",
            "the weights that were best on the validation cases are gone or damaged",
            path=best,
            mend="--fresh train trains again",
        )
    return load_tensors(data)


def load_last(folder: Path, *, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint whose every byte verifies, or None when there is none at all.

    A damaged one is renamed `corrupt-...` and warned of (SB405).

    Raises:
        SegbenchError: SB405 when there were checkpoints and none is sound.
    """
    candidates = checkpoint_folders(folder)
    for candidate in reversed(candidates):
        try:
            return _load(candidate)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            aside = folder / f"corrupt-{candidate.name}"
            shutil.rmtree(aside, ignore_errors=True)
            candidate.rename(aside)
            warn(
                f"warning[SB405]: checkpoint {candidate.name} is damaged ({error}); set aside as {aside.name}"
            )
    if candidates:
        raise SegbenchError("SB405", "every checkpoint is damaged; none is left", path=folder)
    return None


def checkpoint_folders(folder: Path) -> list[Path]:
    """Finished checkpoint folders, oldest first."""
    return sorted(entry for entry in folder.glob("step-*") if entry.is_dir())


def optimiser_state(
    network: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The optimiser's tensors by `<parameter>.<slot>`, and its scalars."""
    names = optimiser_names(network, optimiser)
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, float] = {}
    for parameter, slots in optimiser.state.items():
        for slot, value in slots.items():
            key = f"{names[id(parameter)]}.{slot}"
            if isinstance(value, Tensor):
                tensors[key] = value.detach().cpu().contiguous()
            elif value is not None:
                scalars[key] = value
    return tensors, scalars


def restore(
    checkpoint: Checkpoint, network: nn.Module, optimiser: torch.optim.Optimizer, *, rank: int = 0
) -> None:
    """Put weights, optimiser and random states back as they were on that rank."""
    network.load_state_dict(checkpoint.weights)
    names = optimiser_names(network, optimiser)
    scalars = checkpoint.state["optimiser_scalars"]
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            prefix = names[id(parameter)] + "."
            slots: dict[str, Any] = {}
            for key, tensor in checkpoint.optimiser.items():
                if key.startswith(prefix) and "." not in key[len(prefix) :]:
                    slot = key[len(prefix) :]
                    # The count of steps stays here, unless one kernel updates everything on the device.
                    here = slot == "step" and not group.get("fused")
                    slots[slot] = tensor if here else tensor.to(parameter.device)
            slots |= {k[len(prefix) :]: v for k, v in scalars.items() if k.startswith(prefix)}
            if slots:
                optimiser.state[parameter] = slots
    others = checkpoint.state.get("random_of_ranks", [])
    if 0 < rank <= len(others):
        set_random_states(others[rank - 1], own_device=rank)
    else:  # rank 0 itself, or a rank that was not there before
        set_random_states(checkpoint.state["random"])


def random_states() -> dict[str, Any]:
    """All generator states, JSON-able: torch's on the CPU and each CUDA device, and the global ones of Python
    and numpy, which segbench never draws from but a network of another package might.
    """
    kind, keys, position, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - recorded, never drawn from
    version, words, gauss = random.getstate()
    states: dict[str, Any] = {
        "python": {"version": version, "words": list(words), "gauss": gauss},
        "torch_cpu": torch.get_rng_state().numpy().tobytes().hex(),
        "numpy": {
            "kind": str(kind),
            "keys": np.asarray(keys).tobytes().hex(),
            "position": int(position),
            "gauss": rest,
        },
    }
    if torch.cuda.is_available():
        states["torch_cuda"] = [state.numpy().tobytes().hex() for state in torch.cuda.get_rng_state_all()]
    return states


def set_random_states(states: dict[str, Any], *, own_device: int = 0) -> None:
    """Put the generators back, those that were recorded; `own_device` is the one that was drawn on."""
    torch.set_rng_state(_state_tensor(states["torch_cpu"]))
    if "python" in states:
        own = states["python"]
        random.setstate((own["version"], tuple(own["words"]), own["gauss"]))
    own = states.get("numpy", {})
    if "gauss" in own:
        keys = np.frombuffer(bytes.fromhex(own["keys"]), dtype=np.uint32)
        np.random.set_state((own["kind"], keys, own["position"], *own["gauss"]))  # noqa: NPY002 - as recorded
    if torch.cuda.is_available() and "torch_cuda" in states:
        saved = [_state_tensor(text) for text in states["torch_cuda"]]
        if len(saved) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(saved)
        torch.cuda.set_rng_state(saved[min(own_device, len(saved) - 1)])


def _state_tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def _load(folder: Path) -> Checkpoint:
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    content = parse_json(text)
    # the manifest vouches for the others; only its one exact spelling vouches for itself
    if json_text(content) != text or set(content) != {"files", "schema_version"}:
        raise ValueError(f"{MANIFEST} is not as it was written")
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"{MANIFEST} has schema_version {content['schema_version']}")
    manifest = content["files"]
    data: dict[str, bytes] = {}
    for name, facts in manifest.items():
        path = folder / name
        if path.stat().st_size != facts["bytes"] or sha256_file(path) != facts["sha256"]:
            raise ValueError(f"{name} does not match its digest")
        data[name] = path.read_bytes()
    for name in ("weights.safetensors", "optimiser.safetensors", "state.json"):
        if name not in data:
            raise ValueError(f"{name} is missing from the manifest")
    return Checkpoint(
        folder=folder,
        weights=load_tensors(data["weights.safetensors"]),
        ema=load_tensors(data["ema.safetensors"]) if "ema.safetensors" in data else None,
        optimiser=load_tensors(data["optimiser.safetensors"]),
        state=parse_json(data["state.json"]),
    )
