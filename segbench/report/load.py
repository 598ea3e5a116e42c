"""Results as a tidy frame: one row per (run, case, region, metric), missing cases included."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segbench.core.environment import results_dir
from segbench.core.errors import SegbenchError
from segbench.report.block import Block, ModelScores
from segbench.report.blocks import build_blocks
from segbench.report.missing import NOT_RUN, STATUS_CODE
from segbench.report.runs import Run, read_runs

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
            leave all models of the dataset), `error` (they are refused), or `stored` (values as they stand in
            the files, without rows for absent cases).
        include_unfinished: take runs that are not complete; their absent cases count as missing.

    Returns:
        A frame with the columns dataset, protocol, model, seed, fold, case, region, metric, value, status. A
        value is NaN where it is undefined, or where a penalty is due and the diagonal of the case is not
        known.

    Raises:
        SegbenchError: SB701 no usable run, SB702 duplicate rows, SB705 no common case, SB215 under `error`.
    """
    runs = usable_runs(as_paths(paths), include_unfinished=include_unfinished)
    if missing == "stored":
        return _stored_frame(runs)
    return frame_of(build_blocks(runs, missing=missing, include_unfinished=include_unfinished))


def frame_of(blocks: Iterable[Block]) -> pd.DataFrame:
    """The long frame of blocks whose values are filled already."""
    return _frame([rows for block in blocks for model in block.models for rows in _model_rows(block, model)])


def as_paths(paths: Path | str | Iterable[Path | str] | None) -> list[Path]:
    """The paths as a list; None is the results folder of the environment."""
    if paths is None:
        return [results_dir()]
    if isinstance(paths, str | Path):
        return [Path(paths)]
    return [Path(path) for path in paths]


def usable_runs(paths: Iterable[Path | str], *, include_unfinished: bool = False) -> tuple[Run, ...]:
    """All runs under the paths, at least one of which can be reported.

    Raises:
        SegbenchError: SB701 when none can, with the reason of each.
    """
    places = list(paths)
    runs = read_runs(places)
    if not any(run.rows is not None and (run.complete or include_unfinished) for run in runs):
        reasons = [f"{run.run_id}: {run.problem or run.status}" for run in runs[:20]]
        raise SegbenchError(
            "SB701",
            "no usable run" + (f" among {len(runs)}" if runs else " was found"),
            path=places[0] if places else None,
            details=reasons,
        )
    return runs


_Rows = tuple[
    Run, list[str], list[str], list[str], "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", list[str]
]


def _model_rows(block: Block, model: ModelScores) -> list[_Rows]:
    """Columns of every run of a model: cases and regions it was to score, one entry per metric."""
    names = {code: name for name, code in STATUS_CODE.items()}
    dropped = set(block.dropped_cases)
    rows: list[_Rows] = []
    for run in model.runs:
        seed = model.seeds.index(run.seed)
        values = np.where(model.unknown[seed], np.nan, model.values[seed])
        for index, metric in enumerate(block.metrics):
            at = [
                (c, r)
                for c, case in enumerate(block.cases)
                for r in range(len(block.regions))
                if model.status[seed, c, r] != NOT_RUN and block.folds[c] == run.fold and case not in dropped
            ]
            rows.append(
                (
                    run,
                    [block.cases[c] for c, _ in at],
                    [block.regions[r] for _, r in at],
                    [metric] * len(at),
                    np.array([values[c, r, index] for c, r in at], dtype=np.float64),
                    [names[int(model.status[seed, c, r])] for c, r in at],
                )
            )
    return rows


def _stored_frame(runs: Iterable[Run]) -> pd.DataFrame:
    rows: list[_Rows] = []
    for run in runs:
        if run.rows is None:
            continue
        for metric, values in run.rows.metrics.items():
            names = [metric] * len(values)
            rows.append(
                (run, list(run.rows.case), list(run.rows.region), names, values, list(run.rows.status))
            )
    return _frame(rows)


def _frame(rows: list[_Rows]) -> pd.DataFrame:
    import pandas as pd

    parts = [
        pd.DataFrame(
            {
                "dataset": run.dataset,
                "protocol": run.protocol,
                "model": run.model,
                "seed": run.seed,
                "fold": run.fold,
                "case": cases,
                "region": regions,
                "metric": metrics,
                "value": values,
                "status": statuses,
            }
        )
        for run, cases, regions, metrics, values, statuses in rows
    ]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(FRAME_COLUMNS))
    return frame.sort_values(list(FRAME_COLUMNS[:8]), kind="stable", ignore_index=True)
