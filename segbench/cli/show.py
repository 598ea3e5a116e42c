"""`segbench show`: one thing in full: a card, a protocol, a run, an error code, the settings."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from segbench.cli.common import settings
from segbench.core import console
from segbench.core.errors import CATALOGUE, SegbenchError, unknown_name


def show(
    what: Annotated[
        str, typer.Argument(help="model:NAME, dataset:NAME, protocol:NAME, run:ID, error:CODE or config.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Rebuild a model and compare its fingerprint.")
    ] = False,
    diff: Annotated[str | None, typer.Option(metavar="run:ID", help="What differs from this run.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of runs.", envvar="SEGBENCH_RESULTS")] = None,
) -> int | None:
    """Show one model, dataset, protocol, run, error code, or where each setting comes from."""
    kind, _, name = what.partition(":")
    if kind == "run":
        return _run(name, diff, results)
    if kind == "model" and check:
        return _check(name)
    kinds: dict[str, Callable[[str], None]] = {
        "model": _model,
        "dataset": _dataset,
        "protocol": _protocol,
        "error": _error,
        "config": lambda _: _config(results),
    }
    if kind not in kinds:
        raise SegbenchError(
            "SB104", f"segbench show {what}: no such thing",
            expected="model:NAME, dataset:NAME, protocol:NAME, run:ID, error:CODE, config",
            mend="for example segbench show model:segmamba-v2",
        )  # fmt: skip
    kinds[kind](name)
    return None


def _document(title: str, content: dict[str, Any]) -> None:
    if settings().json:
        console.emit_json({"schema_version": 1, title: content})
        return
    for line in _lines(content):
        console.emit(line)


def _lines(content: dict[str, Any], indent: str = "") -> list[str]:
    """Nested plain values as an indented listing; empty ones are left out."""
    lines: list[str] = []
    width = max((len(str(key)) for key in content), default=0)
    for key, value in content.items():
        if value in (None, "", [], {}, ()):
            continue
        if isinstance(value, dict):
            lines += [f"{indent}{key}", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{indent}{key}")
            for part in value:
                lines += [*_lines(part, indent + "  "), ""]
        elif isinstance(value, list):
            text = ", ".join(str(part) for part in value)
            if len(text) > 90:
                lines += [f"{indent}{key}", *(f"{indent}  - {part}" for part in value)]
            else:
                lines.append(f"{indent}{str(key).ljust(width)}  {text}")
        else:
            lines.append(f"{indent}{str(key).ljust(width)}  {value}")
    return lines


def _model(name: str) -> None:
    from segbench.cards import find_card_folder, load_model_card

    card = load_model_card(name)
    _document("model", card.model_dump(mode="json", exclude_none=True))
    if not settings().json:
        console.note(f"more: {find_card_folder('models', name) / 'README.md'}")


def _check(name: str) -> int:
    from segbench.cards import load_model_card
    from segbench.core.catalogue import ExitCode
    from segbench.networks.fingerprint import check_fingerprint

    load_model_card(name)
    result = check_fingerprint(name)
    if settings().json:
        console.emit_json(
            {"schema_version": 1, "model": name, "matches": result.ok, "lines": list(result.lines)}
        )
    else:
        for line in result.lines:
            console.emit(line)
    return ExitCode.DONE if result.ok else ExitCode.GATE


def _dataset(name: str) -> None:
    from segbench.cards import load_dataset_card
    from segbench.data.describe import describe_dataset

    _document("dataset", describe_dataset(load_dataset_card(name)))


def _protocol(name: str) -> None:
    from segbench.cards import load_protocol

    protocol = load_protocol(name)
    _document("protocol", {**protocol.resolved(), "digest": protocol.digest()})


def _error(code: str) -> None:
    entry = CATALOGUE.get(code.upper())
    if entry is None:
        raise unknown_name("error code", code, sorted(CATALOGUE), listing="docs/reference/errors.md")
    if settings().json:
        console.emit_json({"schema_version": 1, "error": {n: getattr(entry, n) for n in entry.__slots__}})
        return
    console.emit(f"{entry.code}: {entry.title}   ({entry.severity}, exit {entry.exit_code})")
    console.emit(f"  {entry.explanation}")
    console.emit(f"  fix: {entry.mend}")
    console.emit(f"  for example: {entry.example}")


def _run(name: str, diff: str | None, results: Path | None) -> int:
    from segbench.core.environment import results_dir
    from segbench.records import read_run
    from segbench.runs.rerun import deciding, difference_lines, differences, find_run, rerun_command

    folder = find_run(name, results_dir(results))
    run = read_run(folder)
    if diff is not None:
        other = read_run(find_run(diff.removeprefix("run:"), results_dir(results)))
        rows = differences(deciding(run), deciding(other))
        if settings().json:
            document = [{"field": field, "a": a, "b": b} for field, a, b in rows]
            console.emit_json({"schema_version": 1, "differences": document})
        else:
            width = shutil.get_terminal_size().columns
            for line in difference_lines(rows, (run.run_id, other.run_id), max(40, width)):
                console.emit(line)
        return 0
    record = run.model_dump(mode="json", by_alias=True, exclude_none=True)
    if settings().json:
        console.emit_json(record)
    else:
        _document("run", record)
        console.emit(f"rebuild with: {rerun_command(record, folder)}")
    return 0


def _config(results: Path | None) -> None:
    """Each setting, its value and where it comes from: flag, variable, the file, or the default."""
    import typer.main

    from segbench.cli.main import build_app
    from segbench.cli.settings_file import config_files, read_settings
    from segbench.core.environment import cache_dir, data_dir, results_dir, thread_count

    arguments = sys.argv[1:]
    held = read_settings(arguments, typer.main.get_command(build_app())) if config_files(arguments) else {}

    def origin(flag: str, variable: str = "", command: str = "run") -> str:
        if any(word == f"--{flag}" or word.startswith(f"--{flag}=") for word in arguments):
            return f"--{flag}"
        if variable and os.environ.get(variable):
            return variable
        return str(held.get((command, flag.replace("-", "_")), (None, "default"))[1])

    told = None if os.environ.get("SEGBENCH_DATA") else held.get(("run", "data_dir"), (None, None))[0]
    data = data_dir(None if told is None else Path(str(told)))
    cards = settings().cards or os.environ.get("SEGBENCH_CARDS", "")
    rows = [
        ["data-dir", str(data), origin("data-dir", "SEGBENCH_DATA")],
        ["results", str(results_dir(results)), origin("results", "SEGBENCH_RESULTS", "show")],
        ["cache", str(cache_dir()), origin("cache", "SEGBENCH_CACHE")],
        ["cards", str(cards), origin("cards", "" if settings().cards else "SEGBENCH_CARDS", "show")],
        ["threads", str(thread_count()), origin("threads", "SEGBENCH_THREADS")],
        ["scan backend", os.environ.get("SEGBENCH_SCAN", "auto"), origin("scan", "SEGBENCH_SCAN")],
        ["max-volume", str(settings().max_volume), origin("max-volume", command="show")],
    ]
    rows += _in_files(held)
    if settings().json:
        files = [str(path) for path in config_files(arguments)]
        document = [dict(zip(("setting", "value", "from"), row, strict=True)) for row in rows]
        console.emit_json({"schema_version": 1, "files": files, "settings": document})
    else:
        console.emit_table(["setting", "value", "from"], rows)
        console.emit(f"settings files: {', '.join(map(str, config_files(arguments))) or 'none'}")


def _in_files(held: dict[tuple[str, ...], tuple[object, Path]]) -> list[list[str]]:
    """A row for each flag that files set; one for all commands that share it."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for (*command, name), (value, file) in sorted(held.items()):
        places.setdefault((name, str(value), str(file)), []).append(".".join(command))
    return [
        [
            f"{commands[0]}.{name}" if len(commands) == 1 else f"{name} of {len(commands)} commands",
            value,
            file,
        ]
        for (name, value, file), commands in places.items()
    ]
