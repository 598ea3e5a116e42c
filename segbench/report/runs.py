"""Runs as the report reads them: tolerant of absent fields, strict about rows.

Of `run.json` only schema_version, run_id, kind and status are required; every other field may be absent and
then counts as unknown. `cases.csv` is read whole or not at all: a file that is cut short, has ragged lines or
values that are no numbers makes the run unusable, and the run is listed as such.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.core.errors import SegbenchError
from segbench.metrics.policies import STATUSES
from segbench.metrics.registry import METRICS
from segbench.records.identity import parse_run_id
from segbench.records.schema import CASE_COLUMNS, SCHEMA_VERSION
from segbench.records.store import CASES_FILE, RUN_FILE

FloatArray = npt.NDArray[np.float64]

IDENTITY = ("model", "dataset", "protocol", "fold", "seed")
REQUIRED_COLUMNS = (*IDENTITY, "case", "region", "status")
NUMBERS = ("diagonal_mm", "reference_volume_ml", "prediction_volume_ml")
MEAN_REGION = "mean"  # the pseudo-region of every table; no real region may have this name
MAX_DEPTH = 3  # folders below a named one in which runs are looked for


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


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run: its identity, its record as it stands, and its rows.

    Attributes:
        run_id: name of the run; for rows without one it is made from the identity.
        kind: trained, external or floor.
        status: planned, running, complete, failed, interrupted.
        model: slug or label; with dataset, protocol, fold and seed the identity of the rows.
        record: run.json as it stands; empty for a bare cases.csv.
        rows: None when there are none or they cannot be used; `problem` then says why.
        problem: why the rows cannot be used, else empty.
        folder: where the run was found; never printed.
    """

    run_id: str
    kind: str
    status: str
    model: str
    dataset: str
    protocol: str
    fold: int
    seed: int
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rows: CaseRows | None = None
    problem: str = ""
    folder: Path | None = None

    @property
    def key(self) -> tuple[str, str, str, int, int, str]:
        """Order of runs everywhere: dataset, protocol, model, seed, fold, run id."""
        return (self.dataset, self.protocol, self.model, self.seed, self.fold, self.run_id)

    @property
    def complete(self) -> bool:
        """Whether the run ended well."""
        return self.status == "complete"


def read_runs(paths: Iterable[Path | str]) -> tuple[Run, ...]:
    """Every run under the paths, sorted by dataset, protocol, model, seed, fold and id; each once.

    Args:
        paths: run folders, folders of runs (searched three levels deep), or `cases.csv` files.

    Raises:
        SegbenchError: SB701 when a path does not exist or holds no run, SB702 for duplicate rows.
    """
    found: dict[Path, list[Run]] = {}
    for path in (Path(item) for item in paths):
        if not path.exists():
            raise SegbenchError("SB701", f"{path} does not exist", path=path)
        for place in [path] if path.is_file() else find_run_folders(path):
            resolved = place.resolve()
            if resolved not in found:
                found[resolved] = read_file(place) if place.is_file() else read_folder(place)
    runs = sorted((run for group in found.values() for run in group), key=lambda run: run.key)
    return _distinct(runs)


def find_run_folders(root: Path) -> list[Path]:
    """Folders that hold a run.json or a cases.csv, the named one included, sorted."""
    if _is_run(root):
        return [root]
    found: list[Path] = []
    for parent, folders, _ in os.walk(root):
        here = Path(parent)
        depth = len(here.relative_to(root).parts)
        keep: list[str] = []
        for name in sorted(folders):
            if name.startswith("."):
                continue
            if _is_run(here / name):
                found.append(here / name)
            elif depth + 1 < MAX_DEPTH:
                keep.append(name)
        folders[:] = keep
    return sorted(found)


def _is_run(folder: Path) -> bool:
    return (folder / RUN_FILE).is_file() or (folder / CASES_FILE).is_file()


def _distinct(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Runs without exact copies; two different contents under one run id are refused."""
    kept: dict[tuple[object, ...], Run] = {}
    for run in runs:
        name = (run.run_id, *run.key)
        other = kept.get(name)
        if other is None:
            kept[name] = run
        elif _content(other) != _content(run):
            raise SegbenchError(
                "SB702",
                f"two runs have the id {run.run_id} and different rows",
                details=[str(place) for place in (other.folder, run.folder) if place is not None],
                mend="name only one of them with --runs",
            )
    return tuple(kept.values())


def _content(run: Run) -> str:
    return run.rows.digest if run.rows is not None else run.problem or run.status


def read_file(path: Path) -> list[Run]:
    """The runs of a bare `cases.csv`; a run.json beside it is used."""
    if path.name == CASES_FILE and (path.parent / RUN_FILE).is_file():
        return read_folder(path.parent)
    return _with_rows(path, {}, path.parent)


def read_folder(folder: Path) -> list[Run]:
    """The run of a folder (several when its cases.csv holds several identities)."""
    path = folder / RUN_FILE
    if not path.is_file():
        return _with_rows(folder / CASES_FILE, {}, folder)
    record, problem = read_record(path)
    if problem:
        return [_bare(record, folder, problem)]
    if record["status"] != "complete":
        runs = [_bare(record, folder, "")]
        if (folder / CASES_FILE).is_file():
            runs = [
                replace(run, status=str(record["status"]))
                for run in _with_rows(folder / CASES_FILE, record, folder)
            ]
        return runs
    if not (folder / CASES_FILE).is_file():
        return [_bare(record, folder, "no cases.csv")]
    return _with_rows(folder / CASES_FILE, record, folder)


def read_record(path: Path) -> tuple[dict[str, Any], str]:
    """`run.json` as it stands and, when it cannot be used, why."""
    try:
        content: object = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        return {}, f"run.json cannot be read: {type(error).__name__}"
    if not isinstance(content, dict):
        return {}, "run.json is not a record"
    record: dict[str, Any] = content
    absent = [name for name in ("schema_version", "run_id", "kind", "status") if name not in record]
    if absent:
        return record, f"run.json lacks {', '.join(absent)}"
    version = record["schema_version"]
    if isinstance(version, int) and version > SCHEMA_VERSION:
        return record, f"run.json has schema_version {version}, newer than {SCHEMA_VERSION}"
    return record, ""


def _bare(record: Mapping[str, Any], folder: Path, problem: str) -> Run:
    """A run without usable rows; its identity comes from the record, else from the run id."""
    run_id = str(record.get("run_id") or folder.name)
    named = parse_run_id(run_id)
    return Run(
        run_id=run_id,
        kind=str(record.get("kind", "")),
        status=str(record.get("status", "")),
        model=named.model if named else slug_of(record.get("model")) or run_id,
        dataset=named.dataset if named else slug_of(record.get("dataset")),
        protocol=named.protocol if named else slug_of(record.get("protocol")),
        fold=_whole(record.get("fold"), named.fold if named else 0),
        seed=_whole(record.get("seed"), named.seed if named else 0),
        record=record,
        problem=problem,
        folder=folder,
    )


def slug_of(value: object) -> str:
    """The name in a field that is a text or a table with `slug` or `name`."""
    if isinstance(value, Mapping):
        return str(value.get("slug") or value.get("name") or "")
    return str(value) if value is not None else ""


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) else default


def _with_rows(path: Path, record: Mapping[str, Any], folder: Path) -> list[Run]:
    """One run per identity found in the rows of a cases.csv."""
    try:
        cells, header = _read_cells(path)
        _check_size(path, folder)
        return _split_identities(cells, header, record, folder, path)
    except UnusableRowsError as error:
        return [_bare(record, folder, f"cases.csv {error}")]


class UnusableRowsError(Exception):
    """Why a cases.csv cannot be used; the text follows the words "cases.csv"."""


def _read_cells(path: Path) -> tuple[list[list[str]], list[str]]:
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


def _check_size(path: Path, folder: Path) -> None:
    """A file shorter or longer than its stage recorded was changed or cut after it was written."""
    stage = folder / "stages" / "evaluate.json"
    try:
        outputs = json.loads(stage.read_text(encoding="utf-8"))["outputs"]
        recorded = {item["path"]: item["bytes"] for item in outputs}.get(CASES_FILE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    found = path.stat().st_size
    if isinstance(recorded, int) and recorded != found:
        raise UnusableRowsError(f"has {found} bytes, its stage recorded {recorded}: cut short or changed")


def _undefused(text: str) -> str:
    """A text cell without the apostrophe that keeps spreadsheets from running it."""
    return text[1:] if len(text) > 1 and text[0] == "'" and text[1] in "=+-@\t\r" else text


def _split_identities(
    lines: list[list[str]], header: list[str], record: Mapping[str, Any], folder: Path, path: Path
) -> list[Run]:
    """Group lines by identity and turn each group into a run."""
    if not lines:
        return [_bare(record, folder, "cases.csv has no rows")]
    place = {name: index for index, name in enumerate(header)}
    groups: dict[tuple[str, ...], list[int]] = {}
    id_column = place.get("run_id")
    for number, line in enumerate(lines):
        identity = tuple(line[place[name]] for name in IDENTITY)
        own = line[id_column] if id_column is not None else ""
        groups.setdefault((own, *identity), []).append(number)
    runs: list[Run] = []
    for (own, model, dataset, protocol, fold, seed), numbers in groups.items():
        rows = _columns([lines[number] for number in numbers], header, place, numbers, path)
        identity = tuple(_undefused(text) for text in (model, dataset, protocol))
        if not all(identity):
            raise UnusableRowsError("has an empty model, dataset or protocol")
        alone = len(groups) == 1
        made = f"{identity[0]}__{identity[1]}__{identity[2]}__f{fold}__s{seed}"
        runs.append(
            Run(
                run_id=str(record.get("run_id") or own or made) if alone else own or made,
                kind=str(record.get("kind") or "external"),
                status=str(record.get("status") or "complete"),
                model=identity[0],
                dataset=identity[1],
                protocol=identity[2],
                fold=_number(fold, "fold"),
                seed=_number(seed, "seed"),
                record=record,
                rows=rows,
                folder=folder,
            )
        )
    return runs


def _number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UnusableRowsError(f"has the {name} {text!r}, not a whole number") from error


def _columns(
    lines: list[list[str]], header: list[str], place: Mapping[str, int], numbers: Sequence[int], path: Path
) -> CaseRows:
    """Columns of one identity's lines, with duplicate rows refused."""
    columns = list(zip(*lines, strict=True))
    case = tuple(_undefused(text) for text in columns[place["case"]])
    region = tuple(_undefused(text) for text in columns[place["region"]])
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
