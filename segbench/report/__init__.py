"""The report: one page, one paper and tables, drawn from records and nothing else.

`read` finds and checks runs, `analysis` decides what may be said, `write` typesets it. The names below are
the public interface. They are resolved on first use, so that `import segbench.report` (and with it
`segbench report --help`) costs neither pandas nor matplotlib.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.report.analysis.analysis import load_results
    from segbench.report.write.build import ReportResult, build_report

__all__ = ["ReportResult", "build_report", "load_results"]

_HOME = {"ReportResult": "write.build", "build_report": "write.build", "load_results": "analysis.analysis"}


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
        return import_module("segbench.report.write.build").build_report(runs, out, **options)


sys.modules[__name__].__class__ = _CallablePackage
