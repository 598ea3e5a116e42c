"""What every command shares: the everywhere-flags, lists, errors to exit codes, signals."""

from __future__ import annotations

import functools
import inspect
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from segbench.cli.complete import attach
from segbench.core import console
from segbench.core.atomic import disk_error
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import Interrupted

EVERYWHERE = "Everywhere"
_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip


@dataclass(slots=True)
class Settings:
    """The everywhere-flags as given."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: bool = True
    color: bool | None = None
    config: Path | None = None
    cards: Path | None = None
    max_volume: int = 8 * 2**30


_settings = Settings()


def settings() -> Settings:
    """The everywhere-flags of this process."""
    return _settings


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.", rich_help_panel=EVERYWHERE)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.", rich_help_panel=EVERYWHERE)]
Json = Annotated[
    bool,
    typer.Option("--json", help="The result as one JSON document on stdout.", rich_help_panel=EVERYWHERE),
]
NoProgress = Annotated[
    bool, typer.Option("--no-progress", help="No progress on stderr.", rich_help_panel=EVERYWHERE)
]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colours.", rich_help_panel=EVERYWHERE)]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file (TOML).", rich_help_panel=EVERYWHERE),
]
Cards = Annotated[
    Path | None,
    typer.Option(
        "--cards",
        metavar="DIR",
        help="More cards: DIR/models, DIR/datasets. [env: SEGBENCH_CARDS]",
        rich_help_panel=EVERYWHERE,
    ),
]
MaxVolume = Annotated[
    str,
    typer.Option(
        "--max-volume",
        metavar="SIZE",
        help="Largest volume that may be read into memory.",
        rich_help_panel=EVERYWHERE,
    ),
]

_COMMON: dict[str, tuple[Any, Any]] = {
    "quiet": (Quiet, False),
    "verbose": (Verbose, False),
    "json_output": (Json, False),
    "no_progress": (NoProgress, False),
    "no_color": (NoColor, False),
    "config": (Config, None),
    "cards": (Cards, None),
    "max_volume": (MaxVolume, "8GiB"),
}


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """Turn a function into a command: adds the everywhere-flags, turns errors into messages and exit codes.

    The function may return an exit code; None is 0.
    """
    signature = inspect.signature(function, eval_str=True)
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _COMMON.items()
    ]
    for parameter in (*signature.parameters.values(), *common):
        _escape_brackets(parameter)
    attach(list(signature.parameters.values()), function.__module__.rpartition(".")[2])
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]

    @functools.wraps(function)
    def run(**values: Any) -> None:
        shared = {name: values.pop(name) for name in _COMMON}
        raise typer.Exit(guarded(lambda: (_apply(**shared), function(**values))[1]))

    run.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *common)}
    return run


def _escape_brackets(parameter: inspect.Parameter) -> None:
    """Keep `[default: ...]` and `[env: ...]` in a help text: the help is markup, where they would be tags."""
    for info in getattr(parameter.annotation, "__metadata__", ()):
        if getattr(info, "help", None):
            info.help = re.sub(r"(?<!\\)\[(?=[a-z])", r"\\[", info.help)


def guarded(call: Callable[[], int | None]) -> int:
    """Run a command's body: expected errors become messages, unexpected ones a crash file."""
    try:
        return call() or 0
    except SegbenchError as error:
        console.fail(error)
        if os.environ.get("SEGBENCH_DEBUG"):
            traceback.print_exc()
        return error.exit_code
    except Interrupted as stop:
        console.warn(f"{stop}; the same command goes on from here")
        return stop.exit_code
    except KeyboardInterrupt:
        console.warn("interrupted; the same command goes on from here")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - keeps the exit quiet
        return 128 + signal.SIGPIPE
    except (typer.Exit, typer.Abort, SystemExit):
        raise
    except Exception as error:
        if os.environ.get("SEGBENCH_DEBUG"):
            raise
        refused = disk_error(error)
        if refused is not None:
            console.fail(refused)
            return refused.exit_code
        from segbench.core.crash import write_crash

        try:
            where = str(write_crash(error))
        except (OSError, SegbenchError):
            where = "no file: no folder takes one"
        console.warn(
            f"internal error: {type(error).__name__}: {error}\n"
            f"  this is a defect of segbench; the trace (without the values of variables) is in {where}\n"
            f"  run again with SEGBENCH_DEBUG=1 to see it here"
        )
        return 1


def _apply(
    *,
    quiet: bool,
    verbose: bool,
    json_output: bool,
    no_progress: bool,
    no_color: bool,
    config: Path | None,
    cards: Path | None,
    max_volume: str,
) -> None:
    """Set the process's settings; flags given before the command and after it add up."""
    _settings.quiet |= quiet
    _settings.verbose |= verbose
    _settings.json |= json_output
    _settings.progress &= not no_progress
    if no_color or os.environ.get("NO_COLOR"):
        _settings.color = False
    _settings.config = config or _settings.config
    if max_volume != "8GiB":
        _settings.max_volume = parse_size(max_volume)
    if cards is not None:
        _settings.cards = cards
        others = os.environ.get("SEGBENCH_CARDS", "")
        if str(cards) not in others.split(os.pathsep):
            os.environ["SEGBENCH_CARDS"] = os.pathsep.join(part for part in (str(cards), others) if part)
    console.output.quiet = _settings.quiet
    console.output.verbose = _settings.verbose
    console.output.progress = _settings.progress
    console.output.color = _settings.color
    console.output.json = _settings.json


def apply_everywhere(**values: Any) -> None:
    """Begin a command with the everywhere-flags given before its name; those of an earlier one are gone."""
    for name, value in asdict(Settings()).items():
        setattr(_settings, name, value)
    _apply(**values)


def parse_size(text: str) -> int:
    """Bytes from `8GiB`, `500MB` or a plain number (SB104 otherwise)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = match.group(2).upper() if match else ""
    if match is None or unit not in _SIZES:
        raise SegbenchError(
            "SB104", f"{text!r} is not a size", mend="write a number and a unit, such as 8GiB"
        )
    return int(float(match.group(1)) * _SIZES[unit])


def split_list(values: Iterable[str] | None) -> list[str]:
    """A list given by commas, by repetition or both, in order, without repeats."""
    parts = [part.strip() for value in values or () for part in value.split(",")]
    return list(dict.fromkeys(part for part in parts if part))


def split_numbers(values: Iterable[str] | None, *, what: str) -> list[int]:
    """Whole numbers given as `0,1,2` or `0-9` (SB104 otherwise)."""
    numbers: list[int] = []
    for part in split_list(values):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise SegbenchError(
                "SB104", f"{what} {part!r} is not a number or a range", mend="for example 0,1,2 or 0-9"
            )
        low = int(match.group(1))
        high = int(match.group(2)) if match.group(2) else low
        if high < low or high - low > 100_000:
            raise SegbenchError("SB104", f"{what} range {part!r} cannot be", mend="write it from low to high")
        numbers.extend(range(low, high + 1))
    return list(dict.fromkeys(numbers))
