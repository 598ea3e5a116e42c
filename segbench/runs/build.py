"""What the stages share of a cell's network: its first and last weights, one step, its augmentation.

`python -m segbench.runs.build` is the process of a step on GPUs that the cell leaves to its ranks.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core.crash import write_crash
from segbench.core.environment import with_threads
from segbench.core.errors import SegbenchError
from segbench.core.hashing import sha256_file
from segbench.core.interrupt import StopRequest
from segbench.core.processes import ChildEnded, answer_questions, ask
from segbench.records import read_run
from segbench.records.progress import progress_of
from segbench.runs.active import ActiveCell, active_cell
from segbench.runs.cell import Execution
from segbench.runs.code import check_code

if TYPE_CHECKING:
    from torch import nn

    from segbench.data.patches.augment import AugmentationSettings

MOST_CHECKED = 64**3
"""Voxels of the largest patch at which a network of one's own is tried; else the card's smallest is taken."""
FINAL_WEIGHTS = Path("checkpoints") / "final.safetensors"


def build_seeded(cell: ActiveCell) -> nn.Module:
    """The network with the initial weights that the seed gives, the same every time."""
    import torch

    from segbench.data.random import counter_seed
    from segbench.networks import build_network

    load_code(cell)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(counter_seed(cell.seed, "init", cell.model.slug))
        return build_network(cell.model.slug, **cell.network_arguments)


def build_at_start(cell: ActiveCell) -> nn.Module:
    """The network as training starts: the weights of the seed, with `--init` those of the file that fit.

    Raises:
        SegbenchError: SB406 for another file than was planned, or one that is not for this network.
    """
    network = build_seeded(cell)
    if cell.init is None or cell.init_file is None:
        return network
    from segbench.networks.weights import load_start

    found = sha256_file(cell.init_file) if cell.init_file.is_file() else "no file"
    if found != cell.init.sha256:
        raise SegbenchError(
            "SB406",
            f"the weights {cell.init.name} that the run starts from are gone or have changed",
            path=cell.init_file,
            expected=cell.init.sha256,
            found=found,
            mend="plan it again with segbench run --init FILE; the new run gets its own id",
        )
    said = load_start(network, cell.init_file)
    if cell.folder.is_dir():  # a probe of a plan writes nothing
        cell.log(said)
    return network


def load_code(cell: ActiveCell) -> None:
    """Import the network's code, once, as the code that the cell was planned with (SB338 otherwise)."""
    if not cell.code_loaded:
        check_code(cell.model, cell.code, cell.folder)
        cell.code_loaded = True


def check_own_network(cell: ActiveCell) -> None:
    """Send a patch through a network of one's own before the first stage spends hours on it.

    Networks of segbench and of pinned packages are tested there; a run that has begun has shown it.

    Raises:
        SegbenchError: SB110 with what is wrong: a shape, probabilities in the place of logits, NaN.
    """
    if not cell.trains or cell.code is None or cell.code.digest is None or any(progress_of(cell.folder)):
        return
    from segbench.networks.check import check_network

    load_code(cell)
    arguments, patch = cell.network_arguments, cell.protocol.patch.size
    small = prod(patch) <= MOST_CHECKED  # a larger one takes the memory of a training, here on the CPU
    check_network(
        cell.model.slug, patch=patch if small else arguments.get("patch_size"), **arguments
    ).raise_faults()


def augmentation_of(cell: ActiveCell) -> AugmentationSettings:
    """The random transforms of the protocol; where it leaves the axes to the card, those that it allows."""
    from segbench.data.patches.augment import AugmentationSettings

    section = cell.protocol.augment
    axes = cell.dataset.geometry.mirror_axes if section.mirror_axes == "card" else section.mirror_axes
    return AugmentationSettings(
        name=section.name,
        mirror_axes=tuple(axes),
        overrides=dict(section.overrides),
    )


def try_one_step(cell: ActiveCell) -> None:
    """Make one training step on zeros, at the cell's patch and batch; nothing is kept of it.

    Where several GPUs train together a child makes it: a process that has used a GPU keeps some of its memory
    to its end, and the ranks need all of it.

    Raises:
        SegbenchError: SB504 when it does not fit the device's memory; SB503 when the child was killed.
    """
    from segbench.engine.device import choose_device

    execution = cell.execution
    if execution.gpus_per_cell == 1 or choose_device(execution.device).type == "cpu":
        _one_step(cell)
        return
    try:
        ending = ask("segbench.runs.build", {"folder": str(cell.folder), "execution": execution.as_dict()})
    except ChildEnded as ended:
        mend = "see whether the system ran out of memory"
        raise SegbenchError("SB503", f"the process of one step ended with {ended}", mend=mend) from ended
    if "error" in ending:
        raise SegbenchError(**ending["error"])
    if "bug" in ending:
        raise RuntimeError(ending["bug"])


def ending_of(error: Exception, folder: Path) -> dict[str, Any]:
    """What a process of a cell ended with, as its cell reads it; the trace of a defect goes to the folder."""
    if isinstance(error, SegbenchError):
        return {"error": error.as_dict()}
    return {"bug": f"{type(error).__name__}: {error} (see {write_crash(error, folder)})"}


def _answer(order: dict[str, Any]) -> dict[str, Any]:
    """Make the step of the cell in a folder; what it ended with, as ranks say it."""
    folder, execution = Path(order["folder"]), Execution(**order["execution"])
    try:
        cell = active_cell(read_run(folder), folder, execution, StopRequest(), lambda: None)
        with with_threads(execution.threads):
            _one_step(cell)
    except Exception as error:
        return ending_of(error, folder)
    return {}


def _one_step(cell: ActiveCell) -> None:
    import torch

    from segbench.engine.activations import checkpoint_activations
    from segbench.engine.device import choose_device, nondeterminism_as_error, prepare_device
    from segbench.engine.losses import SegmentationLoss
    from segbench.engine.memory import oom_as_error
    from segbench.engine.optimiser import build_optimiser
    from segbench.engine.precision import autocast, usable_precision

    protocol = cell.protocol
    device = choose_device(cell.execution.device)
    prepare_device(device, level=protocol.determinism.level, tf32=protocol.train.tf32)
    parts = protocol.train.accumulate * cell.execution.gpus_per_cell
    batch = max(1, protocol.sampling.batch_size // parts)
    loss = SegmentationLoss(regions=cell.classes.region_classes, ignore_class=cell.classes.ignore_class)
    try:
        with oom_as_error(device), nondeterminism_as_error(), torch.random.fork_rng(devices=[]):
            network = build_at_start(cell).to(device).train()
            if protocol.train.checkpointing:
                checkpoint_activations(network)
            optimiser = build_optimiser(network, protocol.optimiser)  # its state takes memory too
            image = torch.zeros(
                (batch, len(cell.dataset.channels.order), *protocol.patch.size), device=device
            )
            labels = torch.zeros((batch, *protocol.patch.size), dtype=torch.long, device=device)
            with autocast(usable_precision(protocol.train.precision, device), device)():
                outputs = network(image)
            loss(outputs, labels).backward()
            optimiser.step()
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)


if __name__ == "__main__":
    answer_questions(_answer)
