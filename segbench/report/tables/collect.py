"""All tables of a report, grouped by the file they go into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segbench.report.analysis import Analysis, Key
from segbench.report.published import PublishedRow
from segbench.report.table import Table
from segbench.report.tables.comparison import (
    pairwise_for_paper,
    pairwise_table,
    ranks_table,
    subgroups_for_paper,
    subgroups_table,
)
from segbench.report.tables.main import main_tables
from segbench.report.tables.paper import common_to_notes
from segbench.report.tables.published import published_tables
from segbench.report.tables.records import (
    cost_table,
    discrimination_table,
    guards_table,
    missing_table,
    seeds_table,
)


@dataclass(frozen=True, slots=True)
class TableSet:
    """Tables of one file.

    Attributes:
        name: file stem, `main`, `main_hd95`, `pairwise`, ...
        kind: the part of the report it belongs to: `main`, `pairwise`, ...
        tables: in order; LaTeX writes one float for each.
        latex: tables for LaTeX where they differ, else the same.
        leading: labels of the tables that stand for a whole block (its last region); empty: all do.
    """

    name: str
    kind: str
    tables: tuple[Table, ...]
    latex: tuple[Table, ...]
    leading: frozenset[str] = frozenset()


def build_tables(analysis: Analysis, published: Sequence[PublishedRow] = ()) -> list[TableSet]:
    """Every table that has content; the first metric's files carry no suffix, others its name."""
    sets: list[TableSet] = []
    for metric in analysis.metrics:
        suffix = "" if metric == analysis.metrics[0] else f"_{metric.name}"
        keys = analysis.columns(metric)
        groups: dict[str, list[Table | None]] = {
            "main": [*main_tables(analysis, metric)],
            "pairwise": [pairwise_table(analysis, metric, key) for key in keys],
            "ranks": [ranks_table(analysis, metric, key) for key in keys],
            "subgroups": [subgroups_table(analysis, metric, key) for key in keys],
            "discrimination": [discrimination_table(analysis, metric)],
            "seeds": [seeds_table(analysis, metric)],
        }
        for kind, tables in groups.items():
            found = tuple(table for table in tables if table is not None)
            if found or not suffix:
                leading = _leading(analysis, keys, tables) if kind in {"pairwise", "ranks"} else frozenset()
                paper = _for_paper(analysis, keys, tables) if kind in {"pairwise", "subgroups"} else found
                sets.append(TableSet(kind + suffix, kind, found, paper, leading))
    cost = cost_table(analysis)
    whole = () if cost is None else (cost,)
    printed = tuple(common_to_notes(table, ("Input", "Device")) for table in whole)
    sets.append(TableSet("cost", "cost", whole, printed))
    listed = tuple(published_tables(analysis, published))
    below = tuple(published_tables(analysis, published, in_notes=True))
    sets.append(TableSet("published", "published", listed, below))
    missing = missing_table(analysis)
    sets.append(TableSet("missing", "missing", (missing,), (missing,)))
    in_cells, in_notes = guards_table(analysis), guards_table(analysis, in_notes=True)
    sets.append(TableSet("guards", "guards", (in_cells,), (in_notes,)))
    return sets


def _for_paper(analysis: Analysis, keys: Sequence[Key], tables: Sequence[Table | None]) -> tuple[Table, ...]:
    """Tables of pairs and of subgroups as a printed page can hold them."""
    found: list[Table] = []
    for key, table in zip(keys, tables, strict=True):
        if table is not None:
            pairwise = table.name.startswith("pairwise")
            found.append((pairwise_for_paper if pairwise else subgroups_for_paper)(analysis, table, key))
    return tuple(found)


def _leading(analysis: Analysis, keys: list[Key], tables: list[Table | None]) -> frozenset[str]:
    """Labels of the tables of each block's last region."""
    return frozenset(
        table.label or ""
        for key, table in zip(keys, tables, strict=True)
        if table is not None and key[1] == analysis.regions(key[0])[-1]
    )
