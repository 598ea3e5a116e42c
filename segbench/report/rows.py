"""The rows of a `cases.csv` as columns: read whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.metrics.policies import STATUSES
from segbench.metrics.registry import METRICS
from segbench.records.schema import CASE_COLUMNS
from segbench.records.store import CASES_FILE

FloatArray = npt.NDArray[np.float64]
IDENTITY = ("model", "dataset", "protocol", "fold", "seed")
REQUIRED_COLUMNS = (*IDENTITY, "case", "region", "status")
NUMBERS = ("diagonal_mm", "reference_volume_ml", "prediction_volume_ml")
MEAN_REGION = "mean"  # the pseudo-region of every table; no real region may have this name


@dataclass(frozen=True, slots=True, eq=False)
class CaseRows:
    """The rows of one run as columns, in the file's order.

    Attributes:
        case: case ids.
        region: region names.
        status: one of the statuses of `segbench.metrics.policies`.
        code: SB code of a failed case, else empty.
        numbers: diagonal_mm, reference_volume_ml, prediction_volume_ml; NaN where absent.
        metrics: metric columns; NaN where the cell is empty.
        digest: sha256 over the rows, whatever the order of rows and columns.
    """

    case: tuple[str, ...]
    region: tuple[str, ...]
    status: tuple[str, ...]
    code: tuple[str, ...]
    numbers: Mapping[str, FloatArray]
    metrics: Mapping[str, FloatArray]
    digest: str


class UnusableRowsError(Exception):
    """Why a cases.csv cannot be used; the text follows the words "cases.csv"."""


def read_cells(path: Path) -> tuple[list[list[str]], list[str]]:
    """Header and lines of a CSV file with equal numbers of cells; BOM and CRLF are accepted."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UnusableRowsError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnusableRowsError("is not UTF-8") from error
    if not text.strip():
        raise UnusableRowsError("is empty")
    if not text.endswith(("\n", "\r")):
        raise UnusableRowsError("is cut short: its last line has no line end")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [line for line in reader if line]
    except csv.Error as error:
        raise UnusableRowsError(f"is cut short or not CSV: {error}") from error
    header = lines[0]
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise UnusableRowsError(
                f"line {number} has {len(line)} cells, the head has {len(header)}: cut short?"
            )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UnusableRowsError(f"has a column twice: {', '.join(twice)}")
    absent = [name for name in REQUIRED_COLUMNS if name not in header]
    if absent:
        raise UnusableRowsError(f"lacks the columns {', '.join(absent)}")
    return lines[1:], header


def check_size(path: Path, folder: Path) -> None:
    """A file shorter or longer than its stage recorded was changed or cut after it was written."""
    stage = folder / "stages" / "evaluate.json"
    try:
        outputs = parse_json(stage.read_text(encoding="utf-8"))["outputs"]
        recorded = {item["path"]: item["bytes"] for item in outputs}.get(CASES_FILE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    found = path.stat().st_size
    if isinstance(recorded, int) and recorded != found:
        raise UnusableRowsError(f"has {found} bytes, its stage recorded {recorded}: cut short or changed")


def undefused(text: str) -> str:
    """A text cell without the apostrophe that keeps spreadsheets from running it."""
    return text[1:] if len(text) > 1 and text[0] == "'" and text[1] in "=+-@\t\r" else text


def whole_number(text: str, name: str) -> int:
    """A fold or seed; anything else makes the file unusable."""
    try:
        return int(text)
    except ValueError as error:
        raise UnusableRowsError(f"has the {name} {text!r}, not a whole number") from error


def case_rows(
    lines: list[list[str]], header: list[str], place: Mapping[str, int], numbers: Sequence[int], path: Path
) -> CaseRows:
    """Columns of one identity's lines, with duplicate rows refused."""
    columns = list(zip(*lines, strict=True))
    case = tuple(undefused(text) for text in columns[place["case"]])
    region = tuple(undefused(text) for text in columns[place["region"]])
    _refuse_duplicates(case, region, numbers, path)
    status = tuple(columns[place["status"]])
    strange = sorted(set(status) - set(STATUSES))
    if strange:
        raise UnusableRowsError(f"has the unknown status {', '.join(repr(name) for name in strange[:3])}")
    if MEAN_REGION in region or "" in region or "" in case:
        raise UnusableRowsError("has an empty case or region, or a region called 'mean'")
    metrics: dict[str, FloatArray] = {}
    for name in header:
        if name in CASE_COLUMNS or not name:
            continue
        values = _floats(columns[place[name]])
        if values is not None:
            metrics[name] = values
        elif name in METRICS:
            raise UnusableRowsError(f"has text in the metric column {name}")
    extra = {name: _floats(columns[place[name]]) if name in place else None for name in NUMBERS}
    blank = np.full(len(lines), np.nan)
    code = tuple(columns[place["code"]]) if "code" in place else tuple("" for _ in lines)
    return CaseRows(
        case=case,
        region=region,
        status=status,
        code=code,
        numbers={name: blank if values is None else values for name, values in extra.items()},
        metrics=metrics,
        digest=_digest(header, columns),
    )


def _floats(column: Sequence[str]) -> FloatArray | None:
    """A column as numbers, empty cells as NaN; None when it holds text."""
    try:
        return np.array([float(text) if text else np.nan for text in column], dtype=np.float64)
    except ValueError:
        return None


def _refuse_duplicates(
    case: Sequence[str], region: Sequence[str], numbers: Sequence[int], path: Path
) -> None:
    seen: dict[tuple[str, str], int] = {}
    for index, pair in enumerate(zip(case, region, strict=True)):
        first = seen.setdefault(pair, index)
        if first != index:
            raise SegbenchError(
                "SB702",
                f"two rows for case {pair[0]}, region {pair[1]}: "
                f"lines {numbers[first] + 2} and {numbers[index] + 2}",
                path=path,
                case=pair[0],
            )


def _digest(header: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    """Sha256 over rows and columns in sorted order: shuffling a file does not change it."""
    order = sorted(range(len(header)), key=lambda index: header[index])
    lines = sorted("\x1f".join(parts) for parts in zip(*(columns[index] for index in order), strict=True))
    head = "\x1f".join(header[index] for index in order)
    return hashlib.sha256("\x1e".join([head, *lines]).encode()).hexdigest()
