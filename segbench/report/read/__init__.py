"""Runs as the report reads them: `runs` finds and checks them, `rows` holds their scores."""

from segbench.report.read.rows import CaseRows
from segbench.report.read.runs import Run, read_runs

__all__ = ["CaseRows", "Run", "read_runs"]
