"""The device that a flag names, and a protocol's arithmetic put in force on it."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

import torch

from segbench.core.environment import thread_count
from segbench.core.errors import BackendUnavailable, SegbenchError
from segbench.networks.blocks.fast import fast_ways

__all__ = ["choose_device", "determinism_level", "nondeterminism_as_error", "prepare_device"]

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
    """Put a protocol's arithmetic in force, whatever was before: all that computes on a device calls this.

    Args:
        device: Where.
        level: `bitwise` allows no operation that does not repeat, `none` lets cuDNN choose by a race
            (`cudnn.benchmark`) unless `SEGBENCH_FAST` names `no-benchmark`.
        tf32: Let CUDA round the inputs of float32 products and convolutions to TF32.

    Returns:
        The determinism level in force: a CPU is always bitwise.
    """
    torch.set_num_threads(thread_count())
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    level = determinism_level(level, device)
    if device.type == "cuda":
        # Read once, at the first product: a later cell of this process may be bitwise.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(level == "bitwise")
    torch.backends.cudnn.benchmark = level == "none" and "no-benchmark" not in fast_ways()
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
