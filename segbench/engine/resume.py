"""What a training takes up where it was left: the last sound checkpoint, and who computes as before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from segbench.core.errors import SegbenchError
from segbench.engine.checkpoint import Checkpoint, load_last
from segbench.engine.job import TrainingJob
from segbench.networks.blocks.fast import named_ways
from segbench.networks.scan import chosen_backend, scans_used

__all__ = ["check_same_machine", "decide_scan", "last_checkpoint"]


def last_checkpoint(job: TrainingJob) -> Checkpoint | None:
    """The last sound checkpoint; rank 0 looks first, because it sets damaged ones aside.

    Raises:
        SegbenchError: SB405 when there were checkpoints and none is sound.
    """
    if not job.ranks.writes:
        job.ranks.wait()
    checkpoint = load_last(job.checkpoints, warn=job.warn)
    if job.ranks.writes:
        job.ranks.wait()
    return checkpoint


def decide_scan(job: TrainingJob, network: nn.Module, state: Mapping[str, Any]) -> str | None:
    """The scan backend of the whole run: what it was begun with where that runs, else rank 0's choice.

    Args:
        job: What is trained.
        network: Of it.
        state: The checkpoint's, empty at the start; its `scan_backend` is what was begun with.

    Returns:
        None for networks without a scan; kept with every checkpoint.
    """
    if not any(isinstance(getattr(part, "backend", None), str) for part in network.modules()):
        return None
    begun = state.get("scan_backend")
    with scans_used(begun):
        scan = job.ranks.every(chosen_backend(job.device) if job.ranks.writes else None)[0]
    if begun not in (None, scan) and job.ranks.writes:
        job.warn(f"begun with the scan backend {begun}, resumed with {scan}: sums round otherwise")
    return scan


def check_same_machine(job: TrainingJob, state: Mapping[str, Any]) -> None:
    """Warn of what makes the resumed training other than the one of the checkpoint's `state`.

    Raises:
        SegbenchError: SB508 for another number of threads on a CPU.
    """
    world, threads = state.get("world_size", 1), state.get("threads")
    ranks, begun, fast = job.ranks.world, state.get("fast"), named_ways()
    known, ours = state.get("inputs_digest"), job.inputs_digest
    told: list[str] = []
    if world != ranks:
        told.append(f"begun with {world} processes, resumed with {ranks}: sums round otherwise")
    if begun != fast:
        told.append(f"begun with SEGBENCH_FAST={begun}, resumed with {fast}: sums round otherwise")
    if None not in (known, ours) and known != ours:
        told.append(
            f"the checkpoint of step {state['step']} was made from other inputs or by another version; "
            "--fresh train starts over"
        )
    for line in told if job.ranks.writes else ():
        job.warn(line)
    moved = job.device.type != "cpu" or world != ranks
    if not moved and threads not in (None, torch.get_num_threads()):
        raise SegbenchError(
            "SB508",
            f"the checkpoint was made with {threads} threads, this process has {torch.get_num_threads()}",
            mend=f"set SEGBENCH_THREADS={threads * world}",
        )
