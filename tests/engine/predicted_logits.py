"""All planes of a prediction at once, for tests of small cases."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segbench.engine.predictor import predict_planes


def predict_logits(networks: Any, image: Any, **options: Any) -> Tensor:
    """(K, Z, Y, X) float32 on the CPU; arguments as `predict_planes`."""
    return torch.cat(
        [part.to("cpu", copy=True) for part in predict_planes(networks, image, **options)], dim=1
    )
