"""The size of the house: no measure grows past the limit it has reached."""

from __future__ import annotations

import ast
from types import ModuleType


def trees(portrait: ModuleType, **texts: str) -> dict[str, tuple[str, ast.Module]]:
    return {f"{name.replace('__', '/')}.py": (text, ast.parse(text)) for name, text in texts.items()}


def test_no_measure_is_over_its_limit(portrait: ModuleType) -> None:
    assert portrait.over_the_limit(portrait.measures()) == []


def test_what_is_over_its_limit_is_named(portrait: ModuleType) -> None:
    found = {name: (limit.now, "") for name, limit in portrait.LIMITS.items()}
    assert portrait.over_the_limit(found) == []
    worse = {
        name: (limit.now - 0.1 if limit.least else limit.now + 1, "here")
        for name, limit in portrait.LIMITS.items()
    }
    assert len(portrait.over_the_limit(worse)) == len(portrait.LIMITS)


def test_circles_are_seen_through_lazy_and_dynamic_imports(portrait: ModuleType) -> None:
    files = trees(
        portrait,
        room__a="from segbench.room import b",
        room__b="def f():\n    from segbench.room.c import g",
        room__c="import_module('segbench.room.a')",
        room__d="from segbench.room.a import f",
    )
    assert portrait.circles(portrait.import_graph(files)) == [("room/a.py", "room/b.py", "room/c.py")]
    del files["room/c.py"]
    assert portrait.circles(portrait.import_graph(files)) == []


def test_records_are_dataclasses_and_models_and_no_protocol_of_typing(portrait: ModuleType) -> None:
    files = trees(
        portrait,
        a="class Base(BaseModel): ...\nclass Protocol(Base): ...\n@dataclass(frozen=True)\nclass Point: ...",
        b="from typing import Protocol\nclass Hasher(Protocol): ...\nclass Plain: ...",
    )
    assert portrait.records(files) == [("a.py", "Base"), ("a.py", "Protocol"), ("a.py", "Point")]


def test_code_lines_leave_out_docstrings_comments_and_blanks(portrait: ModuleType) -> None:
    definition = 'def f():\n    """Doc."""\n    # a reason\n    return x\n'
    text = '"""Two\nlines."""\n\nx = (  # why\n    1,\n)\n\n\n' + definition
    assert portrait.code_lines(text) == 5
