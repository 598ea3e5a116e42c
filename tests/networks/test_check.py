"""`check_network` and `segbench check`: every kind of broken network is named in words; sound ones pass."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from jsonschema import validate
from typer.testing import CliRunner

from segbench.cli import common
from segbench.cli.main import build_app
from segbench.core.errors import SegbenchError
from segbench.networks.check import check_network

PACKAGE = """
import torch
from torch import nn

class Sound(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.body = nn.Conv3d(in_channels, 4, 3, padding=1)
        self.head = nn.Conv3d(4, out_channels, 1)
    def logits(self, x):
        return self.head(torch.relu(self.body(x)))
    def forward(self, x):
        return self.logits(x)

class Softmax(Sound):
    def forward(self, x):
        return self.logits(x).softmax(1)

class Sigmoid(Sound):
    def forward(self, x):
        return self.logits(x).sigmoid()

class Labels(Sound):
    def forward(self, x):
        return self.logits(x).argmax(1, keepdim=True).expand(-1, 2, -1, -1, -1)

class Heads(Sound):
    def forward(self, x):
        return [self.logits(x), self.logits(x)]

class Tuple(Sound):
    def forward(self, x):
        return self.logits(x) if not self.training else (self.logits(x), x)

class Half(Sound):
    def forward(self, x):
        return self.logits(x)[:, :, ::2, ::2, ::2]

class Last(Sound):
    def forward(self, x):
        return self.logits(x).movedim(1, -1)

class Fixed(Sound):
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, 7)

class Swapped(Sound):
    def forward(self, x):
        return self.logits(x).transpose(2, 3)

class Cube(Sound):
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels)
        self.place = nn.Parameter(torch.zeros(1, 1, 16, 16, 16))
    def forward(self, x):
        return self.logits(x + self.place)

class Squeezed(Sound):
    def forward(self, x):
        return self.logits(x)[:, 0]

class NotANumber(Sound):
    def forward(self, x):
        return self.logits(x) / 0

class Detached(Sound):
    def forward(self, x):
        return self.logits(x).detach()

class Unused(Sound):
    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels)
        self.spare = nn.Linear(2, 2)

class NoGradient(Sound):
    def forward(self, x):
        y = self.logits(x)
        return y + torch.sqrt(0 * y.abs())

class Stops(Sound):
    def forward(self, x):
        return self.logits(x.flatten())

class Leaves(Sound):
    def forward(self, x):
        raise SystemExit(7)

def number(in_channels, out_channels):
    return 5

class Never(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        raise KeyError("weights")
"""
CARD = """
schema_version = 1
slug = "{slug}"
title = "Mine"
kind = "network"
family = "convolution"
provenance = "control"
implementation = "mynets:{name}"
requires = ["{package}"]
[input]
divisor = 8
minimum = 16
[source]
code = "my folder"
licence = "none"
[fidelity]
reproduces = "nothing"
"""
FAULTS = {
    "Softmax": "gives probabilities in evaluation (softmax): return logits",
    "Sigmoid": "gives values between 0 and 1 only in evaluation (sigmoid?): return logits",
    "Labels": "gives torch.int64 in evaluation, not logits: leave out argmax",
    "Heads": "gives a list of 2 in evaluation, not one tensor",
    "Tuple": "gives a tuple of 2 in training, not one tensor",
    "Half": "another resolution; upsample the logits",
    "Last": "channels come second, not last",
    "Fixed": "the last layer takes its channels from out_channels",
    "Swapped": "gives (1, 2, 24, 16, 32) in evaluation; expected (1, 2, 16, 24, 32): axes swapped",
    "Cube": "forward fails on (1, 1, 16, 24, 32): RuntimeError",
    "Squeezed": "4 axes in the place of 5",
    "NotANumber": "gives NaN or infinity in evaluation",
    "Detached": "the output is cut off from the parameters",
    "NoGradient": "gradients are NaN or infinite: body.weight",
    "Leaves": "forward fails on (1, 1, 16, 24, 32): SystemExit: 7",
    "Stops": "forward fails on (1, 1, 16, 24, 32): RuntimeError",
}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of networks, and a folder of cards that name them."""
    (tmp_path / "mynets.py").write_text(PACKAGE)
    for name in (*FAULTS, "Sound", "Unused", "Never", "Absent", "number"):
        folder = tmp_path / "cards" / "models" / name.lower()
        folder.mkdir(parents=True)
        text = CARD.format(slug=name.lower(), name=name, package="mynets")
        (folder / "card.toml").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SEGBENCH_CARDS", str(tmp_path / "cards"))
    yield tmp_path
    sys.modules.pop("mynets", None)


@pytest.fixture(autouse=True)
def flags_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "_settings", common.Settings())


def test_a_sound_network_has_no_faults(mine: Path) -> None:
    found = check_network("sound", in_channels=3, out_channels=5)
    assert found.faults == ()
    assert found.patch == (16, 16, 16)
    assert found.parameters == (3 * 27 + 1) * 4 + (4 + 1) * 5
    found.raise_faults()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_in_words(name: str, mine: Path) -> None:
    found = check_network(name.lower())
    assert len(found.faults) == 1
    assert FAULTS[name] in found.faults[0]
    with pytest.raises(SegbenchError, match="SB110"):
        found.raise_faults()


def test_parameters_that_nothing_uses_are_a_note(mine: Path) -> None:
    found = check_network("unused")
    assert found.faults == ()
    assert "2 of 6 parameters are never used: spare.weight, spare.bias" in found.notes[0]


def test_what_cannot_be_built_says_where_it_stops(mine: Path) -> None:
    with pytest.raises(SegbenchError, match=r"SB110.*cannot be built: KeyError: 'weights'"):
        check_network("never")
    with pytest.raises(SegbenchError, match=r"SB110.*has no 'Absent'"):
        check_network("absent")


@pytest.mark.ci
def test_a_function_that_builds_no_network_is_named(mine: Path) -> None:
    with pytest.raises(SegbenchError, match="mynets:number returns a int, not a network"):
        check_network("number")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def x(:", "SyntaxError: invalid syntax"),
        ("raise OSError('no driver')", "OSError: no driver"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("from math import nothing", "ImportError: cannot import name 'nothing'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_fault_of_its_card(body: str, words: str, mine: Path) -> None:
    (mine / "mynets.py").write_text(body)
    with pytest.raises(SegbenchError, match="importing mynets fails: ") as caught:
        check_network("sound")
    assert caught.value.code == "SB110"
    assert words in caught.value.message


@pytest.mark.parametrize("slug", ["nnunet-tiny", "segmamba-v2-tiny", "unetr"])
def test_networks_of_the_suite_are_sound(slug: str) -> None:
    assert check_network(slug, in_channels=2, out_channels=3).faults == ()


def test_unused_heads_that_ddp_is_told_of_are_no_fault() -> None:
    for supervised in (False, True):
        found = check_network("nnunet-tiny", deep_supervision=supervised)
        assert (found.faults, found.notes) == ((), ())


def test_the_check_leaves_the_generator_alone() -> None:
    import torch

    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_network("nnunet-tiny")
    assert torch.equal(before, torch.get_rng_state())


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(build_app(), ["check", *arguments])
    return done.exit_code, done.output


def test_command_says_sound_or_every_fault(mine: Path) -> None:
    code, out = run("model:sound", "--classes", "3", "--patch", "16x24x16")
    assert code == 0
    assert "sound" in out
    assert "16x24x16" in out
    assert run("model:softmax")[0] == 2
    code, out = run("model:softmax", "--json")
    assert code == 2
    schema = files("segbench.cli") / "schema" / "check.schema.json"
    validate(json.loads(out), json.loads(schema.read_text(encoding="utf-8")))
    assert "softmax" in json.loads(out)["faults"][0]


@pytest.mark.parametrize("what", ["dataset:lits", "sound", "model:", "model:nobody"])
def test_command_refuses_what_is_not_a_network(what: str, mine: Path) -> None:
    assert run(what)[0] == 2
