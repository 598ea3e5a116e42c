"""fp16's loss scale is found, not blamed; and what `state.json` of a checkpoint says."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segbench.cards import load_protocol
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import StopRequest
from segbench.engine import trainer
from segbench.engine.checkpoint import checkpoint_folders, random_states, set_random_states
from segbench.engine.losses import SegmentationLoss
from segbench.engine.state import TrainingState
from segbench.engine.trainer import TrainingJob, train


@dataclass
class _Batch:
    step: int
    image: np.ndarray
    labels: np.ndarray
    plans: tuple = ()


def batches(first: int, last: int) -> Iterator[_Batch]:
    for step in range(first, last):
        image = np.random.default_rng(step).standard_normal((2, 1, 4, 4, 4)).astype(np.float32)
        yield _Batch(step, image, (image[:, 0] > 0.3).astype(np.uint8))


class _Steep(nn.Module):
    """A network whose gradient is `steepness` times that of what it computes, rounded to 16 bits."""

    def __init__(self, steepness: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(1, 2, 1)
        self.steepness = steepness

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        y.register_hook(lambda gradient: (gradient * self.steepness).half().float())
        return y


def job(folder: Path, told: list[str], *, steepness: float = 1.0, **more: object) -> TrainingJob:
    return TrainingJob(
        build=lambda: _Steep(steepness),
        batches=batches,
        transform=lambda image, labels, plans: (image, labels),
        loss=SegmentationLoss(),
        protocol=load_protocol("demo", {"budget.samples": 40, "train.precision": "fp16"}),
        folder=folder,
        device=torch.device("cpu"),
        stop=StopRequest(),
        on_step=lambda samples, loss, rate: None,
        warn=told.append,
        channels=2,
        checkpoint_minutes=1e9,
        **more,
    )


@pytest.fixture
def half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss scale on the CPU, as fp16 has one on CUDA; the network itself computes in float32."""
    monkeypatch.setattr(trainer, "usable_precision", lambda precision, device: precision)
    monkeypatch.setattr(trainer, "autocast", lambda precision, device: nullcontext)


def state_of(folder: Path) -> dict:
    last = checkpoint_folders(folder / "checkpoints")[-1]
    return json.loads((last / "state.json").read_text())


@pytest.mark.usefixtures("half_precision")
def test_a_loss_scale_that_is_too_large_is_found_and_nobody_is_blamed(tmp_path: Path) -> None:
    """The first steps overflow at the scale torch begins with; that is no divergence and no roll-back."""
    told: list[str] = []
    result = train(job(tmp_path, told, steepness=1e4))
    assert not result.degraded
    assert told == []
    state = state_of(tmp_path)
    assert state["non_finite"] == []
    assert 1.0 <= state["scaler"]["scale"] < 65536.0 / 2**3  # more than three updates in a row were skipped
    assert result.samples_seen == 40
    start = _Steep(1.0).state_dict()
    assert not torch.equal(result.network.state_dict()["conv.weight"], start["conv.weight"])


@pytest.mark.usefixtures("half_precision")
def test_a_gradient_that_no_scale_makes_finite_is_divergence(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(SegbenchError) as caught:
        train(
            replace(
                job(tmp_path, told, steepness=float("inf")),
                protocol=load_protocol("demo", {"budget.samples": 80, "train.precision": "fp16"}),
            )
        )
    assert caught.value.code == "SB402"
    assert sum("rolled back" in text for text in told) == 1


@pytest.mark.usefixtures("half_precision")
def test_a_loss_that_is_no_number_counts_under_a_loss_scale_too(tmp_path: Path) -> None:
    told: list[str] = []

    def poisoned(
        image: torch.Tensor, labels: torch.Tensor, plans: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return image * float("nan"), labels

    with pytest.raises(SegbenchError) as caught:
        train(replace(job(tmp_path, told), transform=poisoned))
    assert caught.value.code == "SB402"


def test_a_run_begun_without_a_loss_scale_goes_on_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun on a CPU (float32), continued where fp16 is used: the scale begins anew."""
    told: list[str] = []
    half = load_protocol("demo", {"budget.samples": 20, "train.precision": "fp16"})
    train(replace(job(tmp_path, told), protocol=half))
    assert state_of(tmp_path)["scaler"] == {}
    monkeypatch.setattr(trainer, "usable_precision", lambda precision, device: precision)
    monkeypatch.setattr(trainer, "autocast", lambda precision, device: nullcontext)
    assert train(job(tmp_path, told)).samples_seen == 40
    assert state_of(tmp_path)["scaler"]["scale"] > 0


def test_state_says_what_a_resume_goes_by(tmp_path: Path) -> None:
    told: list[str] = []
    train(job(tmp_path, told, inputs_digest="ab12", determinism="bitwise"))
    state = state_of(tmp_path)
    assert state["schema_version"] == 1
    assert (state["step"], state["samples_seen"]) == (20, 40)
    assert state["determinism"] == "bitwise"
    assert state["inputs_digest"] == "ab12"
    assert state["world_size"] == 1
    assert state["device_seconds"] == pytest.approx(state["seconds"])
    assert state["schedule"]["name"] == "poly"
    assert (state["schedule"]["lr"], state["schedule"]["steps"], state["schedule"]["batch"]) == (2e-3, 20, 2)
    assert set(state["random"]) >= {"torch_cpu", "python", "numpy"}


def test_a_resume_from_other_inputs_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    short = load_protocol("demo", {"budget.samples": 20})
    train(replace(job(tmp_path, told, inputs_digest="one"), protocol=short))
    train(job(tmp_path, told, inputs_digest="one"))
    assert told == []
    train(job(tmp_path, told, inputs_digest="two"))
    assert len(told) == 1
    assert "other inputs" in told[0]


def test_every_generator_is_put_back() -> None:
    """segbench draws from none of them; a network of another package may."""
    saved = json.loads(json.dumps(random_states()))
    drawn = (random.gauss(0, 1), np.random.standard_normal(), torch.rand(()).item())  # noqa: NPY002
    np.random.standard_normal()  # noqa: NPY002
    set_random_states(saved)
    again = (random.gauss(0, 1), np.random.standard_normal(), torch.rand(()).item())  # noqa: NPY002
    assert again == drawn


def best_of(folder: Path, told: list[str], scores: list[float]) -> TrainingJob:
    """A job that validates after steps 5, 10, 15 and 20 and gets these scores."""
    given = iter(scores)
    overrides: dict[str, object] = {
        "budget.samples": 40,
        "validation.selection": "best_validation",
        "validation.cases": "validation",
        "validation.every_samples": 10,
    }
    return replace(
        job(folder, told),
        protocol=load_protocol("demo", overrides),
        validate=lambda network: {"whole": next(given)},
    )


def test_the_best_weights_are_selected_and_checked(tmp_path: Path) -> None:
    told: list[str] = []
    result = train(best_of(tmp_path, told, [0.1, 0.7, 0.3, 0.6]))
    best = tmp_path / "checkpoints" / "best.safetensors"
    from safetensors.torch import load_file

    for name, tensor in load_file(best).items():
        assert torch.equal(tensor, result.network.state_dict()[name])
    last = checkpoint_folders(tmp_path / "checkpoints")[-1]
    assert not torch.equal(
        load_file(last / "weights.safetensors")["conv.weight"],
        result.network.state_dict()["conv.weight"],
    )
    data = bytearray(best.read_bytes())
    data[-3] ^= 1  # one bit of one weight: safetensors itself would load it
    best.write_bytes(data)
    with pytest.raises(SegbenchError) as caught:
        train(best_of(tmp_path, told, []))
    assert caught.value.code == "SB405"
    best.unlink()
    with pytest.raises(SegbenchError, match="gone or damaged"):
        train(best_of(tmp_path, told, []))


def test_the_recent_loss_forgets_the_first_steps() -> None:
    """A falling loss is judged by where it is: the mean from the start would say that nothing is learnt."""
    state = TrainingState()
    for step in range(100):
        state.count_loss(3.0 * 0.97**step)
    assert state.recent_loss is not None
    assert state.loss_sum / state.loss_steps > 0.9
    assert 3.0 * 0.97**99 < state.recent_loss < 0.4
    assert TrainingState.of(state.as_dict()) == state
