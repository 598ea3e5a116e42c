"""What is to be measured, and the profile as data (`segbench.profile/1`): not measured is null, never 0."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segbench.core.errors import SegbenchError

__all__ = [
    "SCHEMA", "CostFacts", "Device", "Dtype", "EnergyFacts", "LatencyFacts", "MemoryFacts", "Mode",
    "ParameterFacts", "ProfileDocument", "ProfileRequest", "ProfileRow", "ThroughputFacts", "parse_shape",
]  # fmt: skip

SCHEMA = "segbench.profile/1"
LARGEST = 4096
"""No axis of a medical volume is longer; beyond it a typing mistake is likelier."""
_DIGITS = re.compile(r"\d+(x\d+)*")
Mode = Literal["infer", "train"]
Dtype = Literal["fp32", "bf16", "fp16"]
Device = Literal["cpu", "cuda", "meta"]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Status = Literal["ok", "oom", "timeout", "error", "unsupported"]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProfileRequest(_Facts):
    """One row to be measured: only counted on the meta device; `limit_s` ends one that takes longer."""

    model: str
    input_shape: tuple[int, int, int, int, int] = (1, 4, 128, 128, 128)
    out_channels: int = Field(default=4, ge=1)
    mode: Mode = "infer"
    dtype: Dtype = "fp32"
    device: Device = "cpu"
    max_patch: bool = False
    limit_s: float = Field(default=600.0, gt=0)
    overrides: dict[str, str | int | float | bool | tuple[int, ...]] = {}

    @property
    def patch(self) -> tuple[int, int, int]:
        """Spatial part of the input."""
        return self.input_shape[2:]


class ParameterFacts(_Facts):
    """Elements of parameters and buffers."""

    total: Count
    trainable: Count
    buffers: Count


class CostFacts(_Facts):
    """Operations by the convention of models.md 4.2: gmacs of convolutions and products, scan apart in
    gflops.
    """

    gmacs: Amount
    gflops: Amount
    by_op: dict[str, Amount]  # GFLOP of conv, matmul, attention, scan
    by_module: dict[str, Amount]  # GFLOP of the children of the network and of theirs
    uncounted_ops: dict[str, Count]  # calls of operations without a formula (norms, activations, ...)


class LatencyFacts(_Facts):
    """Seconds per forward pass (infer) or training step (train)."""

    median_s: Amount
    p10_s: Amount
    p90_s: Amount
    p99_s: Amount
    ci_low_s: Amount  # bootstrap interval of the median, 95 %
    ci_high_s: Amount
    n: Count
    first_call_s: Amount
    cpu_s: Amount | None  # processor seconds of all threads, on CPU only
    stable: bool
    unstable_because: list[str] = []


class MemoryFacts(_Facts):
    """Bytes.

    On CUDA the peaks are the allocator's, and the driver's for the process where it tells. On a CPU
    `process_peak_bytes` is the peak of the whole process, libraries included, and `activations_bytes` what
    that peak has over the resident set just before the first call, gradients and optimiser apart.
    """

    weights_bytes: Count
    gradients_bytes: Count | None
    optimizer_bytes: Count | None
    activations_bytes: Count | None  # the peak less the rest
    allocated_peak_bytes: Count | None
    reserved_peak_bytes: Count | None
    process_peak_bytes: Count | None
    max_patch: Count | None  # edge of the largest cube that ran
    max_patch_note: str | None = None


class ThroughputFacts(_Facts):
    """Windows through the network per second; the rest stands in documents of earlier versions only."""

    windows_per_s: Amount
    volumes_per_s: Amount | None = None
    volume_shape: list[int] | None = None
    windows_per_volume: Count | None = None
    tta_factor: Count | None = None
    overlap: Amount | None = None


class EnergyFacts(_Facts):
    """Joules by the device's own counter, or why there are none; never estimated."""

    joules_per_iteration: Amount | None
    joules_per_volume: Amount | None
    reason: str | None


class ProfileRow(_Facts):
    """One (model, size, mode, dtype, device)."""

    model: str
    status: Status
    reason: str | None = None
    input_shape: list[int]
    out_channels: int
    mode: Mode
    dtype: Dtype
    device: str
    scan_backend: str | None = None
    params: ParameterFacts | None = None
    cost: CostFacts | None = None
    latency: LatencyFacts | None = None
    memory: MemoryFacts | None = None
    throughput: ThroughputFacts | None = None
    energy: EnergyFacts | None = None
    hazards: list[str] = []
    environment: dict[str, Any] = {}

    @classmethod
    def of(cls, request: ProfileRequest, **found: Any) -> ProfileRow:
        """What was asked, and what was found."""
        asked = request.model_dump(include=set(cls.model_fields) & set(ProfileRequest.model_fields))
        return cls.model_validate(asked | found)


class ProfileDocument(_Facts):
    """What `segbench profile --json` prints."""

    schema_name: Literal["segbench.profile/1"] = Field(default=SCHEMA, alias="schema")
    schema_version: Literal[1] = 1
    rows: list[ProfileRow]

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def as_json(self) -> dict[str, Any]:
        """Plain values, ready to be written."""
        return self.model_dump(mode="json", by_alias=True)


def parse_shape(text: str, axes: int, *, flag: str) -> tuple[int, ...]:
    """`1x4x128x128x128` as numbers.

    Args:
        text: As typed.
        axes: How many numbers there must be.
        flag: The flag, for the message.

    Raises:
        SegbenchError: SB104 for anything else, zeros and absurd lengths included.
    """
    example = "1x4x128x128x128" if axes == 5 else "155x240x240"
    numbers = tuple(map(int, text.split("x"))) if _DIGITS.fullmatch(text) and len(text) < 64 else ()
    if len(numbers) != axes or any(not 1 <= number <= LARGEST for number in numbers):
        raise SegbenchError(
            "SB104",
            f"{flag} {text!r} is not a shape of {axes} axes between 1 and {LARGEST}",
            expected=example,
            found=text,
            mend=f"write it like {example}",
        )
    return numbers
