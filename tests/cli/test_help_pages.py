"""Help pages: within 80 columns, each with an example that can be typed, shared flags on one page only."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.cli.options import SHARED

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs"))
from test_documentation import commands_of, fault_of


def commands(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*above, name))
        elif not command.hidden:
            yield (*above, name), command


COMMANDS = dict(commands(typer.main.get_command(build_app())))


@cache
def page(words: tuple[str, ...]) -> str:
    done = CliRunner().invoke(build_app(), [*words, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert done.exit_code == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


@pytest.mark.ci
@pytest.mark.parametrize("words", [(), *COMMANDS], ids=" ".join)
def test_a_page_fits_into_80_columns(words: tuple[str, ...]) -> None:
    assert max(len(line) for line in page(words).splitlines()) <= 80


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_page_has_an_example_that_can_be_typed(words: tuple[str, ...]) -> None:
    text = re.sub(r"\s+", " ", COMMANDS[words].help.partition("Example:")[2])
    assert text, f"segbench {' '.join(words)} --help shows no example"
    (example, *_) = commands_of(f"```\n{text}\n```")
    assert example[: len(words)] == list(words)
    assert fault_of(example) is None
    assert "Example: segbench" in page(words)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_line_breaks_where_the_page_ends(words: tuple[str, ...]) -> None:
    above = [line.strip() for line in page(words).partition("╭")[0].splitlines()]
    for line, following in itertools.pairwise(above):
        assert not line or not following or len(f"{line} {following.split()[0]}") > 78, line


def test_shared_flags_stand_on_the_first_page_only() -> None:
    everywhere = typer.main.get_command(build_app()).params
    flags = [option.opts[0] for option in everywhere if option.name in SHARED]
    assert len(flags) == len(SHARED)
    assert all(flag in page(()) for flag in flags)
    for words in COMMANDS:
        again = [flag for flag in flags if re.search(rf"^│ *\*? *{flag} ", page(words), re.MULTILINE)]
        assert not again, words
        assert "segbench --help" in page(words)


def test_defaults_are_shown() -> None:
    for words, command in COMMANDS.items():
        for option in command.params:
            told = isinstance(option.default, int | float | str) and not isinstance(option.default, bool)
            if option.param_type_name == "option" and told and option.default != "" and not option.hidden:
                flat = re.sub(r"[│\s]+", "", page(words))
                assert re.sub(r"\s", "", f"[default:{option.default}]") in flat, (words, option.name)


@pytest.mark.parametrize(
    "words", [w for w, command in COMMANDS.items() if any(p.required for p in command.params)], ids=" ".join
)
def test_all_that_is_missing_is_named_at_once(words: tuple[str, ...]) -> None:
    required = [option for option in COMMANDS[words].params if option.required]
    told = CliRunner().invoke(build_app(), list(words))
    flat = re.sub(r"[│\s]+", " ", told.output)
    assert told.exit_code == 2
    for option in required:
        name = option.opts[0] if option.param_type_name == "option" else option.metavar or option.name.upper()
        assert name in flat, flat
    assert f"For example: segbench {' '.join(words)}" in flat
