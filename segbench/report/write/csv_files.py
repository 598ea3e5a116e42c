"""The numbers as CSV files: stored units, 17 significant digits, no formula for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from segbench.core.text import one_line
from segbench.records.store import cell_text
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column, without_verdict
from segbench.report.analysis.slices import slice_rows, slices

PLACE = ("dataset", "block", "metric", "region")
FILES: Mapping[str, Sequence[str]] = {
    "scores": (
        "dataset", "block", "model", "region", "metric", "mean", "low", "high", "sd_seeds", "sd_units", "n",
        "unit", "cases", "seeds", "failed", "expected", "note",
    ),
    "comparisons": (
        *PLACE, "role", "model", "other", "reference", "difference", "low", "high", "confidence", "p",
        "p_adjusted", "family", "verdict", "claim", "n", "unit", "seeds_model", "seeds_other",
        "detectable_difference", "p_equivalence", "p_equivalence_adjusted", "wilcoxon_p", "shift", "wins",
        "degenerate", "note",
    ),
    "seeds": ("dataset", "block", "model", "region", "metric", "seed", "mean"),
    "ranks": (
        *PLACE, "model", "rank", "rank_low", "rank_high", "probability_best", "rank_by_median", "mean_rank",
        "resamples", "seed",
    ),
    "subgroups": (*PLACE, "model", "slice", "group", "least", "most", "n", "mean", "p", "p_adjusted"),
}  # fmt: skip
"""Columns of each file; a value is as a row gives it, else the attribute of that name of its object."""
Row = tuple[Mapping[str, Any], object]
"""Values by column, and an object whose attributes are the others."""
DRAWN = ("rank_low", "rank_high", "probability_best")
"""Of ranks, what draws of seeds and patients give."""


def files(analysis: Analysis) -> dict[str, bytes | str]:
    """Scores, comparisons and seeds as `tables/*.csv`; with the appendix also what decides nothing: single
    regions, all pairs, ranks, and scores by the size of the reference.

    Differences, `shift` and intervals are the model less the other, in stored units (a Dice of 0.9, not 90).
    """
    columns = [analysis.columns[key] for key in sorted(analysis.columns)]
    deciding = [column for column in columns if column.decided]
    found: dict[str, Iterator[Row]] = {
        "scores": _scores(analysis, columns),
        "comparisons": _comparisons(analysis, deciding),
        "seeds": _seeds(analysis, columns),
    }
    if analysis.options.appendix:
        found["regions"] = _comparisons(analysis, [column for column in columns if not column.decided])
        found["pairs"] = _comparisons(analysis, map(_all_pairs, deciding), decided=False)
        found["ranks"] = _ranks(analysis, deciding)
    if analysis.options.appendix or analysis.slices:
        found["subgroups"] = _subgroups(analysis, deciding)
    return {
        f"tables/{name}.csv": _csv(FILES.get(name, FILES["comparisons"]), rows)
        for name, rows in found.items()
    }


def _csv(head: Sequence[str], rows: Iterable[Row]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    for given, item in rows:
        cells = [given[name] if name in given else getattr(item, name) for name in head]
        writer.writerow([cell_text(one_line(cell) if isinstance(cell, str) else cell) for cell in cells])
    return stream.getvalue()


def _place(analysis: Analysis, column: Column) -> dict[str, Any]:
    """What every row of a column says."""
    block = column.block
    place = {"dataset": block.dataset, "block": block.name, "metric": column.metric.name}
    return place | {"region": column.region, "role": column.role, "unit": column.block.unit}


def _scores(analysis: Analysis, columns: Iterable[Column]) -> Iterator[Row]:
    for column in columns:
        for label, mean in analysis.means(column):
            own = {"model": label, "mean": mean.value, "seeds": len(mean.per_seed)}
            yield _place(analysis, column) | own, mean


def _seeds(analysis: Analysis, columns: Iterable[Column]) -> Iterator[Row]:
    for column in columns:
        for label, mean in analysis.means(column):
            for seed, value in mean.per_seed:
                yield _place(analysis, column) | {"model": label, "seed": seed, "mean": value}, None


def _comparisons(analysis: Analysis, columns: Iterable[Column], *, decided: bool = True) -> Iterator[Row]:
    """Comparisons; where nothing is decided there is no adjusted p, no family and no verdict."""
    for column in columns:
        nothing = {} if decided and column.decided else dict.fromkeys(("p_adjusted", "family", "verdict"))
        for pair in column.comparisons:
            own = {"model": pair.a, "other": pair.b, "reference": column.reference}
            own |= {
                "family": len(column.comparisons),
                "seeds_model": pair.seeds_a,
                "seeds_other": pair.seeds_b,
            }
            yield _place(analysis, column) | own | nothing, pair


def _all_pairs(column: Column) -> Column:
    """The column with every pair of its models as an estimate, the better mean first."""
    note = "an estimate; verdicts are in comparisons.csv"
    return replace(column, comparisons=tuple(without_verdict(pair, note) for pair in column.pairs()))


def _ranks(analysis: Analysis, columns: Iterable[Column]) -> Iterator[Row]:
    """Ranks of the models with what other schemes give them: medians over patients, mean of their ranks."""
    for column in columns:
        if (ranks := column.ranks) is None:
            continue
        # (models, patients), the smallest best
        scores = np.array([-column.sign * table.mean(axis=0) for table in column.tables.values()]).round(12)
        of_patients = np.array([_ranked(patient) for patient in scores.T]).mean(axis=0)
        found: dict[str, Sequence[float]] = {
            name: getattr(ranks, attribute).tolist()
            for name, attribute in (("rank", "ranks"), *((same, same) for same in DRAWN))
        }
        found["rank_by_median"] = _ranked(np.median(scores, axis=1)).tolist()
        found["mean_rank"] = of_patients.tolist()
        for place, label in enumerate(column.order):
            # of one seed: an order of weights, no more
            own = {name: values[place] if values else None for name, values in found.items()}
            yield _place(analysis, column) | {"model": label} | own, ranks


def _ranked(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> np.ndarray:
    """Ranks of values of which the smallest is best; ties share the smaller rank."""
    return np.array([1 + int(np.sum(values < value)) for value in values])


def _subgroups(analysis: Analysis, columns: Iterable[Column]) -> Iterator[Row]:
    for column in columns:
        for row in slice_rows(slices(column, analysis.slices, sizes=analysis.options.appendix)):
            yield _place(analysis, column) | row, None
