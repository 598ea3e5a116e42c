"""Reads weights files: safetensors, or a plain state_dict that torch reads without unpickling objects.

There is no fallback. A file that needs objects to be rebuilt is refused (SB406), and nothing in it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from segbench.core.errors import SegbenchError

PICKLED = (".pt", ".pth", ".ckpt", ".bin")
_ADVICE = ("weights_only", "Weights only load failed", "Please file an issue", "Check the documentation")
"""Lines of torch's refusals that say what its users could do, and not what is wrong with the file."""


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
