"""The final weights are a link to the last checkpoint; making them again leaves nothing beside."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import nn

from segbench.runs.train import keep_final


def test_linking_twice_leaves_one_name(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "step-000000002"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights.safetensors").write_bytes(b"weights")
    protocol = SimpleNamespace(validation=SimpleNamespace(selection="last"))
    context: Any = SimpleNamespace(folder=tmp_path, protocol=protocol)
    for _ in range(2):  # the second time as after a kill between these weights and the stage's file
        final = keep_final(context, nn.Identity(), checkpoint, {})
        assert final.read_bytes() == b"weights"
        assert sorted(p.name for p in final.parent.iterdir()) == ["final.safetensors", "step-000000002"]
