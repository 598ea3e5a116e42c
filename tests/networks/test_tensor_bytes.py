"""The same weights and metadata give the same bytes in every process, and safetensors reads them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load

from segbench.core.hashing import sha256_bytes
from segbench.networks.tensor_bytes import tensor_bytes

SCRIPT = """
import torch
from segbench.core.hashing import sha256_bytes
from segbench.networks.tensor_bytes import tensor_bytes
t = {"b": torch.arange(7.0), "a": torch.ones(2, 3).t()}
print(sha256_bytes(tensor_bytes(t, {str(i): str(i) for i in range(9)})))
"""


@pytest.mark.ci
def test_bytes_are_the_same_in_other_processes() -> None:
    tensors = {"a": torch.ones(2, 3).t(), "b": torch.arange(7.0)}
    here = tensor_bytes(tensors, {str(i): str(i) for i in reversed(range(9))})
    there = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert there == [sha256_bytes(here)] * 2
    again = load(here)
    assert sorted(again) == ["a", "b"]
    assert all(torch.equal(again[name], tensors[name]) for name in again)
