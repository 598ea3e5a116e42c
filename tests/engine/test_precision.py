"""The arithmetic in force on a device."""

from __future__ import annotations

import pytest
import torch

from segbench.engine.precision import autocast, usable_precision


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_a_cpu_computes_in_single_precision_whatever_the_protocol_says(precision) -> None:
    assert usable_precision(precision, torch.device("cpu")) == "fp32"


def test_autocast_is_off_for_fp32_and_on_for_bf16() -> None:
    x = torch.randn(4, 4)
    with autocast("fp32", torch.device("cpu"))():
        assert (x @ x).dtype == torch.float32
    with autocast("bf16", torch.device("cpu"))():
        assert (x @ x).dtype == torch.bfloat16
