"""Results as a tidy frame: one row per (run, case, region, metric), missing cases included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segbench.report.analysis.analysis import as_paths, usable
from segbench.report.analysis.arrays import build_blocks
from segbench.report.analysis.blocks import Block, Scores
from segbench.report.analysis.entries import build_entries
from segbench.report.analysis.missing import NOT_RUN, STATUS_CODE
from segbench.report.analysis.options import make_options
from segbench.report.read.runs import Run, read_runs

if TYPE_CHECKING:
    import pandas as pd

FRAME_COLUMNS = (
    "dataset",
    "protocol",
    "model",
    "seed",
    "fold",
    "case",
    "region",
    "metric",
    "value",
    "status",
)


def load_results(
    paths: Path | str | Iterable[Path | str] | None = None,
    *,
    missing: str = "worst",
    include_unfinished: bool = False,
) -> pd.DataFrame:
    """Every score under the paths as long rows, sorted by their key, with missing cases at their worst.

    Args:
        paths: run folders, folders of runs or `cases.csv` files; None is the results folder.
        missing: `worst` (missing, unreadable and mismatched cases take the worst value), `drop-case` (they
            leave all models of the dataset), `error` (they are refused), or `stored` (values as they are in
            the files, without rows for absent cases).
        include_unfinished: take runs that are not complete; their absent cases count as missing.

    Returns:
        A frame with the columns dataset, protocol, model, seed, fold, case, region, metric, value, status;
        model is the label of the entry. A value is NaN where it is undefined, or where a penalty is due and
        the diagonal of the case is not known.

    Raises:
        SegbenchError: SB701 no usable run, SB702 two runs of one entry, fold and seed, SB705 no common case,
            SB215 under `error`.
    """
    given = paths if paths is None or isinstance(paths, str | Path) else list(paths)
    places = as_paths(given)
    stored = missing == "stored"
    options = make_options(missing="worst" if stored else missing, include_unfinished=include_unfinished)
    entries = build_entries(usable(read_runs(places), options, places))
    if stored:
        return _frame(
            (entry.label, run, *part) for entry in entries for run in entry.runs for part in _stored_rows(run)
        )
    blocks = build_blocks(entries, missing=missing)
    return _frame(
        (scores.label, run, *part)
        for block in blocks
        for scores in block.scores
        for run in scores.entry.runs
        for part in _filled_rows(block, scores, run)
    )


_Part = tuple[list[str], list[str], str, "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", list[str]]


def _stored_rows(run: Run) -> Iterator[_Part]:
    """(cases, regions, metric, values, statuses) of a run as its file has them."""
    if run.rows is not None:
        for metric, values in run.rows.metrics.items():
            yield list(run.rows.case), list(run.rows.region), metric, values, list(run.rows.status)


def _filled_rows(block: Block, scores: Scores, run: Run) -> Iterator[_Part]:
    """(cases, regions, metric, values, statuses) of what a run was to score, after the missing policy."""
    names = {code: name for name, code in STATUS_CODE.items()}
    regions, seed = list(block.regions), scores.seeds.index(run.seed)
    kept = np.array([case not in block.dropped_cases for case in block.cases])
    mine = (np.array(block.folds) == run.fold) & kept
    rows, columns = np.nonzero((scores.status[seed] != NOT_RUN) & mine[:, None])
    values = np.where(scores.unknown[seed], np.nan, scores.values[seed])[rows, columns]
    cases = [block.cases[row] for row in rows.tolist()]
    shown = [regions[column] for column in columns.tolist()]
    statuses = [names[code] for code in scores.status[seed][rows, columns].tolist()]
    for index, metric in enumerate(block.metrics):
        yield cases, shown, metric, values[:, index], statuses


def _frame(rows: Iterable[tuple[str, Run, *_Part]]) -> pd.DataFrame:
    import pandas as pd

    parts = [
        pd.DataFrame(
            {
                "dataset": run.dataset,
                "protocol": run.protocol,
                "model": label,
                "seed": run.seed,
                "fold": run.fold,
                "case": cases,
                "region": regions,
                "metric": metric,
                "value": values,
                "status": statuses,
            }
        )
        for label, run, cases, regions, metric, values, statuses in rows
    ]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(FRAME_COLUMNS))
    return frame.sort_values(list(FRAME_COLUMNS[:8]), kind="stable", ignore_index=True)
