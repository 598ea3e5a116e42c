"""A user's own copy of the Touchstone per-case tables as runs: read where it lies, never shipped.

The tables (`totalsegmentator_results/<model>/dsc.csv`, `nsd.csv`, the same below `dapatlas_results`) are
CC BY-NC-ND: segbench holds none of them. A row is a case, a column an organ. `nan` in the tables of all
models means that the organ is not there to be found: the row is `both_empty` and left out, as the authors do.
`nan` in the table of one model only, and a case that only others have, is a `missing` result: it scores
worst, since leaving it out would help that model.

Source: MrGiovanni/Touchstone README.md, section "Analyze Benchmark Results" (layout).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.core.atomic import atomic_write
from segbench.core.environment import now, results_dir
from segbench.core.errors import SegbenchError
from segbench.core.hashing import digest_json, sha256_file
from segbench.metrics.summary import summarise
from segbench.records import write_run
from segbench.records.identity import run_id as make_run_id
from segbench.records.store import CASES_FILE, cases_csv_text, check_run_folder
from segbench.scoring.record import PROTOCOL, external_record
from segbench.scoring.sources import is_case_id

TEST_SETS: Mapping[str, str] = {
    "totalsegmentator_results": "touchstone-totalsegmentator",
    "dapatlas_results": "touchstone-dapatlas",
}
"""Folder of a test set -> dataset slug; not the slug of our own card, whose cases and labels are others."""

FILES: Mapping[str, str] = {"dsc.csv": "dice", "nsd.csv": "nsd"}
LICENCE = "CC BY-NC-ND: a user's own copy; do not pass these rows on"

Scores = dict[str, dict[str, float]]  # case -> organ -> value, NaN where the table has nan


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """What the import left of one model on one test set.

    Attributes:
        run_id: id of the run.
        folder: its folder.
        dataset: slug of the test set.
        model: name of the model's folder.
        rows: one per (case, organ).
        missing: rows without a result although another model has one.
        mean: mean Dice over organs, failures counted.
    """

    run_id: str
    folder: Path
    dataset: str
    model: str
    rows: int
    missing: int
    mean: float

    def as_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        plain = {name: getattr(self, name) for name in ("run_id", "dataset", "model", "rows", "missing")}
        mean = None if math.isnan(self.mean) else self.mean
        return plain | {"run_directory": str(self.folder), "mean_dice": mean}


def import_touchstone(
    folder: Path, *, results: Path | None = None, command: Sequence[str] = ()
) -> tuple[ImportedModel, ...]:
    """Every model of a copy of the Touchstone repository as a run of kind `external`.

    Args:
        folder: the copy, or one of its two folders of results.
        results: folder of runs.
        command: the command line, for the record.

    Raises:
        SegbenchError: SB301 when there are no tables, SB602 for a table that is none, SB306 for a case twice,
            SB339 for a case name that is no id.
    """
    sets = {name: folder / name for name in TEST_SETS if (folder / name).is_dir()}
    if folder.name in TEST_SETS:
        sets = {folder.name: folder}
    taken: list[ImportedModel] = []
    for name, place in sets.items():
        tables = _read_models(place)
        everything = _everything(tables)
        for model, scores in tables.items():
            taken.append(
                _import_model(place / model, TEST_SETS[name], model, scores, everything, results, command)
            )
    if not taken:
        raise SegbenchError(
            "SB301",
            "no Touchstone tables are here",
            path=folder,
            expected="totalsegmentator_results/<model>/dsc.csv or dapatlas_results/<model>/dsc.csv",
            mend="git clone https://github.com/MrGiovanni/Touchstone, then name its folder",
        )
    return tuple(taken)


def _read_models(place: Path) -> dict[str, dict[str, Scores]]:
    """Model -> metric -> scores of every model's folder, by name."""
    models: dict[str, dict[str, Scores]] = {}
    for folder in sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")):
        tables = {
            metric: read_table(folder / file) for file, metric in FILES.items() if (folder / file).is_file()
        }
        if tables:
            models[folder.name] = tables
    return models


def read_table(path: Path) -> Scores:
    """One table: case -> organ -> value.

    Raises:
        SegbenchError: SB602 with the line of the first fault, SB306, SB339.
    """
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SegbenchError("SB602", f"the table cannot be read: {error}", path=path) from error
    if len(lines) < 2 or lines[0][:1] != ["name"] or len(lines[0]) < 2:
        raise SegbenchError("SB602", "this is no Touchstone table", path=path, expected="name, then organs")
    organs = lines[0][1:]
    scores: Scores = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        if len(line) != len(lines[0]):
            raise SegbenchError(
                "SB602", f"line {number} has {len(line)} cells, not {len(lines[0])}", path=path
            )
        if not is_case_id(line[0]):
            raise SegbenchError(
                "SB339", f"line {number} names no usable case", path=path, found=repr(line[0])
            )
        if line[0] in scores:
            raise SegbenchError("SB306", f"line {number}: the case stands twice", path=path, case=line[0])
        scores[line[0]] = {
            organ: _value(cell, path, number) for organ, cell in zip(organs, line[1:], strict=True)
        }
    return scores


def _value(cell: str, path: Path, number: int) -> float:
    try:
        value = float(cell) if cell.strip() else math.nan
    except ValueError:
        value = math.inf
    if not (math.isnan(value) or 0.0 <= value <= 1.0):
        raise SegbenchError("SB602", f"line {number}: {cell!r} is no score between 0 and 1", path=path)
    return value


def _everything(tables: Mapping[str, Mapping[str, Scores]]) -> dict[tuple[str, str], bool]:
    """(case, organ) of all tables, and whether any model has a value for it."""
    found: dict[tuple[str, str], bool] = {}
    for metrics in tables.values():
        for scores in metrics.values():
            for case, organs in scores.items():
                for organ, value in organs.items():
                    key = (case, organ)
                    found[key] = found.get(key, False) or not math.isnan(value)
    return found


def _import_model(
    source: Path,
    dataset: str,
    model: str,
    tables: Mapping[str, Scores],
    everything: Mapping[tuple[str, str], bool],
    results: Path | None,
    command: Sequence[str],
) -> ImportedModel:
    """Write the run of one model on one test set."""
    digests = {file: sha256_file(source / file) for file in FILES if (source / file).is_file()}
    rows = _rows(tables, everything)
    expected = digest_json(sorted(f"{case}/{organ}" for case, organ in everything))
    content: dict[str, object] = {"touchstone": digests, "expected": expected, "schema_version": 1}
    identity = make_run_id(model, dataset, PROTOCOL, fold=0, seed=0, content=content)
    keys = {
        "run_id": identity,
        "model": model,
        "dataset": dataset,
        "protocol": PROTOCOL,
        "fold": 0,
        "seed": 0,
    }
    rows = [keys | row for row in rows]
    metrics = [metric for metric in FILES.values() if metric in tables]
    folder = results_dir(results) / identity
    check_run_folder(folder, identity, [source / file for file in FILES])
    scores = sha256_file(atomic_write(folder / CASES_FILE, cases_csv_text(rows, metrics)))
    record = external_record(
        keys,
        cases=sorted({case for case, _ in everything}),
        profile={"name": "touchstone", "empty_policy": "nan"},  # the same whichever tables are there
        external={"touchstone": dict(digests), "licence": LICENCE},
        command=command,
        split="touchstone",
    )
    ended = {"status": "complete", "finished": now(), "warnings": (LICENCE,), "digests": {"cases": scores}}
    write_run(folder, record.model_copy(update=ended))
    means = [s.mean for s in summarise(rows, metrics) if s.metric == "dice" and s.region == "mean"]
    return ImportedModel(
        run_id=identity,
        folder=folder,
        dataset=dataset,
        model=model,
        rows=len(rows),
        missing=sum(row["status"] == "missing" for row in rows),
        mean=means[0] if means else math.nan,
    )


def _rows(tables: Mapping[str, Scores], everything: Mapping[tuple[str, str], bool]) -> list[dict[str, Any]]:
    """One row per (case, organ) that any model was scored on."""
    rows: list[dict[str, Any]] = []
    for (case, organ), present in sorted(everything.items()):
        values = {metric: scores.get(case, {}).get(organ, math.nan) for metric, scores in tables.items()}
        has_value = any(not math.isnan(value) for value in values.values())
        status = "ok" if has_value else "missing" if present else "both_empty"
        if status == "missing":
            values = dict.fromkeys(values, 0.0)
        rows.append(
            {
                "case": case,
                "region": organ,
                "status": status,
                "penalised": ";".join(values) if status == "missing" else "",
                "code": "SB215" if status == "missing" else "",
                **values,
            }
        )
    return rows
