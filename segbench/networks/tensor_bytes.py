"""Tensors as a safetensors document whose bytes depend on its content alone.

The safetensors library writes the metadata of the header in the order of a hash map, so the same weights
give other bytes in every process. Digests of weights are part of our records: the header is written again
with sorted keys. The payload is untouched.

Source: the format is described in huggingface/safetensors README (8 bytes of length, JSON header, payload).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

_ALIGNMENT = 8


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The document of tensors (copied to the CPU, contiguous) and metadata; equal content, equal bytes."""
    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    data = save(plain, metadata=dict(metadata) if metadata else None)  # an empty mapping breaks its header
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join((struct.pack("<Q", len(text)), text, memoryview(data)[8 + length :]))
