"""What a comparison is between: run folders, `cases.csv` files or labels, each read as one side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segbench.core.errors import SegbenchError, unknown_name
from segbench.report.analysis.entries import build_entries
from segbench.report.analysis.identity import identity_of
from segbench.report.read.runs import Run, find_run_folders, read_runs


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison.

    Attributes:
        asked: as it was named.
        runs: its runs; of different identity than those of every other side.
    """

    asked: str
    runs: tuple[Run, ...]


def read_sides(
    asked: Sequence[Path | str], runs: Path, *, select: Sequence[str] = (), allow_edited: bool = False
) -> tuple[Side, ...]:
    """The sides of a comparison, in the order asked.

    Sides whose runs would stand in one row, such as two seeds of one model, are told apart by the names of
    their folders.

    Args:
        asked: run folders, folders that hold the runs of one model, `cases.csv` files, or labels of models.
        runs: folder in which labels are looked up.
        select: which run to take where several cover one entry, fold and seed.
        allow_edited: take records that were changed after they were written.

    Raises:
        SegbenchError: SB104 fewer than two sides or a folder of several models, SB101 an unknown label,
            SB701 a side without a usable run, SB702 two runs of one entry, fold and seed.
    """
    if len(asked) < 2:
        raise SegbenchError(
            "SB104", "compare needs two sides or more", found=len(asked), mend="segbench compare A B"
        )
    stock: list[tuple[Run, ...]] = []  # the runs of the folder, read when the first label asks for them
    found: list[Side] = []
    for item in asked:
        place = Path(item).expanduser()
        if place.is_file() or (place.is_dir() and find_run_folders(place)):
            members = read_runs([place], allow_edited=allow_edited)
            _refuse_several(place, members)
        elif _looks_like_path(str(item)):
            raise SegbenchError("SB701", f"{item} does not exist or holds no run", path=place)
        else:
            if not stock:
                stock.append(read_runs([runs], allow_edited=allow_edited) if runs.exists() else ())
            members = _labelled(str(item), stock[0], runs, select)
        _refuse_unusable(str(item), members)
        found.append(Side(str(item), members))
    return _told_apart(found)


def _looks_like_path(text: str) -> bool:
    return os.sep in text or text.endswith(".csv") or text.startswith((".", "~"))


def _refuse_several(place: Path, runs: Sequence[Run]) -> None:
    models = sorted({run.model for run in runs})
    if len(models) > 1:
        raise SegbenchError(
            "SB104",
            f"{place} holds runs of several models: {', '.join(models)}",
            mend=f"name them: segbench compare {models[0]} {models[1]} --runs {place}",
        )


def _labelled(label: str, stock: Sequence[Run], runs: Path, select: Sequence[str]) -> tuple[Run, ...]:
    """All runs of a model in the folder of runs, or of one of its entries by the label that tables print."""
    if any(run.model == label for run in stock):
        return tuple(run for run in stock if run.model == label)
    complete = [run for run in stock if run.rows is not None]
    entries = build_entries(complete, select=select) if "(" in label or "[" in label else ()
    members = [run for entry in entries if entry.label == label for run in entry.runs]
    if members:
        return tuple(members)
    known = sorted({run.model for run in stock} | {entry.label for entry in entries})
    if not known:
        raise SegbenchError(
            "SB701",
            f"{label!r} is no run folder, and there are no runs to look the label up in",
            path=runs,
            mend="name run folders, or the folder of runs with --runs",
        )
    raise unknown_name("model", label, known, listing="segbench list runs")


def _refuse_unusable(name: str, runs: Sequence[Run]) -> None:
    if any(run.rows is not None and run.complete for run in runs):
        return
    raise SegbenchError(
        "SB701",
        f"{name} has no usable run",
        details=[f"{run.run_id}: {run.problem or run.status or 'no rows'}" for run in runs[:20]],
    )


def _told_apart(sides: Sequence[Side]) -> tuple[Side, ...]:
    """The sides; those that share an identity with another one are renamed, so that they stay apart."""
    identities = [{identity_of(run).digest for run in side.runs} for side in sides]
    taken: set[str] = set()
    found: list[Side] = []
    for place, side in enumerate(sides):
        others = [digests for index, digests in enumerate(identities) if index != place]
        if any(identities[place] & digests for digests in others):
            name, number = _own_name(side), 2
            while name in taken:
                name, number = f"{_own_name(side)} ({number})", number + 1
            side = replace(side, runs=tuple(_renamed(run, name) for run in side.runs))
        taken.update(run.model for run in side.runs)
        found.append(side)
    return tuple(found)


def _own_name(side: Side) -> str:
    first = side.runs[0]
    return first.folder.name if len(side.runs) == 1 and first.folder is not None else first.run_id


def _renamed(run: Run, name: str) -> Run:
    """The run as one of a model called `name`, without the card whose names it would be printed under."""
    model = {**(run.record.model or {}), "slug": name}
    return replace(run, record=run.record.model_copy(update={"model": model}))
