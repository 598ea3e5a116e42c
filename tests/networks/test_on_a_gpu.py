"""What only a GPU can show of the networks' own kernels; skipped with the reason where there is none."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from scan_cases import relative_errors, run_scan, scan_inputs

from segbench.core.errors import SegbenchError
from segbench.engine.device import nondeterminism_as_error, prepare_device
from segbench.engine.precision import Precision, autocast
from segbench.networks import build_network, list_networks, network_card
from segbench.networks.blocks import mamba
from segbench.networks.blocks import norm_act as norms
from segbench.networks.blocks.fast import WAYS
from segbench.networks.scan import chosen_backend, selective_scan
from segbench.profiling.flops import mean_of
from segbench.profiling.measure import measure_row
from segbench.profiling.schema import ProfileRequest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def on_gpu(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.cuda() for tensor in tensors]


def test_auto_is_a_fused_kernel() -> None:
    assert chosen_backend("cuda") in {"triton", "mamba_ssm"}


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 4e-6), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)]
)
@pytest.mark.parametrize(("channels", "length"), [(384, 4096), (768, 512), (33, 1000)])
def test_the_triton_scan_agrees_with_double_precision(
    channels: int, length: int, dtype: torch.dtype, bound: float
) -> None:
    tensors = on_gpu([t.to(dtype).double() for t in scan_inputs(2, channels, 16, length)])
    exact = run_scan(tensors, backend="torch")
    assert max(relative_errors(run_scan(tensors, backend="triton", dtype=dtype), exact)) <= bound


def test_the_triton_scan_repeats_to_the_bit() -> None:
    tensors = on_gpu(scan_inputs(6, 384, 16, 4096))
    first, second = (run_scan(tensors, backend="triton", dtype=torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_kernels_start_on_the_device_of_their_tensors() -> None:
    tensors = [tensor.float().to("cuda:1") for tensor in scan_inputs(1, 32, 16, 100)]
    assert torch.cuda.current_device() == 0
    y = selective_scan(*tensors, True, backend="triton")
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_norms_agree_with_the_composition(dtype: torch.dtype) -> None:
    x, residual = (
        torch.randn(2, 48, 32, 32, 32, device="cuda", dtype=dtype)
        .to(memory_format=torch.channels_last_3d)
        .requires_grad_()
        for _ in range(2)
    )
    weight, bias = (torch.randn(48, device="cuda", requires_grad=True) for _ in range(2))
    wanted = (x, weight, bias, residual)
    exact = torch.nn.functional.leaky_relu(
        torch.nn.functional.instance_norm(x.double(), weight=weight.double(), bias=bias.double())
        + residual.double(),
        0.01,
    )
    found = norms.fused(*wanted, 0.01)
    grad = torch.randn_like(found)
    pairs = zip(
        (found, *torch.autograd.grad(found, wanted, grad)),
        (exact, *torch.autograd.grad(exact, wanted, grad.double())),
        strict=True,
    )
    for ours, theirs in pairs:
        error = float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())
        assert error <= (2e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("way", WAYS)
def test_a_fast_way_changes_a_network_by_rounding_only(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    x = torch.randn(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0)).cuda()
    for option in ("", way):
        monkeypatch.setenv("SEGBENCH_FAST", option)
        torch.manual_seed(0)
        network = build_network("segmamba-v2-tiny", 1, 2).cuda()
        y = network(x)
        y.square().mean().backward()
        grads = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        found.append((y.detach(), grads))
    (plain, exact), (quick, ours) = found
    assert torch.allclose(quick, plain, rtol=1e-3, atol=1e-3)
    for name, grad in ours.items():
        assert float((grad - exact[name]).abs().max() / exact[name].abs().max().clamp_min(1e-4)) <= 1e-2, name


def test_offsets_beyond_32_bits_on_the_device() -> None:
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of free memory on the device")
    wide = torch.empty(2**31 + 64, dtype=torch.float16, device="cuda").as_strided((3, 5, 2), (2**30, 2, 1))
    u, delta, A, B, C, D, z, bias = (t.half().cuda() for t in scan_inputs(3, 2, 1, 5))
    wide.copy_(u.transpose(1, 2))
    near, far = (
        selective_scan(each, delta, A, B, C, D, z, bias, True, backend="triton")
        for each in (u, wide.transpose(1, 2))
    )
    assert torch.equal(near, far)


def test_a_mamba_block_computes_in_the_type_of_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    real = mamba.selective_scan

    def watched(*tensors: torch.Tensor, **others: object) -> torch.Tensor:
        seen.extend(tensor.dtype for tensor in (*tensors[:2], *tensors[3:5], tensors[6]))
        return real(*tensors, **others)

    monkeypatch.setattr(mamba, "selective_scan", watched)
    block, x = mamba.Mamba(48).cuda(), torch.randn(2, 200, 48, device="cuda")
    with torch.autocast("cuda", dtype=torch.float16):
        y = block(x)
    y.float().square().mean().backward()
    assert seen == [torch.float16] * 5
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("slug", [name for name in list_networks() if not name.endswith("-tiny")])
def test_every_network_makes_a_step_and_bitwise_computes_or_says_why_not(slug: str) -> None:
    """At the smallest patch of its card, in the default precision."""
    needs = network_card(slug).input
    assert needs is not None
    edge = -(-max(needs.minimum, 32) // needs.divisor) * needs.divisor
    device = torch.device("cuda")
    for level in ("none", "bitwise"):
        prepare_device(device, level=level, tf32=True)
        try:
            sizes = {"patch_size": (edge,) * 3} if needs.fixed_size else {}
            network = build_network(slug, 1, 2, **sizes).to(device).train()
            with nondeterminism_as_error(), autocast("bf16", device)():
                loss = mean_of(network(torch.randn(1, 1, edge, edge, edge, device=device)))
                loss.backward()
            assert torch.isfinite(loss)
        except SegbenchError as refused:
            assert level == "bitwise" and "has no deterministic form" in refused.message
        finally:
            prepare_device(device, level="none", tf32=True)


def test_a_network_with_average_pooling_trains_deterministically() -> None:
    network = build_network("resenc-l", 1, 2, features=(8, 16, 32), blocks=1).cuda()
    torch.use_deterministic_algorithms(True)
    try:
        network(torch.randn(1, 1, 16, 16, 16, device="cuda")).mean().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_process_that_predicts_first_finds_the_fused_scan() -> None:
    code = (
        "import torch; from segbench.engine.predictor import predict_planes\n"
        "from segbench.networks import build_network; from segbench.networks.scan import scans_used\n"
        "network = build_network('segmamba-v2-tiny', 1, 2).cuda().eval()\n"
        "with scans_used() as used:\n"
        "    image, options = torch.zeros(1, 32, 32, 32), {'patch': (32, 32, 32), 'num_outputs': 2}\n"
        "    list(predict_planes(network, image, device='cuda', **options))\n"
        "print(*used)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() in (["triton"], ["mamba_ssm"])


@pytest.mark.parametrize("slug", [name for name in list_networks() if name.endswith("-tiny")])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_every_small_network_makes_a_step_at_both_levels(slug: str, precision: Precision) -> None:
    device = torch.device("cuda")
    steps = []
    for level in ("none", "bitwise", "bitwise"):
        prepare_device(device, level=level, tf32=True)
        torch.manual_seed(0)
        network = build_network(slug, 1, 2).to(device).train()
        x = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
        with autocast(precision, device)():
            loss = network(x).float().square().mean()
        loss.backward()
        steps.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
        assert torch.isfinite(loss)
    prepare_device(device, level="none", tf32=True)
    assert all(torch.equal(a, b) for a, b in zip(steps[1], steps[2], strict=True))


def test_a_profile_on_the_device_has_what_only_a_device_can_tell() -> None:
    row = measure_row(ProfileRequest(model="segmamba-v2-tiny", mode="train", dtype="bf16", device="cuda",
                                     input_shape=(1, 1, 32, 32, 32)))  # fmt: skip
    assert row.scan_backend in {"triton", "mamba_ssm"}
    assert row.memory is not None and row.memory.allocated_peak_bytes
    assert row.energy is not None
    assert (row.energy.joules_per_iteration is None) == (row.energy.reason is not None)
    assert row.environment["gpu"] == torch.cuda.get_device_name()
