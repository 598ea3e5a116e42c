"""The scan as a torch operator: fakes, autograd, compile in one graph, FLOPs, autocast."""

from __future__ import annotations

import pytest
import torch
from scan_cases import scan_inputs
from torch.utils.flop_counter import FlopCounterMode

from segbench.networks.scan import selective_scan
from segbench.networks.scan.operator import selective_scan_backward_op, selective_scan_op

BACKENDS = ("torch", "numba")


@pytest.mark.ci
@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck_of_the_forward(backend: str) -> None:
    tensors = [t.float().requires_grad_() for t in scan_inputs(2, 3, 2, 70)]
    torch.library.opcheck(selective_scan_op, (*tensors, True, True, backend))
    bare = [*tensors[:5], None, None, None]
    torch.library.opcheck(selective_scan_op, (*bare, True, True, backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("absent", [(), (5, 6, 7)], ids=["all", "bare"])
def test_opcheck_of_the_backward(backend: str, dtype: torch.dtype, absent: tuple[int, ...]) -> None:
    """What the fake promises is what comes, types of absent inputs' gradients included."""
    tensors: list[torch.Tensor | None] = [
        t.float() if i in {2, 5, 7} else t.to(dtype)  # A, D and the bias stay wide under autocast
        for i, t in enumerate(scan_inputs(2, 3, 2, 70))
    ]
    for place in absent:
        tensors[place] = None
    y, states = selective_scan_op(*tensors, True, True, backend)
    torch.library.opcheck(
        selective_scan_backward_op,
        (torch.ones_like(y), *tensors, True, states, backend),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("length", [1, 7, 16, 33])
def test_gradcheck(backend: str, length: int) -> None:
    tensors = [t.requires_grad_() for t in scan_inputs(1, 2, 2, length)]
    assert torch.autograd.gradcheck(
        lambda *t: selective_scan(*t, True, backend=backend), tensors, fast_mode=length > 7
    )


def test_gradcheck_over_several_chunks() -> None:
    tensors = [t.requires_grad_() for t in scan_inputs(2, 3, 2, 150)]
    for backend in BACKENDS:
        assert torch.autograd.gradcheck(
            lambda *t, name=backend: selective_scan(*t, True, backend=name), tensors, fast_mode=True
        )


def test_a_second_derivative_is_refused_clearly() -> None:
    tensors = [t.requires_grad_() for t in scan_inputs(1, 2, 2, 5)]
    y = selective_scan(*tensors, True, backend="torch")
    (gradient,) = torch.autograd.grad(y.sum(), tensors[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        gradient.sum().backward()


def test_only_wanted_gradients_are_given() -> None:
    tensors = scan_inputs(1, 3, 2, 20)
    tensors[3].requires_grad_()
    selective_scan(*tensors, True, backend="torch").sum().backward()
    assert tensors[3].grad is not None
    assert all(t.grad is None for i, t in enumerate(tensors) if i != 3)


@pytest.mark.ci
def test_compiles_into_one_graph() -> None:
    tensors = [t.float().requires_grad_() for t in scan_inputs(2, 6, 4, 70)]

    def call(*given):
        return selective_scan(*given, True) * 2

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    expected = torch.autograd.grad(call(*tensors).sum(), tensors)
    found = torch.autograd.grad(compiled(*tensors).sum(), tensors)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_meta_tensors_give_shapes_and_layout() -> None:
    tensors = [t.float() for t in scan_inputs(2, 6, 4, 70)]
    meta = selective_scan(*(t.to("meta") for t in tensors), True)
    real = selective_scan(*tensors, True)
    assert meta.shape == real.shape
    assert meta.stride() == real.stride()


def test_flops_follow_the_convention() -> None:
    b, d, n, length = 2, 6, 4, 70
    tensors = [t.float().to("meta").requires_grad_() for t in scan_inputs(b, d, n, length)]
    tokens = b * d * length
    with FlopCounterMode(display=False) as forward:
        selective_scan(*tensors[:5])
    assert forward.get_total_flops() == 9 * tokens * n
    with FlopCounterMode(display=False) as forward:
        y = selective_scan(*tensors, True)
    assert forward.get_total_flops() == 9 * tokens * n + 2 * tokens + 2 * tokens
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    assert backward.get_total_flops() == 20 * tokens * n


def test_autocast_leaves_the_rates_in_single_precision() -> None:
    tensors = [t.float() for t in scan_inputs(1, 6, 4, 200)]
    sixteen = [t.bfloat16() if i not in {2, 5, 7} else t for i, t in enumerate(tensors)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = selective_scan(*sixteen, True, backend="torch")
    outside = selective_scan(*sixteen, True, backend="torch")
    assert torch.equal(inside, outside)


def test_states_are_saved_only_for_a_backward() -> None:
    tensors = [t.float() for t in scan_inputs(1, 6, 4, 200)]
    for backend in BACKENDS:
        assert selective_scan_op(*tensors, True, False, backend)[1].numel() == 0
        assert selective_scan_op(*tensors, True, True, backend)[1].shape == (1, 4, 4, 6)
