"""The command `segbench`: registers the commands, reads the settings file, nothing else.

Every command's file imports only typer and `segbench.core`; the rest is imported when the command runs, so
that `--help` and the light commands start fast and work without torch.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from segbench.cli import common
from segbench.cli.settings_file import config_files, read_config
from segbench.core import console
from segbench.core.errors import SegbenchError

# name -> (module, function, help panel); the functions' docstrings are the help texts
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("demo", "demo", "Start here"),
    "list": ("list", "list_things", "Start here"),
    "show": ("show", "show", "Start here"),
    "run": ("run", "run", "Train and evaluate"),
    "status": ("status", "status", "Train and evaluate"),
    "predict": ("predict", "predict", "Train and evaluate"),
    "evaluate": ("evaluate", "evaluate", "Score and report"),
    "compare": ("compare", "compare", "Score and report"),
    "report": ("report", "report", "Score and report"),
    "check": ("check", "check", "Measure and check"),
    "profile": ("profile", "profile", "Measure and check"),
    "doctor": ("doctor", "doctor", "Measure and check"),
}
DATA_COMMANDS: dict[str, tuple[str, str]] = {
    "fetch": ("data_fetch", "fetch"),
    "verify": ("data_verify", "verify"),
    "prepare": ("data_prepare", "prepare"),
    "split": ("data_split", "split"),
    "phantom": ("data_phantom", "phantom"),
    "export": ("data_export", "export"),
}
IMPORT_COMMANDS: dict[str, tuple[str, str]] = {
    "dataset": ("data_import", "dataset"),
    "predictions": ("data_import", "predictions"),
    "nnunet-summary": ("data_import_summary", "nnunet_summary"),
    "touchstone": ("data_import_touchstone", "touchstone"),
}
WEIGHTS_COMMANDS: dict[str, tuple[str, str]] = {
    "import": ("weights", "import_weights"),
    "export": ("weights", "export_weights"),
}


def build_app(*, show_all: bool = False) -> typer.Typer:
    """The Typer application with all commands that are installed."""
    app = typer.Typer(
        name="segbench",
        help="Decide which 3D medical segmentation model is really better.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(_everywhere)
    for name, (module, function, panel) in COMMANDS.items():
        _register(app, name, module, function, panel=panel)
    data = _group(app, "data", "Fetch, verify, prepare, split, generate, import and export datasets.")
    for name, (module, function) in DATA_COMMANDS.items():
        _register(data, name, module, function)
    imports = _group(data, "import", "Take in datasets, predictions and scores of other tools.")
    for name, (module, function) in IMPORT_COMMANDS.items():
        _register(imports, name, module, function)
    weights = _group(app, "weights", "Convert weights: .pt to safetensors, and official names back.")
    for name, (module, function) in WEIGHTS_COMMANDS.items():
        _register(weights, name, module, function)
    _register(app, "cell", "cell", "cell", hidden=not show_all)
    return app


def entry_point() -> None:
    """Run the command line."""
    # Threads that wait by spinning burn the cores of whoever else is at work: on a busy two-core machine a
    # training step took 5.6 s with them and 1.3 s without (docs/decisions/002-passive-threads.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = sys.argv[1:]
    show_all = "--all" in arguments and bool({"--help", "-h"} & set(arguments))
    if show_all:
        arguments = [argument for argument in arguments if argument != "--all"]
    app = build_app(show_all=show_all)
    try:
        defaults = read_config(arguments, typer.main.get_command(app)) if config_files(arguments) else {}
    except SegbenchError as error:
        console.fail(error)
        sys.exit(error.exit_code)
    app(arguments, default_map=defaults)


def _register(
    app: typer.Typer, name: str, module: str, function: str, *, panel: str | None = None, hidden: bool = False
) -> None:
    if find_spec(f"segbench.cli.{module}") is None:
        return
    body = getattr(import_module(f"segbench.cli.{module}"), function)
    app.command(name, rich_help_panel=panel, hidden=hidden)(common.command(body))


def _group(app: typer.Typer, name: str, text: str) -> typer.Typer:
    group = typer.Typer(help=text, no_args_is_help=True, pretty_exceptions_enable=False)
    app.add_typer(group, name=name, rich_help_panel="Data and weights" if name != "import" else None)
    return group


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        console.emit(f"segbench {version('segbench')}")
        raise typer.Exit


def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: common.Quiet = False,
    verbose: common.Verbose = False,
    json_output: common.Json = False,
    no_progress: common.NoProgress = False,
    no_color: common.NoColor = False,
    config: common.Config = None,
    cards: common.Cards = None,
    max_volume: common.MaxVolume = "8GiB",
) -> None:
    values = {
        "quiet": quiet,
        "verbose": verbose,
        "json_output": json_output,
        "no_progress": no_progress,
        "no_color": no_color,
        "config": config,
        "cards": cards,
        "max_volume": max_volume,
    }
    code = common.guarded(lambda: common.apply_everywhere(**values))
    if code:
        raise typer.Exit(code)
