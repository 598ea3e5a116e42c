"""What the scan takes, checked once before any compute, and the constants that all backends share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CHUNK", "ScanInputs", "as_token_major", "check_inputs", "chunks", "compute_dtype"]

CHUNK = 64
"""Steps between two saved states.

The forward keeps only the state at the start of each chunk; the backward recomputes inside one. At n = 16
that is a quarter of one (l, d) tensor, and 64 is sqrt(l) at the length 4096 of SegMamba-V2's third stage.
"""


def chunks(length: int) -> int:
    """How many chunks (and so saved states) a sequence has."""
    return (length + CHUNK - 1) // CHUNK


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of state, exponentials and sums for inputs `u` of this type."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def as_token_major(x_bdl: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` as contiguous (b, l, d) of the given type: no copy where channels already are the fastest axis."""
    return x_bdl.transpose(1, 2).to(dtype).contiguous()


class ScanInputs(NamedTuple):
    """What one scan reads, as `selective_scan` takes it.

    A backend is a module with `forward(inputs, save_states)`, which gives the output (b, d, l) in u's type
    and the states at the starts of chunks (b, chunks, n, d), empty unless saved; and `backward(grad, inputs,
    states)`, which gives the gradients of the eight tensors, each in its input's type, empty if absent.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    delta_softplus: bool


_TENSORS = ScanInputs._fields[:-1]  # all but delta_softplus; torch 2.8 cannot trace `_asdict`


def check_inputs(inputs: ScanInputs) -> None:
    """Raise ValueError, naming the shapes, for anything the scan is not defined for."""
    u, _, A, B, C, *_ = inputs
    named = {name: inputs[place] for place, name in enumerate(_TENSORS)}
    present = {name: tensor for name, tensor in named.items() if isinstance(tensor, Tensor)}
    for name, tensor in present.items():
        if not tensor.is_floating_point():
            kind = "complex" if tensor.is_complex() else str(tensor.dtype)
            raise ValueError(f"selective_scan takes real floating point tensors only; {name} is {kind}")
        if tensor.device != u.device:
            raise ValueError(f"selective_scan: u is on {u.device}, {name} on {tensor.device}")
    if u.dim() != 3 or A.dim() != 2:
        raise ValueError(
            f"selective_scan: u must be (batch, channels, length) and A (channels, states), "
            f"found u {tuple(u.shape)} and A {tuple(A.shape)}"
        )
    batch, channels, length = u.shape
    states = A.shape[1]
    if B.dim() != 3 or C.dim() != 3:
        raise ValueError(
            "selective_scan: B and C must be (batch, states, length), varying in time and ungrouped, "
            f"found B {tuple(B.shape)} and C {tuple(C.shape)}"
        )
    if batch < 1 or channels < 1 or length < 1 or states < 1:
        raise ValueError(f"selective_scan of an empty sequence: u {tuple(u.shape)}, A {tuple(A.shape)}")
    expected = {
        "delta": (batch, channels, length),
        "A": (channels, states),
        "B": (batch, states, length),
        "C": (batch, states, length),
        "D": (channels,),
        "z": (batch, channels, length),
        "delta_bias": (channels,),
    }
    for name, shape in expected.items():
        if name in present and tuple(present[name].shape) != shape:
            raise ValueError(
                f"selective_scan: {name} must be {shape} for u {tuple(u.shape)} and A {tuple(A.shape)}, "
                f"found {tuple(present[name].shape)}"
            )
