"""What a comparison is between: run folders, `cases.csv` files or labels, each read as one named side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segbench.core.errors import SegbenchError, unknown_name
from segbench.report.runs import Run, find_run_folders, read_runs


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: label in tables; different for each side.
        runs: its runs, all renamed to `name`.
    """

    name: str
    runs: tuple[Run, ...]


def read_sides(asked: Sequence[Path | str], runs: Path) -> tuple[Side, ...]:
    """The sides of a comparison, in the order asked.

    Args:
        asked: run folders, folders that hold the runs of one model, `cases.csv` files, or labels of models.
        runs: folder in which labels are looked up.

    Raises:
        SegbenchError: SB104 fewer than two sides or a folder of several models, SB101 an unknown label,
            SB701 a side without a usable run, SB702 duplicate rows.
    """
    if len(asked) < 2:
        raise SegbenchError(
            "SB104", "compare needs two sides or more", found=len(asked), mend="segbench compare A B"
        )
    stock: list[tuple[Run, ...]] = []  # the runs of the folder, read when the first label asks for them
    found: list[tuple[str, tuple[Run, ...]]] = []
    for item in asked:
        place = Path(item).expanduser()
        if place.is_file() or (place.is_dir() and find_run_folders(place)):
            members = read_runs([place])
            found.append((_one_model(place, members), members))
            continue
        if _looks_like_path(str(item)):
            raise SegbenchError("SB701", f"{item} does not exist or holds no run", path=place)
        if not stock:
            stock.append(read_runs([runs]) if runs.exists() else ())
        found.append((str(item), _labelled(str(item), stock[0], runs)))
    for name, members in found:
        _refuse_unusable(name, members)
    return tuple(
        Side(name, tuple(replace(run, model=name) for run in members))
        for name, (_, members) in zip(_distinct_names(found), found, strict=True)
    )


def _looks_like_path(text: str) -> bool:
    return os.sep in text or text.endswith(".csv") or text.startswith((".", "~"))


def _one_model(place: Path, runs: Sequence[Run]) -> str:
    """The model of a folder of runs, which must be one."""
    models = sorted({run.model for run in runs})
    if len(models) > 1:
        raise SegbenchError(
            "SB104",
            f"{place} holds runs of several models: {', '.join(models)}",
            mend=f"name them: segbench compare {models[0]} {models[1]} --runs {place}",
        )
    return models[0] if models else place.name


def _labelled(label: str, stock: Sequence[Run], runs: Path) -> tuple[Run, ...]:
    """All runs of a model in the folder of runs."""
    known = sorted({run.model for run in stock})
    if label not in known:
        if not known:
            raise SegbenchError(
                "SB701",
                f"{label!r} is no run folder, and there are no runs to look the label up in",
                path=runs,
                mend="name run folders, or the folder of runs with --runs",
            )
        raise unknown_name("model", label, known, listing="segbench list runs")
    return tuple(run for run in stock if run.model == label)


def _refuse_unusable(name: str, runs: Sequence[Run]) -> None:
    if any(run.rows is not None and run.complete for run in runs):
        return
    raise SegbenchError(
        "SB701",
        f"{name} has no usable run",
        details=[f"{run.run_id}: {run.problem or run.status or 'no rows'}" for run in runs[:20]],
    )


def _distinct_names(found: Sequence[tuple[str, tuple[Run, ...]]]) -> list[str]:
    """The models' labels; equal ones become the run's name, then get a number."""
    labels = [label for label, _ in found]
    names: list[str] = []
    for label, runs in found:
        folder = runs[0].folder
        own = folder.name if len(runs) == 1 and folder is not None else runs[0].run_id
        name = own if labels.count(label) > 1 else label
        number = 2
        unique = name
        while unique in names:
            unique = f"{name} ({number})"
            number += 1
        names.append(unique)
    return names


def align_protocols(sides: Sequence[Side]) -> tuple[Run, ...]:
    """All runs, so that sides named explicitly meet even where their protocols have different names.

    Where the sides share a protocol on a dataset, it is kept and runs of other protocols stay apart. Where
    they share none, the protocols are joined under one name; the guards then say how the recipes differ.
    """
    runs = [run for side in sides for run in side.runs]
    renamed: list[Run] = []
    for dataset in sorted({run.dataset for run in runs}):
        members = [run for run in runs if run.dataset == dataset]
        by_side = [
            {run.protocol for run in side.runs if run.dataset == dataset and run.complete} for side in sides
        ]
        present = [protocols for protocols in by_side if protocols]
        shared = set.intersection(*present) if present else set[str]()
        if len(present) > 1 and not shared:
            joined = " | ".join(sorted(set.union(*present)))
            members = [replace(run, protocol=joined) for run in members]
        renamed += members
    return tuple(renamed)
