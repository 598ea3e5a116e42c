"""Runs as the report reads them: tolerant of absent fields, strict about rows.

Of `run.json` only schema_version, run_id, kind and status are required; every other field may be absent and
then counts as unknown. `cases.csv` is read whole or not at all: a file that is cut short, has ragged lines or
values that are no numbers makes the run unusable, and the run is listed as such.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.records.identity import parse_run_id
from segbench.records.schema import SCHEMA_VERSION
from segbench.records.store import CASES_FILE, RUN_FILE
from segbench.report.rows import (
    IDENTITY,
    CaseRows,
    UnusableRowsError,
    case_rows,
    check_size,
    read_cells,
    undefused,
    whole_number,
)

MAX_DEPTH = 3  # folders below a named one in which runs are looked for


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
        content: object = parse_json(path.read_text(encoding="utf-8-sig"))
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
        cells, header = read_cells(path)
        check_size(path, folder)
        return _split_identities(cells, header, record, folder, path)
    except UnusableRowsError as error:
        return [_bare(record, folder, f"cases.csv {error}")]


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
        rows = case_rows([lines[number] for number in numbers], header, place, numbers, path)
        identity = tuple(undefused(text) for text in (model, dataset, protocol))
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
                fold=whole_number(fold, "fold"),
                seed=whole_number(seed, "seed"),
                record=record,
                rows=rows,
                folder=folder,
            )
        )
    return runs
