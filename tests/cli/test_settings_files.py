"""Settings files: flags by their names, for one command or all; what is no flag is refused, never ignored."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.cli.settings_file import read_config
from segbench.core.errors import SegbenchError


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    command = typer.main.get_command(build_app())

    def read(text: str | bytes, *arguments: str) -> dict:
        (tmp_path / "segbench.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_config(list(arguments), command)

    return read


def test_keys_are_flags(read) -> None:
    """`set`, `json`, `max-parallel` have other names inside; a number or a word stands for a list too."""
    found = read(
        'results = "all"\nworkers = 2\njson = true\n'
        '[run]\nset = ["budget.samples=4"]\nseed = 3\nmax-parallel = 2\nmodel = "a,b"\nresults = "own"\n'
        "[data.verify]\nstrict = true\n"
    )
    run = {
        key: found["run"][key] for key in ("set_", "seed", "max_parallel", "model", "results", "json_output")
    }
    assert run == {
        "set_": ["budget.samples=4"], "seed": ["3"], "max_parallel": "2", "model": ["a,b"], "results": "own",
        "json_output": True,
    }  # fmt: skip
    assert found["status"]["results"] == "all"
    assert found["data"]["verify"]["strict"] is True
    assert found["run"]["workers"] == "2"
    assert "workers" not in found["doctor"]


def test_all_that_is_no_flag_is_named_at_once(read) -> None:
    with pytest.raises(SegbenchError) as caught:
        read('resluts = "x"\n[run]\nmodle = "x"\n[runn]\nmodel = "x"\n[data.verify]\nstrikt = true\n')
    assert (caught.value.code, caught.value.exit_code) == ("SB110", 2)
    assert len(caught.value.details) == 4
    told = " ".join(caught.value.details)
    for wanted in ("results", "[run] modle", "did you mean model", "runn: no such command", "strict"):
        assert wanted in told


@pytest.mark.parametrize("text", [b"\xff\xfe", b"a = [", b"a = " + b"[" * 5000])
def test_what_is_no_toml(read, text: bytes) -> None:
    with pytest.raises(SegbenchError) as caught:
        read(text)
    assert caught.value.code == "SB110"


def test_show_config_says_where_each_value_comes_from(
    read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read('results = "in-file"\ndata-dir = "scans"\n[run]\nprotocol = "demo"\n')
    command = typer.main.get_command(build_app())

    def shown(*words: str) -> dict[str, tuple[str, str]]:
        monkeypatch.setattr("sys.argv", ["segbench", "show", "config", "--json", *words])
        defaults = read_config(list(words), command)
        command.main(["show", "config", "--json", *words], standalone_mode=False, default_map=defaults)
        rows = json.loads(capsys.readouterr().out)["settings"]
        return {row["setting"]: (row["value"], row["from"]) for row in rows}

    told = shown()
    assert told["results"] == ("in-file", "segbench.toml")
    assert told["data-dir"] == ("scans", "segbench.toml")
    assert told["run.protocol"] == ("demo", "segbench.toml")
    assert told["max-volume"] == (str(8 * 2**30), "default")
    monkeypatch.setenv("SEGBENCH_DATA", "in-variable")
    told = shown("--results", "in-flag")
    assert told["results"] == ("in-flag", "--results")
    assert told["data-dir"] == ("in-variable", "SEGBENCH_DATA")


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["status"], "in-variable"),
        (["status", "--results", "in-flag"], "in-flag"),
        (["--results", "in-flag", "status"], "in-flag"),
        (["--results", "first", "status", "--results", "in-flag"], "in-flag"),
    ],
)
def test_a_folder_is_taken_from_the_flag_wherever_it_stands(
    words: list[str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_RESULTS", "in-variable")
    done = CliRunner().invoke(build_app(), words)
    assert (done.exit_code, "--> " + folder in done.stderr) == (4, True), done.stderr
    assert os.environ["SEGBENCH_RESULTS"] == "in-variable"


def test_the_data_folder_holds_for_commands_that_open_datasets_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["data", "split", "kits23"], ["data", "export", "kits23", "--output", "o"]):
        done = CliRunner().invoke(build_app(), [*words, "--data-dir", "there"])
        assert done.exit_code == 4
        assert "there/" in done.stderr
