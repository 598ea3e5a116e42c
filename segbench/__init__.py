"""segbench: decide which 3D medical segmentation model is really better.

The names below are the public interface, with the words of the command line; each is resolved on first use,
so that `import segbench` costs nothing. Everything else is reached by its module path and may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench import report
    from segbench.cards import load_dataset_card, load_model_card
    from segbench.networks import build_network
    from segbench.report import load_results
    from segbench.report.analysis.compare import compare
    from segbench.runs.api import evaluate, run

__all__ = [
    "build_network",
    "compare",
    "evaluate",
    "load_dataset_card",
    "load_model_card",
    "load_results",
    "report",
    "run",
]

_HOME = {
    "build_network": "segbench.networks",
    "compare": "segbench.report.analysis.compare",
    "evaluate": "segbench.runs.api",
    "load_dataset_card": "segbench.cards",
    "load_model_card": "segbench.cards",
    "load_results": "segbench.report",
    "run": "segbench.runs.api",
}


def __getattr__(name: str) -> Any:
    """Resolve a public name from where it lives; `report` is the package, which is also callable."""
    if name == "report":
        return import_module("segbench.report")
    if name not in _HOME:
        raise AttributeError(f"module 'segbench' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
