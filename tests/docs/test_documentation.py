"""The documentation is true: links lead somewhere, commands exist, generated pages are current."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from segbench.cards import list_dataset_cards, list_model_cards
from segbench.cli.main import build_app
from segbench.core.errors import CATALOGUE
from segbench.records.schema import CASE_COLUMNS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPERATORS = {"|", "||", "&&", ";", ">", ">>", "<", "&"}
INVENTED = {"mine", "other", "my-network", "my-dataset"}
"""Names that stand for what the reader brings."""


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fenced_lines(text: str) -> Iterator[str]:
    """Lines of fenced blocks, a line that ends in a backslash joined with the next."""
    inside, begun = False, ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            inside, begun = not inside, ""
        elif inside and line.rstrip().endswith("\\"):
            begun += line.rstrip()[:-1] + " "
        elif inside:
            yield begun + line
            begun = ""


def commands_of(text: str) -> Iterator[list[str]]:
    """The words after `segbench` of every command in the fenced blocks."""
    for line in fenced_lines(text):
        if not re.match(r"^\s*(\$ )?([A-Z_]+=\S+ )*(\S*/)?(segbench|xargs|python)\b", line):
            continue
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        found: list[str] | None = None
        for word in lexer:
            if word in OPERATORS:
                if found is not None:
                    yield found
                found = None
            elif found is None and word.rpartition("/")[2] == "segbench":
                found = []
            elif found is not None:
                found.append(word)
        if found is not None:
            yield found


@cache
def root_command() -> Any:
    return typer.main.get_command(build_app(show_all=True))


def is_placeholder(word: str) -> bool:
    return (word.isupper() and not word.startswith("SB")) or bool(set(word) & set("*?<>$"))


def fault_of(words: list[str]) -> str | None:
    """Why the command line could not be typed as it stands, or None."""
    command, rest, name = root_command(), list(words), "segbench"
    while hasattr(command, "commands"):
        flags = {flag for option in command.params for flag in option.opts} | {"--help", "-h", "--all"}
        while rest and rest[0].startswith("-"):
            if rest[0] not in flags:
                return f"{name} has no flag {rest[0]}"
            rest.pop(0)
        if not rest:
            return None  # `segbench --help`
        word = rest.pop(0)
        if is_placeholder(word):
            return None
        if word not in command.commands:
            return f"{name} has no command {word}"
        command, name = command.commands[word], f"{name} {word}"
    if {"--help", "-h"} & set(rest):
        return None
    context = command.context_class(command, info_name=name)
    try:
        given, left, _ = command.make_parser(context).parse_args(list(rest))
    except Exception as error:  # click's usage errors; typer decides which click that is
        return f"{name}: {getattr(error, 'message', error)}"
    if left:
        return f"{name}: unexpected words {left}"
    absent = [p.name for p in command.params if p.required and not given.get(p.name)]
    if absent:
        return f"{name}: {', '.join(absent)} is missing"
    return wrong_name(given)


def wrong_name(given: dict[str, Any]) -> str | None:
    """A model, dataset or error code that does not exist."""
    known = {"model": set(list_model_cards()), "dataset": set(list_dataset_cards())}
    for kind, names in known.items():
        value = given.get(kind)
        words = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        for word in [part for text in words for part in text.split(",") if not part.endswith(".json")]:
            if word not in names | INVENTED | {"all"} and "/" not in word and not is_placeholder(word):
                return f"no {kind} is called {word}"
    kind, _, name = str(given.get("what") or "").partition(":")
    known["error"] = set(CATALOGUE)
    if kind in known and name not in known[kind] | INVENTED and not is_placeholder(name.split(":")[0]):
        return f"no {kind} is called {name}"
    return None


@cache
def generator() -> ModuleType:
    path = ROOT / "scripts" / "generate_reference.py"
    spec = importlib.util.spec_from_file_location("generate_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    targets = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:", link)]
    dead = [target for target in targets if target and not (page.parent / target).exists()]
    assert not dead, f"{short(page)} links to what is not there: {dead}"


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_every_command_can_be_typed_as_it_stands(page: Path) -> None:
    commands = list(commands_of(page.read_text(encoding="utf-8")))
    faults = [(shlex.join(words), fault_of(words)) for words in commands]
    wrong = [f"segbench {line}\n    {fault}" for line, fault in faults if fault]
    assert not wrong, f"{short(page)}:\n" + "\n".join(wrong)


def test_the_command_check_sees_commands_and_finds_faults() -> None:
    text = "```\n$ segbench run --model A \\\n  --dataset all | tee x   # why\nX=d segbench status\n```"
    assert list(commands_of(text)) == [["run", "--model", "A", "--dataset", "all"], ["status"]]
    assert fault_of(["run", "--model", "A", "--dataset", "all", "--seed", "0,1"]) is None
    assert fault_of(["list", "models", "--json"]) is None
    wrong = """runn; run --model nnunet; run --model nunet --dataset all; run --model A --dataset all --sed 1
        data grab x; show error:SB999; list models runs; evaluate --prediction"""
    for line in re.split(r"[;\n]", wrong):
        assert fault_of(line.split()) is not None, line
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(list(commands_of(readme))) > 10, "the commands of README.md are not found any more"


@pytest.mark.parametrize("name", ["errors.md", "command-line.md", "records.md"])
def test_generated_pages_are_current(name: str) -> None:
    committed = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert generator().PAGES[name]() == committed, f"docs/reference/{name} is out of date: run make docs"


def test_records_page_describes_every_column_of_cases_csv() -> None:
    text = (ROOT / "docs" / "reference" / "records.md").read_text(encoding="utf-8")
    section = text.split("## cases.csv")[1].split("\n## ")[0]
    described = re.findall(r"^\| `([a-z_]+)` \|", section, flags=re.MULTILINE)
    assert tuple(described[: len(CASE_COLUMNS)]) == CASE_COLUMNS


def test_index_names_every_page() -> None:
    docs = ROOT / "docs"
    linked = set(re.findall(r"\]\(([^)#\s]+)", (docs / "README.md").read_text(encoding="utf-8")))
    pages = {p.relative_to(docs).as_posix() for p in docs.rglob("*.md") if p.name != "README.md"}
    pages = {page for page in pages if not page.startswith("decisions/")}  # the folder is linked as one
    assert not pages - linked, f"docs/README.md does not name {sorted(pages - linked)}"


def test_where_is_what_names_every_room_and_no_file_that_is_gone() -> None:
    text = (ROOT / "docs" / "where-is-what.md").read_text(encoding="utf-8")
    package = ROOT / "segbench"
    rooms = {path.parent.name for path in package.glob("*/__init__.py") if path.parent.name != "_cards"}
    rows = re.findall(r"^\| `([a-z]+)/`[^|]*\|[^|]*\|([^|]*)\|", text, flags=re.MULTILINE)
    told = {room for room, _ in rows}
    assert told - {"protocols"} == rooms
    files = [f"{room}/{file}" for room, files in rows for file in re.findall(r"`([^`(]+)`", files)]
    asked = text.split("## The usual questions")[1]
    files += [file for file in re.findall(r"`([a-z]+/[\w./]*)`", asked)]
    assert len(files) > 30
    for file in files:
        room, _, rest = file.partition("/")
        assert (package / room / rest).exists(), f"where-is-what.md names {file}"
