"""The ways of `SEGBENCH_FAST`: the same parameters, numbers but for rounding, and nothing by default."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from segbench.networks import build_network, build_on_meta
from segbench.networks.blocks.fast import fast_ways, named_ways
from segbench.networks.blocks.inputs import InputError

NETWORKS = ["segmamba-v2-tiny", "segmamba-tiny", "nnunet-tiny", "stunet-s"]
SMALL: dict[str, dict[str, object]] = {"stunet-s": {"features": (4, 8, 12)}}


def built(slug: str) -> nn.Module:
    torch.manual_seed(0)
    network = build_network(slug, 1, 2, **SMALL.get(slug, {})).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():  # biases begin at 0: what is left out must be something
            if isinstance(module, nn.Conv3d) and module.bias is not None:
                module.bias.copy_(torch.randn(module.bias.shape, generator=draw))
    return network


def logits(network: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network(torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(2)))


def test_by_default_nothing_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (fast_ways(), named_ways()) == (frozenset(), None)
    monkeypatch.setenv("SEGBENCH_FAST", " inert-bias,channels-last ")
    assert named_ways() == "channels-last+inert-bias"


def test_a_way_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGBENCH_FAST", "inert-bias,quick")
    with pytest.raises(InputError, match="does not know quick") as caught:
        build_on_meta("nnunet-tiny", 1, 2)
    assert caught.value.code == "SB104"


@pytest.mark.ci
@pytest.mark.parametrize("slug", NETWORKS)
@pytest.mark.parametrize("ways", ["inert-bias", "channels-last", "channels-last,fused-norm,inert-bias"])
def test_the_same_parameters_and_the_same_numbers_but_for_rounding(
    slug: str, ways: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = built(slug)
    monkeypatch.setenv("SEGBENCH_FAST", ways)
    quick = built(slug)
    quick.load_state_dict(plain.state_dict())  # released weights load as ever
    assert list(quick.state_dict()) == list(plain.state_dict())
    assert [p.shape for p in quick.parameters()] == [p.shape for p in plain.parameters()]
    assert torch.allclose(logits(quick), logits(plain), rtol=1e-4, atol=2e-4)


@pytest.mark.ci
@pytest.mark.parametrize("slug", NETWORKS)
def test_the_biases_left_out_are_those_that_change_nothing(
    slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGBENCH_FAST", "inert-bias")
    left_out = {name for name, p in built(slug).named_parameters() if not p.requires_grad}
    monkeypatch.delenv("SEGBENCH_FAST")
    network = built(slug).double()
    x = torch.randn(1, 1, 32, 32, 32, dtype=torch.float64)
    network(x).square().sum().backward()
    inert = {
        f"{name}.bias"
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv3d) and module.bias is not None and module.bias.grad is not None
        and float(module.bias.grad.abs().max()) < 1e-9 * float(module.weight.grad.abs().max())
    }  # fmt: skip
    assert left_out == inert
    assert inert


@pytest.mark.ci
def test_a_step_of_training_moves_the_weights_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    after = []
    for ways in ("", "channels-last,inert-bias"):
        monkeypatch.setenv("SEGBENCH_FAST", ways)
        network = built("nnunet-tiny").train()
        optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-2)
        x = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(3))
        network(x).square().mean().backward()
        optimiser.step()
        after.append(dict(network.named_parameters()))
    for name, ours in after[1].items():
        assert torch.allclose(ours, after[0][name], rtol=1e-3, atol=1e-5), name


def logits_and_gradients(network: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    y = network(torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(2)))
    y.square().mean().backward()
    return y.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def assert_alike(quick: nn.Module, plain: nn.Module) -> None:
    """Within what decision 110 states."""
    (found, ours), (exact, theirs) = logits_and_gradients(quick), logits_and_gradients(plain)
    assert torch.allclose(found, exact, rtol=1e-4, atol=2e-4)
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        size, difference = float(gradient.abs().max()), float((ours[name] - gradient).abs().max())
        # An inert bias has nothing but rounding for a gradient.
        assert difference <= (1e-3 * size if size > 1e-6 else 1e-6), name


@pytest.mark.ci
def test_compiled_mamba_blocks_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is made and run without torch's code generator, which takes a compiler and a minute."""
    plain = built("segmamba-v2-tiny")
    compiled: list[str] = []
    real = nn.Module.compile

    def compile_eagerly(module: nn.Module) -> None:
        compiled.append(type(module).__name__)
        real(module, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    monkeypatch.setenv("SEGBENCH_FAST", "compile")
    quick = built("segmamba-v2-tiny")
    assert compiled and set(compiled) == {"Mamba"}
    assert list(quick.state_dict()) == list(plain.state_dict())
    assert_alike(quick, plain)
    compiled.clear()
    build_on_meta("segmamba-v2-tiny", 1, 2)
    assert not compiled  # what is only counted is not compiled


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's code generator needs a C++ compiler")
def test_what_the_code_generator_makes_of_mamba_blocks_gives_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = built("segmamba-v2-tiny")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("SEGBENCH_FAST", "compile")
    assert_alike(built("segmamba-v2-tiny"), plain)
    assert any(tmp_path.rglob("*.cpp")), "code was generated"
