"""An edited network is another experiment: its code enters the run id, and one line says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segbench.cards import load_model_card
from segbench.cli.main import build_app
from segbench.cli.predict import _weights_of
from segbench.core.errors import SegbenchError
from segbench.records import read_run
from segbench.runs.code import check_code, code_of
from segbench.runs.runner import run_cell

CARD = """
slug = "{slug}"
title = "Mine"
kind = "network"
family = "convolution"
provenance = "library"
implementation = "{implementation}"
requires = ["{package}"]
[input]
divisor = 1
minimum = 8
[source]
code = "here"
licence = "MIT"
[fidelity]
reproduces = "nothing"
"""
NETWORK = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.layer = nn.Conv3d(in_channels, out_channels, 3, padding=1)

    def forward(self, x):
        return self.layer(x)

def make(in_channels, out_channels):
    return Net(in_channels, out_channels)
"""
FLAGS = (
    "run", "--dataset", "phantom-msd", "--set", "budget.samples=2", "--set", "patch.size=16",
    "--limit", "1", "--device", "cpu", "--seed", "0",
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, as somebody has it who writes a network in one file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SEGBENCH_RESULTS", str(tmp_path / "runs"))
    return tmp_path


def card(slug: str, implementation: str) -> None:
    folder = Path("cards") / "models" / slug
    folder.mkdir(parents=True, exist_ok=True)
    package = implementation.partition(":")[0].partition(".")[0]
    text = CARD.format(slug=slug, implementation=implementation, package=package)
    (folder / "card.toml").write_text(text)


def digest(slug: str) -> str | None:
    found = code_of(load_model_card(slug))
    assert found is not None
    return found.digest


def segbench(*words: str) -> tuple[str, str]:
    done = CliRunner().invoke(build_app(), list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


@pytest.mark.parametrize("implementation", ["lone_net:Net", "lone_net:make"])
def test_a_file_in_the_current_folder(here: Path, implementation: str) -> None:
    card("mine", implementation)
    assert digest("mine") is None, "not there yet: the cell says so"
    Path("lone_net.py").write_text(NETWORK)
    first = digest("mine")
    assert first is not None
    assert digest("mine") == first
    Path("lone_net.py").write_text(NETWORK + "\n# a comment\n")
    assert digest("mine") != first
    Path("lone_net.py").write_text(NETWORK)
    assert digest("mine") == first
    assert "lone_net" not in sys.modules, "found without importing"


@pytest.mark.parametrize("edited", ["__init__.py", "blocks/attention.py", "new.py"])
def test_every_file_of_a_package(here: Path, edited: str) -> None:
    card("mine", "lone_package.nets:Net")
    for name in ("__init__.py", "nets.py", "blocks/attention.py"):
        path = Path("lone_package") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    first = digest("mine")
    (Path("lone_package") / edited).write_text("a = 1\n")
    assert digest("mine") not in {first, None}
    (Path("lone_package") / "notes.txt").write_text("no code")
    after = digest("mine")
    (Path("lone_package") / "notes.txt").unlink()
    assert digest("mine") == after


def test_a_module_that_it_imports_from_beside_it(here: Path) -> None:
    """Blocks kept in a second file decide the numbers as well; what it does not import does not."""
    card("mine", "lone_net:Net")
    Path("lone_net.py").write_text("import lone_blocks\nfrom lone_more.parts import x\n")
    Path("lone_blocks.py").write_text("import lone_net\nimport segbench\nimport numpy\n")
    Path("lone_more").mkdir()
    Path("lone_more/parts.py").write_text("x = 1\n")
    first = digest("mine")
    Path("lone_other.py").write_text("y = 1\n")
    assert digest("mine") == first
    Path("lone_blocks.py").write_text("import lone_net  # edited\n")
    second = digest("mine")
    Path("lone_more/parts.py").write_text("x = 2\n")
    assert len({first, second, digest("mine")}) == 3


@pytest.mark.parametrize("content", [b"\xff\xfe", b"def (", b"\x00", b""])
def test_a_file_that_is_no_python_still_has_a_digest(here: Path, content: bytes) -> None:
    card("mine", "lone_net:Net")
    Path("lone_net.py").write_bytes(content)
    assert digest("mine") is not None


def test_shipped_networks_keep_their_ids() -> None:
    assert code_of(load_model_card("nnunet-tiny")) is None
    monai = code_of(load_model_card("segresnet-16"))
    assert monai is not None
    assert monai.digest is None, "pinned, and held by the card's fingerprint"
    assert monai.version


def test_an_installed_package_has_its_version(here: Path) -> None:
    card("mine", "jinja2:Environment")
    found = code_of(load_model_card("mine"))
    assert found is not None
    assert found.version
    assert found.digest


@pytest.mark.ci
def test_an_edited_network_is_a_new_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained, edited, planned again: a new id and one line; the old cell does not go on with new code."""
    card("mine", "lone_net_edited:make")
    Path("lone_net_edited.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(here))
    segbench(*FLAGS, "--model", "mine", "--seed", "0,1", "--print-jobs")
    folder, waiting = sorted(path.parent for path in Path("runs").glob("*/run.json"))
    record = run_cell(folder)
    assert record.status == "complete"
    assert record.code is not None
    assert record.code.parameters == 3 * 2 * 27 + 3
    assert record.code.package == "lone_net_edited"
    assert record.code.digest == digest("mine")
    assert record.code.fingerprint
    assert record.references
    assert set(record.references) == {
        line.split(",")[6] for line in (folder / "cases.csv").read_text().split()[1:]
    }

    assert [path.parent.parent for path in _weights_of([record.run_id], Path("runs"))] == [folder]
    _, told = segbench(*FLAGS, "--model", "mine", "--dry-run", "--json")
    assert "the code of" not in told
    Path("lone_net_edited.py").write_text(NETWORK.replace("padding=1)", "padding=1, bias=False)"))
    plan, told = segbench(*FLAGS, "--model", "mine", "--dry-run", "--json")
    (cell,) = json.loads(plan)["cells"]
    assert cell["state"] == "planned"
    assert cell["run_id"] != record.run_id
    assert told.count(f"the code of lone_net_edited changed since run {record.run_id}: new run") == 1

    with pytest.raises(SegbenchError, match="the code of lone_net_edited has changed") as refused:
        _weights_of([record.run_id], Path("runs"))
    assert refused.value.code == "SB338"
    again = run_cell(waiting)
    assert again.status == "failed"
    assert again.failure is not None
    assert again.failure.code == "SB338"
    assert "the code of lone_net_edited has changed" in again.failure.message


def test_an_edit_between_the_start_and_the_import_is_seen(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card("mine", "lone_net_late:Net")
    Path("lone_net_late.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(here))
    model = load_model_card("mine")
    planned = code_of(model)
    check_code(model, planned, here)
    Path("lone_net_late.py").write_text(NETWORK + "x = 1\n")
    with pytest.raises(SegbenchError, match="the code of lone_net_late has changed") as found:
        check_code(model, planned, here)
    assert found.value.code == "SB338"


@pytest.mark.ci
def test_a_run_of_before_code_was_recorded(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card("mine", "lone_net_old:Net")
    with monkeypatch.context() as patch:  # planned although the file is not there: nothing is recorded of it
        patch.setattr("segbench.runs.plan.obstacle", lambda model: None)
        segbench(*FLAGS, "--model", "mine", "--print-jobs")
    (folder,) = (path.parent for path in Path("runs").glob("*/run.json"))
    old = read_run(folder)
    Path("lone_net_old.py").write_text(NETWORK)
    _, told = segbench(*FLAGS, "--model", "mine", "--seed", "0,1", "--dry-run")
    assert f"the code of lone_net_old was not recorded in run {old.run_id}: new run" in told


@pytest.mark.ci
@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("self.layer(x).softmax(1)", "gives probabilities"),
        ("self.layer(x)[:, :1]", "the last layer takes its channels from out_channels"),
        ("[self.layer(x)]", "gives a list"),
        ("self.layer(x) / 0 * 0", "NaN"),
    ],
)
def test_a_network_that_cannot_work_ends_before_the_first_stage(
    here: Path, monkeypatch: pytest.MonkeyPatch, end: str, words: str
) -> None:
    name = f"lone_net_wrong_{abs(hash(end))}"
    card("mine", f"{name}:Net")
    Path(f"{name}.py").write_text(NETWORK.replace("return self.layer(x)", f"return {end}"))
    monkeypatch.syspath_prepend(str(here))
    segbench(*FLAGS, "--model", "mine", "--print-jobs")
    (folder,) = (path.parent for path in Path("runs").glob("*/run.json"))
    record = run_cell(folder)
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.code == "SB110"
    assert words in record.failure.message
    assert not list((folder / "stages").glob("*.json"))
