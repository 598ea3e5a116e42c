"""`segbench run --smoke`: each model must overfit one case before a matrix spends its budget on it.

A network that cannot learn one scan by heart will not learn a hundred: wrong labels, a dead layer or a wrong
normalisation shows within minutes instead of days.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segbench.cards import Protocol
from segbench.core.environment import with_threads
from segbench.core.interrupt import StopRequest
from segbench.data import open_dataset
from segbench.metrics import evaluate_case
from segbench.pipeline.cell import Cell, PlannedCell
from segbench.pipeline.context import Context, Execution

STEPS = 200
DICE = 0.9


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
        return sum(self.dice.values()) / len(self.dice) > DICE


def smoke(cells: Sequence[PlannedCell], execution: Execution) -> list[Smoke]:
    """Overfit the first training case with every (model, dataset) that can run; floors are left out."""
    pairs: dict[tuple[str, str], Cell] = {}
    for planned in cells:
        if planned.state != "blocked" and planned.cell.model.kind == "network":
            pairs.setdefault((planned.cell.model.slug, planned.cell.dataset.slug), planned.cell)
    with StopRequest() as stop:
        return [_overfit(cell, execution, stop) for cell in pairs.values()]


def smoke_protocol(protocol: Protocol) -> Protocol:
    """The protocol with nothing but learning left in it: no augmentation, AdamW, 200 steps, no validation."""
    return protocol.model_copy(
        update={
            "augment": protocol.augment.model_copy(update={"name": "none"}),
            "budget": protocol.budget.model_copy(update={"samples": STEPS * protocol.sampling.batch_size}),
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
    from segbench.pipeline.preparing import open_prepared
    from segbench.pipeline.training import training_job, weights_metadata
    from segbench.predict import predict_case, settings_of

    case = cell.split.train[0]
    split = replace(cell.split, train=(case,), validation=(), test=(case,))
    dataset = open_dataset(cell.dataset.slug, data_dir=execution.data_dir)
    with with_threads(execution.threads), tempfile.TemporaryDirectory(prefix="segbench-smoke-") as folder:
        context = Context(
            model=cell.model,
            dataset=dataset,
            protocol=smoke_protocol(cell.protocol),
            split=split,
            fold=cell.fold,
            seed=cell.seed,
            run_id=f"smoke {cell.model.slug}",
            folder=Path(folder),
            execution=execution,
            stop=stop,
        )
        cache = open_prepared(context)
        with training_job(context, cache) as job:
            network = train(job).network.eval()
        settings = settings_of(weights_metadata(context, cache), context.folder)
        prediction = predict_case([network], [cache.image(case)], settings, job.device, between=stop.check)
        scores = evaluate_case(
            cache.labels(case),
            prediction,
            spacing_mm=cache.properties(case)["spacing_out"],
            regions=cell.dataset.regions,
            metrics=["dice"],
        )
    dice = {region: score["dice"] for region, score in scores.items()}
    return Smoke(cell.model.slug, cell.dataset.slug, case, dice, STEPS)
