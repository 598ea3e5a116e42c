"""The command `segbench`: registers the commands, reads the settings file, nothing else.

Every command's file imports only typer and `segbench.core`; the rest is imported when the command runs, so
that `--help` and the light commands start fast and work without torch.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from segbench.cli import common
from segbench.cli.options import EVERYWHERE, option
from segbench.cli.settings_file import config_files, read_config
from segbench.core import console
from segbench.core.errors import ExitCode, SegbenchError

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
    "claim": ("claim", "claim", "Score and report"),
    "check": ("check", "check", "Measure and check"),
    "profile": ("profile", "profile", "Measure and check"),
    "doctor": ("doctor", "doctor", "Measure and check"),
}
DATA_COMMANDS: dict[str, tuple[str, str]] = {
    "fetch": ("data.fetch", "fetch"),
    "verify": ("data.verify", "verify"),
    "prepare": ("data.prepare", "prepare"),
    "split": ("data.split", "split"),
    "phantom": ("data.phantom", "phantom"),
    "export": ("data.export", "export"),
}
IMPORT_COMMANDS: dict[str, tuple[str, str]] = {
    "dataset": ("data.import_dataset", "dataset"),
    "predictions": ("data.import_dataset", "predictions"),
    "scores": ("data.import_scores", "scores"),
    "nnunet": ("data.import_nnunet", "nnunet"),
}
OLD_NAMES_OF_SCORES = ("nnunet-summary", "touchstone")
"""Accepted for one version and shown nowhere."""
WEIGHTS_COMMANDS: dict[str, tuple[str, str]] = {
    "import": ("weights", "import_weights"),
    "export": ("weights", "export_weights"),
    "card": ("weights", "weights_card"),
}
GROUPS: tuple[tuple[str, str, str, dict[str, tuple[str, str]]], ...] = (
    ("", "data", "Fetch, verify, prepare, split, generate, import and export datasets.", DATA_COMMANDS),
    ("data", "import", "Take in datasets, predictions and scores of other tools.", IMPORT_COMMANDS),
    ("", "weights", "Convert weights, and say what they were trained on.", WEIGHTS_COMMANDS),
)


class Page(TyperCommand):
    """A command that names at once all that it misses; its help page leaves out the flags of all commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; what is missing is named together, with the command's example."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            if not hasattr(error, "param_type"):  # a value that is not valid; one that is missing has a type
                raise
        found, _, _ = self.make_parser(ctx).parse_args(args=given)
        missing = [
            each.opts[0] if each.param_type_name == "option" else (each.metavar or str(each.name)).upper()
            for each in self.get_params(ctx)
            if each.required and each.value_is_missing(each.consume_value(ctx, found)[0])
        ]
        example = (self.help or "").rpartition("Example: ")[2].partition("\n")[0]
        return ctx.fail(f"Missing: {', '.join(missing)}. For example: {example}")

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        for parameter in self.params:
            if getattr(parameter, "rich_help_panel", None) == EVERYWHERE:
                parameter.hidden = True  # type: ignore[attr-defined]
        # the lines of a docstring are not those of a page
        self.help = re.sub(r"(?<!\n)\n(?!\n)", " ", self.help or "")
        super().format_help(ctx, formatter)


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
    app.callback()(common.everywhere(_version_flag()))
    for name, (module, function, box) in COMMANDS.items():
        _register(app, name, module, function, panel=box)
    groups = {"": app}
    for above, name, text, commands in GROUPS:
        groups[name] = typer.Typer(help=text, no_args_is_help=True, pretty_exceptions_enable=False)
        panel = None if above else "Data and weights"
        groups[above].add_typer(groups[name], name=name, rich_help_panel=panel)
        for command, (module, function) in commands.items():
            _register(groups[name], command, module, function)
    for name in OLD_NAMES_OF_SCORES:
        _register(groups["import"], name, *IMPORT_COMMANDS["scores"], hidden=True)
    _register(app, "cell", "run", "cell", hidden=not show_all)
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
    try:
        app(arguments, default_map=defaults)
    except OSError as error:  # the stream takes neither a help page nor a word of the parser
        console.fail(SegbenchError("SB505", f"nothing can be printed: {error.strerror}"))
        sys.exit(ExitCode.USAGE)


def _register(
    app: typer.Typer, name: str, module: str, function: str, *, panel: str | None = None, hidden: bool = False
) -> None:
    if find_spec(f"segbench.cli.{module}") is None:
        return
    body = common.command(getattr(import_module(f"segbench.cli.{module}"), function))
    app.command(name, cls=Page, rich_help_panel=panel, hidden=hidden, epilog=_EPILOG)(body)


_EPILOG = "Flags of every command (--json, --results, --data-dir ...): segbench --help"


def _version_flag() -> inspect.Parameter:
    annotation = Annotated[bool, option("--version", "Print the version.", callback=_version, is_eager=True)]
    return inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        console.emit(f"segbench {version('segbench')}")
        raise typer.Exit
