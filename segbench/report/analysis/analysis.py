"""Everything a report or a comparison says, computed once; tables, figures and pages are views of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segbench.core.environment import results_dir
from segbench.core.errors import ExitCode, SegbenchError
from segbench.core.text import count
from segbench.metrics.policies import STATUSES
from segbench.report.analysis.arrays import build_blocks
from segbench.report.analysis.blocks import NOT_RUN, Block, Scores
from segbench.report.analysis.columns import Column, Mean, Role, decide
from segbench.report.analysis.cost import Cost, cost_of
from segbench.report.analysis.entries import Entry, build_entries, pseudonyms
from segbench.report.analysis.findings import Finding, find_all
from segbench.report.analysis.metric import BOUNDARY, Metric, check_names, choose_metrics, shown_regions
from segbench.report.analysis.options import Options, make_options
from segbench.report.analysis.slices import Table, read_slices
from segbench.report.read.runs import Run, dataset_card, read_runs

if TYPE_CHECKING:
    import pandas as pd

Key = tuple[int, str, str]
"""Number of the block, region, metric."""
Progress = Callable[[str], None]
"""Told in a few words what is being done."""

KEYS = ("dataset", "protocol", "model", "seed", "fold", "case", "region", "metric")
FRAME_COLUMNS = (*KEYS, "value", "status")
DEFAULT_REFERENCE = "segmamba-v2"
UNUSABLE = "finish or restore these runs, or name others; --allow-edited takes changed records"
"""How to fix runs that were found and cannot be used."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """The content of a report.

    Attributes:
        options: what was asked for.
        runs: all runs found, unusable ones included.
        entries: rows, over all datasets.
        blocks: comparable entries.
        metrics: shown metrics, the primary one first.
        columns: by block, region and metric.
        costs: by label.
        findings: errors first.
        slices: columns of `--slices`: by name the value of each case or patient.
    """

    options: Options
    runs: tuple[Run, ...]
    entries: tuple[Entry, ...]
    blocks: tuple[Block, ...]
    metrics: tuple[Metric, ...]
    columns: Mapping[Key, Column]
    costs: Mapping[str, Cost]
    findings: tuple[Finding, ...]
    slices: Table

    def short(self, label: str) -> str:
        """The printed name of an entry."""
        return self.by_label[label].short

    @cached_property
    def by_label(self) -> Mapping[str, Entry]:
        """An entry of each label; those of one label are printed alike."""
        return {entry.label: entry for entry in self.entries}

    def regions(self, block: Block) -> tuple[str, ...]:
        """Regions shown of a block, in order."""
        return shown_regions(block, self.options)

    @property
    def shown_metrics(self) -> list[Metric]:
        """The primary metric and, where there is one, the boundary metric beside it."""
        others = {metric.name: metric for metric in self.metrics[1:]}
        return [*self.metrics[:1], *[others[name] for name in BOUNDARY if name in others][:1]]

    def column(self, block: Block, metric: Metric, region: str | None = None) -> Column | None:
        """A column of a block, by default the one that decides its metric; None where it does not exist."""
        return self.columns.get((block.number, region or block.main_region, metric.name))

    def columns_of(
        self, block: Block, metrics: Sequence[Metric], regions: Sequence[str | None] = (None,)
    ) -> list[Column]:
        """The columns of a block that exist: of each metric the regions, by default the one that decides."""
        found = [self.column(block, metric, region) for metric in metrics for region in regions]
        return [column for column in found if column is not None]

    def main_columns(self, metric: Metric | None = None) -> list[Column]:
        """The deciding column of a metric (the primary one by default) in each block that has it."""
        chosen = self.metrics[:1] if metric is None else (metric,)
        return [column for block in self.blocks for column in self.columns_of(block, chosen)]

    def ordered(self, labels: Sequence[str]) -> list[str]:
        """Labels in row order: readers, models by their mean place in the primary column, baselines."""
        places: dict[str, list[int]] = {}
        for column in self.main_columns():
            for place, label in enumerate(column.order):
                places.setdefault(label, []).append(place)
        apart = {entry.label: entry.baseline - entry.reader for entry in self.entries}

        def key(label: str) -> tuple[int, float, str]:
            found = places.get(label)
            return apart.get(label, 0), sum(found) / len(found) if found else float("inf"), label

        return sorted(labels, key=key)

    def means(self, column: Column) -> list[tuple[str, Mean]]:
        """The means of a column by label, in row order."""
        return [(label, column.means[label]) for label in self.ordered(list(column.means))]

    @property
    def exit_code(self) -> int:
        """0, or 3 with a finding of severity error."""
        failing = any(item.severity == "error" for item in self.findings)
        return int(ExitCode.PARTIAL if failing else ExitCode.DONE)


def as_paths(paths: Path | str | Sequence[Path | str] | None) -> list[Path]:
    """The paths as a list; None is the results folder of the environment."""
    if paths is None:
        return [results_dir()]
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


def usable(runs: Sequence[Run], options: Options, places: Sequence[Path]) -> list[Run]:
    """The runs that can be reported.

    Raises:
        SegbenchError: SB701 when none can, with the reason of each.
    """
    found = [
        run
        for run in runs
        if (run.complete and run.rows is not None) or (options.include_unfinished and not run.complete)
    ]
    if not any(run.rows is not None for run in found):
        raise SegbenchError(
            "SB701",
            "no usable run" + (f" among {len(runs)}" if runs else " was found"),
            path=places[0] if places else None,
            details=[f"{run.run_id}: {run.problem or run.record.status}" for run in runs[:20]],
            mend=UNUSABLE if runs else None,
        )
    return found


def analyse(
    paths: Sequence[Path | str], options: Options, *, progress: Progress = lambda text: None
) -> Analysis:
    """Read the runs and compute everything.

    Raises:
        SegbenchError: SB701, SB702, SB705 of the records; SB101 for a metric, region or reference nobody has;
            SB215 under `--missing error`.
    """
    progress("reading records")
    places = as_paths(list(paths))
    return analyse_runs(
        read_runs(places, allow_edited=options.allow_edited), options, places=places, progress=progress
    )


def analyse_runs(
    runs: Sequence[Run],
    options: Options,
    *,
    places: Sequence[Path] = (),
    progress: Progress = lambda text: None,
) -> Analysis:
    """The analysis of runs that were read."""
    table = read_slices(options.slices) if options.slices is not None else {}
    taken = usable(runs, options, places)
    entries = build_entries(taken, select=options.select)
    names_of_cases = pseudonyms(taken) if options.pseudonyms else {}
    blocks = build_blocks(entries, missing=options.missing, case_names=names_of_cases)
    metrics = choose_metrics(blocks, options)
    check_names(blocks, options)
    columns: dict[Key, Column] = {}
    for block in blocks:
        labels = [scores.label for scores in block.contenders(options.baselines)]
        doing = "comparing" if len(labels) > 1 else "reading"
        progress(f"{doing} {count(len(labels), 'model')} on {block.name}")
        wanted = options.reference or DEFAULT_REFERENCE  # none, which is no label, compares all pairs
        card = dataset_card(block.dataset)
        margins = {**(card.evaluation.margin if card is not None else {}), **options.margin}
        for metric in (metric for metric in metrics if metric.name in block.metrics):
            main: Role = "primary" if metric == metrics[0] else "secondary"
            for region in shown_regions(block, options):
                columns[block.number, region, metric.name] = decide(
                    block,
                    region,
                    metric,
                    main if region == block.main_region else "region",
                    reference=wanted if wanted in labels and options.reference != "none" else None,
                    margin=margins.get(metric.name),
                    options=options,
                )
    return Analysis(
        options=options,
        runs=tuple(runs),
        entries=entries,
        blocks=blocks,
        metrics=metrics,
        columns=columns,
        costs={entry.label: cost_of(entry) for entry in reversed(entries)},
        findings=find_all(runs, blocks, columns=list(columns.values()), table=table),
        slices=table,
    )


# ---- every score, as a frame


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
