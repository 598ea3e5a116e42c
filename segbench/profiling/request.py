"""What is to be measured, as plain data that crosses a process border."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from segbench.core.errors import SegbenchError

__all__ = ["ProfileRequest", "parse_shape"]

Mode = Literal["infer", "train"]
Dtype = Literal["fp32", "bf16", "fp16"]
Device = Literal["cpu", "cuda", "meta"]
_DIGITS = re.compile(r"\d+(x\d+)*")
LARGEST = 4096
"""No axis of a medical volume is longer; beyond it a typing mistake is likelier."""


class ProfileRequest(BaseModel):
    """One row to be measured.

    `sliding` is the (z, y, x) shape of a synthetic volume for whole-volume throughput; `limit_s` ends a row
    that takes longer; `measure` False counts parameters and operations only (always so on the meta device).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    input_shape: tuple[int, int, int, int, int] = (1, 4, 128, 128, 128)
    out_channels: int = Field(default=4, ge=1)
    mode: Mode = "infer"
    dtype: Dtype = "fp32"
    device: Device = "cpu"
    sliding: tuple[int, int, int] | None = None
    overlap: float = Field(default=0.5, ge=0, lt=1)
    tta: Literal["none", "flips"] = "none"
    max_patch: bool = False
    limit_s: float = Field(default=600.0, gt=0)
    overrides: dict[str, str | int | float | bool | tuple[int, ...]] = {}

    @property
    def patch(self) -> tuple[int, int, int]:
        """Spatial part of the input."""
        return self.input_shape[2:]


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
