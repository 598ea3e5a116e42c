"""A checkpoint flipped or cut anywhere never loads in silence: the one before is used, or the cell stops."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segbench.core.errors import SegbenchError
from segbench.engine.checkpoint import checkpoint_folders, load_last, save_checkpoint

FILES = ("weights.safetensors", "optimiser.safetensors", "ema.safetensors", "state.json", "MANIFEST.json")
PLACES = 50


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of a small network, steps 1 and 2."""
    folder = tmp_path_factory.mktemp("sound") / "checkpoints"
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 3, 3), nn.InstanceNorm3d(3, affine=True), nn.Conv3d(3, 2, 1))
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01)
    for step in (1, 2):
        optimiser.zero_grad()
        network(torch.randn(1, 1, 6, 6, 6)).square().mean().backward()
        optimiser.step()
        ema = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        save_checkpoint(folder, network=network, optimiser=optimiser, state={"step": step}, ema=ema)
    return folder


@pytest.mark.ci
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_fifty_places_of_every_file(tmp_path: Path, saved: Path, name: str, damage: str) -> None:
    good = (saved / "step-000000002" / name).read_bytes()
    rng = np.random.default_rng(len(name))
    places = {0, len(good) - 1, *(int(i) for i in rng.integers(len(good), size=PLACES - 2))}
    for place in sorted(places):
        folder = tmp_path / str(place)
        shutil.copytree(saved, folder)
        bit = 1 << int(rng.integers(8))
        bad = (
            good[:place] if damage == "cut" else good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :]
        )
        (folder / "step-000000002" / name).write_bytes(bad)
        told: list[str] = []
        loaded = load_last(folder, warn=told.append)
        assert loaded is not None
        assert loaded.state["step"] == 1, f"{name} {damage} at {place} was loaded"
        assert len(told) == 1
        assert "SB405" in told[0] and "step-000000002" in told[0]
        assert [p.name for p in checkpoint_folders(folder)] == ["step-000000001"]
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", FILES)
def test_an_absent_file_is_a_damaged_checkpoint(tmp_path: Path, saved: Path, name: str) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for step in checkpoint_folders(folder):
        (step / name).unlink()
    told: list[str] = []
    with pytest.raises(SegbenchError) as caught:
        load_last(folder, warn=told.append)
    assert (caught.value.code, caught.value.exit_code, caught.value.path) == ("SB405", 5, folder)
    assert len(told) == 2


def test_an_empty_folder_is_a_fresh_start(tmp_path: Path) -> None:
    assert load_last(tmp_path / "checkpoints", warn=lambda text: None) is None
