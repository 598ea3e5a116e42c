"""The rows of a `cases.csv` as columns: every cell checked, and read whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segbench.metrics.policies import FAILED, POLICIES, STATUSES
from segbench.metrics.registry import METRICS, value_range
from segbench.records.schema import CASE_COLUMNS

FloatArray = npt.NDArray[np.float64]
IDENTITY = ("model", "dataset", "protocol", "fold", "seed")
REQUIRED_COLUMNS = (*IDENTITY, "case", "region", "status")
MEAN_REGION = "mean"  # the pseudo-region of every table; no real region may have this name
_NUMBER = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|-?inf")
_PLAIN = b"0123456789.-"
NUMBERS = (
    "reference_voxels",
    "prediction_voxels",
    "reference_volume_ml",
    "prediction_volume_ml",
    "diagonal_mm",
)
"""Columns of sizes: at least 0, finite."""
_SLACK = 1e-9  # of a fraction, and of a length relative to its limit: rounding of 17 digits and of sums


@dataclass(frozen=True, slots=True, eq=False)
class CaseRows:
    """The rows of one run as columns, in the file's order.

    Attributes:
        case: case ids.
        region: region names.
        status: one of the statuses of `segbench.metrics.policies`.
        numbers: the columns of `NUMBERS` (voxels, millilitres, diagonal in mm); NaN where absent.
        metrics: metric columns; NaN where the cell is empty.
        digest: sha256 over cases, regions, statuses and numbers, whatever the order of rows and columns and
            whoever they are said to belong to: two runs of equal digest hold the same scores.
    """

    case: tuple[str, ...]
    region: tuple[str, ...]
    status: tuple[str, ...]
    numbers: Mapping[str, FloatArray]
    metrics: Mapping[str, FloatArray]
    digest: str


class UnusableRowsError(Exception):
    """Why a cases.csv cannot be used; the text follows the words "cases.csv"."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The cells of a `cases.csv`.

    Attributes:
        columns: name to cells, in the file's order.
        data: the file's bytes, for its digest.
        lines: the line of the file on which each row ends, counted from 1: what an editor shows.
    """

    columns: Mapping[str, Sequence[str]]
    data: bytes
    lines: Sequence[int]

    def refuse(self, row: int, column: str, why: str) -> UnusableRowsError:
        """The fault of one cell: line, column, value and what is wrong with it."""
        return UnusableRowsError(
            f"line {self.lines[row]}, column {column}: {short(self.columns[column][row])} {why}"
        )


def read_table(path: Path) -> Table:
    """Cells of a CSV file whose lines are equally long; a byte order mark and CRLF are accepted.

    Raises:
        UnusableRowsError: the file cannot be read, is cut short, ragged, or lacks columns.
    """
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
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        (_, header), *numbered = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise UnusableRowsError(f"is cut short or not CSV: {error}") from error
    for number, line in numbered:
        if len(line) != len(header):
            raise UnusableRowsError(
                f"line {number} has {len(line)} cells, the head has {len(header)}: cut short?"
            )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UnusableRowsError(f"has a column twice: {', '.join(map(short, twice))}")
    absent = [name for name in REQUIRED_COLUMNS if name not in header]
    if absent:
        raise UnusableRowsError(f"lacks the columns {', '.join(absent)}")
    if not numbered:
        raise UnusableRowsError("has no rows")
    lines, rows = zip(*numbered, strict=True)
    return Table(dict(zip(header, zip(*rows, strict=True), strict=True)), data, lines)


def undefused(text: str) -> str:
    """A text cell without the apostrophe that keeps spreadsheets from running it."""
    return text[1:] if len(text) > 1 and text[0] == "'" and text[1] in "=+-@\t\r" else text


def case_rows(table: Table, *, empty_policy: str | None) -> CaseRows:
    """The rows of one run, every cell within what its column can hold.

    Args:
        table: the lines of one run.
        empty_policy: of the run's metric profile; None when unknown.

    Raises:
        UnusableRowsError: a case and region twice, an unknown status, text among numbers, or a value that no
            metric can give; with line, column, value and allowed range.
    """
    columns = table.columns
    case, region = (tuple(map(undefused, columns[name])) for name in ("case", "region"))
    status = tuple(columns["status"])
    _check_names(table, case, region, status)
    numbers = {
        name: _floats(table, name) if name in columns else np.full(len(case), np.nan) for name in NUMBERS
    }
    metrics = {
        name: _floats(table, name)
        for name, cells in columns.items()
        if name
        and name not in CASE_COLUMNS
        and (name in METRICS or all(not cell or _NUMBER.fullmatch(cell) for cell in cells))
    }
    values = {**numbers, **metrics}
    fault = first_outside(values, status, numbers["diagonal_mm"], empty_policy)
    if fault is not None:
        raise table.refuse(*fault)
    return CaseRows(case, region, status, numbers, metrics, _digest(case, region, status, values))


def _check_names(table: Table, case: Sequence[str], region: Sequence[str], status: Sequence[str]) -> None:
    for name in sorted(set(status) - set(STATUSES)):
        raise table.refuse(status.index(name), "status", f"is an unknown status, not {', '.join(STATUSES)}")
    if "" in case or "" in region:
        raise UnusableRowsError("has an empty case or region")
    if MEAN_REGION in region:
        raise table.refuse(region.index(MEAN_REGION), "region", "a region may not be called 'mean'")
    seen: dict[tuple[str, str], int] = {}
    for row, pair in enumerate(zip(case, region, strict=True)):
        first = seen.setdefault(pair, row)
        if first != row:
            raise UnusableRowsError(
                f"has two rows for case {short(pair[0])}, region {short(pair[1])}: "
                f"lines {table.lines[first]} and {table.lines[row]}"
            )


def _floats(table: Table, column: str) -> FloatArray:
    """A column as numbers, empty cells as NaN."""
    cells = table.columns[column]
    # Nearly every cell is digits, a point and a sign, which `float` then judges; the rest is matched singly.
    plain = not "".join(cells).encode().translate(None, _PLAIN)
    try:
        if plain or all(not cell or _NUMBER.fullmatch(cell) for cell in cells):
            return np.array([float(cell) if cell else np.nan for cell in cells], dtype=np.float64)
    except ValueError:
        pass
    row = next(row for row, cell in enumerate(cells) if cell and not _NUMBER.fullmatch(cell))
    kind = "text in the metric column" if column in METRICS else "text in the column"
    raise UnusableRowsError(
        f"has {kind} {column}, line {table.lines[row]}: {short(cells[row])} is not a number "
        "in plain digits (0.5, 12, 1e-05; empty where undefined)"
    )


def short(text: str) -> str:
    """A cell of someone else's file, in quotes, on one line and not longer than a line."""
    return repr(text) if len(text) <= 40 else repr(text[:37] + "...")


def _digest(
    case: Sequence[str], region: Sequence[str], status: Sequence[str], values: Mapping[str, FloatArray]
) -> str:
    """Sha256 over rows and columns in sorted order; a column without any value does not count."""
    order = sorted(range(len(case)), key=lambda row: (case[row], region[row]))
    sha = hashlib.sha256("\x1e".join(f"{case[r]}\x1f{region[r]}\x1f{status[r]}" for r in order).encode())
    for name in sorted(values):
        column = values[name][order]
        if not np.isnan(column).all():
            sha.update(f"\x1e{name}\x1f".encode())
            sha.update((np.where(np.isnan(column), np.nan, column) + 0.0).astype("<f8").tobytes())
    return sha.hexdigest()


# ---- what a cell can hold: by its metric, the grid of its row, the policy of its run


def first_outside(
    columns: Mapping[str, FloatArray],
    status: Sequence[str],
    diagonal_mm: FloatArray,
    empty_policy: str | None,
) -> tuple[int, str, str] | None:
    """The first cell outside what its column can hold as row, column and why, or None.

    Args:
        columns: name to values; NaN is undefined and always allowed.
        status: of every row.
        diagonal_mm: of every row; NaN where unknown, without a limit.
        empty_policy: name of the policy that filled undefined values; None or unknown allows any policy's.
    """
    lengths = np.where(np.isnan(diagonal_mm), np.inf, diagonal_mm)
    filled = _fill_limits(status, lengths, empty_policy)
    measured = np.array([word == "ok" for word in status])
    for name, values in columns.items():
        low, high = (0.0, math.inf) if name in NUMBERS else value_range(name)
        info = METRICS.get(name)
        most = np.full(len(values), high)
        endless = np.zeros(len(values), dtype=bool)
        if info is not None and info.unit == "mm":
            least_penalty = float(info.worst) if isinstance(info.worst, float) else 0.0
            most = np.maximum(np.where(measured, lengths, filled), least_penalty)
            endless = ~measured & np.isinf(filled)
        bad = (values < low - _SLACK) | (values > most + _SLACK * np.maximum(1.0, np.abs(most)))
        if info is not None or name in NUMBERS:
            bad |= np.isinf(values) & ~endless
        if bad.any():
            row = int(np.argmax(bad))
            return row, name, f"is outside {_words(low, float(most[row]))}"
    return None


def _fill_limits(status: Sequence[str], lengths: FloatArray, empty_policy: str | None) -> FloatArray:
    """(rows,) the largest distance that a policy puts into a row of this status, inf where it puts inf."""
    policies = [empty_policy] if empty_policy in POLICIES else list(POLICIES)
    limits: dict[str, float] = {"ok": 0.0}
    for word in set(status) - {"ok"}:
        fills = [POLICIES[str(name)]["failed" if word in FAILED else word].distance for name in policies]
        limits[word] = max((value for value in fills if not math.isnan(value)), default=0.0)
    return np.maximum([limits[word] for word in status], lengths)


def _words(low: float, high: float) -> str:
    if math.isinf(low):
        return "the finite numbers"
    return f"{low:g} or more, finite" if math.isinf(high) else f"{low:g} to {high:.6g}"
