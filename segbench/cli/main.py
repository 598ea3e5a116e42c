"""The command `segbench`: registers the commands, reads the settings file, nothing else.

Every command's file imports only typer and `segbench.core`; the rest is imported when the command runs, so
that `--help` and the light commands start fast and work without torch.
"""

from __future__ import annotations

import os
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from segbench.cli import common
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
    try:
        defaults = read_config(arguments)
    except SegbenchError as error:
        console.fail(error)
        sys.exit(error.exit_code)
    build_app(show_all=show_all)(arguments, default_map=defaults)


def config_files(arguments: list[str]) -> list[Path]:
    """The settings files that exist, strongest first: --config, ./segbench.toml, the user's own."""
    named = [
        argument.partition("=")[2] or (arguments[i + 1] if i + 1 < len(arguments) else "")
        for i, argument in enumerate(arguments)
        if argument == "--config" or argument.startswith("--config=")
    ]
    files = [Path(name) for name in named]
    for path in files:
        if not path.is_file():
            raise SegbenchError("SB104", "the settings file does not exist", path=path)
    user = Path(os.environ.get("XDG_CONFIG_HOME", str(Path.home() / ".config"))) / "segbench" / "config.toml"
    return [*files, *(path for path in (Path("segbench.toml"), user) if path.is_file())]


def read_config(arguments: list[str]) -> dict[str, Any]:
    """Defaults of the commands' flags from the settings files (`[run] protocol = "standard"`).

    Raises:
        SegbenchError: SB110 for a file that is no TOML.
    """
    merged: dict[str, Any] = {}
    for path in reversed(config_files(arguments)):
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise SegbenchError("SB110", f"not valid TOML: {error}", path=path) from error
        _merge(merged, _per_command(_flag_names(content)))
    return merged


def _per_command(content: dict[str, Any]) -> dict[str, Any]:
    """One file's settings for each command: those at the top for all, a command's table over them."""
    shared = {key: value for key, value in content.items() if not isinstance(value, dict)}
    every: dict[str, Any] = {name: dict(shared) for name in (*COMMANDS, "cell")}
    every["data"] = {name: dict(shared) for name in DATA_COMMANDS}
    _merge(every, {key: value for key, value in content.items() if isinstance(value, dict)})
    return every


def _flag_names(content: dict[str, Any]) -> dict[str, Any]:
    return {
        key.replace("-", "_"): _flag_names(value) if isinstance(value, dict) else value
        for key, value in content.items()
    }


def _merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


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
