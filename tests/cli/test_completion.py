"""Shell completion offers the names that exist: cards, protocols, runs, codes; also inside lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer._completion_classes import BashComplete

from segbench.cards import list_dataset_cards, list_model_cards, list_protocols
from segbench.cli.main import build_app
from segbench.core.errors import CATALOGUE


def completed(words: list[str]) -> list[str]:
    """What a shell would offer for a command line; its last word is being typed."""
    complete = BashComplete(typer.main.get_command(build_app()), {}, "segbench", "_SEGBENCH_COMPLETE")
    return [item.value for item in complete.get_completions(words[:-1], words[-1])]


@pytest.mark.ci
@pytest.mark.parametrize(
    ("words", "offered", "not_offered"),
    [
        (["run", "--model", ""], {"nnunet", "segmamba-v2", "all"}, {"msd-hippocampus"}),
        (["run", "--model", "segm"], {"segmamba-v2", "segmamba"}, {"nnunet"}),
        (["run", "--model", "nnunet,segmamba-v"], {"nnunet,segmamba-v2"}, {"nnunet,nnunet"}),
        (["run", "--model", "nnunet,"], {"nnunet,segmamba-v2"}, {"nnunet,nnunet"}),
        (["run", "--dataset", "msd"], {"msd-hippocampus"}, {"crc-2000"}),
        (["run", "--protocol", "st"], {"standard"}, {"demo"}),
        (["run", "--launcher", ""], {"local", "slurm", "ray"}, set()),
        (["run", "--device", "c"], {"cpu", "cuda"}, {"auto"}),
        (["data", "verify", "crc"], {"crc-2000"}, {"aiib2023"}),
        (["show", "mo"], {"model:"}, {"dataset:"}),
        (["show", "dataset:aiib"], {"dataset:aiib2023"}, set()),
        (["show", "error:SB20"], {"error:SB204"}, {"error:SB101"}),
        (["list", "m"], {"models", "metrics"}, {"runs"}),
        (["data", "phantom", ""], {"crc", "brats", "all"}, set()),
        (["evaluate", "--dataset", "phantom-m"], {"phantom-msd"}, set()),
        (["profile", "--device", "m"], {"meta"}, set()),
        (["data", ""], {"verify", "fetch", "split"}, set()),
    ],
)
def test_offered(words: list[str], offered: set[str], not_offered: set[str]) -> None:
    found = set(completed(words))
    assert offered <= found
    assert not not_offered & found


def test_every_name_is_offered() -> None:
    assert set(completed(["run", "--model", ""])) == {*list_model_cards(), "all"}
    assert set(completed(["run", "--dataset", ""])) == {*list_dataset_cards(), "all"}
    assert set(completed(["run", "--protocol", ""])) == set(list_protocols())
    assert set(completed(["show", "error:"])) == {f"error:{code}" for code in CATALOGUE}


def test_runs_of_the_results_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nnunet__a__demo__f0__s0__12345678", "mine__a__demo__f0__s0__12345678"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    (tmp_path / "no-run").mkdir()
    monkeypatch.setenv("SEGBENCH_RESULTS", str(tmp_path))
    for words in (["predict", "--run", "nn"], ["compare", "nn"], ["show", "run:nn"]):
        (found,) = completed(words)
        assert found.endswith("nnunet__a__demo__f0__s0__12345678")
    monkeypatch.setenv("SEGBENCH_RESULTS", str(tmp_path / "gone"))
    assert completed(["predict", "--run", ""]) == []


def test_a_shell_gets_it_without_torch_or_pandas() -> None:
    """What bash runs on Tab, in a process of its own."""
    program = (
        "import sys\n"
        "sys.argv = ['segbench']\n"
        "from segbench.cli.main import entry_point\n"
        "try:\n    entry_point()\n"
        "except SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'torch', 'pandas', 'monai'} & set(sys.modules)))\n"
    )
    environment = {
        **os.environ, "_SEGBENCH_COMPLETE": "complete_bash", "COMP_CWORD": "3",
        "COMP_WORDS": "segbench run --model nnunet-t",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=True,
    )
    assert "nnunet-tiny" in done.stdout
    assert "HEAVY []" in done.stdout
