"""Batches as a function of (seed, step, index): what is drawn, and the loader that reads it.

`plan_samples` decides without looking at data; `PatchLoader` reads what was decided, here or in worker
processes. Neither keeps state: a run that resumes at step k asks for step k. Only numpy is needed; torch is
not imported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segbench.core.errors import SegbenchError
from segbench.core.faults import fault
from segbench.data.patches.arena import Arena, Placed
from segbench.data.patches.augment_parameters import (
    AugmentationDraws,
    AugmentationSettings,
    draw_augmentation,
    extent_needed,
    largest_extent,
)
from segbench.data.prepared.cache import Cache, CacheDamagedError
from segbench.data.random import rng
from segbench.data.workers import TASKS_OF_A_WORKER, ordered_map

__all__ = ["Batch", "PatchLoader", "SamplePlan", "patch_start", "plan_samples", "rng"]

Array = npt.NDArray[Any]
Size = tuple[int, int, int]
Order = Literal["permutation", "uniform"]


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """What one sample of one batch is, before any data are looked at.

    Attributes:
        seed, step, index: What everything below is a function of; `index` counts in the global batch.
        case: The case it is cut from.
        foreground: Whether its centre is forced into a labelled structure.
        label_draw: Uniform in [0, 1): which of the case's labels (or regions).
        voxel_draw: Uniform in [0, 1): which of the label's stored voxels.
        corner_draw: Three uniforms: the corner of a patch that is not forced.
        augmentation: Numbers for every random transform.
        patch: Size (z, y, x) that is left after augmentation, once a loader has settled it.
        extent: Size of the crop that the sample's transforms count positions in: the largest of its batch.
    """

    seed: int
    step: int
    index: int
    case: str
    foreground: bool
    label_draw: float
    voxel_draw: float
    corner_draw: tuple[float, float, float]
    augmentation: AugmentationDraws
    patch: tuple[int, int, int] | None = None
    extent: tuple[int, int, int] | None = field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch; from worker processes its arrays are only there until the next one is asked for.

    Attributes:
        step: Its training step.
        image: Per sample (C, D, H, W) in the cache's own type, float16 or float32. A sample that will be
            rotated or scaled is larger than the patch and centred on it; `augment` cuts it down.
        labels: Per sample (D, H, W) uint8, or int32 where a label exceeds 255.
        plans: What was drawn, one per sample.
    """

    step: int
    image: Sequence[Array]
    labels: Sequence[Array]
    plans: tuple[SamplePlan, ...]


def plan_samples(
    seed: int,
    step: int,
    batch_size: int,
    case_ids: Sequence[str],
    *,
    foreground_fraction: float,
    order: Order = "permutation",
) -> list[SamplePlan]:
    """The samples of one step, in the order of the global batch; pure, no data are read.

    Args:
        seed: The run's seed.
        step: From 0.
        batch_size: Global batch: the sum over devices.
        case_ids: Training cases; their order does not matter.
        foreground_fraction: Share of samples, at the end of the batch, whose centre is forced into a
            structure: at least one when it is above 0.
        order: "permutation": every case equally often (+-1); "uniform": with replacement, as the reference
            does.

    Raises:
        ValueError: no case, or a batch below 1.
    """
    cases = tuple(sorted(case_ids))
    if not cases or batch_size < 1:
        raise ValueError(f"{len(cases)} cases and a batch of {batch_size} make no batch")
    forced = max(1, round(batch_size * foreground_fraction)) if foreground_fraction > 0 else 0
    plans: list[SamplePlan] = []
    for index in range(batch_size):
        drawn = [float(value) for value in rng(seed, "sample", step, index).random(6)]
        if order == "permutation":
            epoch, place = divmod(step * batch_size + index, len(cases))
            case = cases[_permutation(seed, epoch, len(cases))[place]]
        else:
            case = cases[int(drawn[5] * len(cases))]
        plans.append(
            SamplePlan(
                seed=seed,
                step=step,
                index=index,
                case=case,
                foreground=index >= batch_size - forced,
                label_draw=drawn[0],
                voxel_draw=drawn[1],
                corner_draw=(drawn[2], drawn[3], drawn[4]),
                augmentation=draw_augmentation(seed, step, index),
            )
        )
    return plans


@lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    return tuple(int(i) for i in rng(seed, "order", epoch).permutation(count))


def patch_start(
    plan: SamplePlan,
    cache: Cache,
    patch: Sequence[int],
    regions: Sequence[Sequence[int]] = (),
    ignore_label: int | None = None,
) -> tuple[int, int, int]:
    """First voxel (z, y, x) of a sample's patch in its case; negative where the case is smaller.

    Args:
        plan: The sample.
        cache: Holds the case.
        patch: (3,) voxels.
        regions: Label sets to choose from in place of single labels.
        ignore_label: A label that no centre is forced into: it teaches nothing.
    """
    shape = cache.shape(plan.case)[1:]
    centre = _forced_centre(plan, cache, shape, regions, ignore_label) if plan.foreground else None
    start: list[int] = []
    for axis, (extent, length) in enumerate(zip(shape, patch, strict=True)):
        room = extent - length
        if room <= 0:
            start.append(-(-room // 2))  # centred
        elif centre is not None:
            start.append(min(max(centre[axis] - length // 2, 0), room))
        else:
            start.append(int(plan.corner_draw[axis] * (room + 1)))
    return start[0], start[1], start[2]


def _forced_centre(
    plan: SamplePlan,
    cache: Cache,
    shape: Sequence[int],
    regions: Sequence[Sequence[int]],
    ignore_label: int | None,
) -> tuple[int, ...] | None:
    """A stored voxel of one of the case's labels, each label equally likely; None without foreground."""
    present = [label for label in cache.label_values(plan.case) if label != ignore_label]
    choices = [tuple(label for label in region if label in present) for region in regions]
    choices = [choice for choice in choices if choice] or [(label,) for label in present]
    if not choices:
        return None
    chosen = choices[int(plan.label_draw * len(choices))]
    positions = np.concatenate([cache.locations(plan.case, label) for label in chosen])
    flat = int(positions[int(plan.voxel_draw * positions.size)])
    return tuple(int(i) for i in np.unravel_index(flat, tuple(shape)))


@dataclass(frozen=True, slots=True)
class _Task:
    """One sample to read: the plan, the crop around its patch, and where a worker is to leave it."""

    plan: SamplePlan
    size: tuple[int, int, int]
    slot: int


class _ReadSample:
    """Cuts samples out of a cache; goes to worker processes whole."""

    def __init__(
        self, cache: Cache, patch: Sequence[int], regions: Sequence[Sequence[int]], ignore_label: int | None
    ) -> None:
        self.cache, self.patch, self.regions = cache, tuple(patch), regions
        self.ignore_label, self.outside = ignore_label, ignore_label or 0
        self.arena: Arena | None = None
        self.in_worker = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "in_worker": True}

    def __call__(self, task: _Task) -> tuple[Array, ...] | Placed:
        """The sample; from a worker with an arena what lies in the task's slot."""
        if self.in_worker:
            fault("worker")
        arrays = self.sample(task)
        if self.in_worker and self.arena is not None:
            return self.arena.put(task.slot, arrays)
        return arrays

    def sample(self, task: _Task) -> tuple[Array, ...]:
        """Image (C, *size) and labels (*size)."""
        plan = task.plan
        start = patch_start(plan, self.cache, self.patch, self.regions, self.ignore_label)
        # The crop has the patch's centre and its parity, so the difference is even.
        start = tuple(s - (c - p) // 2 for s, c, p in zip(start, task.size, self.patch, strict=True))
        try:
            image = self.cache.stored_patch(plan.case, start, task.size)
            labels = self.cache.labels_patch(plan.case, start, task.size, outside=self.outside)
        except CacheDamagedError:
            self.cache.forget(plan.case)  # what is open is bad; the next look must see the repaired files
            raise
        if labels.dtype != np.uint8:
            labels = labels.astype(np.int32)  # torch has no arithmetic for uint16
        return image, labels


class PatchLoader:
    """Iterable of `Batch`, the same bytes for any number of workers and from any step on.

    Args:
        cache: A `Cache` or its folder.
        case_ids: Training cases.
        patch: (3,) voxels z y x.
        batch_size: Global batch.
        seed: The run's seed.
        foreground_fraction: See `plan_samples`.
        workers: Processes that read; 0 reads here.
        start_step: First step.
        stop_step: Step after the last.
        augmentation: Settings of the augmentation to come: decides how much more than the patch is read; None
            reads patches.
        regions: Label sets that centres are forced into, in place of single labels.
        ignore_label: Value of voxels outside the image (0 when the card has none); never a centre.
        order: See `plan_samples`.
        rank, world: This process's share of every batch: indices rank, rank + world, ...

    Raises:
        ValueError: arguments that make no batch.
        SegbenchError: while iterating: SB503 a worker died twice on a case, SB501 a case is damaged again
            after it was prepared again.
    """

    def __init__(
        self,
        cache: Cache | Path | str,
        case_ids: Sequence[str],
        *,
        patch: Sequence[int],
        batch_size: int,
        seed: int,
        foreground_fraction: float,
        workers: int = 0,
        start_step: int = 0,
        stop_step: int,
        augmentation: AugmentationSettings | None = None,
        regions: Sequence[Sequence[int]] | Mapping[str, Sequence[int]] = (),
        ignore_label: int | None = None,
        order: Order = "permutation",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if len(patch) != 3 or min(patch) < 1:
            raise ValueError(f"patch must be three sizes of at least 1, not {tuple(patch)}")
        if not 0 <= rank < world <= batch_size:
            raise ValueError(f"rank {rank} of {world} has no share of a batch of {batch_size}")
        self.cache = cache if isinstance(cache, Cache) else Cache(cache)
        self.case_ids = tuple(sorted(case_ids))
        self.patch = (int(patch[0]), int(patch[1]), int(patch[2]))
        self.batch_size, self.seed, self.foreground_fraction = batch_size, seed, foreground_fraction
        self.workers, self.start_step, self.stop_step = workers, start_step, stop_step
        self.augmentation = augmentation
        self.order: Order = order
        self.rank, self.world = rank, world
        listed = list(regions.values()) if isinstance(regions, Mapping) else list(regions)
        self.regions = tuple(tuple(region) for region in listed)
        self._read = _ReadSample(self.cache, self.patch, self.regions, ignore_label)

    def __len__(self) -> int:
        return max(0, self.stop_step - self.start_step)

    def __iter__(self) -> Generator[Batch]:
        """Batches of the steps `start_step` up to `stop_step`."""
        share = len(range(self.rank, self.batch_size, self.world))
        ahead = share + max(1, self.workers) * TASKS_OF_A_WORKER + 1
        self._read.arena = self._arena(ahead) if self.workers > 0 and len(self) else None
        free = deque(range(ahead))
        samples = ordered_map(
            self._read, self._tasks(free), self.workers, case_of=lambda task: task.plan.case
        )
        gathered: list[tuple[_Task, tuple[Array, ...]]] = []
        try:
            for task, result, error in samples:
                gathered.append(
                    (task, self._arrays(task, result) if error is None else self._again(task, error))
                )
                if len(gathered) == share:
                    plans = tuple(task.plan for task, _ in gathered)
                    images, labels = zip(*(arrays for _, arrays in gathered), strict=True)
                    yield Batch(plans[0].step, images, labels, plans)
                    free.extend(task.slot for task, _ in gathered)
                    gathered = []
        finally:
            samples.close()
            self._read.arena = None

    def _arena(self, slots: int) -> Arena | None:
        """Room for `slots` samples of the largest size that may come."""
        if not Arena.possible():
            return None
        sizes = self.patch if self._settings is None else largest_extent(self.patch)
        channels = self.cache.shape(self.case_ids[0])[0]
        voxels = sizes[0] * sizes[1] * sizes[2]
        return Arena(slots, voxels * 4 * (channels + 1) + 256)

    def _arrays(self, task: _Task, result: Any) -> tuple[Array, ...]:
        """The sample that a worker left in the arena, or gave back as it is."""
        return result if self._read.arena is None else self._read.arena.take(task.slot, result)

    @property
    def _settings(self) -> AugmentationSettings | None:
        """The augmentation where it may rotate or scale."""
        return self.augmentation if self.augmentation is not None and self.augmentation.spatial else None

    def _tasks(self, free: deque[int]) -> Iterator[_Task]:
        for step in range(self.start_step, self.stop_step):
            every = plan_samples(
                self.seed,
                step,
                self.batch_size,
                self.case_ids,
                foreground_fraction=self.foreground_fraction,
                order=self.order,
            )
            sizes, settings = [self.patch] * len(every), self._settings
            if settings is not None:
                sizes = [extent_needed(plan.augmentation, settings, self.patch) for plan in every]
            # Positions count in the largest crop of the *global* batch: the world size changes no number.
            extent = _largest(sizes)
            for plan, own in list(zip(every, sizes, strict=True))[self.rank :: self.world]:
                size = own if own == self.patch else self._crop(own, extent)
                yield _Task(replace(plan, patch=self.patch, extent=extent), size, free.popleft())

    def _crop(self, own: Size, extent: Size) -> Size:
        """What is read for a sample that will be rotated or scaled.

        One voxel more on each side than it reaches: a position that is rounded up still finds its neighbour.
        A cubic spline takes something from every voxel of the crop.
        """
        if self._settings is not None and self._settings.image_order != 1:
            return extent
        z, y, x = (min(n + 2, limit) for n, limit in zip(own, extent, strict=True))
        return z, y, x

    def _again(self, task: _Task, error: Exception) -> tuple[Array, ...]:
        """A case that a worker found damaged is read here, where the cache can repair it; else the error."""
        if not isinstance(error, CacheDamagedError):
            raise error
        self.cache.forget(task.plan.case)
        try:
            return self._read.sample(task)
        except CacheDamagedError as damaged:
            raise SegbenchError(
                "SB501", f"prepared data are damaged: {damaged.reason}", path=damaged.path, case=damaged.case
            ) from damaged


def _largest(sizes: Sequence[Size]) -> Size:
    z, y, x = (max(lengths) for lengths in zip(*sizes, strict=True))
    return z, y, x
