"""What a comparison is between: run folders, `cases.csv` files or labels, each read as one side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from segbench.core.errors import SegbenchError, unknown_name
from segbench.records.conditions import identity_of
from segbench.report.analysis.analysis import UNUSABLE
from segbench.report.analysis.entries import build_entries
from segbench.report.analysis.options import Options
from segbench.report.read.runs import Run, find_run_folders, read_runs


class Side(NamedTuple):
    """One side of a comparison: as it was named, and its runs, of other identity than any other side's."""

    asked: str
    runs: tuple[Run, ...]


def read_sides(asked: Sequence[Path | str], folder: Path, options: Options) -> list[Side]:
    """The sides of a comparison, in the order asked.

    Sides whose runs would stand in one row, such as two seeds of one model, are told apart by the names of
    their folders.

    Args:
        asked: run folders, folders that hold the runs of one model, `cases.csv` files, or labels of models.
        folder: folder of runs in which labels are looked up.
        options: which records are taken.

    Raises:
        SegbenchError: SB104 fewer than two sides or a folder of several models, SB101 an unknown label,
            SB701 a side without a usable run, SB702 two runs of one entry, fold and seed.
    """
    if len(asked) < 2:
        raise SegbenchError(
            "SB104", "compare needs two sides or more", found=len(asked), mend="segbench compare A B"
        )
    stock: tuple[Run, ...] | None = None  # the runs of the folder, read when the first label asks for them
    slugs = {
        part for item in map(str, asked) for part in (item, item.partition(" (")[0], item.partition(" [")[0])
    }
    found: list[Side] = []
    for item in map(str, asked):
        place = Path(item).expanduser()
        if place.is_file() or (place.is_dir() and find_run_folders(place)):
            members = _of_one_model(place, options)
        elif os.sep in item or item.endswith(".csv") or item.startswith((".", "~")):
            raise SegbenchError("SB701", f"{item} does not exist or holds no run", path=place)
        else:
            if stock is None:
                there = [folder] if folder.exists() else []
                stock = read_runs(there, allow_edited=options.allow_edited, models=slugs)
            members = _labelled(item, stock, folder, options)
        if not any(run.rows is not None and run.complete for run in members):
            reasons = [f"{run.run_id}: {run.problem or run.status or 'no rows'}" for run in members[:20]]
            raise SegbenchError("SB701", f"{item} has no usable run", details=reasons, mend=UNUSABLE)
        found.append(Side(item, members))
    return _told_apart(found)


def _of_one_model(place: Path, options: Options) -> tuple[Run, ...]:
    """The runs of a folder or file that holds one model."""
    runs = read_runs([place], allow_edited=options.allow_edited)
    models = sorted({run.model for run in runs})
    if len(models) > 1:
        raise SegbenchError(
            "SB104",
            f"{place} holds runs of several models: {', '.join(models)}",
            mend=f"name them: segbench compare {models[0]} {models[1]} --runs {place}",
        )
    return runs


def _labelled(label: str, stock: Sequence[Run], folder: Path, options: Options) -> tuple[Run, ...]:
    """All runs of a model in the folder of runs, or of one of its entries by the label that tables print."""
    members = tuple(run for run in stock if run.model == label)
    if members:
        return members
    with_rows = [run for run in stock if run.rows is not None]
    entries = build_entries(with_rows, select=options.select) if "(" in label or "[" in label else ()
    members = tuple(run for entry in entries if entry.label == label for run in entry.runs)
    if members:
        return members
    known = sorted({run.model for run in stock} | {entry.label for entry in entries})
    if known:
        raise unknown_name("model", label, known, listing="segbench list runs")
    raise SegbenchError(
        "SB701",
        f"{label!r} is not a run folder, and there are no runs to look the label up in",
        path=folder,
        mend="name run folders, or the folder of runs with --runs",
    )


def _told_apart(sides: Sequence[Side]) -> list[Side]:
    """The sides; those that share an identity with another one are renamed, so that they stay apart."""
    identities = [{identity_of(run.record).digest for run in side.runs} for side in sides]
    taken: set[str] = set()
    found: list[Side] = []
    for place, side in enumerate(sides):
        if any(identities[place] & digests for at, digests in enumerate(identities) if at != place):
            first = side.runs[0]
            own = first.folder.name if len(side.runs) == 1 and first.folder is not None else first.run_id
            name, number = own, 2
            while name in taken:
                name, number = f"{own} ({number})", number + 1
            side = Side(side.asked, tuple(_renamed(run, name) for run in side.runs))
        taken.update(run.model for run in side.runs)
        found.append(side)
    return found


def _renamed(run: Run, name: str) -> Run:
    """The run as one of a model called `name`, without the card whose names it would be printed under."""
    model = {**(run.record.model or {}), "slug": name}
    return replace(run, record=run.record.model_copy(update={"model": model}))
