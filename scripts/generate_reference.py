"""Regenerate docs/reference/errors.md and docs/reference/command-line.md from the code.

Run by `make docs`; a test compares the committed pages with what this prints.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import typer

from segbench.cli.main import build_app
from segbench.core.errors import CATALOGUE

DOCS = Path(__file__).resolve().parents[1] / "docs" / "reference"
ROOMS = {
    "1": "Names and cards",
    "2": "Volumes and predictions",
    "3": "Datasets and splits",
    "4": "Training",
    "5": "Environment",
    "6": "Records and locks",
    "7": "Reports",
}


def errors_page() -> str:
    """The page of all error codes."""
    lines = [
        "# Error codes",
        "",
        "Generated from `segbench/core/catalogue.toml` by `make docs`; `segbench show error:CODE` prints one.",
        "The exit code holds when nothing else went on; when other cases or datasets did, it is 3.",
        "",
    ]
    room = ""
    for code, entry in CATALOGUE.items():
        if code[2] != room:
            room = code[2]
            lines += [f"## SB{room}xx: {ROOMS[room]}", ""]
        lines += [
            f"### {code}: {entry.title}",
            "",
            f"{entry.severity}, exit {entry.exit_code}. {entry.explanation}",
            "",
            f"- for example: {_plain(entry.example)}",
            f"- mend: {_plain(entry.mend)}",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def command_page() -> str:
    """The page of all commands and flags."""
    lines = [
        "# Command line",
        "",
        "Generated from the code by `make docs`. Every command also takes the flags under *Everywhere*.",
        "",
    ]
    root = typer.main.get_command(build_app(show_all=True))
    lines += ["## Everywhere", "", *_options(root, everywhere=True), ""]
    lines += _commands(root, "segbench")
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: object, prefix: str) -> list[str]:
    lines: list[str] = []
    for name, command in sorted(getattr(group, "commands", {}).items()):
        title = f"{prefix} {name}"
        if hasattr(command, "commands"):
            lines += _commands(command, title)
            continue
        arguments = " ".join(_argument(p) for p in command.params if p.param_type_name == "argument")
        lines += [f"## `{f'{title} {arguments}'.strip()}`", "", (command.help or "").strip(), ""]
        lines += [*_options(command), ""]
    return lines


def _options(command: object, *, everywhere: bool = False) -> list[str]:
    rows = []
    for option in getattr(command, "params", []):
        if option.param_type_name != "option" or option.name in {
            "help",
            "install_completion",
            "show_completion",
        }:
            continue
        if (
            getattr(option, "rich_help_panel", None) == "Everywhere"
        ) != everywhere and option.name != "version":
            continue
        flags = ", ".join(f"`{flag}`" for flag in option.opts)
        rows.append(f"- {flags}: {_plain((option.help or '').strip())}")
    return rows


def _argument(parameter: object) -> str:
    name = str(getattr(parameter, "metavar", None) or getattr(parameter, "name", "")).upper()
    return name if getattr(parameter, "required", False) else f"[{name}]"


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("<", "\\<")


PAGES = {"errors.md": errors_page, "command-line.md": command_page}


def main() -> None:
    """Write the pages."""
    DOCS.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
        sys.stdout.write(f"docs/reference/{name}\n")


if __name__ == "__main__":
    main()
