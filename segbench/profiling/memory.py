"""Where the memory goes: weights, gradients, optimiser, activations, and the peaks that decide over out-of-
memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from segbench.profiling.machine import process_bytes
from segbench.profiling.schema import MemoryFacts

__all__ = ["MemoryProbe", "bytes_of", "limit_address_space", "saved_bytes", "tensor_bytes"]


def tensor_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of the tensors that exist."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def bytes_of(network: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return tensor_bytes([*network.parameters(), *network.buffers()])


def saved_bytes(call: Callable[[], object], network: nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward, shared memory once and the parameters apart."""
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that its place is not given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(storage.nbytes() for storage in kept.values())


def limit_address_space() -> None:
    """Let this process's allocations fail once they would exceed the machine's free memory.

    Without it Linux promises memory that it does not have and later kills whatever process it likes.
    """
    try:
        import resource

        free = _status_bytes(Path("/proc/meminfo"), "MemAvailable")
        used = _status_bytes(Path("/proc/self/status"), "VmSize")
    except (ImportError, OSError):
        return
    if free is None or used is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + free
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == -1 else min(wanted, hard), hard))


class MemoryProbe:
    """Peaks of memory between `start` and `facts`; one probe per process, since resident memory never
    shrinks.

    Args:
        device: Where the network computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._resident_before: int | None = None

    def start(self) -> None:
        """Take the level from which the peak is measured; call it just before the first pass."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        _forget_peak()
        self._resident_before = _status_bytes(Path("/proc/self/status"), "VmRSS")

    def facts(
        self, network: nn.Module, optimiser: torch.optim.Optimizer | None, gradients_bytes: int | None
    ) -> MemoryFacts:
        """The split of the peak; what the system does not tell is None."""
        weights = bytes_of(network)
        states = None if optimiser is None else _optimiser_bytes(optimiser)
        allocated = reserved = None
        if self._device.type == "cuda":
            allocated = torch.cuda.max_memory_allocated(self._device)
            reserved = torch.cuda.max_memory_reserved(self._device)
            # Gradients and optimiser live beside weights and activations at the peak.
            activations = allocated - weights - (gradients_bytes or 0) - (states or 0)
            process = process_bytes(self._device)
        else:
            process = _peak_resident()
            grown = None
            if process is not None and self._resident_before is not None:
                grown = process - self._resident_before
            activations = None if grown is None else grown - (gradients_bytes or 0) - (states or 0)
        return MemoryFacts(
            weights_bytes=weights,
            gradients_bytes=gradients_bytes,
            optimizer_bytes=states,
            activations_bytes=None if activations is None else max(activations, 0),
            allocated_peak_bytes=allocated,
            reserved_peak_bytes=reserved,
            process_peak_bytes=process,
            max_patch=None,
        )


def _optimiser_bytes(optimiser: torch.optim.Optimizer) -> int:
    values = (value for state in optimiser.state.values() for value in state.values())
    return tensor_bytes(value for value in values if isinstance(value, Tensor))


def _peak_resident() -> int | None:
    peak = _status_bytes(Path("/proc/self/status"), "VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _forget_peak() -> None:
    """Begin the peak anew at what is resident now, where Linux allows it."""
    try:
        with Path("/proc/self/clear_refs").open("r+", encoding="ascii") as control:
            control.write("5")
    except OSError:
        return


def _status_bytes(path: Path, name: str) -> int | None:
    """A kibibyte field of a file of /proc, in bytes."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return None
    _, found, rest = text.partition(f"{name}:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else None
