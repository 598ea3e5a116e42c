"""Which arithmetic a device is asked for: 16-bit autocast where it is fast, float32 everywhere else.

A CPU always computes in float32, in training and in prediction alike: its 16-bit kernels are slower and would
make the same protocol give other numbers there for no gain.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]


def usable_precision(precision: Precision, device: torch.device) -> Precision:
    """The precision in force on a device for a protocol's word: fp32 on a CPU or without bf16 units."""
    if device.type != "cuda":
        return "fp32"
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp32"
    return precision


def precision_note(precision: Precision, device: torch.device) -> str | None:
    """What to say where a device does not compute in the precision that the protocol asks for."""
    if device.type != "cuda" or usable_precision(precision, device) == precision:
        return None
    card = torch.cuda.get_device_name(device)
    return (
        f"warning[SB502]: {card} has no {precision} units: float32 is used, with twice the memory and no "
        "tensor cores; --set train.precision=fp16 uses them"
    )


def autocast(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """A maker of contexts in which a network runs in a precision."""
    if precision == "fp32":
        return nullcontext
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return lambda: torch.autocast(device.type, dtype=dtype)
