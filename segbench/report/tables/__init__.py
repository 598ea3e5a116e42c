"""The tables of a report, one builder per file; each turns an `Analysis` into format-free tables."""

from segbench.report.tables.collect import TableSet, build_tables

__all__ = ["TableSet", "build_tables"]
