"""What a model card may name: a network's class, or a function that builds one, of the package it names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segbench.cards import load_model_card
from segbench.cards.model_card import ModelCard
from segbench.core.errors import SegbenchError
from segbench.networks import build_network
from segbench.networks.registry import resolve_implementation

PACKAGE = """
from torch import nn
from torch.hub import load as borrowed
from torch.nn import Conv3d as Borrowed

class Net(nn.Module):
    def __init__(self, in_channels, out_channels, width=4, init_file=None):
        super().__init__()
        self.head = nn.Conv3d(in_channels, out_channels, 1)
    def forward(self, x):
        return self.head(x)

def build(in_channels, out_channels, **rest):
    return Net(in_channels, out_channels)

def build_from(in_channels, out_channels, checkpoint_path=None):
    return Net(in_channels, out_channels)

def load(name, **rest):
    return Net(1, 1)

class Plain:
    pass

instance = Net(1, 1)
evaluated = eval
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two packages: one with networks and more, one that leaves a mark when it is imported."""
    (tmp_path / "cardnets.py").write_text(PACKAGE)
    (tmp_path / "cardmark.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("cardnets", None)
    sys.modules.pop("cardmark", None)


def card(implementation: str, *, requires: list[str] | None = None, **arguments: object) -> ModelCard:
    named = implementation.partition(":")[0].partition(".")[0]
    changes = {
        "slug": "foreign",
        "implementation": implementation,
        "requires": requires or [named],
        "arguments": arguments,
    }
    return ModelCard.model_validate(load_model_card("nnunet-tiny").model_dump() | changes)


@pytest.mark.parametrize("name", ["Net", "build"])
def test_networks_and_functions_that_build_one_are_taken(package: Path, name: str) -> None:
    found = resolve_implementation(card(f"cardnets:{name}", requires=["cardnets", "cardmark"], width=8))
    assert found(in_channels=1, out_channels=2).head.out_channels == 2
    assert not (package / "mark").exists()  # looked up, not imported


@pytest.mark.parametrize(
    ("implementation", "why"),
    [
        ("torch.hub:load", "takes in_channels by name"),
        ("torch:load", "takes in_channels by name"),
        ("torch.utils.model_zoo:load_url", "takes in_channels by name"),
        ("monai.bundle:load", "takes in_channels by name"),
        ("numpy:loadtxt", "takes in_channels by name"),
        ("runpy:run_path", "part of Python"),
        ("os:system", "part of Python"),
        ("torch.utils.bottleneck.__main__:main", "is a program"),
        ("cardnets:borrowed", "belongs to torch.hub, not to cardnets"),
        ("cardnets:Borrowed", "belongs to torch.nn"),
        ("cardnets:load", "takes in_channels by name"),
        ("cardnets:build_from", "checkpoint_path"),
        ("cardnets:Plain", "neither a subclass"),
        ("cardnets:instance", "neither a subclass"),
        ("cardnets:evaluated", "neither a subclass"),
    ],
)
def test_everything_else_is_refused_uncalled(package: Path, implementation: str, why: str) -> None:
    with pytest.raises(SegbenchError) as caught:
        resolve_implementation(card(implementation))
    assert caught.value.code == "SB110"
    assert why in caught.value.message


@pytest.mark.parametrize(
    "argument",
    [
        {"init_file": "x"},
        {"width": "/tmp/x"},
        {"width": "https://example.org"},
        {"width": [1, ["a", "__import__('os')"]]},
        {"width": "..\\x"},
    ],
)
def test_arguments_are_no_path_address_or_expression(package: Path, argument: dict[str, object]) -> None:
    with pytest.raises(SegbenchError, match=r"plain word|stands for a path") as caught:
        resolve_implementation(card("cardnets:Net", **argument))
    assert caught.value.code == "SB110"


def test_a_card_from_elsewhere_is_told_once_and_weights_state_no_place(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        'slug = "told"\ntitle = "x"\nkind = "network"\nfamily = "convolution"\nprovenance = "library"\n'
        'implementation = "cardnets:Net"\nrequires = ["cardnets"]\ninput = { divisor = 1, minimum = 1 }\n'
        'source = { code = "https://example.org", licence = "MIT" }\nfidelity = { reproduces = "x" }\n'
    )
    (package / "models" / "told").mkdir(parents=True)
    (package / "models" / "told" / "card.toml").write_text(text)
    monkeypatch.setenv("SEGBENCH_CARDS", str(package))
    build_network("told", 1, 2)
    build_network("told", 1, 2)
    build_network("nnunet-tiny", 1, 2)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("is not segbench's own") == 1
    assert "the package cardnets is imported" in said
    with pytest.raises(SegbenchError, match="stands for a path"):
        build_network("told", 1, 2, init_file="x")
