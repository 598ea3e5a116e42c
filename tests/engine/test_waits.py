"""What makes the main thread wait for a device, counted over whole training steps and prediction windows.

Counted where Python asks torch for it, so that a CPU can count: values read back, copies that are not
asynchronous, small tensors made on the device from numbers, operations whose result has a length that only
the device knows. Each of these stops a GPU until everything queued so far is done.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from predicted_logits import predict_case
from test_training import batches, job
from torch import nn
from torch.overrides import TorchFunctionMode

from segbench.data.patches import spatial
from segbench.engine import trainer
from segbench.engine.losses import SegmentationLoss
from segbench.engine.optimiser import build_optimiser
from segbench.engine.trainer import train
from segbench.networks import build_network

READS = {"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__"}
LENGTHS = {"nonzero", "unique", "masked_select", "argwhere", "bincount", "equal", "allclose"}
MAKERS = {"tensor", "as_tensor", "asarray"}


class Waits(TorchFunctionMode):
    """Counts, by name, what would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        moves = "device" in kwargs or any(isinstance(value, torch.device | str) for value in args[1:])
        masks = [v for v in args[1:2] if isinstance(v, torch.Tensor) and v.dtype == torch.bool]
        if (
            name in READS | LENGTHS
            or (name in MAKERS and kwargs.get("device") is not None)
            or (name == "to" and moves and not kwargs.get("non_blocking") and not _asked_by_torch())
            or (name in {"__getitem__", "__setitem__"} and masks)
        ):
            self.seen[name] += 1
        return func(*args, **kwargs)


def _asked_by_torch() -> bool:
    """Whether torch's own Python moves a tensor: on one device to where it is, as `clip_grad_norm_` does."""
    return f"{os.sep}torch{os.sep}" in sys._getframe(2).f_code.co_filename


def steps(folder: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch, **settings: object) -> Counter:
    """What three steps wait for, after one that fills caches, on the way that a GPU takes."""
    waits = Waits()
    real = trainer._Run._step

    def watched(run: Any, batch: Any) -> bool:
        if run.state.step == 0:
            return real(run, batch)
        with waits:
            return real(run, batch)

    def fused(network: nn.Module, settings: Any) -> torch.optim.Optimizer:
        optimiser = build_optimiser(network, settings)  # one kernel for all parameters, as on CUDA
        for group in optimiser.param_groups:
            group["fused"], group["foreach"] = True, False
        return optimiser

    monkeypatch.setenv("SEGBENCH_SCAN", "torch")
    monkeypatch.setattr(trainer._Run, "_step", watched)
    monkeypatch.setattr(trainer, "build_optimiser", fused)
    begun = replace(
        job(folder, **{"budget.samples": 8, "train.ema_decay": 0.9, **settings}),
        build=lambda: network,
        loss=SegmentationLoss(regions=((1,), (1,))),
        batches=lambda first, last: large(batches(first, last)),
    )
    train(begun)
    return waits.seen


def large(some: Any) -> Any:
    """The same batches in volumes that the networks take."""
    for batch in some:
        image = torch.as_tensor(batch.image).repeat(1, 1, 6, 6, 6)[..., :32, :32, :32]
        labels = torch.as_tensor(batch.labels).repeat(1, 6, 6, 6)[..., :32, :32, :32]
        batch.image, batch.labels = image.contiguous(), labels.contiguous()
        yield batch


@pytest.mark.ci
@pytest.mark.parametrize(
    ("slug", "settings"),
    [("nnunet-tiny", {"optimiser.name": "sgd"}), ("segmamba-v2-tiny", {"train.accumulate": 2})],
)
def test_a_step_waits_once(
    slug: str, settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_network(slug, 1, 2)
    assert steps(tmp_path, network, monkeypatch, **settings) == {"tolist": 3}


class Reading(nn.Module):
    """A network with one line too many."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self.conv, self.line = nn.Conv3d(1, 2, 1), line

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        exec(self.line)
        return self.conv(x)


@pytest.mark.parametrize(
    "line",
    [
        "x.sum().item()",
        "float(x.mean())",
        "assert bool((x == x).all())",
        "x.max().cpu()",
        "torch.tensor([1.0], device=x.device)",
        "torch.ones(1).to(x.device)",
        "x[x > 0]",
        "x[0, 0, 0, 0].tolist()",
    ],
)
def test_one_wait_more_is_found(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(steps(tmp_path, Reading(line), monkeypatch).values()) == 6


def test_more_windows_wait_no_more_often() -> None:
    network = nn.Conv3d(1, 2, 3, padding=1).eval()
    seen = []
    for width in (16, 64):
        waits = Waits()
        with waits:
            predict_case(
                network,
                torch.randn(1, 20, 16, width),
                patch=(16, 16, 16),
                num_outputs=2,
                mirror_axes=("z", "x"),
            )
        seen.append(waits.seen)
    assert seen[0] == seen[1]
    assert not seen[0]["item"]


def test_augmentation_on_a_device_waits_once_for_the_labels_of_a_turned_sample() -> None:
    """Which voxels lie between classes only the device knows; nothing else is waited for."""
    labels = torch.zeros(8, 8, 8, dtype=torch.uint8)
    labels[2:5, 3:6, 1:4] = 1
    matrix, size = [[0.9, 0.1, 0.0], [-0.1, 0.9, 0.0], [0.0, 0.0, 1.1]], (6, 6, 6)
    spatial._labels_on_device(labels, matrix, size, 0)  # fills caches
    waits = Waits()
    with waits:
        spatial._labels_on_device(labels, matrix, size, 0)
        spatial._grid(matrix, labels.shape, size, labels.device)
    assert waits.seen == {"nonzero": 1}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_step_on_a_device_waits_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same by torch's own word: with its debug mode every wait is a warning."""
    real, waits = trainer._Run._step, []

    def watched(run: Any, batch: Any) -> bool:
        if run.state.step == 0:
            return real(run, batch)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                result = real(run, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits.append([str(each.message) for each in seen if "synchroniz" in str(each.message)])
        return result

    monkeypatch.setattr(trainer._Run, "_step", watched)
    begun = replace(
        job(tmp_path, **{"budget.samples": 8, "train.ema_decay": 0.9}),
        device=torch.device("cuda"),
        build=lambda: build_network("segmamba-v2-tiny", 1, 2),
        loss=SegmentationLoss(regions=((1,), (1,))),
        batches=lambda first, last: large(batches(first, last)),
        transform=lambda images, labels, plans: (torch.stack(list(images)), torch.stack(list(labels))),
    )
    train(begun)
    assert [len(each) for each in waits] == [1] * 3, waits
