"""The report: tables, figures and one page, drawn from records and nothing else.

The names below are the public interface. They are resolved on first use, so that `import segbench.report`
(and with it `segbench report --help`) costs neither pandas nor matplotlib.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.report.build import ReportResult, build_report
    from segbench.report.latex import escape_latex
    from segbench.report.lint import lint_latex
    from segbench.report.load import load_results
    from segbench.report.rendering import render
    from segbench.report.table import Cell, Column, Row, Table, with_marks

__all__ = [
    "Cell",
    "Column",
    "ReportResult",
    "Row",
    "Table",
    "build_report",
    "escape_latex",
    "lint_latex",
    "load_results",
    "render",
    "with_marks",
]

_HOME = {
    "Cell": "table",
    "Column": "table",
    "ReportResult": "build",
    "Row": "table",
    "Table": "table",
    "build_report": "build",
    "escape_latex": "latex",
    "lint_latex": "lint",
    "load_results": "load",
    "render": "rendering",
    "with_marks": "table",
}


def __getattr__(name: str) -> Any:
    """Resolve a public name from the module that holds it."""
    if name not in _HOME:
        raise AttributeError(f"module 'segbench.report' has no attribute {name!r}")
    return getattr(import_module(f"segbench.report.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _CallablePackage(ModuleType):
    """`segbench.report` is both a package of public names and the function of the command of that name."""

    def __call__(self, runs: Any, out: Any, **options: Any) -> ReportResult:
        """Write the report of some runs; see `build_report`."""
        return import_module("segbench.report.build").build_report(runs, out, **options)


sys.modules[__name__].__class__ = _CallablePackage
