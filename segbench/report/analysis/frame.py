"""Results as a tidy frame: one row per (run, case, region, metric), missing cases included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segbench.metrics.policies import STATUSES
from segbench.report.analysis.analysis import as_paths, usable
from segbench.report.analysis.arrays import build_blocks
from segbench.report.analysis.blocks import NOT_RUN, Block, Scores
from segbench.report.analysis.entries import build_entries
from segbench.report.analysis.options import make_options
from segbench.report.read.runs import read_runs

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("dataset", "protocol", "model", "seed", "fold", "case", "region", "metric")
FRAME_COLUMNS = (*KEYS, "value", "status")


def load_results(
    paths: Path | str | Iterable[Path | str] | None = None,
    *,
    missing: str = "worst",
    include_unfinished: bool = False,
) -> pd.DataFrame:
    """Every score under the paths as long rows, sorted by their key, with missing cases at their worst.

    Args:
        paths: run folders (or their `cases.csv`) or folders of runs; None is the results folder.
        missing: `worst` (missing, unreadable and mismatched cases take the worst value), `drop-case` (they
            leave all models of the dataset) or `error` (they are refused).
        include_unfinished: take runs that are not complete; their absent cases count as missing.

    Returns:
        A frame with the columns dataset, protocol, model, seed, fold, case, region, metric, value, status;
        model is the label of the entry. A value is NaN where it is undefined, or where a penalty is due and
        the diagonal of the case is not known.

    Raises:
        SegbenchError: SB701 no usable run, SB702 two runs of one entry, fold and seed, SB705 no common case,
            SB215 under `error`.
    """
    import pandas as pd

    places = as_paths(paths if paths is None or isinstance(paths, str | Path) else list(paths))
    options = make_options(missing=missing, include_unfinished=include_unfinished)
    entries = build_entries(usable(read_runs(places), options, places))
    blocks = build_blocks(entries, missing=missing)
    parts = [part for block in blocks for scores in block.scores for part in _filled(block, scores)]
    return pd.concat(parts).sort_values(list(KEYS), kind="stable", ignore_index=True)


def _filled(block: Block, scores: Scores) -> Iterator[pd.DataFrame]:
    """What each run of an entry was to score, after the missing policy."""
    import pandas as pd

    kept = np.array([case not in block.dropped_cases for case in block.case_names])
    for run in scores.entry.runs:
        seed, mine = scores.seeds.index(run.seed), (np.array(block.folds) == run.fold) & kept
        rows, columns = np.nonzero((scores.status[seed] != NOT_RUN) & mine[:, None])
        values = np.where(scores.unknown[seed], np.nan, scores.values[seed])[rows, columns]
        wide = pd.DataFrame(values, columns=list(block.metrics))
        wide["case"] = [block.cases[row] for row in rows.tolist()]
        wide["region"] = [[*block.regions][column] for column in columns.tolist()]
        wide["status"] = [STATUSES[code] for code in scores.status[seed][rows, columns].tolist()]
        frame = wide.melt(["case", "region", "status"], var_name="metric", value_name="value")
        known = {"dataset": run.dataset, "protocol": run.protocol, "seed": run.seed, "fold": run.fold}
        yield frame.assign(**known, model=scores.label)[list(FRAME_COLUMNS)]
