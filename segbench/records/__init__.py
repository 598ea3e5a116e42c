"""Run records: what a cell leaves behind, readable by anyone, written whole or not at all."""

from segbench.records.identity import parse_run_id, run_id
from segbench.records.schema import (
    CASE_COLUMNS,
    SCHEMA_VERSION,
    CodeRecord,
    Failure,
    Leaks,
    RunRecord,
    SplitRecord,
)
from segbench.records.store import (
    append_case,
    cases_csv_text,
    find_runs,
    read_case_lines,
    read_cases,
    read_run,
    run_in,
    write_cases_csv,
    write_run,
)

__all__ = [
    "CASE_COLUMNS",
    "SCHEMA_VERSION",
    "CodeRecord",
    "Failure",
    "Leaks",
    "RunRecord",
    "SplitRecord",
    "append_case",
    "cases_csv_text",
    "find_runs",
    "parse_run_id",
    "read_case_lines",
    "read_cases",
    "read_run",
    "run_id",
    "run_in",
    "write_cases_csv",
    "write_run",
]
