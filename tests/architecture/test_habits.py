"""Habits of the whole package: one way to write, to print, to draw random numbers; nothing executes."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "segbench"
SOURCES = sorted(PACKAGE.rglob("*.py"))


def lines_with(pattern: str, *, but: tuple[str, ...] = ()) -> list[str]:
    """file:line of code that matches, comments and docstrings left out."""
    found = []
    for path in SOURCES:
        name = path.relative_to(PACKAGE).as_posix()
        if name in but:
            continue
        code = _code_lines(path)
        found += [f"{name}:{n} {text.strip()}" for n, text in code if re.search(pattern, text)]
    return found


@cache
def _code_lines(path: Path) -> list[tuple[int, str]]:
    text = path.read_text(encoding="utf-8")
    silent: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.end_lineno is not None:
            silent.update(range(node.lineno, node.end_lineno + 1) if node.end_lineno > node.lineno else ())
    return [
        (number, line.split("  # ")[0])
        for number, line in enumerate(text.splitlines(), start=1)
        if number not in silent and not line.strip().startswith("#")
    ]


def test_nothing_executes_or_unpickles() -> None:
    banned = (
        r"\bimport pickle\b|\bjoblib\b|\bdill\b|weights_only\s*=\s*False|allow_pickle\s*=\s*True"
        r"|(?<![\w.])eval\(|(?<![\w.])exec\(|\bimport yaml\b|shell\s*=\s*True|os\.system\("
    )
    assert lines_with(banned) == []


def test_print_is_in_one_place() -> None:
    assert lines_with(r"(?<![\w.])print\(", but=("core/console.py",)) == []


def test_results_are_written_in_one_way() -> None:
    # The log of a run is appended line by line and carries no result; downloads and archives build their own
    # temporary files; a crashed pipe gets a null device; a lease belongs to whoever creates its file.
    allowed = ("core/atomic.py", "data/fetch.py", "runs/active.py", "cli/common.py", "records/lease.py")
    writing = (
        r"open\([^)]*[\"'](w|wb|a|ab|x|xb|r\+b)[\"']|\.write_text\(|\.write_bytes\(|np\.save|torch\.save"
        r"|to_csv\(\s*[^)\s]|\.savefig\("
    )
    found = [
        line
        for line in lines_with(writing, but=allowed)
        if not re.search(
            r"savefig\((buffer|stream)|to_csv\((buffer|stream)|np\.savez?\((buffer|stream)"
            r"|atomic_write\(\w+, lambda stream: torch\.save\(\w+, stream\)\)",
            line,
        )
    ]
    assert found == []


def test_random_numbers_come_from_counters() -> None:
    own = ("data/random.py", "engine/checkpoint.py")
    assert (
        lines_with(
            r"np\.random\.(seed|rand|randn|randint|choice|shuffle|permutation|normal|uniform)\(", but=own
        )
        == []
    )
    # a checkpoint keeps the state of Python's own generator, and draws nothing
    keeps = ("engine/checkpoint.py",)
    assert lines_with(r"^\s*import random\b|^\s*from random import", but=keeps) == []


def test_no_path_of_a_machine() -> None:
    pattern = re.compile(r"(^|[^A-Za-z0-9_.])/(work|farm|root|home)/[a-zA-Z.]")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in (
            "segbench",
            "tests",
            "models",
            "datasets",
            "docs",
            "benchmarks",
            "scripts",
            "results/published",
        )
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".toml", ".md", ".json", ".sh"} and path != Path(__file__).resolve()
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        )
        if pattern.search(line)
    ]
    assert found == []


def test_sizes_are_printed_in_one_way() -> None:
    """`bytes_words` chooses the unit; a table whose head says GiB has numbers alone."""
    assert lines_with(r"/ ?\(?(2 ?\*\* ?[234]0|1024 ?\*\* ?[234])\)?:") == []


ODD_WORDS = (
    r"\bmend(s|ed|ing)?\b|\btold apart\b|\bin vain\b|\bnor is there\b|\banew\b|\bin your head\b|\bkind one\b"
    r"|\bbears? it out\b|\b(?:is|are) no (?:reference|input|label map|JSON|regular|volume|card)\b"
    r"|\bstands? (?:twice|in|where|beside|there)\b|\blies here\b|\bcomes further\b|\bthe family\b"
)
"""Words that readers of English stumble over; each was in a message or on a page once."""


def messages(path: Path) -> list[str]:
    """The texts of a source file that a command can print: no docstrings, f-strings in one piece."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            silent |= {id(part) for part in node.values}
            texts.append("".join(str(p.value) if isinstance(p, ast.Constant) else "x" for p in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            texts.append(node.value)
    return [text for text in texts if text != "mend"]  # the name of a field


@pytest.mark.ci
def test_messages_and_pages_are_in_plain_words() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "datasets").glob("*.md")]
    pages += [path for path in PACKAGE.rglob("*.*") if path.suffix in {".toml", ".j2", ".txt", ".tex"}]
    texts = {path: messages(path) for path in SOURCES}
    texts |= {
        path: re.sub(r"`[^`\n]*`", "", path.read_text(encoding="utf-8")).splitlines()
        for path in pages
        if path.name != "CHANGELOG.md" and path.parent.name != "decisions"
    }
    found = [
        f"{path.relative_to(ROOT)}: {match[0]} in {text[:80]!r}"
        for path, lines in texts.items()
        for text in lines
        if (match := re.search(ODD_WORDS, text)) and not re.match(r"mend = ", text)
    ]
    assert found == []
