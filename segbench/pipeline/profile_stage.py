"""The profile stage: parameters and operations at the cell's patch; on CUDA also time and memory.

On a CPU the seconds of a forward pass at full size would often outlast the training they describe, so there
the stage counts and measures nothing; `segbench profile --device cpu` measures when asked.
"""

from __future__ import annotations

from segbench.core.atomic import atomic_write_json
from segbench.core.hashing import sha256_file
from segbench.pipeline.context import Context
from segbench.pipeline.stages import StageResult


def profile_stage(context: Context) -> StageResult:
    """Write `profile.json` (`segbench.profile/1`) with one row for this network, patch and device."""
    from segbench.engine.device import choose_device
    from segbench.profiling.measure import static_row
    from segbench.profiling.rows import profile_rows
    from segbench.profiling.schema import ProfileDocument, ProfileRequest

    arguments = context.cell.network_arguments
    device = choose_device(context.execution.device)
    request = ProfileRequest(
        model=context.model.slug,
        input_shape=(1, arguments["in_channels"], *context.protocol.patch.size),
        out_channels=arguments["out_channels"],
        device="cuda" if device.type == "cuda" else "meta",
        dtype=context.protocol.train.precision if device.type == "cuda" else "fp32",
    )
    row = profile_rows([request])[0] if device.type == "cuda" else static_row(request)
    target = context.folder / "profile.json"
    atomic_write_json(target, ProfileDocument(rows=[row]).as_json())
    cost = row.cost.gmacs if row.cost is not None else None
    parameters = row.params.total if row.params is not None else None
    return StageResult(
        artefact=sha256_file(target), outputs=[target], facts={"parameters": parameters, "gmacs": cost}
    )
