"""Datasets on disk: opened, split, generated, exported. Nothing here writes into a dataset's own folder.

The names are looked up when they are first used: a worker process that needs only one module of this package
imports neither cards nor adapters.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.data.adapters import CaseFiles
    from segbench.data.dataset import Dataset
    from segbench.data.finding import Finding
    from segbench.data.opening import open_dataset

__all__ = ["CaseFiles", "Dataset", "Finding", "open_dataset"]

_PLACES = {
    "CaseFiles": "adapters",
    "Dataset": "dataset",
    "Finding": "finding",
    "open_dataset": "opening",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
