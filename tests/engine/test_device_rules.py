"""What the engine does for a device, held on a CPU where it can be: no hidden waits, errors, copies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from predicted_logits import predict_case, predict_logits
from test_training import batches, build, job, weights
from torch import nn

import segbench
from segbench.cards import load_protocol
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.engine import precision, predictor
from segbench.engine.checkpoint import load_last, restore, save_checkpoint
from segbench.engine.device import nondeterminism_as_error, prepare_device
from segbench.engine.losses import SegmentationLoss
from segbench.engine.memory import is_out_of_memory, oom_as_error
from segbench.engine.optimiser import build_optimiser
from segbench.engine.trainer import train

CPU = torch.device("cpu")
WORDS = [
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory",
    "not enough memory: you tried to allocate 1 bytes",
]


@pytest.mark.parametrize("words", WORDS)
def test_every_way_of_saying_it_is_out_of_memory(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    with pytest.raises(SegbenchError) as caught, oom_as_error(CPU):
        raise RuntimeError(words)
    assert caught.value.code == "SB504"


def test_other_errors_stay_what_they_are() -> None:
    assert not is_out_of_memory(RuntimeError("an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal"), oom_as_error(CPU), nondeterminism_as_error():
        raise RuntimeError("an illegal memory access was encountered")


def test_an_operation_that_bitwise_does_not_allow_is_named_with_the_way_out() -> None:
    with pytest.raises(SegbenchError) as caught, nondeterminism_as_error():
        raise RuntimeError(
            "avg_pool3d_backward_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'."
        )
    assert caught.value.code == "SB104"
    assert "avg_pool3d_backward_cuda" in caught.value.message
    assert "determinism.level=seeded" in caught.value.mend


@pytest.fixture
def flags() -> Iterator[Callable[[], tuple[bool, ...]]]:
    """What decides a device's arithmetic: TF32 twice, cuDNN's race, determinism; put back afterwards."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def now() -> tuple[bool, ...]:
        deterministic = torch.are_deterministic_algorithms_enabled()
        return cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, deterministic

    before = now()
    yield now
    cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before[:3]
    torch.use_deterministic_algorithms(before[3])


def test_all_of_a_protocols_arithmetic_is_put_in_force_whatever_was_before(
    flags: Callable[[], tuple[bool, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    expected = {
        ("none", True): (True, True, True, False),
        ("bitwise", False): (False, False, False, True),
        ("seeded", True): (True, True, False, False),
        ("none", False): (False, False, True, False),
    }
    for (level, tf32), found in expected.items():
        assert prepare_device(torch.device("cuda"), level=level, tf32=tf32) == level
        assert flags() == found
        # cuBLAS reads it once, at the first product, which may be of an earlier level.
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert prepare_device(CPU, level="none", tf32=True) == "bitwise"
    assert flags() == (True, True, False, True)


@pytest.mark.parametrize("level", ["none", "seeded", "bitwise"])
def test_no_benchmark_keeps_cudnn_from_a_race_and_moves_nothing_else(
    level: str, flags: Callable[[], tuple[bool, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for ways in ("", "inert-bias", "no-benchmark", "inert-bias,no-benchmark"):
        monkeypatch.setenv("SEGBENCH_FAST", ways)
        assert prepare_device(torch.device("cuda"), level=level, tf32=True) == level
        found.append(flags())
    tf32_twice, deterministic = (True, True), level == "bitwise"
    assert found[:2] == [(*tf32_twice, level == "none", deterministic)] * 2
    assert found[2:] == [(*tf32_twice, False, deterministic)] * 2


def test_nobody_else_sets_what_decides_a_devices_arithmetic() -> None:
    words = ("allow_tf32 =", "cudnn.benchmark =", "use_deterministic_algorithms(", "set_float32_matmul")
    package = Path(segbench.__file__).parent
    setting = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in words)
    }
    assert setting == {"engine/device.py"}
    calling = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "prepare_device(" in path.read_text(encoding="utf-8")
    }
    entries = {"runs/train.py", "runs/results.py", "runs/build.py", "runs/doctor/arithmetic.py"}
    assert {*entries, "predict/images.py", "profiling/measure.py"} <= calling


def test_a_card_without_bf16_says_what_it_does_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    note = precision.precision_note("bf16", cuda)
    assert note is not None
    assert "Tesla T4" in note and "fp16" in note
    assert precision.precision_note("fp16", cuda) is None
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert precision.precision_note("bf16", cuda) is None
    assert precision.precision_note("bf16", CPU) is None  # there float32 is the rule, not a fallback


def test_the_region_loss_makes_no_tensor_from_numbers_after_the_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = SegmentationLoss(regions=((1, 2), (2,)))
    logits, labels = torch.randn(1, 2, 4, 4, 4), torch.randint(0, 3, (1, 4, 4, 4))
    first = loss(logits, labels)
    monkeypatch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("a copy that the device waits for"))
    assert torch.equal(loss(logits, labels), first)


def test_a_window_is_cut_once_for_all_its_views(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts: list[tuple[int, ...]] = []
    real = predictor._Windows._cut

    def counted(self: predictor._Windows, z: int, y: int, x: int) -> torch.Tensor:
        cuts.append((z, y, x))
        return real(self, z, y, x)

    monkeypatch.setattr(predictor._Windows, "_cut", counted)
    network = nn.Conv3d(1, 2, 3, padding=1).eval()
    image = torch.randn(1, 20, 16, 24)
    for at_once in (1, 3, 8):
        cuts.clear()
        predict_case(
            network,
            image,
            patch=(16, 16, 16),
            num_outputs=2,
            mirror_axes=("z", "y", "x"),
            window_batch=at_once,
        )
        assert len(cuts) == len(set(cuts)) == 4


def test_the_average_of_weights_is_one_operation_a_step_and_that_of_each_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = torch._foreach_lerp_, []

    def watched(means: list[torch.Tensor], values: list[torch.Tensor], share: float) -> None:
        expected = [mean.clone().lerp_(value, share) for mean, value in zip(means, values, strict=True)]
        real(means, values, share)
        calls.append(all(torch.equal(ours, one) for ours, one in zip(means, expected, strict=True)))

    monkeypatch.setattr(torch, "_foreach_lerp_", watched)
    train(job(tmp_path, **{"train.ema_decay": 0.9, "budget.samples": 6}))
    assert calls == [True] * 3


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize(("kinds", "fused"), [("cuda cuda", True), ("cpu cpu", False), ("cuda cpu", False)])
def test_one_kernel_updates_all_parameters_where_all_are_on_a_device(
    name: str, kinds: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    network = SimpleNamespace(
        parameters=lambda: [
            SimpleNamespace(requires_grad=True, device=torch.device(kind)) for kind in kinds.split()
        ]
    )
    for kind in ("AdamW", "SGD"):
        monkeypatch.setattr(torch.optim, kind, lambda groups, fused, **_: asked.append(fused))
    build_optimiser(network, load_protocol("demo", {"optimiser.name": name}).optimiser)  # type: ignore[arg-type]
    assert asked == [fused]


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
@pytest.mark.parametrize("fused", [True, False])
def test_the_count_of_steps_comes_back_where_the_optimiser_reads_it(tmp_path: Path, fused: bool) -> None:
    """Where one kernel updates everything it reads the count too; else it stays on the CPU."""
    saved = build()
    optimiser = build_optimiser(saved, load_protocol("demo").optimiser)
    sum(p.sum() for p in saved.parameters()).backward()
    optimiser.step()
    state = {"step": 1, "samples_seen": 2}
    save_checkpoint(tmp_path, network=saved, optimiser=optimiser, state=state, ema=None, metadata={})
    checkpoint = load_last(tmp_path, warn=pytest.fail)
    assert checkpoint is not None
    resumed = build().to("meta")  # a device that is not the CPU, as far as a test can have one
    optimiser = build_optimiser(resumed, load_protocol("demo").optimiser)
    for group in optimiser.param_groups:
        group["fused"] = fused
    restore(checkpoint, resumed, optimiser)
    for slots in optimiser.state.values():
        assert slots["exp_avg"].device.type == "meta"
        assert slots["step"].device.type == ("meta" if fused else "cpu")


@pytest.mark.parametrize("begun", [True, False])
def test_a_training_goes_on_with_the_other_kind_of_update(tmp_path: Path, begun: bool) -> None:
    """Begun with one kernel for all, resumed with one operation after the other, and the reverse."""
    ends = []
    for kinds in ((begun, begun), (begun, not begun)):
        folder = tmp_path / str(kinds)
        for place, fused in enumerate(kinds):
            network = build()
            optimiser = torch.optim.AdamW(network.parameters(), lr=0.1, fused=fused)
            if place:
                checkpoint = load_last(folder, warn=pytest.fail)
                assert checkpoint is not None
                restore(checkpoint, network, optimiser)
            for _ in range(3):
                optimiser.zero_grad()
                sum(p.square().sum() for p in network.parameters()).backward()
                optimiser.step()
            state = {"step": 3 * (place + 1), "samples_seen": 6}
            save_checkpoint(folder, network=network, optimiser=optimiser, state=state, ema=None, metadata={})
        ends.append(weights(network))
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_on_a_device_stopped_and_resumed_equals_undisturbed(tmp_path: Path, optimiser: str) -> None:
    settings = {"optimiser.name": optimiser, "determinism.level": "bitwise"}

    def on_device(folder: Path, stop: StopRequest | None = None):
        return replace(
            job(folder, stop=stop, **settings),
            device=torch.device("cuda"),
            transform=lambda images, labels, plans: (torch.stack(list(images)), torch.stack(list(labels))),
        )

    whole = train(on_device(tmp_path / "a"))
    stop = StopRequest()

    def stop_at_seven(samples: int, loss: float, rate: float) -> None:
        if samples == 14:
            stop.number = 15

    halted = on_device(tmp_path / "b", stop)
    with pytest.raises(Interrupted):
        train(replace(halted, on_step=stop_at_seven))
    stop.number = None
    again = train(halted)
    pairs = zip(weights(whole.network), weights(again.network), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_predicts_what_the_processor_does() -> None:
    network, (batch,) = build().eval(), batches(0, 1)
    image = torch.as_tensor(batch.image[0])
    options = {"patch": (4, 4, 4), "num_outputs": 2, "mirror_axes": ("z", "y")}
    here = predict_logits(network, image, **options)
    there = predict_logits(network.to("cuda"), image, device="cuda", **options)
    torch.testing.assert_close(there, here, atol=5e-3, rtol=5e-3)
