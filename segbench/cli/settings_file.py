"""Settings files: flags that hold for every command, or for one, unless the command line says otherwise.

`results = "/data/runs"` at the top holds for every command that has the flag, `[run] protocol = "demo"` for
one; keys are the names of flags without their dashes. A key that is no flag is refused, never ignored.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segbench.core.errors import SegbenchError, nearest_names
from segbench.core.foreign import parse_toml
from segbench.core.text import count


def config_files(arguments: list[str]) -> list[Path]:
    """The settings files that exist, strongest first: --config, ./segbench.toml, the user's own.

    Raises:
        SegbenchError: SB104 when --config names no file.
    """
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


def read_config(arguments: list[str], command: Any) -> dict[str, Any]:
    """Defaults of the commands' flags from the settings files, the stronger file's word over the weaker's.

    Args:
        arguments: The command line, for --config.
        command: The command with all its subcommands, as click knows it.

    Returns:
        What click calls a default map: parameter names and values, nested as the commands are.

    Raises:
        SegbenchError: SB110 for a file that is no TOML or names what is no command or flag, with all faults.
    """
    defaults: dict[str, Any] = {}
    for (*groups, name), (value, _) in read_settings(arguments, command).items():
        place = defaults
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return defaults


def read_settings(arguments: list[str], command: Any) -> dict[tuple[str, ...], tuple[object, Path]]:
    """What holds, as (command, ..., parameter) to (value, the file that says so); as `read_config`."""
    held: dict[tuple[str, ...], tuple[object, Path]] = {}
    for path in reversed(config_files(arguments)):
        try:
            content = parse_toml(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise SegbenchError("SB110", f"not valid TOML: {error}", path=path) from error
        faults: list[str] = []
        found = _of_group(command, content, {}, faults)
        everywhere = _all_flags(command)
        alone = [key for key, value in content.items() if not isinstance(value, dict)]
        faults += [_unknown(key, "flag", everywhere) for key in alone if _plain(key) not in everywhere]
        if faults:
            message = f"the settings file has {count(len(faults), 'fault')}"
            raise SegbenchError("SB110", message, path=path, details=faults)
        held |= {place: (value, path) for place, value in found.items()}
    return held


def _of_group(
    group: Any, content: Mapping[str, Any], above: Mapping[str, Any], faults: list[str]
) -> dict[tuple[str, ...], object]:
    """The settings of a group's commands: those that hold for all, and each command's table over them."""
    shared = {**above, **{key: value for key, value in content.items() if not isinstance(value, dict)}}
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    faults += [_unknown(name, "command", group.commands) for name in tables if name not in group.commands]
    found: dict[tuple[str, ...], object] = {}
    for name, command in group.commands.items():
        own = tables.get(name, {})
        if hasattr(command, "commands"):
            found |= {(name, *at): value for at, value in _of_group(command, own, shared, faults).items()}
            continue
        flags = _flags(command)
        faults += [f"[{name}] {_unknown(key, 'flag', flags)}" for key in own if _plain(key) not in flags]
        for key, value in {**shared, **own}.items():
            option = flags.get(_plain(key))
            if option is not None:
                found[name, option.name] = _value(option, value)
    return found


def _flags(command: Any) -> dict[str, Any]:
    """The options of a command by the name of their long flag, without dashes."""
    return {
        flag.lstrip("-"): option
        for option in command.params
        if option.param_type_name == "option"
        for flag in option.opts
        if flag.startswith("--") and flag != "--help"
    }


def _all_flags(group: Any) -> set[str]:
    names: set[str] = set()
    for command in group.commands.values():
        names |= _all_flags(command) if hasattr(command, "commands") else set(_flags(command))
    return names


def _value(option: Any, value: object) -> object:
    """A TOML value as the command line would give it: text, a list where the flag may be repeated."""
    if isinstance(value, bool):
        return value
    values = [str(part) for part in value] if isinstance(value, list) else [str(value)]
    return values if option.multiple else value if isinstance(value, list) else values[0]


def _plain(key: str) -> str:
    return key.replace("_", "-")


def _unknown(key: str, what: str, known: Any) -> str:
    near = nearest_names(_plain(key), sorted(known))
    return f"{key}: no such {what}" + (f"; did you mean {' or '.join(near)}?" if near else "")
