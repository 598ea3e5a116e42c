"""`segbench show`: one thing in full: a card, a protocol, a run, an error code, the settings."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from segbench.cli import common
from segbench.cli.common import settings
from segbench.cli.options import option
from segbench.core import console
from segbench.core.environment import cache_dir, data_dir, results_dir, thread_count
from segbench.core.errors import CATALOGUE, SegbenchError, unknown_name


def show(
    what: Annotated[
        str, typer.Argument(help="model:NAME, dataset:NAME, protocol:NAME, run:ID, error:CODE or config.")
    ],
    check: Annotated[bool, option("--check", "Rebuild a model and compare its fingerprint.")] = False,
    diff: Annotated[str | None, option("--diff", "What differs from this run.", metavar="run:ID")] = None,
) -> int | None:
    """Show one model, dataset, protocol, run, error code, or where each setting comes from.

    Example: segbench show model:segmamba-v2
    """
    kind, _, name = what.partition(":")
    kinds: dict[str, Callable[[str], int | None]] = {
        "model": _check if check else _model,
        "dataset": _dataset,
        "protocol": _protocol,
        "run": _run if diff is None else lambda name: _difference(name, diff.removeprefix("run:")),
        "error": _error,
        "config": _config,
    }
    if kind not in kinds:
        raise SegbenchError(
            "SB104", f"segbench show {what}: no such thing",
            expected="model:NAME, dataset:NAME, protocol:NAME, run:ID, error:CODE, config",
            mend="for example segbench show model:segmamba-v2",
        )  # fmt: skip
    if not name and kind != "config":
        one = "run:ID" if kind == "run" else f"{kind}:NAME"
        raise SegbenchError(
            "SB104", f"segbench show {what}: which {kind}?", expected=one, mend=f"segbench show {one}"
        )
    return kinds[kind](name)


def _lines(content: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Nested plain values as an indented listing; empty ones are left out."""
    width = max((len(str(key)) for key in content), default=0)
    for key, value in content.items():
        if value in (None, "", [], {}, ()):
            continue
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        if isinstance(value, dict):
            yield f"{indent}{key}"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list) and isinstance(value[0], dict):
            yield f"{indent}{key}"
            for part in value:
                yield from _lines(part, indent + "  ")
                yield ""
        elif isinstance(value, list) and len(text) > 90:
            yield f"{indent}{key}"
            for part in value:
                yield from _wrapped(f"{indent}  - ", str(part))
        elif key == "command":  # to be pasted
            yield f"{indent}{key.ljust(width)}  {text}"
        else:
            yield from _wrapped(f"{indent}{str(key).ljust(width)}  ", text)


def _wrapped(head: str, text: str) -> list[str]:
    """A text behind its head; where it takes several lines they stand below each other."""
    wide, hang = max(len(head) + 30, console.line_width()), " " * len(head)
    keep: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, wide, initial_indent=head, subsequent_indent=hang, **keep)


def _model(name: str) -> None:
    from segbench.cards import find_card_folder, load_model_card

    content = load_model_card(name).model_dump(mode="json", exclude_none=True)
    common.show({"model": content}, _lines(content))
    readme = find_card_folder("models", name) / "README.md"
    if not settings().json and readme.is_file():
        console.note(f"more: {readme}")


def _check(name: str) -> int:
    from segbench.cards import load_model_card
    from segbench.core.catalogue import ExitCode
    from segbench.networks.fingerprint import check_fingerprint, fingerprint_lines

    load_model_card(name)
    found = check_fingerprint(name)
    lines = fingerprint_lines(name, found)
    common.show({"model": name, "matches": not found, "lines": lines}, lines)
    return ExitCode.GATE if found else ExitCode.DONE


def _dataset(name: str) -> None:
    from segbench.cards import load_dataset_card
    from segbench.data.describe import describe_dataset

    content = describe_dataset(load_dataset_card(name))
    common.show({"dataset": content}, _lines(content))


def _protocol(name: str) -> None:
    from segbench.cards import load_protocol

    protocol = load_protocol(name)
    content = {**protocol.resolved(), "digest": protocol.digest()}
    common.show({"protocol": content}, _lines(content))


def _error(code: str) -> None:
    entry = CATALOGUE.get(code.upper())
    if entry is None:
        raise unknown_name("error code", code, sorted(CATALOGUE), listing="docs/reference/errors.md")
    lines = [
        f"{entry.code}: {entry.title}   ({entry.severity}, exit {entry.exit_code})",
        *_wrapped("  ", entry.explanation),
        *_wrapped("  fix: ", entry.mend),
        *_wrapped("  for example: ", entry.example),
    ]
    common.show({"error": asdict(entry)}, lines)


def _run(name: str) -> None:
    from segbench.records import read_run
    from segbench.runs.rerun import find_run, rerun_command

    folder = find_run(name, results_dir(settings().results))
    record = read_run(folder).model_dump(mode="json", by_alias=True, exclude_none=True)
    common.show(record, [*_lines(record), f"rebuild with: {rerun_command(record, folder)}"])


def _difference(name: str, other: str) -> None:
    from segbench.records import read_run
    from segbench.runs.rerun import deciding, difference_lines, differences, find_run

    results = results_dir(settings().results)
    one, two = (read_run(find_run(each, results)) for each in (name, other))
    rows = differences(deciding(one), deciding(two))
    document = [{"field": field, "a": a, "b": b} for field, a, b in rows]
    common.show(
        {"differences": document}, difference_lines(rows, (one.run_id, two.run_id), console.line_width())
    )


def _config(_: str) -> None:
    """Each setting, its value and where it comes from: flag, variable, the file, or the default."""
    import typer.main

    from segbench.cli.main import build_app
    from segbench.cli.settings_file import config_files, read_settings

    arguments = sys.argv[1:]
    held = read_settings(arguments, typer.main.get_command(build_app())) if config_files(arguments) else {}

    def origin(flag: str, variable: str = "") -> str:
        if any(word == f"--{flag}" or word.startswith(f"--{flag}=") for word in arguments):
            return f"--{flag}"
        if variable and os.environ.get(variable):
            return variable
        return str(held.get(("show", flag.replace("-", "_")), (None, "default"))[1])

    given = settings()
    cards = given.cards or os.environ.get("SEGBENCH_CARDS", "")
    settled = [
        ("data-dir", data_dir(given.data_dir), given.named_by.get("data_dir") or origin("data-dir")),
        ("results", results_dir(given.results), given.named_by.get("results") or origin("results")),
        ("cache", cache_dir(), origin("cache", "SEGBENCH_CACHE")),
        ("cards", cards, origin("cards", "" if given.cards else "SEGBENCH_CARDS")),
        ("threads", thread_count(), origin("threads", "SEGBENCH_THREADS")),
        ("scan backend", os.environ.get("SEGBENCH_SCAN", "auto"), origin("scan", "SEGBENCH_SCAN")),
        ("fast", os.environ.get("SEGBENCH_FAST", ""), origin("fast", "SEGBENCH_FAST")),
        ("max-volume", given.max_volume, origin("max-volume")),
    ]
    rows = [[name, str(value), place] for name, value, place in settled] + _in_files(held)
    files = [str(path) for path in config_files(arguments)]
    names = ("setting", "value", "from")
    document = {"files": files, "settings": [dict(zip(names, row, strict=True)) for row in rows]}
    lines = [*console.table_lines(names, rows), f"settings files: {', '.join(files) or 'none'}"]
    common.show(document, lines)


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
