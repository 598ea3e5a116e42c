"""Regenerate errors.md, command-line.md and the tables of records.md in docs/reference from the code.

Run by `make docs`; a test compares the committed pages with what this prints.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path

import typer

from segbench.cli.main import build_app
from segbench.core.errors import CATALOGUE
from segbench.metrics.registry import METRICS
from segbench.records import schema

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


RULES = """## Rules

Lists are given by commas or by repeating the flag (`--model a,b --model c`); `all` and globs (`'nnunet*'`)
stand for names, `0-9` for numbers. The result goes to stdout, everything else to stderr; `--json` makes it
one document with a `schema_version`.

| exit | means |
|---|---|
| 0 | done |
| 1 | internal error; a crash file is written |
| 2 | usage: an unknown name, a flag or value that is not valid, an invalid card |
| 3 | partial: some cases, cells or datasets failed or are absent; a report with findings of severity error |
| 4 | data missing or invalid |
| 5 | environment: device, memory, disk, network, an extra that is not installed |
| 6 | a gate failed: `--fail-under`, `--no-worse-than`, `--smoke`, `--check`, a `doctor` limit |
| 7 | another process works on it |
| 130, 143 | Ctrl-C; SIGTERM |

## Settings and variables

A flag is stronger than a `SEGBENCH_*` variable, that than `--config FILE`, that than `./segbench.toml`, that
than `~/.config/segbench/config.toml`. `segbench show config` prints each value and where it came from. In a
settings file, keys at the top hold for every command that has the flag, a table for one command; a key that
is no flag is refused:

```toml
data-dir = "/data"
results = "/results/runs"

[run]
seed = [0, 1, 2]
device = "cuda"

[data.verify]
workers = 8
```

| variable | means |
|---|---|
| `SEGBENCH_DATA` | folder of datasets; else `./data` |
| `SEGBENCH_RESULTS` | folder of runs; else `./results/runs` |
| `SEGBENCH_CACHE` | folder of what can be made again (prepared scans); else the user's cache folder |
| `SEGBENCH_CARDS` | folders of more cards |
| `SEGBENCH_THREADS` | threads for computing; else the physical cores, up to four for a cell that is planned |
| `SEGBENCH_SCAN` | backend of the selective scan: see `segbench doctor` |
| `SEGBENCH_FAST` | `channels-last`, `compile`, `fused-norm`, `inert-bias`, `no-benchmark`: other rounding |
| `SEGBENCH_NO_NUMBA` | 1: metrics without compiled loops |
| `SEGBENCH_DEBUG` | 1: show tracebacks |
| `SEGBENCH_FAULT`, `SEGBENCH_LEASE_STALE_S` | for tests: inject a fault, shorten the lease |
"""


def errors_page() -> str:
    """The page of all error codes."""
    lines = [
        "# Error codes",
        "",
        "Generated from `segbench/core/catalogue.toml` by `make docs`; "
        "`segbench show error:CODE` prints one.",
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
            f"- fix: {_plain(entry.mend)}",
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
    lines += [RULES]
    lines += ["## Everywhere", "", *_options(root, everywhere=True), ""]
    lines += _commands(root, "segbench")
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: object, prefix: str) -> list[str]:
    lines: list[str] = []
    for name, command in sorted(getattr(group, "commands", {}).items()):
        if command.hidden and name != "cell":
            continue  # an old name
        title = f"{prefix} {name}"
        if hasattr(command, "commands"):
            lines += _commands(command, title)
            continue
        arguments = " ".join(_argument(p) for p in command.params if p.param_type_name == "argument")
        lines += [f"## `{f'{title} {arguments}'.strip()}`", "", (command.help or "").strip(), ""]
        lines += [*_options(command), "", *_schema(title)]
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
        if getattr(option, "hidden", False):
            continue
        if (
            getattr(option, "rich_help_panel", None) == "Everywhere"
        ) != everywhere and option.name != "version":
            continue
        flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
        rows.append(f"- {flags}: {_plain((option.help or '').strip())}{_fallback(option)}")
    return rows


def _fallback(option: object) -> str:
    """What holds when the flag is not given: its value, or the variable that is asked."""
    value, variable = getattr(option, "default", None), getattr(option, "envvar", None)
    known = isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
    parts = [f"default {value}"] if known else []
    parts += ["required"] if getattr(option, "required", False) else []
    told = str(getattr(option, "help", ""))
    parts += [f"variable {variable}"] if variable and variable not in told else []
    return f" ({', '.join(parts)})" if parts else ""


def _schema(title: str) -> list[str]:
    """Where the schema of the command's `--json` document lies, beside the code and in the wheel."""
    command = title.removeprefix("segbench ").replace(" ", "-")
    schemas = DOCS.parents[1] / "segbench" / "cli" / "schema"
    if command == "report":
        return ["`--json`: `report.schema.json` in `segbench/report/schema`.", ""]
    names = ("run", "plan", "run-smoke") if command == "run" else (command,)
    if command == "show":
        names = tuple(path.name.removesuffix(".schema.json") for path in sorted(schemas.glob("show*.json")))
    found = [f"`{name}.schema.json`" for name in names if (schemas / f"{name}.schema.json").is_file()]
    return [f"`--json`: {', '.join(found)} in `segbench/cli/schema`.", ""] if found else []


def _argument(parameter: object) -> str:
    name = str(getattr(parameter, "metavar", None) or getattr(parameter, "name", "")).upper()
    return name if getattr(parameter, "required", False) else f"[{name}]"


def records_page() -> str:
    """The page of a run's files: its text as it stands, its tables made again between their markers."""
    text = (DOCS / "records.md").read_text(encoding="utf-8")
    tables = {name: _field_table(getattr(schema, name)) for name in RECORD_PARTS}
    tables["metrics"] = _metric_table()
    for name, lines in tables.items():
        begin, end = f"<!-- generated: {name} -->", "<!-- end -->"
        before, found, rest = text.partition(begin)
        if not found:
            raise ValueError(f"records.md has no marker {begin}")
        text = "\n".join([before + begin, *lines, end]) + rest.partition(end)[2]
    return text


RECORD_PARTS = ("RunRecord", "CodeRecord", "SplitRecord", "Leaks", "Failure")
KINDS = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}


def _field_table(part: type) -> list[str]:
    """Field, kind and meaning of a record, from its annotations and the text under each field."""
    fields = part.model_fields  # type: ignore[attr-defined]
    rows = ["", "| field | kind | meaning |", "|---|---|---|"]
    body = ast.parse(inspect.getsource(part)).body[0].body  # type: ignore[attr-defined]
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        field = fields[node.target.id]
        told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        meaning = " ".join(str(after.value.value).split()) if told else ""  # type: ignore[union-attr]
        always = " Always there." if field.is_required() else ""
        name = field.serialization_alias or field.alias or node.target.id
        rows.append(f"| `{name}` | {_kind(ast.unparse(node.annotation))} | {_cell(meaning)}{always} |")
    return [*rows, ""]


def _kind(annotation: str) -> str:
    name = annotation.replace(" | None", "")
    if name.startswith(("tuple[", "list[")):
        return "list"
    return KINDS.get(name, "object" if name.startswith("dict[") or name in RECORD_PARTS else "word")


def _metric_table() -> list[str]:
    rows = ["", "| column | unit | better | worst | definition |", "|---|---|---|---|---|"]
    for info in METRICS.values():
        unit = {"1": "fraction"}.get(info.unit, info.unit)
        worst = "shown, never ranked" if info.worst is None else f"{info.worst}"
        rows.append(
            f"| `{info.name}` | {unit} | {info.direction} | {worst} | {_cell(_plain(info.definition))} |"
        )
    return [*rows, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("<", "\\<").replace("\\[", "[")


PAGES = {"errors.md": errors_page, "command-line.md": command_page, "records.md": records_page}


def main() -> None:
    """Write the pages."""
    DOCS.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
        sys.stdout.write(f"docs/reference/{name}\n")


if __name__ == "__main__":
    main()
