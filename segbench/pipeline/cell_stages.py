"""The stages of a cell in order, each with the protocol sections it reads and what it consumes.

A stage's version is raised whenever its numbers could change; then its digest and every later one move.
"""

from __future__ import annotations

from typing import Any

from segbench.data.digest import content_digest
from segbench.pipeline.cell import card_settings
from segbench.pipeline.context import Context
from segbench.pipeline.predicting import predict_stage
from segbench.pipeline.preparing import prepare_stage, verify_stage
from segbench.pipeline.profile_stage import profile_stage
from segbench.pipeline.scoring_stage import evaluate_stage
from segbench.pipeline.stages import Stage
from segbench.pipeline.train_stage import train_stage


def _split(context: Context) -> dict[str, Any]:
    return {
        "dataset": content_digest(context.dataset),
        "split": context.split.digest,
        "card": card_settings(context.card),
    }


def _training(context: Context) -> dict[str, Any]:
    return {
        **_split(context),
        "model": context.model.slug,
        "implementation": context.model.implementation,
        "arguments": context.cell.network_arguments,
        "seed": context.seed,
        "fold": context.fold,
    }


CELL_STAGES: tuple[Stage, ...] = (
    Stage("verify", 1, (), (), verify_stage, inputs=_split),
    Stage("prepare", 1, ("data",), ("verify",), prepare_stage, networks_only=True, inputs=_split),
    Stage(
        "train",
        1,
        ("data", "patch", "sampling", "augment", "budget", "optimiser", "schedule", "loss", "train",
         "validation", "inference", "determinism"),
        ("prepare",),
        train_stage,
        networks_only=True,
        inputs=_training,
    ),
    Stage("predict", 2, ("data", "patch", "loss", "inference"), ("train",), predict_stage, inputs=_training),
    Stage("evaluate", 1, ("metrics",), ("predict",), evaluate_stage, inputs=_split),
    Stage("profile", 1, ("patch", "loss", "train"), (), profile_stage, networks_only=True, inputs=_training),
)  # fmt: skip
