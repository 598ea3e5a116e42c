"""Several ranks share a batch: one loss, one trajectory, one writer."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from time import monotonic

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from segbench.cards import load_protocol
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.engine import ranks as engine_ranks
from segbench.engine.losses import SegmentationLoss
from segbench.engine.ranks import ALONE, Ranks, process_group
from segbench.engine.trainer import TrainingJob, train
from segbench.runs.ranks import _left_alone

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


ENDINGS = [
    RuntimeError("of one rank"),
    SegbenchError("SB504", "out of memory"),
    Interrupted(15),
    KeyboardInterrupt(),
    SystemExit(3),
]
"""What a rank may end with, besides what it was to do."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def as_torchrun_says(rank: int, world: int, port: int) -> dict[str, str]:
    """The variables of one rank."""
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip


def _one_rank(rank: int, world: int, ports: list[int], folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= as_torchrun_says(rank, world, ports[0])
    found = {}
    with process_group(on_cuda=False):
        for name, (overrides, batch_dice) in CASES.items():
            losses: list[float] = []
            result = train(job(Path(folder) / name, Ranks(rank, world), losses, overrides, batch_dice))
            weights = {key: value.clone() for key, value in result.network.state_dict().items()}
            found[name] = {"losses": losses, "weights": weights}
        found["dropout"] = [
            _dropping(Path(folder) / f"dropout-{stopped}", rank, stopped) for stopped in (0, 1)
        ]
    found["left"] = [("", "", dist.is_initialized())]
    found["left"] += [_left(rank, world, *each) for each in zip(ports[1:], ENDINGS, strict=True)]
    torch.save(found, Path(folder) / f"rank-{rank}.pt")


def _left(rank: int, world: int, port: int, ending: BaseException) -> tuple[str, str, bool]:
    """How a rank ended when the last one failed and the first waited; whether the group is still there."""
    os.environ |= as_torchrun_says(rank, world, port)
    try:
        with process_group(on_cuda=False):
            if rank == world - 1:
                raise ending
            dist.all_reduce(torch.ones(1))
    except BaseException as error:
        alone = isinstance(error, Exception) and _left_alone(error)
        return type(error).__name__, "left alone" if alone else str(error), dist.is_initialized()
    return "nothing", "", dist.is_initialized()


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


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two ranks trained, resumed, and were left in every way."""
    folder = tmp_path_factory.mktemp("ranks")
    ports = free_ports(1 + len(ENDINGS))
    mp.start_processes(_one_rank, (2, ports, str(folder)), nprocs=2, start_method="spawn")
    return folder


@pytest.fixture
def two_ranks(together: Path) -> list[dict]:
    """What each of them found."""
    return [torch.load(together / f"rank-{rank}.pt") for rank in range(2)]


@pytest.mark.ci
def test_two_ranks_give_the_numbers_of_one_and_resume_with_their_own_random_states(
    together: Path, two_ranks: list[dict], tmp_path: Path
) -> None:
    ranks = two_ranks
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
        assert len(list((together / name / "checkpoints").glob("step-*"))) == 1

    whole, resumed = zip(*(found["dropout"] for found in ranks), strict=True)
    assert not torch.equal(whole[0]["draw"], whole[1]["draw"])
    for rank in range(2):
        for key, value in whole[rank].items():
            assert torch.equal(resumed[rank][key], value), (rank, key)


@pytest.mark.ci
def test_the_group_is_left_on_every_way_out_and_nobody_waits_for_ever(two_ranks: list[dict]) -> None:
    first, last = (rank["left"] for rank in two_ranks)
    assert not any(there for _, _, there in first + last)
    assert [name for name, _, _ in last[1:]] == [type(ending).__name__ for ending in ENDINGS]
    # The first waited for a share that never came: it ends too, and is not the cause.
    assert [(name, why) for name, why, _ in first[1:]] == [("RuntimeError", "left alone")] * len(ENDINGS)


@pytest.mark.ci
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: type(ending).__name__)
def test_a_group_that_cannot_be_left_does_not_keep_a_failed_rank(
    ending: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, at_the_end, begun = Event(), [], monotonic()
    for name, value in as_torchrun_says(1, 2, 0).items():
        monkeypatch.setenv(name, value)
    said = []
    monkeypatch.setattr(dist, "init_process_group", lambda *given, **named: said.append((given, named)))
    monkeypatch.setattr(dist, "destroy_process_group", kept.wait)  # as NCCL, while the others still wait
    monkeypatch.setattr(torch.cuda, "set_device", said.append)
    monkeypatch.setattr(engine_ranks, "LEAVE_S", 0.05)
    monkeypatch.setattr(engine_ranks.atexit, "register", lambda *given: at_the_end.append(given))
    with pytest.raises(type(ending)) as caught, process_group(on_cuda=True) as device:
        assert said == [device, (("nccl",), {"timeout": None, "device_id": device})]
        raise ending
    kept.set()
    assert caught.value is ending
    assert monotonic() - begun < 5
    assert at_the_end == [(os._exit, 1)]
    assert said[2:] == [device] == [torch.device("cuda", 1)]  # the thread that leaves begins elsewhere


def test_a_batch_smaller_than_the_ranks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError) as caught:
        train(replace(job(tmp_path, ALONE, [], {"sampling.batch_size": 1}, True), ranks=Ranks(0, 2)))
    assert caught.value.code == "SB104"
