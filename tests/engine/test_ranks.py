"""Several ranks share a batch: one loss, one trajectory, one writer."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from segbench.cards import load_protocol
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.engine.losses import SegmentationLoss
from segbench.engine.ranks import ALONE, Ranks
from segbench.engine.trainer import TrainingJob, train

BATCH = 4


@dataclass
class _Batch:
    step: int
    image: np.ndarray
    labels: np.ndarray
    plans: tuple = ()


def batches(ranks: Ranks):
    """This rank's share of batches that are functions of their step."""

    def some(first: int, last: int):
        for step in range(first, last):
            rng = np.random.default_rng(step)
            image = rng.standard_normal((BATCH, 1, 6, 6, 6)).astype(np.float32)
            labels = (image[:, 0] > rng.uniform(-0.5, 1.0, (BATCH, 1, 1, 1))).astype(np.uint8)
            labels[:, 0, 0] = 2  # ignored, in equal numbers nowhere
            labels[0, :3] = 2
            mine = slice(ranks.rank, None, ranks.world)
            yield _Batch(step, image[mine], labels[mine])

    return some


def build_dropping() -> nn.Module:
    """A network that draws in training; every rank draws otherwise."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv3d(4, 2, 1))
    torch.manual_seed(7 + dist.get_rank())
    return network


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 1))


def job(folder: Path, ranks: Ranks, losses: list[float], overrides: dict, batch_dice: bool) -> TrainingJob:
    settings = {
        "sampling.batch_size": BATCH,
        "budget.samples": 12,
        "optimiser.name": "sgd",
        "optimiser.lr": 0.05,
        **overrides,
    }
    return TrainingJob(
        build=build,
        batches=batches(ranks),
        transform=lambda image, labels, plans: (image, labels),
        loss=SegmentationLoss(ignore_class=2, batch_dice=batch_dice),
        protocol=load_protocol("demo", settings),
        folder=folder,
        device=torch.device("cpu"),
        stop=StopRequest(),
        on_step=lambda samples, loss, rate: losses.append(loss),
        warn=lambda text: None,
        channels=2,
        checkpoint_minutes=1e9,
        ranks=ranks,
    )


CASES = {
    "dice over the batch": ({}, True),
    "dice per sample, accumulated": ({"train.accumulate": 2, "train.checkpointing": True}, False),
}


def _one_rank(rank: int, world: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    found = {}
    for name, (overrides, batch_dice) in CASES.items():
        losses: list[float] = []
        result = train(job(Path(folder) / name, Ranks(rank, world), losses, overrides, batch_dice))
        weights = {key: value.clone() for key, value in result.network.state_dict().items()}
        found[name] = {"losses": losses, "weights": weights}
    found["dropout"] = [_dropping(Path(folder) / f"dropout-{stopped}", rank, stopped) for stopped in (0, 1)]
    torch.save(found, Path(folder) / f"rank-{rank}.pt")
    dist.destroy_process_group()


def _dropping(folder: Path, rank: int, stopped: int) -> dict[str, torch.Tensor]:
    """Weights and next draw after a training, or after one that rank 1 stops after its first step."""
    begun = replace(job(folder, Ranks(rank, 2), [], {}, True), build=build_dropping)

    def stop_now(samples: int, loss: float, rate: float) -> None:
        begun.stop.number = 15 if rank else None

    if stopped:
        with pytest.raises(Interrupted):
            train(replace(begun, on_step=stop_now))
        begun.stop.number = None
        torch.manual_seed(99)
    return {**train(begun).network.state_dict(), "draw": torch.rand(3)}


@pytest.mark.ci
def test_two_ranks_give_the_numbers_of_one_and_resume_with_their_own_random_states(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_one_rank, (2, port, str(tmp_path)), nprocs=2, start_method="spawn")
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2)]
    for name, (overrides, batch_dice) in CASES.items():
        losses: list[float] = []
        whole = train(
            job(tmp_path / f"{name} alone", ALONE, losses, overrides, batch_dice)
        ).network.state_dict()
        first, second = ranks[0][name], ranks[1][name]
        assert len(losses) == 3
        np.testing.assert_allclose(first["losses"], losses, rtol=1e-6)
        assert first["losses"] == second["losses"]
        for key, value in whole.items():
            torch.testing.assert_close(first["weights"][key], value, rtol=1e-6, atol=1e-8)
            assert torch.equal(first["weights"][key], second["weights"][key])
        assert len(list((tmp_path / name / "checkpoints").glob("step-*"))) == 1

    whole, resumed = zip(*(found["dropout"] for found in ranks), strict=True)
    assert not torch.equal(whole[0]["draw"], whole[1]["draw"])
    for rank in range(2):
        for key, value in whole[rank].items():
            assert torch.equal(resumed[rank][key], value), (rank, key)


def test_a_batch_smaller_than_the_ranks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError) as caught:
        train(replace(job(tmp_path, ALONE, [], {"sampling.batch_size": 1}, True), ranks=Ranks(0, 2)))
    assert caught.value.code == "SB104"
