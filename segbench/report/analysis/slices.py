"""Slices: the scores of groups of patients, by the size of the reference and by the columns of a table.

A column of the table (`--slices FILE:site,sex`) is tested once: do the models compare alike on all its
groups? The size of the reference is shown and not tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_table
from segbench.report.analysis.blocks import Block, nan_mean
from segbench.report.analysis.columns import Column
from segbench.report.analysis.metric import format_p

if TYPE_CHECKING:
    from numpy.typing import NDArray


SMALLEST = 5
"""Patients of the smallest group; of fewer, the group stays out."""
MOST_GROUPS = 8
"""A column of more different numbers is cut into thirds."""
SIZE = "reference_ml"
SIZES = ("small", "middle", "large")
KEYS = ("case", "case_id", "participant_id", "patient", "patient_id", "subject", "subject_id", "id")
"""Names of the column that says whose a row is, in small letters; without one it is the first column."""

Table = Mapping[str, Mapping[str, str]]
"""Name of a column to the value of each case or patient."""


class Slice(NamedTuple):
    """One column of the table on one column of the results.

    Attributes:
        name: the column, or `size`.
        groups: group -> mean of each label and number of patients.
        ends: group -> smallest and largest number in it, where it is a third.
        p, p_adjusted: of no interaction; NaN where nothing is tested.
        worst: label and group that fall furthest short.
    """

    name: str
    groups: Mapping[str, Mapping[str, tuple[float, int]]]
    ends: Mapping[str, tuple[float, float]]
    p: float = np.nan
    p_adjusted: float = np.nan
    worst: tuple[str, str] = ("", "")


def read_slices(asked: str) -> dict[str, dict[str, str]]:
    """The columns of `FILE:COLUMN,COLUMN`, by column the value of each case or patient.

    Raises:
        SegbenchError: SB104 for a text of another form, a file that is not a table, a column it lacks.
    """
    example = "for example --slices participants.tsv:site,sex"
    name, _, wanted = asked.rpartition(":")
    columns = list(dict.fromkeys(column.strip() for column in wanted.split(",") if column.strip()))
    if not name or not columns:
        raise SegbenchError("SB104", f"--slices {asked!r} is not FILE:COLUMN,COLUMN", mend=example)
    path = Path(name).expanduser()
    try:
        lines = parse_table(path.read_text(encoding="utf-8-sig")) or [[]]
        head, *rows = ([cell.strip() for cell in row] for row in lines)
    except (OSError, ValueError) as error:
        raise SegbenchError("SB104", f"--slices: the table is not readable: {error}", path=path) from error
    absent = [column for column in columns if column not in head]
    if absent:
        what = f"--slices: the table has no column {', '.join(absent)}"
        raise SegbenchError("SB104", what, path=path, expected=columns, found=head, mend=example)
    key = next((place for place, cell in enumerate(head) if cell.lower() in KEYS), 0)
    found: dict[str, dict[str, str]] = {column: {} for column in columns}
    for row in rows:
        cells = row + [""] * (len(head) - len(row))
        for column in columns:
            value = cells[head.index(column)]
            if not cells[key] or value.lower() in ("", "n/a", "nan", "na"):
                continue
            if (kept := found[column].setdefault(cells[key], value)) != value:
                what = f"--slices: {cells[key]} has two values of {column}: {kept} and {value}"
                mend = "write a row for each case, or one value for a patient"
                raise SegbenchError("SB104", what, path=path, mend=mend)
    return found


def slices(column: Column, table: Table, *, sizes: bool) -> list[Slice]:
    """Each column of the table on a deciding column, Holm over the columns, and where wanted the size.

    Args:
        column: its compared models are tested.
        table: as `read_slices` gives it.
        sizes: whether to add the size of the reference, in ml.

    Raises:
        SegbenchError: SB104 where no case of the block is in the table.
    """
    from segbench.stats import holm

    values = {name: _of_units(column.block, name, of) for name, of in table.items()}
    found = [_slice(column, name, of) for name, of in values.items()]
    tested = [place for place, part in enumerate(found) if part.p == part.p]
    for place, p in zip(tested, holm([found[place].p for place in tested]).tolist(), strict=True):
        found[place] = found[place]._replace(p_adjusted=p)
    if sizes:
        found.append(_slice(column, SIZE, _sizes(column.block, column.region))._replace(p=np.nan))
    return found


def _sizes(block: Block, region: str) -> list[str]:
    """The reference volume of each patient in ml, over its scans and the regions that a column averages."""
    volumes = block.reference_ml[:, block.places(region)].sum(axis=1)
    units = np.array(block.unit_of)
    means = [float(volumes[units == unit].mean()) for unit in block.units]
    return ["" if mean != mean else repr(mean) for mean in means]


def _of_units(block: Block, name: str, values: Mapping[str, str]) -> list[str]:
    """The value of each patient; empty where the table has none, or its cases have several.

    A row is of a case or a patient, called as here or as BIDS writes them.
    """
    per_case = [
        next((values[key] for key in (case, patient, f"sub-{case}", f"sub-{patient}") if key in values), "")
        for case, patient in zip(block.cases, block.patients, strict=True)
    ]
    if not any(per_case):
        what = f"--slices: no case of {block.name} has a value of {name}"
        raise SegbenchError("SB104", what, found=list(values)[:5], expected=list(block.case_names[:5]))
    of: dict[str, set[str]] = {}
    for unit, value in zip(block.unit_of, per_case, strict=True):
        of.setdefault(unit, set()).add(value)
    return [min(of[unit]) if len(of[unit]) == 1 else "" for unit in block.units]


def _slice(column: Column, name: str, values: Sequence[str]) -> Slice:
    """The groups of one column of the table, their means, and the test over the compared models."""
    from segbench.stats import slices_differ

    group, ends = _groups(values)
    scored = {
        scores.label: nan_mean(column.block.per_patient(scores, column.region, column.metric.name), axis=0)
        for scores in column.block.scores
        if scores.label in column.means and column.means[scores.label].value is not None
    }
    means: dict[str, dict[str, tuple[float, int]]] = {}
    for each in dict.fromkeys(group[group != ""].tolist()):
        known = {label: row[(group == each) & ~np.isnan(row)] for label, row in scored.items()}
        means[each] = {
            label: (float(row.mean()) if row.size else np.nan, int(row.size)) for label, row in known.items()
        }
    part = Slice(name, means, ends)
    labels = [label for label in scored if label in column.order]
    if not labels:
        return part
    table = column.sign * np.array([scored[label] for label in labels])
    whole = (group != "") & np.isfinite(table).all(axis=0)
    inside = group[whole].tolist()
    if len(set(inside)) < 2 or min(map(inside.count, inside)) < SMALLEST:
        return part
    p, model, worst = slices_differ(table[:, whole], inside, seed=column.options.seed)
    return part._replace(p=p, worst=(labels[model], worst))


def _groups(values: Sequence[str]) -> tuple[NDArray[np.str_], dict[str, tuple[float, float]]]:
    """The group of each patient, empty where it is unknown or too small, and the ends of thirds."""
    try:
        numbers = np.array([float(value) if value else np.nan for value in values])
    except ValueError:
        numbers = np.full(len(values), np.nan)
    group = np.array(values, dtype=np.str_)
    ends: dict[str, tuple[float, float]] = {}
    if len(set(numbers[np.isfinite(numbers)].tolist())) > MOST_GROUPS:
        known = np.flatnonzero(np.isfinite(numbers))
        group = np.full(len(values), "", dtype="U16")
        ordered = known[np.argsort(numbers[known], kind="stable")]
        for size, third in zip(SIZES, np.array_split(ordered, len(SIZES)), strict=True):
            group[third] = size
            ends[size] = float(numbers[third].min()), float(numbers[third].max())
    for each, count in zip(*np.unique(group, return_counts=True), strict=True):
        if count < SMALLEST:
            group[group == each] = ""
    return group, ends


def slice_words(part: Slice, column: Column) -> str:
    """One sentence about a column of the table on which the models do not compare alike."""
    label, group = part.worst
    mean, n = part.groups[group][label]
    elsewhere = [part.groups[each][label] for each in part.groups if each != group]
    rest = sum(value * count for value, count in elsewhere) / sum(count for _, count in elsewhere)
    what = "the models do not compare alike" if len(column.order) > 1 else "the scores are not alike"
    unit = f" {column.metric.unit}".rstrip()
    return (
        f"{what} over {part.name} (adjusted p {format_p(part.p_adjusted)}): {column.block.short(label)} "
        f"falls furthest short on {part.name} {group}, {column.metric.label} {column.number(mean)}{unit} "
        f"on {n} {column.block.unit}, {column.number(rest)}{unit} on the others"
    )


def slice_rows(parts: Sequence[Slice]) -> Iterator[dict[str, object]]:
    """The groups of every model as rows of `subgroups.csv`."""
    for part in parts:
        for group, means in part.groups.items():
            for label, (mean, n) in means.items():
                least, most = part.ends.get(group, (np.nan, np.nan))
                yield {
                    "model": label, "slice": part.name, "group": group, "least": least, "most": most, "n": n,
                    "mean": mean, "p": part.p, "p_adjusted": part.p_adjusted,
                }  # fmt: skip
