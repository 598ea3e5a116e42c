"""Old names of options are taken for one version: under their new name, or left out with a word."""

from __future__ import annotations

import pytest
import typer.main
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.cli.options import RENAMED

GONE = [(command, flag) for command, flags in RENAMED.items() for flag, new in flags.items() if not new]


@pytest.mark.parametrize(("command", "flag"), GONE)
def test_an_option_that_is_gone_is_left_out_with_a_word(command: str, flag: str) -> None:
    typed = [command, flag, "1", "--set", "nonsense"] if command == "demo" else [command, flag, "native"]
    told = CliRunner().invoke(build_app(), typed)
    assert told.exit_code == 2, told.output  # of the fault that comes after
    assert f"{flag} is no longer an option of {command}" in told.output
    assert "No such option" not in told.output


def test_no_old_name_is_shown() -> None:
    commands = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]
    for command, flags in RENAMED.items():
        shown = {name for option in commands[command].params if not option.hidden for name in option.opts}
        assert not shown & set(flags), command
