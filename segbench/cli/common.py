"""What every command shares: the everywhere-flags, text or JSON, errors to exit codes, lists."""

from __future__ import annotations

import functools
import inspect
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from segbench.cli.complete import attach
from segbench.cli.options import RENAMED, SHARED, option
from segbench.core import console
from segbench.core.atomic import disk_error
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import Interrupted

_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip
_VARIABLES = {"results": "SEGBENCH_RESULTS", "data_dir": "SEGBENCH_DATA"}


@dataclass(slots=True)
class Settings:
    """The everywhere-flags as given; a folder is None where neither flag, variable nor file names one.

    Attributes:
        named_by: For the folders, the flag or the variable that named them; absent where it was a file.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: bool = True
    color: bool | None = None
    results: Path | None = None
    data_dir: Path | None = None
    cards: Path | None = None
    config: Path | None = None
    max_volume: int = 8 * 2**30
    named_by: dict[str, str] = field(default_factory=dict[str, str])


_settings = Settings()


def settings() -> Settings:
    """The everywhere-flags of this process."""
    return _settings


def show(document: Mapping[str, Any], text: Iterable[str] = ()) -> None:
    """Print the result of a command: with `--json` the document, else the lines of text.

    Args:
        document: plain values; `schema_version` is added.
        text: lines; `console.table_lines` makes those of a table. They are not asked for with `--json`.
    """
    if _settings.json:
        console.emit_json({"schema_version": 1, **document})
        return
    for line in text:
        console.emit(line)


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """Turn a function into a command: adds the everywhere-flags, turns errors into messages and exit codes.

    The function may return an exit code; None is 0.
    """
    signature = inspect.signature(function, eval_str=True)
    name = function.__module__.rpartition(".")[2]
    attach(list(signature.parameters.values()), name)
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
    taken = {p.name for p in own}
    shared = [p for p in _shared_parameters() if p.name not in taken]
    old = _old_names(name, {p.name: p.annotation for p in (*own, *shared)})
    parameters = [*own, *shared, *(parameter for _, _, parameter in old)]
    for parameter in own:
        _escape_brackets(parameter)

    @functools.wraps(function)
    def run(context: typer.Context, **values: Any) -> None:
        def body() -> int | None:
            for flag, new, parameter in old:
                given = values.pop(parameter.name)
                if given is None or given == []:
                    continue
                if new not in values:
                    way = f": {new}" if new else ""
                    console.warn(f"{flag} is no longer an option of {context.info_name} and is left out{way}")
                elif not _typed(context, new):
                    values[new] = given
                elif _typed(context, parameter.name):
                    both = f"{flag} is an old name of {new.replace('_', '-')}, and both are given"
                    raise SegbenchError("SB104", both, mend="leave the old one out")
            _apply(context, {name: values[name] if name in taken else values.pop(name) for name in SHARED})
            with _folders_as_variables():
                return function(**values)

        name = context.command_path.removeprefix(context.find_root().info_name or "").strip()
        raise typer.Exit(guarded(body, name))

    called = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    run.__signature__ = inspect.Signature([called, *parameters])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (called, *parameters)}
    return run


def everywhere(*more: inspect.Parameter) -> Callable[..., None]:
    """What Typer calls before any command: begins with the flags given before its name.

    Args:
        more: options of the program itself, such as `--version`; they have callbacks of their own.
    """

    def begin(context: typer.Context, **values: Any) -> None:
        for name, value in asdict(Settings()).items():  # those of an earlier command are gone
            setattr(_settings, name, value)
        flags = {name: values[name] for name in SHARED}
        if code := guarded(lambda: _apply(context, flags)):
            raise typer.Exit(code)

    called = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    begin.__signature__ = inspect.Signature([called, *more, *_shared_parameters()])  # type: ignore[attr-defined]
    return begin


@functools.cache
def _shared_parameters() -> tuple[inspect.Parameter, ...]:
    parameters = tuple(
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if get_args(kind)[0] is bool else None,
            annotation=kind,
        )
        for name, kind in SHARED.items()
    )
    for parameter in parameters:
        _escape_brackets(parameter)
    return parameters


def _typed(context: typer.Context, name: str) -> bool:
    """Whether a parameter stands on the command line itself."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _old_names(command: str, kinds: Mapping[str, Any]) -> list[tuple[str, str, inspect.Parameter]]:
    """(old flag, the parameter that holds now or what to say, its hidden parameter), of a command."""
    return [
        (
            flag,
            new,
            inspect.Parameter(
                f"old_{flag.strip('-').replace('-', '_')}",
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    (get_args(kinds[new])[0] if new in kinds else str) | None, option(flag, "", hidden=True)
                ],
            ),
        )
        for flag, new in RENAMED.get(command, {}).items()
        if new in kinds or not new.isidentifier()
    ]


def _escape_brackets(parameter: inspect.Parameter) -> None:
    """Keep `[default: ...]` and `[env: ...]` in a help text: the help is markup, where they would be tags."""
    for info in getattr(parameter.annotation, "__metadata__", ()):
        if getattr(info, "help", None):
            info.help = re.sub(r"(?<!\\)\[(?=[a-z])", r"\\[", info.help)


def guarded(call: Callable[[], int | None], command: str = "<command>") -> int:
    """Run a command's body: expected errors become messages, unexpected ones a crash file."""
    try:
        return call() or 0
    except SegbenchError as error:
        error.mend = error.mend.replace("<command>", command)
        console.fail(error)
        if os.environ.get("SEGBENCH_DEBUG"):
            traceback.print_exc()
        return error.exit_code
    except Interrupted as stop:
        if not stop.told:
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


def _apply(context: typer.Context, flags: Mapping[str, Any]) -> None:
    """Set the process's settings; flags given before the command and after it add up."""
    _settings.quiet |= flags["quiet"]
    _settings.verbose |= flags["verbose"]
    _settings.json |= flags["json_output"]
    _settings.progress &= not flags["no_progress"]
    if flags["no_color"] or os.environ.get("NO_COLOR"):
        _settings.color = False
    _settings.config = flags["config"] or _settings.config
    if flags["max_volume"] is not None:
        _settings.max_volume = parse_size(flags["max_volume"])
    for name, variable in _VARIABLES.items():  # a flag is stronger than a variable, that than a file
        if _typed(context, name):
            setattr(_settings, name, flags[name])
            _settings.named_by[name] = f"--{name.replace('_', '-')}"
        elif getattr(_settings, name) is None and os.environ.get(variable):
            setattr(_settings, name, Path(os.environ[variable]))
            _settings.named_by[name] = variable
        elif getattr(_settings, name) is None:
            setattr(_settings, name, flags[name])
    cards = flags["cards"]
    if cards is not None:
        _settings.cards = cards
        others = os.environ.get("SEGBENCH_CARDS", "")
        if str(cards) not in others.split(os.pathsep):
            os.environ["SEGBENCH_CARDS"] = os.pathsep.join(part for part in (str(cards), others) if part)
    for name in ("quiet", "verbose", "progress", "color", "json"):
        setattr(console.output, name, getattr(_settings, name))


@contextmanager
def _folders_as_variables() -> Generator[None]:
    """The folders stand in the environment while a command runs, for all that it calls and starts."""
    before = {variable: os.environ.get(variable) for variable in _VARIABLES.values()}
    for name, variable in _VARIABLES.items():
        if (folder := getattr(_settings, name)) is not None:
            os.environ[variable] = str(folder)
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


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
            raise SegbenchError(
                "SB104", f"{what} range {part!r} is not valid", mend="write it from low to high"
            )
        numbers.extend(range(low, high + 1))
    return list(dict.fromkeys(numbers))
