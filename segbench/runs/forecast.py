"""What cells will cost, from what was measured and from nothing else.

Sources, best first: finished runs of the same model, dataset and protocol (their whole time); a probe of a
few steps on this machine (the training only), kept per kind of step in the cache folder. Where neither is
there, the answer is None, shown as `?`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from segbench.core.environment import cache_dir, machine
from segbench.core.errors import SegbenchError
from segbench.core.hashing import digest_json
from segbench.launch import Need
from segbench.records import RunRecord, read_run, run_in
from segbench.runs.cell import Cell, Execution, Plan, PlannedCell

_ENOUGH = 5
"""Finished runs of a kind that are looked at."""
OPEN = ("planned", "resumable", "failed")
"""States of cells that have their work ahead of them."""

MARGIN = 1.3
"""Time asked for beyond the forecast; a cell that runs out of it is queued again."""

Kind = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a probe saw.

    Attributes:
        step_s: Median seconds of a training step; None when it does not fit.
        memory_bytes: Peak: on the device, or of the process on a CPU.
        problem: Why there are no seconds, such as "out of memory".
    """

    step_s: float | None
    memory_bytes: int | None
    problem: str = ""


def with_finished(cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Cells still to run, with the mean time and the largest memory of finished ones of the same kind.

    Other seeds and folds of a cell do the same work on the same machine; anything else would be a guess.
    """
    wanted = {kind_of(planned): planned.cell for planned in cells if planned.state in OPEN}
    known: dict[Kind, list[RunRecord]] = {}
    for planned in cells:
        if planned.state == "done" and (kind := kind_of(planned)) in wanted:
            _remember(known, kind, planned.cell, planned.record)
    missing = {kind: cell for kind, cell in wanted.items() if kind not in known}
    for kind, folder in _beside(missing):
        with suppress(SegbenchError):
            _remember(known, kind, missing[kind], run_in(folder))
    return [
        _applied(planned, known[kind_of(planned)])
        if planned.state in OPEN and kind_of(planned) in known
        else planned
        for planned in cells
    ]


def kind_of(planned: PlannedCell) -> Kind:
    """What cells share that take the same time: model, dataset and protocol."""
    cell = planned.cell
    return cell.model.slug, cell.dataset.slug, cell.protocol.name


def _beside(missing: dict[Kind, Cell]) -> Iterable[tuple[Kind, Path]]:
    """Runs of the same names that are not part of the plan, in the same results folder."""
    results = next(iter(missing.values())).folder.parent if missing else None
    if results is None or not results.is_dir():
        return
    for folder in sorted(results.iterdir()):
        model, dataset, protocol, *_ = (*folder.name.split("__"), "", "", "")
        if (kind := (model, dataset, protocol)) in missing:
            yield kind, folder


def _remember(known: dict[Kind, list[RunRecord]], kind: Kind, cell: Cell, record: RunRecord | None) -> None:
    """Take up a finished run of the cell's kind, while there are not enough of them."""
    if record is None or len(known.get(kind, ())) >= _ENOUGH:
        return
    if record.status != "complete" or not sum((record.durations or {}).values()):
        return
    if record.protocol_digest in (None, cell.protocol.digest()):
        known.setdefault(kind, []).append(record)


def _applied(planned: PlannedCell, finished: Sequence[RunRecord]) -> PlannedCell:
    durations = [record.durations or {} for record in finished]
    training = [times["train"] / planned.cell.steps for times in durations if times.get("train")]
    return replace(
        planned,
        forecast_s=sum(sum(times.values()) for times in durations) / len(finished),
        step_s=sum(training) / len(training) if training else None,
        memory_bytes=max((r.peak_memory_bytes for r in finished if r.peak_memory_bytes), default=None),
        forecast_from=f"{len(finished)} finished like it",
    )


def known_probe(cell: Cell, execution: Execution) -> Measured | None:
    """What an earlier probe of the same kind on this machine saw."""
    try:
        return Measured(**json.loads(probe_file(cell, execution).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def probe_file(cell: Cell, execution: Execution) -> Path:
    """Where a probe of this kind is kept: everything that decides how long a step takes is in the name."""
    p, card = cell.protocol, cell.dataset
    kind = {
        "machine": machine(),
        "threads": execution.threads,
        "device": execution.device,
        "model": cell.model.slug,
        "arguments": cell.network_arguments,
        "patch": list(p.patch.size),
        "batch": p.sampling.batch_size,
        "augment": p.augment.model_dump(mode="json"),
        "mirror": list(card.geometry.mirror_axes),
        "loss": p.loss.model_dump(mode="json"),
        "optimiser": p.optimiser.name,
        "train": p.train.model_dump(mode="json"),
        "determinism": p.determinism.level,
    }
    return cache_dir() / "probes" / f"{digest_json(kind)[:16]}.json"


def fitting(cells: Sequence[PlannedCell], hours: float, *, gpus: int = 1) -> list[bool | None]:
    """Which cells a budget of device hours pays for, taken in the order of the plan.

    Returns:
        Per cell: True, False, or None where nothing was measured. Finished and blocked cells cost nothing;
        baselines train nothing and are counted as free.
    """
    left = hours * 3600
    answers: list[bool | None] = []
    for planned in cells:
        if planned.state not in (*OPEN, "running") or not planned.cell.trains:
            answers.append(True)
        elif planned.forecast_s is None:
            answers.append(None)
        else:
            cost = planned.forecast_s * max(1, gpus)
            answers.append(cost <= left)
            left -= cost if cost <= left else 0.0
    return answers


def disk_needed(plan: Plan) -> int:
    """Bytes that the prepared cases of the plan will fill, from the headers of the images."""
    from segbench.data.prepared.prepare import forecast_preparation
    from segbench.runs.prepare import build_recipe, prepared_root

    total, seen = 0, set[str]()
    for planned in plan.cells:
        cell = planned.cell
        if planned.state not in OPEN or not cell.trains:
            continue
        recipe = build_recipe(cell.dataset, cell.protocol.data, cell.dataset_digest)
        digest = recipe.digest(cell.split.train) + cell.split.digest
        if digest not in seen:
            seen.add(digest)
            _, size = forecast_preparation(
                cell.data, cell.cases, recipe, prepared_root(), training_ids=cell.split.train
            )
            total += size
    return total


def needs_of(cells: Sequence[PlannedCell], execution: Execution, *, gpus: int = 0) -> Callable[[Path], Need]:
    """A function from a run folder to what its cell needs.

    Args:
        cells: The whole plan; its finished cells are what was measured.
        execution: Where and how.
        gpus: GPUs of one cell.
    """
    hours = {p.cell.folder: None if p.forecast_s is None else MARGIN * p.forecast_s / 3600 for p in cells}

    def need(folder: Path) -> Need:
        threads, wanted = Execution.of(read_run(folder)).threads, hours[folder]
        return Need(
            gpus=gpus,
            cores=threads + execution.workers,
            threads=threads,
            hours=None if wanted is None else round(wanted, 1),
        )

    return need
