"""Losses against float64 formulas and MONAI, schedules, checkpoints, and the loop's promises."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segbench.cards import load_protocol
from segbench.cards.protocol import OptimiserSection, ScheduleSection
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import StopRequest
from segbench.engine.checkpoint import checkpoint_folders, load_last
from segbench.engine.losses import SegmentationLoss, constant_predictor_loss
from segbench.engine.optimiser import build_optimiser, learning_rate
from segbench.engine.trainer import TrainingJob, train


def tensors(seed: int = 0, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 6, 7, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (2, 5, 6, 7), generator=generator)


def test_softmax_loss_equals_a_float64_formula() -> None:
    logits, labels = tensors()
    p = np.exp(logits.numpy())
    p /= p.sum(1, keepdims=True)
    y = np.stack([(labels.numpy() == k) for k in range(4)], axis=1).astype(float)
    ce = -(np.log(p) * y).sum(1).mean()
    overlap, size = (p * y).sum((0, 2, 3, 4)), (p + y).sum((0, 2, 3, 4))
    dice = ((2 * overlap + 1e-5) / (size + 1e-5))[1:].mean()
    assert float(SegmentationLoss()(logits, labels)) == pytest.approx(ce + 1 - dice, rel=1e-6)


def test_softmax_loss_equals_monai() -> None:
    from monai.losses import DiceCELoss

    logits, labels = tensors(1)
    peer = DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5
    )
    assert float(SegmentationLoss()(logits, labels)) == pytest.approx(
        float(peer(logits.float(), labels[:, None])), rel=1e-5
    )


def test_region_loss_and_ignored_voxels() -> None:
    logits, labels = tensors(2, classes=3)
    regions = ((1, 2), (2,))
    loss = SegmentationLoss(regions=regions, ignore_class=3)
    kept = loss(logits[:, :2], labels)
    other, marked = logits.clone(), labels.clone()
    marked[0, 0] = 3
    other[0, :, 0] = 37.0  # whatever stands where the label is ignored does not matter
    assert float(loss(other[:, :2], marked)) == float(loss(logits[:, :2], marked))
    assert float(kept) != float(loss(logits[:, :2], marked))
    target = torch.stack([torch.isin(labels, torch.tensor(r)).double() for r in regions], dim=1)
    bce = nn.functional.binary_cross_entropy_with_logits(logits[:, :2], target)
    assert float(
        SegmentationLoss(regions=regions, terms={"ce": 1.0})(logits[:, :2], labels)
    ) == pytest.approx(float(bce), rel=1e-6)


def test_deep_supervision_weighs_by_halves_and_drops_the_lowest() -> None:
    logits, labels = tensors(3)
    loss = SegmentationLoss()
    small = logits[:, :, ::2, ::2, ::2]
    whole = loss([logits, small, small[:, :, :1, :1, :1]], labels)
    shrunk = nn.functional.interpolate(labels[:, None].float(), size=small.shape[2:], mode="nearest-exact")[
        :, 0
    ].long()
    assert float(whole) == pytest.approx(
        (float(loss(logits, labels)) + 0.5 * float(loss(small, shrunk))) / 1.5, rel=1e-6
    )


def test_no_constant_beats_the_constant_predictor() -> None:
    _, labels = tensors(4)
    loss = SegmentationLoss(terms={"ce": 1.0})
    best = constant_predictor_loss(loss, labels, 4)
    for seed in range(20):
        constant = torch.randn(4, generator=torch.Generator().manual_seed(seed))
        view = constant.view(1, 4, 1, 1, 1).expand(2, 4, 5, 6, 7)
        assert float(loss(view, labels)) >= best - 1e-6


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (ScheduleSection(name="poly", power=0.9), {0.0: 1.0, 0.5: 0.5**0.9, 1.0: 0.0}),
        (
            ScheduleSection(name="cosine", warmup_fraction=0.1),
            {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.55: 0.5, 1.0: 0.0},
        ),
        (ScheduleSection(name="constant"), {0.0: 1.0, 0.7: 1.0, 1.0: 1.0}),
    ],
)
def test_schedules(schedule: ScheduleSection, points: dict[float, float]) -> None:
    for fraction, rate in points.items():
        assert learning_rate(1.0, schedule, fraction) == pytest.approx(rate, abs=1e-12)


def test_marked_parameters_do_not_decay() -> None:
    network = nn.Linear(3, 3)
    network.bias._no_weight_decay = True  # type: ignore[attr-defined]
    optimiser = build_optimiser(network, OptimiserSection(name="adamw", lr=0.1, weight_decay=0.5))
    decay = {id(p): g["weight_decay"] for g in optimiser.param_groups for p in g["params"]}
    assert decay[id(network.bias)] == 0.0
    assert decay[id(network.weight)] == 0.5


@dataclass
class _Batch:
    step: int
    image: np.ndarray
    labels: np.ndarray
    plans: tuple = ()


def batches(first: int, last: int) -> Iterator[_Batch]:
    """Batch t is a function of t alone."""
    for step in range(first, last):
        rng = np.random.default_rng(step)
        image = rng.standard_normal((2, 1, 6, 6, 6)).astype(np.float32)
        yield _Batch(step, image, (image[:, 0] > 0.3).astype(np.uint8))


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv3d(1, 4, 3, padding=1)
        self.b = nn.Conv3d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)))


def build() -> nn.Module:
    torch.manual_seed(0)
    return _Net()


def job(
    folder: Path, *, stop: StopRequest | None = None, warn: list[str] | None = None, **overrides: object
) -> TrainingJob:
    settings = {"budget.samples": 40, "optimiser.name": "adamw", "optimiser.lr": 0.01, **overrides}
    told = [] if warn is None else warn
    return TrainingJob(
        build=build,
        batches=batches,
        transform=lambda image, labels, plans: (image, labels),
        loss=SegmentationLoss(),
        protocol=load_protocol("demo", settings),
        folder=folder,
        device=torch.device("cpu"),
        stop=stop or StopRequest(),
        on_step=lambda samples, loss, rate: None,
        warn=told.append,
        channels=2,
        checkpoint_minutes=1e9,
    )


def weights(network: nn.Module) -> list[torch.Tensor]:
    return list(network.state_dict().values())


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_stopped_and_resumed_equals_undisturbed(tmp_path: Path, optimiser: str) -> None:
    whole = train(job(tmp_path / "a", **{"optimiser.name": optimiser}))
    stop = StopRequest()
    halted = job(tmp_path / "b", stop=stop, **{"optimiser.name": optimiser})

    def stop_at_seven(samples: int, loss: float, rate: float) -> None:
        if samples == 14:
            stop.number = 15

    from dataclasses import replace

    from segbench.core.interrupt import Interrupted

    with pytest.raises(Interrupted):
        train(replace(halted, on_step=stop_at_seven))
    stop.number = None
    again = train(halted)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole.network), weights(again.network), strict=True))
    rows = [[json.loads(x) for x in (tmp_path / f / "epochs.jsonl").read_text().splitlines()] for f in "ab"]
    assert [{**r, "seconds": 0} for r in rows[0]] == [{**r, "seconds": 0} for r in rows[1]]


class WithScan(nn.Conv3d):
    """A network with a selective scan in it."""

    backend = "auto"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        from segbench.networks.scan import selective_scan

        x_BDL = super().forward(input).flatten(2)
        A, flat = -torch.ones(x_BDL.shape[1], 1), x_BDL[:, :1]
        return selective_scan(x_BDL, x_BDL, A, flat, flat, None, None, None, True).view(
            *x_BDL.shape[:2], *input.shape[2:]
        )


def test_a_resumed_training_keeps_its_scan_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from segbench.core.interrupt import Interrupted

    stop, told = StopRequest(), list[str]()
    begun = job(tmp_path, stop=stop, warn=told)
    channels = begun.build()(torch.zeros(1, 1, 6, 6, 6)).shape[1]
    begun = replace(begun, build=lambda: WithScan(1, channels, 1))

    def stop_now(samples: int, loss: float, rate: float) -> None:
        stop.number = 15

    monkeypatch.setenv("SEGBENCH_SCAN", "torch")
    with pytest.raises(Interrupted):
        train(replace(begun, on_step=stop_now))
    monkeypatch.delenv("SEGBENCH_SCAN")
    stop.number = None
    assert (train(begun).scans, told) == ({"torch"}, [])
    monkeypatch.setenv("SEGBENCH_SCAN", "reference")
    assert train(replace(begun, on_step=stop_now)).scans == frozenset()  # the budget is used up
    assert told == ["begun with the scan backend torch, resumed with reference: sums round otherwise"]


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path: Path) -> None:
    from dataclasses import replace

    done = train(replace(job(tmp_path), checkpoint_minutes=0))
    last = checkpoint_folders(tmp_path / "checkpoints")[-1]
    data = bytearray((last / "weights.safetensors").read_bytes())
    data[-5] ^= 1
    (last / "weights.safetensors").write_bytes(data)
    told: list[str] = []
    again = train(job(tmp_path, warn=told))
    assert "SB405" in told[0]
    assert (tmp_path / "checkpoints" / f"corrupt-{last.name}").is_dir()
    assert all(torch.equal(a, b) for a, b in zip(weights(done.network), weights(again.network), strict=True))


@pytest.mark.ci
@pytest.mark.parametrize(
    "name", ["weights.safetensors", "optimiser.safetensors", "state.json", "MANIFEST.json"]
)
def test_no_flipped_or_cut_checkpoint_loads(tmp_path: Path, name: str) -> None:
    train(job(tmp_path))
    (folder,) = checkpoint_folders(tmp_path / "checkpoints")
    good = (folder / name).read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(12):
        offset = int(rng.integers(len(good)))
        bad = (
            good[:offset] if trial % 2 else good[:offset] + bytes([good[offset] ^ 0xFF]) + good[offset + 1 :]
        )
        (folder / name).write_bytes(bad)
        with pytest.raises(SegbenchError) as caught:
            load_last(tmp_path / "checkpoints", warn=lambda text: None)
        assert caught.value.code == "SB405"
        (tmp_path / "checkpoints" / f"corrupt-{folder.name}").rename(folder)
        (folder / name).write_bytes(good)
    assert load_last(tmp_path / "checkpoints", warn=lambda text: None) is not None


def test_non_finite_steps_roll_back_once_and_then_fail(tmp_path: Path) -> None:
    from dataclasses import replace

    told: list[str] = []

    def poisoned(
        image: torch.Tensor, labels: torch.Tensor, plans: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return image * float("nan"), labels

    with pytest.raises(SegbenchError) as caught:
        train(replace(job(tmp_path, warn=told), transform=poisoned))
    assert caught.value.code == "SB402"
    assert sum("rolled back" in text for text in told) == 1
    assert sum("update skipped" in text for text in told) >= 4


def test_one_bad_step_is_skipped_and_the_run_is_not_degraded(tmp_path: Path) -> None:
    from dataclasses import replace

    calls = iter(range(1000))

    def once(image: torch.Tensor, labels: torch.Tensor, plans: object) -> tuple[torch.Tensor, torch.Tensor]:
        return (image * float("nan") if next(calls) == 5 else image), labels

    told: list[str] = []
    result = train(replace(job(tmp_path, warn=told), transform=once))
    assert not result.degraded
    assert result.samples_seen == 40
    assert len(told) == 1
    assert all(bool(torch.isfinite(w).all()) for w in weights(result.network))


def test_out_of_memory_is_a_result(tmp_path: Path) -> None:
    from dataclasses import replace

    def exhausted(
        image: torch.Tensor, labels: torch.Tensor, plans: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        raise torch.OutOfMemoryError("no more")

    with pytest.raises(SegbenchError) as caught:
        train(replace(job(tmp_path), transform=exhausted))
    assert caught.value.code == "SB504"


def test_accumulation_without_batch_dice_gives_the_same_step(tmp_path: Path) -> None:
    from dataclasses import replace

    loss = SegmentationLoss(batch_dice=False)
    one = train(replace(job(tmp_path / "a"), loss=loss))
    two = train(replace(job(tmp_path / "b", **{"train.accumulate": 2}), loss=loss))
    for a, b in zip(weights(one.network), weights(two.network), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_average_of_weights_is_kept_and_selected(tmp_path: Path) -> None:
    plain = train(job(tmp_path / "a"))
    averaged = train(job(tmp_path / "b", **{"train.ema_decay": 0.5, "validation.selection": "ema"}))
    assert not all(
        torch.equal(a, b) for a, b in zip(weights(plain.network), weights(averaged.network), strict=True)
    )
    assert (averaged.checkpoint / "ema.safetensors").is_file()
    assert math.isfinite(sum(float(w.sum()) for w in weights(averaged.network)))


def test_a_signal_in_validation_leaves_a_checkpoint_and_the_validation_is_made_up(tmp_path: Path) -> None:
    from dataclasses import replace

    from segbench.core.interrupt import Interrupted

    rules = {"validation.every_samples": 10, "validation.cases": "validation"}
    plain = replace(job(tmp_path / "a", **rules), validate=lambda network: {"WT": 0.5})
    train(plain)
    calls: list[int] = []

    def interrupted_once(network: nn.Module) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted(15)
        return {"WT": 0.5}

    halted = replace(job(tmp_path / "b", **rules), validate=interrupted_once)
    with pytest.raises(Interrupted):
        train(halted)
    assert [f.name for f in checkpoint_folders(tmp_path / "b" / "checkpoints")][-1] == "step-000000010"
    train(halted)
    rows = [[json.loads(x) for x in (tmp_path / f / "epochs.jsonl").read_text().splitlines()] for f in "ab"]
    assert [{**r, "seconds": 0} for r in rows[0]] == [{**r, "seconds": 0} for r in rows[1]]
    assert sum("validation" in r for r in rows[1]) == 4


def test_warm_up_in_samples_is_a_share_of_the_budget(tmp_path: Path) -> None:
    from dataclasses import replace

    rates: list[float] = []
    rules = {"budget.warmup_samples": 20, "schedule.name": "constant"}
    train(replace(job(tmp_path, **rules), on_step=lambda samples, loss, rate: rates.append(rate)))
    assert rates[:3] == pytest.approx([0.0, 0.001, 0.002])
    assert rates[10:] == [0.01] * 10


def test_a_batch_that_cannot_be_accumulated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError) as caught:
        train(job(tmp_path, **{"train.accumulate": 3}))
    assert caught.value.code == "SB104"


def test_checkpointing_gives_the_same_weights(tmp_path: Path) -> None:
    plain = train(job(tmp_path / "a"))
    saving = train(job(tmp_path / "b", **{"train.checkpointing": True}))
    assert all(
        torch.equal(a, b) for a, b in zip(weights(plain.network), weights(saving.network), strict=True)
    )
