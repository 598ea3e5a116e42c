"""The device that a flag names, and a protocol's arithmetic put in force on it."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

import torch

from segbench.core.environment import thread_count
from segbench.core.errors import BackendUnavailable, SegbenchError
from segbench.engine.precision import allow_tf32

__all__ = [
    "choose_device",
    "determinism_level",
    "nondeterminism_as_error",
    "prepare_device",
    "set_determinism",
]

_NOT_DETERMINISTIC = "does not have a deterministic implementation"


def choose_device(name: str) -> torch.device:
    """The device for a flag: "auto" takes CUDA where there is one.

    Raises:
        BackendUnavailable: SB502 when CUDA is asked for and not there.
    """
    if name not in {"auto", "cpu", "cuda"}:
        raise BackendUnavailable(f"device '{name}' is not known", mend="use --device auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("no CUDA device can be used here", mend="use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def prepare_device(device: torch.device, *, level: str, tf32: bool) -> str:
    """Put a protocol's arithmetic in force, for training and prediction alike; the determinism level."""
    allow_tf32(tf32)
    return set_determinism(level, device)


def set_determinism(level: str, device: torch.device) -> str:
    """Put the determinism level in force and say which one it is; a CPU is always bitwise."""
    torch.set_num_threads(thread_count())
    level = determinism_level(level, device)
    if level == "bitwise":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=False)
        torch.backends.cudnn.benchmark = False
    elif level == "none":
        torch.backends.cudnn.benchmark = True
    return level


@contextmanager
def nondeterminism_as_error() -> Generator[None]:
    """Context in which an operation that the level `bitwise` does not allow is an error with a way out.

    Raises:
        SegbenchError: SB104.
    """
    try:
        yield
    except RuntimeError as error:
        if _NOT_DETERMINISTIC not in str(error):
            raise
        operation = str(error).partition(_NOT_DETERMINISTIC)[0].strip()
        raise SegbenchError(
            "SB104",
            f"determinism.level = bitwise: {operation} has no deterministic form on this device",
            mend="--set determinism.level=seeded",
        ) from error


def determinism_level(level: str, device: torch.device) -> str:
    """The level in force on a device: a CPU is always bitwise."""
    return "bitwise" if device.type == "cpu" else level
