"""A probe: a few training steps on made-up patches tell seconds per step and memory before they are spent.

Three steps to warm up, ten that count, in a process of its own so that the memory is the cell's own. Kept per
(machine, model, shape) in the cache folder. `python -m segbench.pipeline.probe FILE` is that process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from segbench.cards import Protocol, load_model_card
from segbench.core.atomic import atomic_write_json
from segbench.core.environment import with_threads
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import StopRequest
from segbench.pipeline.cell import Cell
from segbench.pipeline.context import Context, Execution
from segbench.pipeline.probes import Measured, known_probe, probe_file

if TYPE_CHECKING:
    from segbench.data.sampling import Batch
    from segbench.data.splits import Split

__all__ = ["probe"]

WARM_UP, TIMED = 3, 10
LONGEST_S = 300.0
"""A probe ends early after this long, with the steps it has."""


def probe(cell: Cell, execution: Execution) -> Measured:
    """Measure the training step of a cell on this machine, or recall it."""
    known = known_probe(cell, execution)
    if known is not None:
        return known
    with tempfile.TemporaryDirectory(prefix="segbench-probe-") as folder:
        order = Path(folder) / "order.json"
        atomic_write_json(
            order,
            {
                "model": cell.model.slug,
                "dataset": cell.dataset.slug,
                "protocol": cell.protocol.resolved(),
                "cases": list(cell.split.train[:8]),
                "execution": execution.as_dict(),
            },
        )
        command = [sys.executable, "-m", "segbench.pipeline.probe", str(order)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        try:
            found = Measured(**json.loads((Path(folder) / "result.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Measured(None, None, f"the probe ended with status {done.returncode}")
    atomic_write_json(
        probe_file(cell, execution), {name: getattr(found, name) for name in Measured.__slots__}
    )
    return found


def _measure(order: dict[str, Any]) -> Measured:
    from segbench.data import open_dataset
    from segbench.engine.trainer import train
    from segbench.pipeline.training import training_job

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
        context = Context(
            model=load_model_card(order["model"]),
            dataset=open_dataset(order["dataset"], data_dir=execution.data_dir),
            protocol=short,
            split=_split(order["dataset"], tuple(order["cases"])),
            fold=0,
            seed=0,
            run_id=f"probe {order['model']}",
            folder=Path(folder),
            execution=execution,
            stop=stop,
        )
        began = time.monotonic()

        def on_step(samples: int, loss: float, rate: float) -> None:
            times.append(time.monotonic())
            if len(times) > 1 and times[-1] - began > LONGEST_S:
                raise _EnoughError

        with with_threads(execution.threads), training_job(context, None) as job:
            job = replace(
                job, on_step=on_step, view=None, batches=lambda first, last: _made_up(context, first, last)
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


def _split(dataset: str, cases: tuple[str, ...]) -> Split:
    from segbench.data.splits import Split

    return Split(dataset=dataset, name="probe", train=cases, validation=(), test=())


def _made_up(context: Context, first: int, last: int) -> Iterator[Batch]:
    """Batches of the sizes that the loader would read, with random intensities and blocks of labels."""
    import numpy as np

    from segbench.data.augment_parameters import extent_needed
    from segbench.data.random import rng
    from segbench.data.sampling import Batch, plan_samples
    from segbench.pipeline.build import augmentation_of

    p, settings = context.protocol, augmentation_of(context)
    patch, channels = p.patch.size, len(context.card.channels.order)
    values = np.array(
        [*context.classes.values], dtype=np.uint8 if max(context.classes.values) < 256 else np.int32
    )
    for step in range(first, last):
        plans = plan_samples(
            context.seed, step, p.sampling.batch_size, context.split.train,
            foreground_fraction=p.sampling.foreground_fraction,
        )  # fmt: skip
        size = patch
        if settings.spatial:
            extents = [extent_needed(plan.augmentation, settings, patch) for plan in plans]
            largest = [max(sizes) for sizes in zip(*extents, strict=True)]
            size = (largest[0], largest[1], largest[2])
        draw = rng(context.seed, "probe", step)
        image = draw.standard_normal((len(plans), channels, *size), dtype=np.float32)
        blocks = values[draw.integers(0, values.size, (len(plans), *(-(-n // 16) for n in size)))]
        labels = blocks.repeat(16, 1).repeat(16, 2).repeat(16, 3)[:, : size[0], : size[1], : size[2]]
        yield Batch(
            step, image, np.ascontiguousarray(labels), tuple(replace(plan, patch=patch) for plan in plans)
        )


def main(order_file: Path) -> int:
    """Measure what the order says; the result stands beside it."""
    from segbench.core import console

    console.output.progress = False
    order = json.loads(order_file.read_text(encoding="utf-8"))
    found = _measure(order)
    atomic_write_json(
        order_file.with_name("result.json"), {name: getattr(found, name) for name in Measured.__slots__}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
