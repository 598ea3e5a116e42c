"""report.json: the analysis as plain values, nothing computed and nothing left out of what it decided."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np

from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.blocks import Block, failures
from segbench.report.analysis.columns import Column
from segbench.report.analysis.entries import Entry
from segbench.report.analysis.published_beside import published_beside
from segbench.report.analysis.sentences import headline
from segbench.report.read.runs import Run

SCHEMA_VERSION = 2
PACKAGES = ("segbench", "numpy", "scipy", "pandas", "matplotlib")


def files(analysis: Analysis) -> dict[str, bytes | str]:
    """report.json: sorted keys, two-space indent, floats by repr, newline at the end."""
    text = json.dumps(document(analysis), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return {"report.json": text + "\n"}


def document(analysis: Analysis) -> dict[str, Any]:
    """The content of report.json: no time, host, user, path or command line; numbers as stored."""
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": plain(analysis.options.public()),
        "versions": versions(),
        "runs": [_run(run) for run in analysis.runs],
        "entries": [_entry(entry) for entry in analysis.entries],
        "blocks": [_block(block) for block in analysis.blocks],
        "verdicts": [
            {"where": place, "sentences": list(sentences)} for place, sentences in headline(analysis)
        ],
        "columns": [_column(column) for column in analysis.columns.values()],
        "cost": {label: plain(cost) for label, cost in analysis.costs.items()},
        "findings": [item.as_json() for item in analysis.findings],
        "published": plain([row.as_json() for row in published_beside(analysis)]),
    }


def versions() -> dict[str, str]:
    """Versions of what computed and drew the report."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _fields(value: Any, names: str) -> dict[str, Any]:
    """Attributes of an object by name."""
    return {name: plain(getattr(value, name)) for name in names.split()}


def _run(run: Run) -> dict[str, Any]:
    digest = run.rows.digest if run.rows is not None else None
    names = "run_id model dataset protocol fold seed edited problem"
    return _fields(run, names) | _fields(run.record, "kind status") | {"content_sha256": digest}


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        **_fields(entry, "label model dataset baseline title family"),
        "name": entry.short,
        "identity": entry.identity.digest,
        "runs": [run.run_id for run in entry.runs],
        "copies": [run.run_id for run in entry.copies],
    }


def _block(block: Block) -> dict[str, Any]:
    return {
        **_fields(block, "name dataset differs unit regions mean_regions dropped_cases"),
        "n": len(block.units),
        "cases": len(block.cases),
        "entries": [scores.label for scores in block.scores],
        "failures": [
            {"entry": label, "case": case, "status": status} for label, case, status in failures(block)
        ],
    }


def _column(column: Column) -> dict[str, Any]:
    """A column with everything that was decided in it, verdicts included; single draws are left out."""
    ranks = plain(column.ranks)
    if ranks is not None:
        ranks.pop("kendall_tau")
    return {
        **_fields(column, "region role reference order left_out comparisons omnibus"),
        **{"block": column.block.name, "unit": column.block.unit},
        "metric": column.metric.name,
        "higher_is_better": column.metric.higher_is_better,
        "means": {
            label: plain(mean)
            | {"per_seed": [{"seed": seed, "mean": plain(value)} for seed, value in mean.per_seed]}
            for label, mean in column.means.items()
        },
        "ranks": ranks,
        "null_check": plain(column.null),
    }


def plain(value: Any) -> Any:
    """Any structure of the analysis as JSON values: NaN null, infinities a word, arrays lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
