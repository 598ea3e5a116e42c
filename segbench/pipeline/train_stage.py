"""The train stage: in this process, or on several that train one network together."""

from __future__ import annotations

from segbench.pipeline.build import FINAL_WEIGHTS
from segbench.pipeline.context import Context
from segbench.pipeline.preparing import open_prepared
from segbench.pipeline.stages import StageResult


def train_stage(context: Context) -> StageResult:
    """Train the network to the end of its budget, resuming from the last checkpoint."""
    if context.execution.gpus_per_cell > 1:
        from segbench.pipeline.rank import train_on_ranks

        facts = train_on_ranks(context)
    else:
        from segbench.pipeline.training import train_here

        facts = train_here(context, open_prepared(context))
    return StageResult(
        artefact=facts["weights_sha256"], outputs=[context.folder / FINAL_WEIGHTS], facts=facts
    )
