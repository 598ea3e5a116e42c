"""What cells will cost, from what was measured and from nothing else.

Sources, best first: finished runs of the same model, dataset and protocol (their whole time); a probe of a
few steps on this machine (the training only). Where neither is there, the answer is None, shown as `?`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segbench.core.errors import SegbenchError
from segbench.launch import Need
from segbench.pipeline.cell import Plan, PlannedCell
from segbench.pipeline.context import Execution, execution_of
from segbench.pipeline.probes import Measured, known_probe
from segbench.records import read_run

__all__ = ["disk_needed", "fitting", "needs_of", "with_finished", "with_probes"]

_ENOUGH = 5
"""Finished runs of a kind that are looked at."""
_OPEN = ("planned", "resumable", "failed")

MARGIN = 1.3
"""Time asked for beyond the forecast; a cell that runs out of it is queued again."""

Kind = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Finished:
    seconds: float
    train_s: float | None
    steps: int
    memory_bytes: int | None


def with_finished(cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Cells still to run, with the mean time and the largest memory of finished ones of the same kind.

    Other seeds and folds of a cell do the same work on the same machine; anything else would be a guess.
    """
    wanted = {_kind(planned): planned for planned in cells if planned.state in _OPEN}
    known: dict[Kind, list[_Finished]] = {}
    for planned in cells:
        kind = _kind(planned)
        if planned.state == "done" and kind in wanted and len(known.get(kind, ())) < _ENOUGH:
            _remember(known, kind, planned, planned.cell.folder)
    missing = {kind: planned for kind, planned in wanted.items() if kind not in known}
    for kind, folder in _beside(missing):
        if len(known.get(kind, ())) < _ENOUGH:
            _remember(known, kind, missing[kind], folder)
    return [
        _applied(planned, known[_kind(planned)])
        if planned.state in _OPEN and _kind(planned) in known
        else planned
        for planned in cells
    ]


def _kind(planned: PlannedCell) -> Kind:
    cell = planned.cell
    return cell.model.slug, cell.dataset.slug, cell.protocol.name


def _beside(missing: dict[Kind, PlannedCell]) -> Iterable[tuple[Kind, Path]]:
    """Runs of the same names that are not part of the plan, in the same results folder."""
    if not missing:
        return
    results = next(iter(missing.values())).cell.folder.parent
    if not results.is_dir():
        return
    for folder in sorted(results.iterdir()):
        model, dataset, protocol, *_ = (*folder.name.split("__"), "", "", "")
        if (kind := (model, dataset, protocol)) in missing:
            yield kind, folder


def _remember(known: dict[Kind, list[_Finished]], kind: Kind, like: PlannedCell, folder: Path) -> None:
    try:
        record = read_run(folder)
    except (SegbenchError, OSError, ValueError):
        return
    cell = like.cell
    durations = record.durations or {}
    if record.status != "complete" or not sum(durations.values()):
        return
    if record.protocol_digest not in (None, cell.protocol.digest()):
        return
    steps = -(-cell.protocol.budget.samples // cell.protocol.sampling.batch_size)
    known.setdefault(kind, []).append(
        _Finished(sum(durations.values()), durations.get("train"), steps, record.peak_memory_bytes)
    )


def _applied(planned: PlannedCell, finished: Sequence[_Finished]) -> PlannedCell:
    training = [f.train_s / f.steps for f in finished if f.train_s]
    peaks = [f.memory_bytes for f in finished if f.memory_bytes]
    return replace(
        planned,
        forecast_s=sum(f.seconds for f in finished) / len(finished),
        step_s=sum(training) / len(training) if training else None,
        memory_bytes=max(peaks) if peaks else None,
        forecast_from=f"{len(finished)} finished like it",
    )


def with_probes(
    plan: Plan, execution: Execution, *, measure: bool, tell: Callable[[str], None] = lambda text: None
) -> Plan:
    """The plan with probed seconds per step and memory where no finished cell tells.

    Args:
        plan: From `make_plan`.
        execution: Device and threads are those of the cells to come.
        measure: Probe what was never probed; else only recall.
        tell: Told which model is being probed.
    """
    from segbench.pipeline.trial import probe

    if execution.gpus_per_cell > 1:
        return plan  # a probe is one process; how several of them scale was not measured
    seen: dict[Kind, object] = {}
    cells: list[PlannedCell] = []
    for planned in plan.cells:
        cell = planned.cell
        if planned.state not in _OPEN or planned.forecast_s is not None or cell.model.kind == "floor":
            cells.append(planned)
            continue
        kind = _kind(planned)
        if kind not in seen:
            if measure:
                tell(f"probing {cell.model.slug} on {cell.dataset.slug}")
            seen[kind] = (probe if measure else known_probe)(cell, execution)
        cells.append(_probed(planned, seen[kind]))
    return replace(plan, cells=tuple(cells))


def _probed(planned: PlannedCell, measured: object) -> PlannedCell:
    if not isinstance(measured, Measured):
        return planned
    if measured.step_s is None:
        return replace(
            planned, memory_bytes=measured.memory_bytes, forecast_from=f"probe: {measured.problem}"
        )
    cell = planned.cell
    steps = -(-cell.protocol.budget.samples // cell.protocol.sampling.batch_size)
    left = max(0, steps - _steps_done(cell.folder))
    return replace(
        planned,
        forecast_s=left * measured.step_s,
        step_s=measured.step_s,
        memory_bytes=measured.memory_bytes,
        forecast_from="probe on this device, training only",
    )


def _steps_done(folder: Path) -> int:
    names = sorted(entry.name for entry in (folder / "checkpoints").glob("step-*"))
    return int(names[-1].removeprefix("step-")) if names else 0


def fitting(cells: Sequence[PlannedCell], hours: float, *, gpus: int = 1) -> list[bool | None]:
    """Which cells a budget of device hours pays for, taken in the order of the plan.

    Returns:
        Per cell: True, False, or None where nothing was measured. Finished and blocked cells cost nothing;
        floors train nothing and are counted as free.
    """
    left = hours * 3600
    answers: list[bool | None] = []
    for planned in cells:
        if planned.state not in (*_OPEN, "running") or planned.cell.model.kind == "floor":
            answers.append(True)
        elif planned.forecast_s is None:
            answers.append(None)
        else:
            cost = planned.forecast_s * max(1, gpus)
            answers.append(cost <= left)
            left -= cost if cost <= left else 0.0
    return answers


def disk_needed(plan: Plan, data_dir: Path | None) -> int:
    """Bytes that the prepared cases of the plan will fill, from the headers of the scans."""
    from segbench.data import open_dataset
    from segbench.data.prepared.prepare import forecast_preparation
    from segbench.pipeline.preparing import build_recipe, prepared_root

    total, seen = 0, set[str]()
    for planned in plan.cells:
        cell = planned.cell
        if planned.state not in _OPEN or cell.model.kind == "floor":
            continue
        recipe = build_recipe(cell.dataset, cell.protocol.data, cell.dataset_digest)
        digest = recipe.digest(cell.split.train) + cell.split.digest
        if digest in seen:
            continue
        seen.add(digest)
        cases = sorted({*cell.split.train, *cell.split.validation, *cell.split.test})
        dataset = open_dataset(cell.dataset.slug, data_dir=data_dir)
        total += forecast_preparation(
            dataset, cases, recipe, prepared_root(), training_ids=cell.split.train
        ).bytes
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
        threads = execution_of(read_run(folder)).threads
        return Need(
            gpus=gpus,
            cores=threads + execution.workers,
            threads=threads,
            hours=None if hours[folder] is None else round(hours[folder] or 0.0, 1),
        )

    return need
