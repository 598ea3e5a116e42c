"""The Triton kernels in Triton's interpreter on the CPU: index arithmetic, masks and walks as on a GPU.

Needs triton; skipped where it is not installed. What the interpreter cannot show is the compiler's work:
speed, registers, and that the kernels compile for a device (`test_scan_triton_compile.py`). An operation
takes it a third of a millisecond, so chunks are of 8 steps here, and one test has the real 64.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scan_cases import relative_errors, run_scan, scan_inputs

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

GPU = torch.cuda.is_available()
if not GPU and os.environ.get("TRITON_INTERPRET") != "1":
    # Triton reads the variable when it is first imported, which torch may have done already.
    pytest.skip(
        "no GPU here; TRITON_INTERPRET=1 runs the kernels in the interpreter", allow_module_level=True
    )

from segbench.networks.scan import arguments, choice, lockstep, triton_backend  # noqa: E402
from segbench.networks.scan.arguments import ScanInputs  # noqa: E402


@pytest.fixture(autouse=True)
def device_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter computes on the CPU, where the choice would refuse the backend."""
    right = choice.probe

    def probe(backend: str, device_type: str):
        if backend == "triton" and not GPU:
            return choice.BackendReport("triton", True, True, None, None, None)
        return right(backend, device_type)

    monkeypatch.setattr(choice, "probe", probe)


@pytest.fixture(autouse=True)
def short_chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.name != "test_chunks_as_they_are":
        for place, name, value in (
            (arguments, "CHUNK", 8),
            (lockstep, "CHUNK", 8),
            (triton_backend, "CHUNK", 8),
            (triton_backend, "STRIDE", 4),
            (triton_backend, "PROGRAMS", 3),  # so that a program takes several items, one after the other
        ):
            monkeypatch.setattr(place, name, value)


@pytest.mark.parametrize("present", ["", "D", "z", "+s"])
def test_every_combination_of_parts(present: str) -> None:
    """The other tests have all of them."""
    tensors = scan_inputs(1, 3, 2, 3)
    exact = run_scan(tensors, backend="torch", present=present)
    found = run_scan(tensors, backend="triton", present=present)
    assert max(relative_errors(found, exact)) < 1e-11


@pytest.mark.parametrize(
    ("batch", "channels", "states", "length"),
    [
        (1, 1, 1, 1),
        (1, 3, 16, 8),  # exactly a chunk
        (2, 1, 3, 9),  # a step more
        (1, 1, 64, 3),  # less, and many states
        (1, 65, 1, 3),  # tiles of the output and of the gradients, and one channel
    ],
)
def test_shapes(batch: int, channels: int, states: int, length: int) -> None:
    tensors = scan_inputs(batch, channels, states, length)
    exact = run_scan(tensors, backend="torch")
    found = run_scan(tensors, backend="triton")
    assert max(relative_errors(found, exact)) < 1e-11


def test_chunks_as_they_are() -> None:
    """And the bounds of single precision."""
    tensors = [t.float().double() for t in scan_inputs(1, 2, 2, 65)]
    exact = run_scan(tensors, backend="torch")
    y, *gradients = relative_errors(run_scan(tensors, backend="triton", dtype=torch.float32), exact)
    assert y <= 1e-6
    assert max(gradients) <= 4e-6


@pytest.mark.parametrize(
    ("dtype", "bound", "length"), [(torch.float16, 1e-3, 5), (torch.bfloat16, 8e-3, 17)], ids=["fp16", "bf16"]
)
def test_inputs_of_sixteen_bits(dtype: torch.dtype, bound: float, length: int) -> None:
    """The inputs are rounded alike; the results are rounded too (bf16: the interpreter cuts)."""
    tensors = [t.to(dtype).double() for t in scan_inputs(1, 3, 4, length)]
    exact, found = run_scan(tensors, backend="torch"), run_scan(tensors, backend="triton", dtype=dtype)
    assert max(relative_errors(found, exact)) <= bound
    if dtype == torch.float16:  # once is enough: it repeats to the bit
        again = run_scan(tensors, backend="triton", dtype=dtype)
        assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_views_are_not_copied_and_read_by_their_strides() -> None:
    wide = torch.randn(2, 3, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    _, delta, A, B, C, D, _, bias = scan_inputs(2, 32, 1, 3)
    halves = wide[..., :32].transpose(1, 2), wide[..., 32:].transpose(1, 2)
    run = triton_backend._Launch(ScanInputs(halves[0], delta, A, B, C, D, halves[1], bias, True))
    assert run.u.data_ptr() == wide.data_ptr()
    assert run.z.stride() == (3 * 64, 64, 1)
    tensors = [halves[0], delta, A, B, C, D, halves[1], bias]
    found = run_scan(tensors, backend="triton")
    assert max(relative_errors(found, run_scan(tensors, backend="torch"))) < 1e-11


def test_offsets_beyond_32_bits() -> None:
    """A batch entry 2^30 elements after the other; only the few pages that are touched are there."""
    if GPU:
        pytest.skip("a device has no memory that is there only when it is touched")
    far = torch.from_numpy(np.empty(2**31 + 64, dtype=np.float16)).as_strided((3, 2, 2), (2**30, 2, 1))
    tensors = [t.to(torch.float16) for t in scan_inputs(3, 2, 1, 2)]
    far.copy_(tensors[0].transpose(1, 2))
    near, *rest = ScanInputs(*tensors, True)
    results = []
    for u in (near, far.transpose(1, 2)):
        inputs = ScanInputs(u, *rest)
        assert triton_backend._Launch(inputs).u.data_ptr() == u.data_ptr()  # read where it is
        y, states = triton_backend.forward(inputs, True)
        results.append([y, *triton_backend.backward(near, inputs, states)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_results_have_the_types_that_the_operator_promises() -> None:
    tensors = [t.to(torch.float16) for t in scan_inputs(1, 2, 1, 3)]
    inputs = ScanInputs(*tensors[:5], None, None, None, False)
    y, states = triton_backend.forward(inputs, True)
    absent = triton_backend.backward(y, inputs, states)[5:]
    assert y.dtype == torch.float16
    assert [g.dtype for g in (states, *absent)] == [torch.float32] * 4
    assert [g.numel() for g in absent] == [0, 0, 0]
