"""The templates of the report: text is escaped on its way out, so that no name can leave its place."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent / "templates"


class Raw(str):
    """Text as it stands: it was escaped where it was made."""


@cache
def environment(escape: Callable[[str], str], **settings: Any) -> Environment:
    """The templates of `templates/` for one kind of document.

    Args:
        escape: what makes plain text print as itself there; every other value stands as it is.
        **settings: the marks of the templates, and what else is not Jinja's default.
    """
    found = Environment(  # nosec B701: `finalize` escapes; HTML asks for autoescape
        loader=FileSystemLoader(FOLDER),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        finalize=lambda value: escape(value) if type(value) is str else value,
        **settings,
    )
    found.filters["raw"] = Raw
    return found
