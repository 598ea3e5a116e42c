"""Scores that others computed as runs of kind `external`: tables (CSV), the Touchstone tables among them.

A table is read in one of two forms: a row per (case, region) with a column for each metric, or a row per
case with a column for each region, one file per metric (the Touchstone tables). Several models may be given
at once: what one of them has a value for and another has not is a `missing` result of the other and scores
worst, since leaving it out would help that model. What none has a value for is `both_empty` and left out.

Source: MrGiovanni/Touchstone README.md, section "Analyze Benchmark Results" (layout of the tables).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbench.core import console
from segbench.core.atomic import atomic_write, remove_leftovers
from segbench.core.environment import now, results_dir
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_table
from segbench.core.hashing import digest_json, sha256_file
from segbench.core.names import CASE_RULE, is_safe_case
from segbench.core.text import some
from segbench.metrics.policies import fill, penalised
from segbench.metrics.registry import REGION_METRICS, value_range
from segbench.metrics.summary import MEAN_REGION, summarise
from segbench.records import write_run
from segbench.records.identity import run_id as make_run_id
from segbench.records.lease import Lease
from segbench.records.store import CASE_LINES, CASES_FILE, cases_csv_text, check_run_folder
from segbench.scoring.record import PROTOCOL, external_record
from segbench.volumes import stem_and_ending

CASE_COLUMNS = ("case", "name", "case_id", "id", "subject")
REGION_COLUMNS = ("region", "organ", "label", "class", "structure")
TEST_SETS: Mapping[str, str] = {
    "totalsegmentator_results": "touchstone-totalsegmentator",
    "dapatlas_results": "touchstone-dapatlas",
}
"""Folder of a Touchstone test set -> dataset slug; our own card has other cases and labels."""
FILES: Mapping[str, str] = {"dsc.csv": "dice", "nsd.csv": "nsd"}
LICENCE = "CC BY-NC-ND: a user's own copy; do not pass these rows on"
SUMMARIES = frozenset({"mean", "average", "avg", "median", "std", "sd", "min", "max", "count", "overall"})
"""What rows over all cases are called; taken for cases they would enter the mean."""
ONE_ROW = "keep one row for each case and region"
AS_CSV = "save it as a CSV table in UTF-8"

Scores = dict[str, dict[str, float]]
"""case -> region -> value, NaN where the table has none."""
Tables = dict[str, Scores]
"""metric -> scores."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import left of one model.

    Attributes:
        run_id: id of the run.
        folder: its folder.
        dataset: slug of the dataset.
        model: the model.
        metrics: the metrics of its rows.
        rows: one per (case, region).
        refused: one per row of a summary whose values contradict its counts: case, region, message.
        compared: cases whose label maps were at hand, so that the counts were compared with ours.
        theirs: the mean Dice by region as the summary itself has it.
    """

    run_id: str
    folder: Path
    dataset: str
    model: str
    metrics: tuple[str, ...]
    rows: list[dict[str, Any]]
    refused: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    compared: int = 0
    theirs: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def missing(self) -> int:
        """Rows without a result although another model has one."""
        return sum(row["status"] == "missing" for row in self.rows)

    @property
    def means(self) -> dict[str, tuple[float, float]]:
        """Region -> (mean Dice of the rows, failures counted; the summary's own)."""
        return {
            summary.region: (summary.mean, self.theirs.get(summary.region, math.nan))
            for summary in summarise(self.rows, self.metrics)
            if summary.metric == "dice"
        }

    @property
    def mean(self) -> float:
        """Mean Dice over regions, failures counted."""
        means = self.means
        only = next(iter(means), MEAN_REGION)  # one region has no mean over regions beside it
        return means.get(MEAN_REGION, means.get(only, (math.nan, math.nan)))[0]

    def as_json(self) -> dict[str, Any]:
        """The run in the list of `--json`."""
        summaries = [summary.as_json() for summary in summarise(self.rows, self.metrics)]
        for summary in summaries:
            theirs = self.theirs.get(summary["region"], math.nan)
            if summary["metric"] == "dice" and self.theirs:
                summary["nnunet_mean"] = None if math.isnan(theirs) else theirs
        return {
            "run_id": self.run_id,
            "dataset": self.dataset,
            "model": self.model,
            "rows": len(self.rows),
            "missing": self.missing,
            "refused": self.refused,
            "compared_with_files": self.compared,
            "run_directory": str(self.folder),
            "mean_dice": None if math.isnan(self.mean) else self.mean,
            "summary": summaries,
        }


# ---- tables


def import_tables(
    files: Mapping[str, Mapping[Path, str | None]],
    dataset: str,
    *,
    columns: Mapping[str, str] | None = None,
    fold: int = 0,
    seed: int = 0,
    results: Path | None = None,
    command: Sequence[str] = (),
) -> tuple[Imported, ...]:
    """Tables of scores, each model as a run; the models are told which rows the others have.

    Args:
        files: model -> its files, each with its metric, or None where the columns name the metrics.
        dataset: slug of the dataset.
        columns: name of the column for `case`, `region` or a metric, where the file calls it otherwise.
        fold: fold the scores come from.
        seed: seed of the training.
        results: folder of runs.
        command: the command line, for the record.

    Raises:
        SegbenchError: SB602 for a table that is not one, SB306 for a row twice, SB339 for a case name that is
            not an id.
    """
    tables: dict[str, Tables] = {}
    for model, named in files.items():
        tables[model] = {}
        for path, metric in named.items():
            tables[model] |= (
                read_long_table(path, columns or {}) if metric is None else {metric: read_table(path)}
            )
    present = _present(tables)
    if nowhere := [f"{case} {region}" for (case, region), here in present.items() if not here]:
        such = f"{len(nowhere)} of {len(present)} rows have a value nowhere ({some(nowhere)})"
        console.warn(f"{such}: taken as in neither map and left out; write a failure as 0")
    kind = "touchstone" if dataset in TEST_SETS.values() else "tables"
    licence = (LICENCE,) if kind == "touchstone" else ()
    # Of the Touchstone tables the names alone, so that their runs keep their ids.
    found_anywhere = [f"{case}/{region}" for (case, region), here in present.items() if licence or here]
    expected = digest_json(sorted(found_anywhere))
    taken: list[Imported] = []
    for model, found in tables.items():
        digests = {path.name: sha256_file(path) for path in files[model]}
        run = store_run(
            (model, dataset, fold, seed),
            {kind: digests, "expected": expected, "schema_version": 1},
            _table_rows(found, present),
            tuple(metric for metric in REGION_METRICS if metric in found),
            inputs=list(files[model]),
            results=results,
            cases=sorted({case for case, _ in present}),
            profile={"name": kind, "empty_policy": "nan"},  # the same whichever tables are there
            external={kind: digests} | ({"licence": LICENCE} if licence else {}),
            command=command,
            split=kind if licence else None,
            warnings=licence,
        )
        taken.append(run)
    return tuple(taken)


def import_touchstone(
    folder: Path, *, results: Path | None = None, command: Sequence[str] = ()
) -> tuple[Imported, ...]:
    """Every model of a user's own copy of the Touchstone repository; segbench holds none of its tables.

    Raises:
        SegbenchError: SB301 when there are no tables, and what `import_tables` refuses.
    """
    places = [folder] if folder.name in TEST_SETS else [folder / name for name in TEST_SETS]
    taken: list[Imported] = []
    for place in places:
        models = sorted(place.iterdir()) if place.is_dir() else []
        files = {
            model.name: {model / name: metric for name, metric in FILES.items() if (model / name).is_file()}
            for model in models
            if not model.name.startswith(".")
        }
        found = {model: named for model, named in files.items() if named}
        taken += import_tables(found, TEST_SETS[place.name], results=results, command=command)
    if not taken:
        raise SegbenchError(
            "SB301",
            "no Touchstone tables are here",
            path=folder,
            expected="totalsegmentator_results/<model>/dsc.csv or dapatlas_results/<model>/dsc.csv",
            mend="git clone https://github.com/MrGiovanni/Touchstone, then name its folder",
        )
    return tuple(taken)


def read_table(path: Path) -> Scores:
    """A table with a row per case and a column per region.

    Raises:
        SegbenchError: SB602 with the line of the first fault, SB306, SB339.
    """
    head, lines = _lines(path)
    if len(head) < 2 or head[0].casefold() not in CASE_COLUMNS:
        raise SegbenchError("SB602", "this is not a table of scores", path=path, expected="name, then organs")
    scores: Scores = {}
    for number, line in lines:
        case = _checked_case(line[0], path, number)
        if case in scores:
            message = f"line {number}: the case appears twice"
            raise SegbenchError("SB306", message, path=path, case=case, mend=ONE_ROW)
        scores[case] = {
            region: _value(cell, path, number, "dice")
            for region, cell in zip(head[1:], line[1:], strict=True)
        }
    return scores


def read_long_table(path: Path, columns: Mapping[str, str]) -> Tables:
    """A table with a row per (case, region) and a column per metric; without regions there is one, `mean`.

    Raises:
        SegbenchError: SB602 for what is not such a table, naming its columns; SB306, SB339.
    """
    head, lines = _lines(path)
    by_name = {name.strip().casefold(): index for index, name in enumerate(head)}

    def column(what: str, *others: str) -> int | None:
        names = (columns[what],) if what in columns else (what, *others)
        return next((by_name[name.casefold()] for name in names if name.casefold() in by_name), None)

    case_at, region_at = column("case", *CASE_COLUMNS), column("region", *REGION_COLUMNS)
    metrics = {name: at for name in REGION_METRICS if (at := column(name)) is not None}
    absent = [f"{what}={name}" for what, name in columns.items() if name.casefold() not in by_name]
    if case_at is None or not metrics or absent:
        raise SegbenchError(
            "SB602",
            "this is not a table of scores per case"
            + (f": no column for {', '.join(absent)}" if absent else ""),
            path=path,
            expected=f"columns case, region and metrics such as {', '.join(REGION_METRICS[:4])}",
            found=", ".join(head[:20]),
            mend="name the columns: --column case=ID --column dice=DSC",
        )
    tables: Tables = {metric: {} for metric in metrics}
    for number, line in lines:
        case = _checked_case(line[case_at], path, number)
        region = "all" if region_at is None else line[region_at].strip()
        for metric, at in metrics.items():
            of_case = tables[metric].setdefault(case, {})
            if region in of_case:
                message = f"line {number}: {case}, {region} appears twice"
                raise SegbenchError("SB306", message, path=path, case=case, mend=ONE_ROW)
            of_case[region] = _value(line[at], path, number, metric)
    return tables


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and the numbered rows of a table (SB602 when there are none)."""
    try:
        lines = parse_table(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SegbenchError("SB602", f"the table cannot be read: {error}", path=path, mend=AS_CSV) from error
    numbered = [(number, line) for number, line in enumerate(lines[1:], start=2) if line]
    if not numbered:
        raise SegbenchError("SB602", "the table has no rows below its header", path=path, mend=AS_CSV)
    for number, line in numbered:
        if len(line) != len(lines[0]):
            message = f"line {number} has {len(line)} cells, not {len(lines[0])}"
            raise SegbenchError("SB602", message, path=path, mend="give each row a cell of each column")
    return [name.strip() for name in lines[0]], numbered


def _checked_case(text: str, path: Path, number: int) -> str:
    """The case that a cell names, by itself or by its file: `x/a.nii.gz` is the case `a`."""
    name = text.strip().replace("\\", "/").rpartition("/")[2]
    case = (stem_and_ending(name) or (name, ""))[0]
    if ".." in text or not is_safe_case(case):
        mend = f"case ids are {CASE_RULE}"
        raise SegbenchError("SB339", f"line {number} names no usable case", path=path, found=text, mend=mend)
    if case.casefold() in SUMMARIES:
        message = f"line {number}: {case!r} is a row over the cases, not a case"
        raise SegbenchError("SB602", message, path=path, mend="take such rows out of the table")
    return case


def _value(cell: str, path: Path, number: int, metric: str) -> float:
    low, high = value_range(metric)
    try:
        value = float(cell) if cell.strip() else math.nan
    except ValueError:
        value = math.inf
    if not math.isnan(value) and not (low <= value <= high and math.isfinite(value)):
        expected = f"a number between {low:g} and {high:g}" if math.isfinite(high) else f"{low:g} or more"
        message = f"line {number}: {cell!r} is not a {metric}"
        mend = "leave the cell empty where there is no value"
        if "," in cell:
            mend = "write a point before the decimals, and nothing between thousands"
        elif cell.strip().endswith("%") or high < value <= 100 * high:
            mend = "divide by 100: the table holds per cent"
        raise SegbenchError("SB602", message, path=path, expected=expected, mend=mend)
    return value


def _present(tables: Mapping[str, Tables]) -> dict[tuple[str, str], bool]:
    """(case, region) of all tables, and whether any model has a value for it."""
    found: dict[tuple[str, str], bool] = {}
    for metrics in tables.values():
        for scores in metrics.values():
            for case, regions in scores.items():
                for region, value in regions.items():
                    known = found.get((case, region), False)
                    found[case, region] = known or not math.isnan(value)
    return found


def _table_rows(tables: Tables, present: Mapping[tuple[str, str], bool]) -> list[dict[str, Any]]:
    """One row per (case, region) that any model was scored on."""
    rows: list[dict[str, Any]] = []
    for (case, region), somewhere in sorted(present.items()):
        values = {metric: scores.get(case, {}).get(region, math.nan) for metric, scores in tables.items()}
        here = any(not math.isnan(value) for value in values.values())
        status = "ok" if here else "missing" if somewhere else "both_empty"
        by_policy: set[str] = set()
        if status == "missing":
            # How far a distance could be nobody knows without the grid: it stays NaN.
            values = fill(tuple(tables), status, policy="nan", diagonal_mm=math.nan)
            by_policy = set(penalised(tuple(tables), status))
        row = {"case": case, "region": region, "status": status, "code": "SB215" if by_policy else ""}
        rows.append(row | {"penalised": ";".join(name for name in tables if name in by_policy), **values})
    return rows


def store_run(
    of: tuple[str, str, int, int],
    content: dict[str, object],
    rows: list[dict[str, Any]],
    metrics: tuple[str, ...],
    *,
    inputs: Sequence[Path],
    results: Path | None,
    warnings: tuple[str, ...],
    **about: Any,
) -> Imported:
    """Write the run of one model: its rows sorted by case and region, then its record.

    Args:
        of: model, dataset, fold, seed.
        content: what its id is made of.
        rows: without the columns that say whose they are.
        metrics: columns of metrics.
        inputs: files that must not be written over.
        results: folder of runs.
        warnings: of the record.
        about: further fields, as `external_record` takes them.
    """
    model, dataset, fold, seed = of
    identity = make_run_id(model, dataset, PROTOCOL, fold=fold, seed=seed, content=content)
    folder = results_dir(results) / identity
    keys = {
        "run_id": identity, "model": model, "dataset": dataset, "protocol": PROTOCOL,
        "fold": fold, "seed": seed,
    }  # fmt: skip
    rows = [keys | row for row in rows]
    check_run_folder(folder, identity, inputs)
    with Lease(folder):
        remove_leftovers(folder)
        (folder / CASE_LINES).unlink(missing_ok=True)
        ordered = sorted(rows, key=lambda row: (row["case"], row["region"]))
        scores = sha256_file(atomic_write(folder / CASES_FILE, cases_csv_text(ordered, metrics)))
        record = external_record(keys, **about)
        ended = {"status": "complete", "finished": now(), "warnings": warnings, "digests": {"cases": scores}}
        write_run(folder, record.model_copy(update=ended))
    return Imported(run_id=identity, folder=folder, dataset=dataset, model=model, metrics=metrics, rows=rows)
