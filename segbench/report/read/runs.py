"""Runs as the report reads them: found, checked against their own record, and left out by name when damaged.

Of `run.json` only schema_version, run_id, kind and status are required; every other field may be absent, or
something else than segbench writes, and then counts as unknown. `cases.csv` is read whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.records import facts
from segbench.records.foreign import read_record, unknown_record
from segbench.records.identity import RunIdentity, parse_run_id, safe_part
from segbench.records.schema import RunRecord
from segbench.records.store import CASES_FILE, RUN_FILE
from segbench.report.read.rows import (
    IDENTITY,
    CaseRows,
    Table,
    UnusableRowsError,
    case_rows,
    read_table,
    short,
    undefused,
)

if TYPE_CHECKING:
    from segbench.cards import DatasetCard

WHOLE = re.compile(r"-?[0-9]{1,18}")
MAX_DEPTH = 3  # folders below a named one in which runs are looked for


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run: its record and its rows.

    Attributes:
        record: run.json as far as it can be understood; model, dataset, protocol, fold and seed come from the
            rows or the run id where it does not say.
        rows: None when there are none or they cannot be used; `problem` then says why.
        problem: why the rows cannot be used, else empty.
        folder: where the run was found; never printed.
        edited: the rows were taken although they are not the file or the run that run.json names.
    """

    record: RunRecord
    rows: CaseRows | None = None
    problem: str = ""
    folder: Path | None = None
    edited: bool = False

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.record.run_id

    @property
    def model(self) -> str:
        """Slug of the model, or the label of predictions from elsewhere."""
        return facts.text(self.record.model, "slug")

    @property
    def dataset(self) -> str:
        """Slug of the dataset."""
        return facts.text(self.record.dataset, "slug")

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        return facts.text(self.record.protocol, "name")

    @property
    def fold(self) -> int:
        """Fold index."""
        return self.record.fold or 0

    @property
    def seed(self) -> int:
        """Seed of training."""
        return self.record.seed or 0

    @property
    def key(self) -> tuple[str, str, str, int, int, str]:
        """Order of runs everywhere: dataset, protocol, model, seed, fold, run id."""
        return (self.dataset, self.protocol, self.model, self.seed, self.fold, self.run_id)

    @property
    def complete(self) -> bool:
        """Whether the run ended well."""
        return self.record.status == "complete"


def read_runs(
    paths: Iterable[Path | str], *, allow_edited: bool = False, models: Collection[str] | None = None
) -> tuple[Run, ...]:
    """Every run under the paths, sorted by dataset, protocol, model, seed, fold and id; each once.

    A run whose rows are damaged, edited or impossible is returned without them, its `problem` naming file,
    line, column and value; the others are read on.

    Args:
        paths: run folders or their `cases.csv`, folders of runs (searched three levels deep).
        allow_edited: take rows that are not the ones run.json names (`Run.edited` is then true); values that
            no metric can give are never taken.
        models: slugs of which rows are wanted; those of runs whose record names another model are not read.

    Raises:
        SegbenchError: SB701 when a path does not exist, SB702 for two runs of one id with different rows.
    """
    places: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise SegbenchError("SB701", f"{path} does not exist", path=path)
        for place in [path] if path.is_file() else find_run_folders(path):
            places.setdefault(place.resolve(), place)
    found = [_read_place(place, allow_edited=allow_edited, models=models) for place in places.values()]
    return _of_one_content(sorted(found, key=lambda run: run.key))


def find_run_folders(root: Path) -> list[Path]:
    """Folders that hold a run.json or a cases.csv, the named one included, sorted."""
    found: list[Path] = []
    for parent, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(parent)
        is_run = not {RUN_FILE, CASES_FILE}.isdisjoint(files)
        if is_run:
            found.append(here)
        if is_run or len(here.relative_to(root).parts) >= MAX_DEPTH:
            folders.clear()
    return sorted(found)


def _of_one_content(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs, copies among them; two different contents under one run id are refused."""
    first: dict[tuple[object, ...], Run] = {}
    for run in runs:
        if run.rows is None:  # told by name, each; nothing of it is used
            continue
        other = first.setdefault(run.key, run)
        if other.rows is not None and other.rows.digest != run.rows.digest:
            raise SegbenchError(
                "SB702",
                f"two runs have the id {run.run_id} and different rows",
                details=[str(found.folder) for found in (other, run)],
                mend="name only one of them with --runs",
            )
    return tuple(runs)


def _read_place(place: Path, *, allow_edited: bool, models: Collection[str] | None) -> Run:
    """The run of a folder, or of the cases.csv in it."""
    folder = place.parent if place.name == CASES_FILE else place
    if not (folder / RUN_FILE).is_file():
        problem = "no run.json beside the scores: segbench data import scores makes a run of them"
        return Run(_identified(unknown_record(folder / RUN_FILE)), None, problem, folder)
    record, problem = read_record(folder / RUN_FILE)
    if models is not None and _of_another(record, models):
        return Run(_identified(record), None, problem, folder)
    if not problem and not (folder / CASES_FILE).is_file():
        lost = "run.json says complete, but there is no cases.csv (fix: restore it or score the run again)"
        problem = lost if record.status == "complete" else ""
    elif not problem:
        try:
            table = read_table(folder / CASES_FILE)
            faults = [*_changed(table, record, folder), *_strangers(table, record)]
            if faults and not allow_edited:
                raise UnusableRowsError(faults[0])
            doubted = faults and parse_run_id(record.run_id) is not None
            record = _identified(record, None if doubted else _identity(table))
            rows = case_rows(table, empty_policy=facts.empty_policy(record))
            return Run(record, rows, "", folder, bool(faults))
        except UnusableRowsError as error:
            problem = f"cases.csv {error}"
    return Run(_identified(record), None, problem, folder)


def _of_another(record: RunRecord, models: Collection[str]) -> bool:
    """Whether a record names a model that is none of these, by its slug or else in the id of the run."""
    slug, named = facts.text(record.model, "slug"), parse_run_id(record.run_id)
    if slug or named is None:
        return bool(slug) and slug not in models
    return named.model not in {safe_part(model) for model in models}


# ---- whose rows these are


_NAMES = (("model", "slug"), ("dataset", "slug"), ("protocol", "name"))
"""Tables of a record, and the entry of each that names what the run is of."""


def _identity(table: Table) -> RunIdentity:
    """The identity that the first row of a file states; those of all rows are checked."""
    first: dict[tuple[str, ...], int] = {}
    for row, cells in enumerate(zip(*(table.columns[name] for name in IDENTITY), strict=True)):
        first.setdefault(cells, row)
    found: list[RunIdentity] = []
    for cells, row in first.items():
        names = {name: undefused(cell) for name, cell in zip(IDENTITY[:3], cells, strict=False)}
        for name in (name for name, cell in names.items() if not cell):
            raise UnusableRowsError(f"line {table.lines[row]} has an empty {name}")
        for name, cell in zip(IDENTITY[3:], cells[3:], strict=True):
            if not WHOLE.fullmatch(cell):
                what = f"has the {name} {short(cell)}, not a whole number"
                raise UnusableRowsError(f"line {table.lines[row]} {what}")
        fold, seed = map(int, cells[3:])
        found.append(RunIdentity(**names, fold=fold, seed=seed, digest=""))
    return found[0]


def _expected(record: RunRecord) -> Iterator[tuple[str, str, Callable[[str], str], str]]:
    """What the cells of a column must be: column, who says so, how a cell is written there, and the value."""
    named = parse_run_id(record.run_id)
    stated = {table: facts.text(getattr(record, table), name) for table, name in _NAMES}
    numbers = {"fold": record.fold, "seed": record.seed}
    stated |= {name: "" if value is None else str(value) for name, value in numbers.items()}
    for name, value in stated.items():
        if value:
            yield name, "run.json", str, value
        if named is not None:
            yield name, "the run id", safe_part, str(getattr(named, name))
    yield "run_id", "run.json", str, record.run_id


def _strangers(table: Table, record: RunRecord) -> list[str]:
    """Why the rows are not those of this record: the first cell of each identity column that disagrees.

    Raises:
        UnusableRowsError: the file holds rows of several runs, and the record does not say which is its own.
    """
    expected = list(_expected(record))
    for name in IDENTITY:
        if len(set(table.columns[name])) > 1 and name not in {column for column, *_ in expected}:
            raise UnusableRowsError(f"holds rows of several runs: column {name} has several values")
    faults: list[str] = []
    for name, who, spelled, value in expected:
        cells = table.columns.get(name, ())
        for cell in dict.fromkeys(cells) if name != "run_id" or any(cells) else ():
            if value not in {undefused(cell), spelled(undefused(cell))}:
                faults.append(
                    f"line {table.lines[cells.index(cell)]}, column {name}: {short(cell)}, but {who} says "
                    f"{short(value)}: rows of another run (fix: score the run again, or --allow-edited)"
                )
                break
    return faults


def _changed(table: Table, record: RunRecord, folder: Path) -> list[str]:
    """Why the file is not the one that was recorded when the run ended."""
    recorded, sha = (record.digests or {}).get("cases"), hashlib.sha256(table.data).hexdigest()
    if record.status == "complete" and recorded and recorded != sha:
        return [
            f"was changed after it was written: sha256 {sha[:12]}, run.json recorded "
            f"{recorded[:12]} (fix: restore the file or score the run again, or --allow-edited)"
        ]
    try:
        outputs = parse_json((folder / "stages" / "evaluate.json").read_text(encoding="utf-8"))["outputs"]
        size = {item["path"]: item["bytes"] for item in outputs}.get(CASES_FILE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    if isinstance(size, int) and size != len(table.data):
        return [f"has {len(table.data)} bytes, its stage recorded {size}: cut short or changed"]
    return []


def _identified(record: RunRecord, stated: RunIdentity | None = None) -> RunRecord:
    """The record with its identity filled in where it does not say: from the rows, else from the run id."""
    unknown = RunIdentity(record.run_id, "unknown", "unknown", 0, 0, "")
    found = stated or parse_run_id(record.run_id) or unknown
    update: dict[str, Any] = {
        table: {**(getattr(record, table) or {}), name: getattr(found, table)}
        for table, name in _NAMES
        if not facts.text(getattr(record, table), name)
    }
    update |= {name: getattr(found, name) for name in ("fold", "seed") if getattr(record, name) is None}
    return record.model_copy(update=update)


def data_facts(run: Run) -> dict[tuple[str, ...], object]:
    """What a run was split and scored on, as far as is known: two runs that give one key two values differ.

    Keys are (what, where): the split of a fold, the reference label map of a case, and the volume of a
    reference region by its name and labels, which shows other references where digests are not recorded.
    """
    record = run.record
    found: dict[tuple[str, ...], object] = {}
    if facts.split_digest(record) is not None:
        found["split", f"fold {run.fold}"] = facts.split_digest(record)
    for case, digest in (record.references or {}).items():
        found["reference label map", case] = digest
    if run.rows is not None:
        labels = facts.region_labels(record) or {}
        volumes = run.rows.numbers["reference_volume_ml"].tolist()
        for case, region, volume in zip(run.rows.case, run.rows.region, volumes, strict=True):
            if volume == volume:
                found["reference volume", case, region, str(labels.get(region, ""))] = round(volume, 9)
    return found


def dataset_card(slug: str) -> DatasetCard | None:
    """The suite's card of a dataset, None where it has none that can be read."""
    from segbench.cards import load_dataset_card

    try:
        return load_dataset_card(slug)
    except SegbenchError:
        return None
