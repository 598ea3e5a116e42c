"""Training losses in float32: cross-entropy and soft Dice, for softmax classes or overlapping regions.

Cross-entropy gathers its own log-probabilities: PyTorch's NLL on maps is not deterministic on CUDA.

Source: the combination and its constants follow nnU-Net (MIC-DKFZ/nnUNet, training/loss).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class SegmentationLoss:
    """The weighted sum of cross-entropy and soft Dice.

    Attributes:
        terms: Weights, e.g. {"ce": 1.0, "dice": 1.0}.
        smooth: Added to numerator and denominator of the Dice term.
        batch_dice: Sum over the batch before the ratio.
        regions: Label classes of each output channel; None means softmax over classes.
        ignore_class: Class index that is never trained on, or None.
        total: Sums a tensor over the processes that share a batch, before ratios are taken: the loss is then
            that of the global batch on each of them. None: this process has the whole batch.
    """

    terms: dict[str, float] = field(default_factory=lambda: {"ce": 1.0, "dice": 1.0})
    smooth: float = 1e-5
    batch_dice: bool = True
    regions: tuple[tuple[int, ...], ...] | None = None
    ignore_class: int | None = None
    total: Callable[[Tensor], Tensor] | None = None

    def __call__(self, outputs: Tensor | Sequence[Tensor], labels: Tensor) -> Tensor:
        """The loss of logits against labels.

        Args:
            outputs: Logits (B, K, D, H, W), or a list of them, full resolution first (deep supervision:
                weights 1, 1/2, 1/4, ... normalised, the lowest resolution left out).
            labels: Class indices (B, D, H, W), integer.

        Returns:
            A float32 scalar.
        """
        if isinstance(outputs, Tensor):
            return self._single(outputs, labels)
        used = outputs[:-1] if len(outputs) > 1 else outputs
        weights = [0.5**i for i in range(len(used))]
        total = torch.zeros((), device=labels.device)
        for weight, logits in zip(weights, used, strict=True):
            total = total + weight * self._single(logits, _shrunk(labels, logits.shape[2:]))
        return total / sum(weights)

    def _single(self, logits_BKDHW: Tensor, labels_BDHW: Tensor) -> Tensor:
        logits = logits_BKDHW.float()
        labels = labels_BDHW.long()
        keep = torch.ones_like(labels, dtype=torch.float32)
        if self.ignore_class is not None:
            keep = (labels != self.ignore_class).float()
            labels = torch.where(labels == self.ignore_class, 0, labels)
        terms = self._softmax_terms if self.regions is None else self._region_terms
        loss, dice = terms(logits, labels, keep)
        return self.terms.get("ce", 0.0) * loss + self.terms.get("dice", 0.0) * dice

    def _softmax_terms(self, logits: Tensor, labels: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        log_p = functional.log_softmax(logits, dim=1)
        cross_entropy = self._mean_over_voxels(-log_p.gather(1, labels[:, None])[:, 0], keep)
        one_hot = torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)
        return cross_entropy, 1 - self._dice(log_p.exp()[:, 1:], one_hot[:, 1:], keep)

    def _region_terms(self, logits: Tensor, labels: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        classes = _classes_of(self.regions or (), labels.device)
        target = torch.stack([torch.isin(labels, each).float() for each in classes], dim=1)
        bce = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
        return self._mean_over_voxels(bce, keep), 1 - self._dice(logits.sigmoid(), target, keep)

    def _mean_over_voxels(self, values: Tensor, keep: Tensor) -> Tensor:
        return self._sum((values * keep).sum()) / self._sum(keep.sum()).clamp_min(1)

    def _dice(self, p: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        return soft_dice(p, target, keep, self.smooth, self.batch_dice, total=self.total)

    def _sum(self, own: Tensor) -> Tensor:
        return own if self.total is None else self.total(own)


@lru_cache(maxsize=8)
def _classes_of(regions: tuple[tuple[int, ...], ...], device: torch.device) -> tuple[Tensor, ...]:
    """The classes of each region on a device, made once: a tensor made from numbers waits for the device."""
    return tuple(torch.tensor(classes, device=device) for classes in regions)


def soft_dice(
    p_BKDHW: Tensor,
    target_BKDHW: Tensor,
    keep_BDHW: Tensor,
    smooth: float,
    batch: bool,
    *,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Mean soft Dice over channels (and over samples when not summed over the batch first), in [0, 1]."""
    axes = (0, 2, 3, 4) if batch else (2, 3, 4)
    keep = keep_BDHW[:, None]
    p, target = p_BKDHW * keep, target_BKDHW * keep
    overlap = (p * target).sum(axes)
    size = p.sum(axes) + target.sum(axes)
    if batch and total is not None:
        overlap, size = total(overlap), total(size)
    ratio = (2 * overlap + smooth) / (size + smooth).clamp_min(1e-8)
    if batch or total is None:
        return ratio.mean()
    return total(ratio.sum()) / total(torch.full_like(ratio, 1.0).sum())


def _shrunk(labels_BDHW: Tensor, shape: Sequence[int]) -> Tensor:
    if tuple(labels_BDHW.shape[1:]) == tuple(shape):
        return labels_BDHW
    small = functional.interpolate(labels_BDHW[:, None].float(), size=tuple(shape), mode="nearest-exact")
    return small[:, 0].to(labels_BDHW.dtype)


def constant_predictor_loss(loss: SegmentationLoss, labels_BDHW: Tensor, channels: int) -> float:
    """The loss of the best constant predictor on a batch: every voxel gets the class frequencies.

    A network whose loss stays above it has learnt nothing (SB403).
    """
    labels = labels_BDHW.long()
    if loss.regions is None:
        counts = torch.bincount(labels.clamp(0, channels - 1).flatten(), minlength=channels).double()
        counts = counts if loss.total is None else loss.total(counts)
        logits = (counts / counts.sum()).clamp_min(1e-6).log()
    else:
        regions = _classes_of(loss.regions, labels.device)
        inside = torch.stack([torch.isin(labels, classes).double().sum() for classes in regions])
        voxels = torch.tensor(float(labels.numel()), dtype=torch.float64, device=labels.device)
        if loss.total is not None:
            inside, voxels = loss.total(inside), loss.total(voxels)
        shares = inside / voxels
        logits = torch.logit(shares.clamp(1e-6, 1 - 1e-6))
    view = logits.float().view(1, -1, 1, 1, 1).expand(labels.shape[0], channels, *labels.shape[1:])
    return float(loss(view, labels))
