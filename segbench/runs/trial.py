"""Trials of a cell before its training: one step on zeros, a timed probe, and a case learnt by heart.

`first_step` shows in seconds that a cell can train at all. `probe` times a few steps on made-up patches (3 to
warm up, ten that count) in a process of its own, so that the memory is the cell's; what it saw is kept per
machine, model and shape. `smoke` lets each model overfit one case: a network that cannot learn one case will
not learn a hundred. `python -m segbench.runs.trial` is the process of a probe.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from segbench.cards import Protocol, load_model_card
from segbench.core import console
from segbench.core.atomic import atomic_write_json
from segbench.core.environment import with_threads
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.hashing import digest_json
from segbench.core.interrupt import StopRequest
from segbench.core.processes import ChildEnded, answer_questions, ask
from segbench.data import open_dataset
from segbench.data.splits import Split
from segbench.records.progress import last_step
from segbench.runs.active import ActiveCell
from segbench.runs.build import augmentation_of, try_one_step
from segbench.runs.cell import Cell, Execution, Plan, PlannedCell
from segbench.runs.forecast import OPEN, Measured, kind_of, known_probe, probe_file
from segbench.runs.prepare import open_prepared
from segbench.runs.train import dice_of_case, training_job

if TYPE_CHECKING:
    from segbench.data.patches.sampling import Batch

STARTUP_FILE = "startup.json"
WARM_UP, TIMED = 3, 10
LONGEST_S = 300.0
"""A probe ends early after this long, with the steps it has."""
SMOKE_STEPS = 200
SMOKE_DICE = 0.9


def first_step(cell: ActiveCell) -> None:
    """Make one step unless this cell has shown that it can, and note that in `startup.json`.

    Raises:
        SegbenchError: SB504 when it does not fit the device's memory.
    """
    from segbench.engine.device import choose_device

    device = choose_device(cell.execution.device)
    tried = {
        "implementation": cell.model.implementation,
        "arguments": cell.network_arguments,
        "protocol": cell.protocol.digest(),
        "device": str(device),
        "gpus_per_cell": cell.execution.gpus_per_cell,
    }
    target, digest = cell.folder / STARTUP_FILE, digest_json(tried)
    try:
        if parse_json(target.read_text(encoding="utf-8"))["inputs_digest"] == digest:
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass
    began = time.monotonic()
    try_one_step(cell)
    seconds = round(time.monotonic() - began, 3)
    cell.check_lease()
    atomic_write_json(target, {"schema_version": 1, "inputs_digest": digest, "seconds": seconds, **tried})
    cell.log(f"one step on zeros at the cell's patch and batch: done in {seconds:.1f} s")


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
    if execution.gpus_per_cell > 1:
        return plan  # a probe is one process; how several of them scale was not measured
    seen: dict[tuple[str, str, str], Measured | None] = {}
    cells: list[PlannedCell] = []
    for planned in plan.cells:
        cell, kind = planned.cell, kind_of(planned)
        if planned.state not in OPEN or planned.forecast_s is not None or not cell.trains:
            cells.append(planned)
            continue
        if kind not in seen:
            if measure:
                tell(f"probing {cell.model.slug} on {cell.dataset.slug}")
            seen[kind] = (probe if measure else known_probe)(cell, execution)
        cells.append(_probed(planned, seen[kind]))
    return replace(plan, cells=tuple(cells))


def _probed(planned: PlannedCell, measured: Measured | None) -> PlannedCell:
    if measured is None:
        return planned
    if measured.step_s is None:
        told = f"probe: {measured.problem}"
        return replace(planned, memory_bytes=measured.memory_bytes, forecast_from=told)
    left = max(0, planned.cell.steps - last_step(planned.cell.folder))
    return replace(
        planned,
        forecast_s=left * measured.step_s,
        step_s=measured.step_s,
        memory_bytes=measured.memory_bytes,
        forecast_from="probe on this device, training only",
    )


def probe(cell: Cell, execution: Execution) -> Measured:
    """Measure the training step of a cell on this machine, or recall it."""
    known = known_probe(cell, execution)
    if known is not None:
        return known
    order = {
        "model": cell.model.slug,
        "dataset": cell.dataset.slug,
        "protocol": cell.protocol.resolved(),
        "cases": list(cell.split.train[:8]),
        "execution": execution.as_dict(),
    }
    try:
        found = Measured(**ask("segbench.runs.trial", order))
    except ChildEnded as ended:
        return Measured(None, None, f"the probe ended with {ended}")
    atomic_write_json(probe_file(cell, execution), asdict(found))
    return found


def _measure(order: dict[str, Any]) -> Measured:
    from segbench.engine.trainer import train

    protocol = Protocol.model_validate(order["protocol"])
    batch, steps = protocol.sampling.batch_size, WARM_UP + TIMED
    short = protocol.model_copy(
        update={
            "budget": protocol.budget.model_copy(update={"samples": steps * batch, "warmup_samples": 0}),
            "validation": protocol.validation.model_copy(update={"cases": "none", "selection": "last"}),
        }
    )
    execution = Execution(**order["execution"])
    times: list[float] = []
    with tempfile.TemporaryDirectory(prefix="segbench-probe-") as folder, StopRequest() as stop:
        dataset = open_dataset(order["dataset"], data_dir=execution.data_dir)
        planned = Cell(
            model=load_model_card(order["model"]),
            dataset=dataset.card,
            data=dataset,
            dataset_digest="",  # nothing of a probe is kept under it
            protocol=short,
            split=Split(
                dataset=order["dataset"], name="probe", train=tuple(order["cases"]), validation=(), test=()
            ),
            fold=0,
            seed=0,
            run_id=f"probe {order['model']}",
            folder=Path(folder),
        )
        cell = ActiveCell(planned, execution, stop)
        began = time.monotonic()

        def on_step(samples: int, loss: float, rate: float) -> None:
            times.append(time.monotonic())
            if len(times) > 1 and times[-1] - began > LONGEST_S:
                raise _EnoughError

        with with_threads(execution.threads), training_job(cell, None) as job:
            job = replace(
                job, on_step=on_step, view=None, batches=lambda first, last: _made_up(cell, first, last)
            )
            try:
                train(job)
            except _EnoughError:
                pass
            except SegbenchError as error:
                if error.code != "SB504":
                    raise
                return Measured(None, None, "out of memory")
            from segbench.engine.memory import peak_memory

            peak = peak_memory(job.device)
    gaps = [after - before for before, after in pairwise(times)]
    counted = gaps[WARM_UP - 1 :] or gaps[-1:]
    return Measured(round(median(counted), 4), peak)


class _EnoughError(Exception):
    """The probe has taken long enough."""


def _made_up(cell: ActiveCell, first: int, last: int) -> Iterator[Batch]:
    """Batches of the sizes that the loader would read, with random intensities and blocks of labels."""
    import numpy as np

    from segbench.data.patches.augment_parameters import extent_needed
    from segbench.data.patches.sampling import Batch, plan_samples
    from segbench.data.random import rng

    p, settings = cell.protocol, augmentation_of(cell)
    patch, channels = p.patch.size, len(cell.dataset.channels.order)
    values = np.array([*cell.classes.values], dtype=np.uint8 if max(cell.classes.values) < 256 else np.int32)
    for step in range(first, last):
        plans = plan_samples(
            cell.seed, step, p.sampling.batch_size, cell.split.train,
            foreground_fraction=p.sampling.foreground_fraction,
        )  # fmt: skip
        size = patch
        if settings.spatial:
            extents = [extent_needed(plan.augmentation, settings, patch) for plan in plans]
            largest = [max(sizes) for sizes in zip(*extents, strict=True)]
            size = (largest[0], largest[1], largest[2])
        draw = rng(cell.seed, "probe", step)
        image = draw.standard_normal((len(plans), channels, *size), dtype=np.float32)
        blocks = values[draw.integers(0, values.size, (len(plans), *(-(-n // 16) for n in size)))]
        labels = blocks.repeat(16, 1).repeat(16, 2).repeat(16, 3)[:, : size[0], : size[1], : size[2]]
        settled = tuple(replace(plan, patch=patch) for plan in plans)
        yield Batch(step, list(image), list(np.ascontiguousarray(labels)), settled)


@dataclass(frozen=True, slots=True)
class Smoke:
    """How one model did on one case.

    Attributes:
        model, dataset, case: What was tried.
        dice: Dice per region after training on that case alone.
        steps: Training steps.
    """

    model: str
    dataset: str
    case: str
    dice: dict[str, float]
    steps: int

    @property
    def passed(self) -> bool:
        """Whether the mean over regions is above 0.9."""
        return sum(self.dice.values()) / len(self.dice) > SMOKE_DICE


def smoke(cells: Sequence[PlannedCell], execution: Execution) -> list[Smoke]:
    """Overfit the first training case with every (model, dataset) that can run; baselines are left out."""
    pairs: dict[tuple[str, str], Cell] = {}
    for planned in cells:
        if planned.state != "blocked" and planned.cell.trains:
            pairs.setdefault((planned.cell.model.slug, planned.cell.dataset.slug), planned.cell)
    with StopRequest() as stop:
        return [_overfit(cell, execution, stop) for cell in pairs.values()]


def smoke_protocol(protocol: Protocol) -> Protocol:
    """The protocol with nothing but learning left in it: no augmentation, AdamW, 200 steps, no validation."""
    return protocol.model_copy(
        update={
            "augment": protocol.augment.model_copy(update={"name": "none"}),
            "budget": protocol.budget.model_copy(
                update={"samples": SMOKE_STEPS * protocol.sampling.batch_size}
            ),
            "optimiser": protocol.optimiser.model_copy(
                update={"name": "adamw", "lr": 2e-3, "weight_decay": 0.0}
            ),
            "schedule": protocol.schedule.model_copy(update={"name": "cosine", "warmup_fraction": 0.05}),
            "validation": protocol.validation.model_copy(update={"cases": "none", "selection": "last"}),
            "inference": protocol.inference.model_copy(update={"mirror_axes": ()}),
        }
    )


def _overfit(cell: Cell, execution: Execution, stop: StopRequest) -> Smoke:
    from segbench.engine.trainer import train

    case = cell.split.train[0]
    with with_threads(execution.threads), tempfile.TemporaryDirectory(prefix="segbench-smoke-") as folder:
        tried = replace(
            cell,
            protocol=smoke_protocol(cell.protocol),
            split=replace(cell.split, train=(case,), validation=(), test=(case,)),
            run_id=f"smoke {cell.model.slug}",
            folder=Path(folder),
            code=None,
        )
        active = ActiveCell(tried, execution, stop)
        cache = open_prepared(active)
        with training_job(active, cache) as job:
            network = train(job).network.eval()
        dice = dice_of_case(active, cache, case, network, job.device)
    return Smoke(cell.model.slug, cell.dataset.slug, case, dice, SMOKE_STEPS)


if __name__ == "__main__":
    console.output.progress = False
    answer_questions(lambda order: asdict(_measure(order)))
