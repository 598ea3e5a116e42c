"""Reading and writing the folder of a run: `run.json`, `cases.jsonl`, `cases.csv`, `epochs.jsonl`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from segbench.core.atomic import append_line, atomic_write, atomic_write_json, read_lines
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.outputs import check_targets
from segbench.records.schema import CASE_COLUMNS, SCHEMA_VERSION, RunRecord

RUN_FILE = "run.json"
CASE_LINES = "cases.jsonl"
CASES_FILE = "cases.csv"

Row = dict[str, Any]


def write_run(folder: Path, record: RunRecord) -> None:
    """Write `run.json` atomically; fields that do not apply are left out."""
    atomic_write_json(folder / RUN_FILE, record.model_dump(mode="json", by_alias=True, exclude_none=True))


def check_run_folder(folder: Path, run_id: str, inputs: Iterable[Path] = ()) -> None:
    """SB337 unless a folder holds no run yet, or this one; nothing that was given is written over."""
    path = folder / RUN_FILE

    def own(_: Path) -> bool:
        try:
            record: Any = parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return True  # its rows stand there before its record does
        except (OSError, ValueError):
            return False
        return isinstance(record, dict) and cast("dict[str, Any]", record).get("run_id") == run_id

    check_targets([path, folder / CASES_FILE, folder / CASE_LINES], inputs=inputs, own=own)


def read_run(folder: Path) -> RunRecord:
    """The record of a run folder, migrated to this version's schema.

    Raises:
        SegbenchError: SB602 unreadable, SB604 written by a newer segbench.
    """
    path = folder / RUN_FILE
    try:
        content: object = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SegbenchError("SB602", "the run has no readable run.json", path=path) from error
    except ValueError as error:
        raise SegbenchError("SB602", "run.json is not JSON", path=path) from error
    if not isinstance(content, dict):
        raise SegbenchError("SB602", "run.json is not a record", path=path)
    fields = cast("dict[str, Any]", content)
    version = fields.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SegbenchError(
            "SB604", f"schema_version {version}, this segbench knows up to {SCHEMA_VERSION}", path=path
        )
    try:
        return RunRecord.model_validate(fields)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise SegbenchError("SB602", "run.json breaks its schema", path=path, details=faults) from error


def run_in(folder: Path) -> RunRecord | None:
    """The record of a folder that holds a run, None for any other; a bad record raises as `read_run` does."""
    return read_run(folder) if (folder / RUN_FILE).is_file() else None


def find_runs(folder: Path) -> list[Path]:
    """Run folders in a results folder (or the folder itself when it is one), sorted by name."""
    if (folder / RUN_FILE).is_file():
        return [folder]
    if not folder.is_dir():
        return []
    return sorted(entry.parent for entry in folder.glob(f"*/{RUN_FILE}"))


def append_case(folder: Path, case: str, rows: Sequence[Mapping[str, object]], **inputs: object) -> None:
    """Append the rows of one finished case to `cases.jsonl` in one write.

    Args:
        folder: The run folder.
        case: The case id.
        rows: One row per region; NaN is stored as null, infinity as the string "inf".
        inputs: What the rows were computed from (digests), so that a resume can tell whether they still hold.
    """
    plain = [{key: _jsonable(value) for key, value in row.items()} for row in rows]
    append_line(folder / CASE_LINES, {"case": case, "rows": plain, **inputs})


def read_case_lines(folder: Path, *, repair: bool = False) -> dict[str, dict[str, Any]]:
    """The last line of every case in `cases.jsonl`: {"case", "rows", and the inputs}."""
    return {
        str(line["case"]): line for line in read_lines(folder / CASE_LINES, repair=repair) if "case" in line
    }


def write_cases_csv(folder: Path, metrics: Sequence[str], *, cases: Sequence[str] | None = None) -> Path:
    """Write `cases.csv` from `cases.jsonl`: sorted by case then region, the last record of each wins.

    The bytes depend on the rows alone, not on workers, order or a resume.

    Args:
        folder: The run folder.
        metrics: Metric columns in order.
        cases: Only these cases (all by default).
    """
    lines = read_case_lines(folder)
    wanted = lines if cases is None else {case: lines[case] for case in cases if case in lines}
    rows = [
        row for case in sorted(wanted) for row in sorted(wanted[case]["rows"], key=lambda r: str(r["region"]))
    ]
    return atomic_write(folder / CASES_FILE, cases_csv_text(rows, metrics))


def cases_csv_text(rows: Sequence[Mapping[str, object]], metrics: Sequence[str]) -> str:
    """The text of `cases.csv` for rows in the given order."""
    columns = [*CASE_COLUMNS, *metrics]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell_text(row.get(column)) for column in columns])
    return stream.getvalue()


def cell_text(value: object) -> str:
    """A CSV cell: 17 significant digits, empty for undefined, `inf` in words; formulas are defused.

    Text that a spreadsheet would run (a leading `= + - @`, tab or return) gets an apostrophe in front.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return "inf" if value == math.inf else "-inf" if value == -math.inf else format(value, ".17g")
    text = str(value)
    guard = "'" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else ""
    # Python's csv module leaves a lone return unquoted, and a reader would take it for the end of the row.
    return guard + text.replace("\r", " ")


def read_cases(path: Path) -> list[Row]:
    """Rows of a `cases.csv` (or of a run folder), columns by name, text as it stands.

    Raises:
        SegbenchError: SB602 when a row does not have the header's number of cells.
    """
    target = path / CASES_FILE if path.is_dir() else path
    with target.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        header = next(reader, None)
        if header is None:
            raise SegbenchError("SB602", "the file is empty", path=target)
        rows: list[Row] = []
        for number, cells in enumerate(reader, start=2):
            if len(cells) != len(header):
                raise SegbenchError(
                    "SB602", f"line {number} has {len(cells)} cells, the header {len(header)}", path=target
                )
            rows.append(dict(zip(header, cells, strict=True)))
    return rows


def _jsonable(value: object) -> object:
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
    if isinstance(value, frozenset | set | tuple | list):
        return ";".join(sorted(str(part) for part in cast("Sequence[object]", value)))
    return value
