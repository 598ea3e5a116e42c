"""Batches are a function of (seed, step, index): of nothing else, and with the shares they promise."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import torch

from segbench.core.errors import SegbenchError
from segbench.data.patches import sampling
from segbench.data.patches.arena import Arena
from segbench.data.patches.augment import augment
from segbench.data.patches.augment_parameters import AugmentationSettings
from segbench.data.patches.sampling import PatchLoader, patch_start, plan_samples
from segbench.data.prepared.cache import Cache, CacheDamagedError, write_case
from segbench.data.prepared.prepare import PreparedCase
from segbench.data.random import counter_seed, rng

IDS = [f"case-{i}" for i in range(7)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Seven small cases, each voxel its own value; case-5 has no foreground, case-6 is small."""
    folder = tmp_path_factory.mktemp("cache")
    for i, case in enumerate(IDS):
        shape = (20, 24 + i, 22) if i != 6 else (10, 30, 9)
        r = np.random.default_rng(i)
        image = r.normal(size=(2, *shape)).astype(np.float32)
        labels = np.zeros(shape, dtype=np.uint8)
        if i != 5:
            labels[4:8, 4:12, 3:8], labels[9, 20, 8] = 1, 3
        write_case(folder, case, PreparedCase(image, labels, {}))
    return Cache(folder)


def loader(cache, **changes):
    settings = {
        "patch": (16, 16, 16),
        "batch_size": 3,
        "seed": 5,
        "foreground_fraction": 0.33,
        "stop_step": 20,
        **changes,
    }
    return PatchLoader(cache, IDS, **settings)


def digest(batch):
    arrays = (*batch.image, *batch.labels)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_generators_are_functions_of_their_words():
    first = rng(0, "sample", 3, 1).random(5)
    np.testing.assert_array_equal(first, rng(0, "sample", 3, 1).random(5))
    others = [
        rng(1, "sample", 3, 1),
        rng(0, "augment", 3, 1),
        rng(0, "sample", 31),
        rng(0, "sample", 3, 1, 0),
    ]
    assert all(not np.array_equal(first, other.random(5)) for other in others)
    assert 0 <= counter_seed(0, "noise", 1) < 2**63
    # pinned: a change here changes every run ever made
    assert rng(0, "order", 0).permutation(5).tolist() == PINNED_PERMUTATION


PINNED_PERMUTATION = [3, 0, 4, 1, 2]


@pytest.mark.ci
@pytest.mark.parametrize("augmentation", [None, AugmentationSettings()], ids=["plain", "augmented"])
def test_batches_do_not_depend_on_workers_or_on_where_a_run_resumes(cache, augmentation):
    whole = [digest(batch) for batch in loader(cache, augmentation=augmentation)]
    assert len(set(whole)) == 20
    resumed = [digest(batch) for batch in loader(cache, augmentation=augmentation, start_step=13)]
    assert resumed == whole[13:]
    for workers in (1, 4) if augmentation is None else (2,):
        settings = {"workers": workers, "augmentation": augmentation}
        assert [digest(b) for b in loader(cache.folder, **settings)] == whole


def test_samples_are_what_the_largest_crop_of_the_batch_held(cache):
    """What is trained on did not change when crops became as small as each sample allows."""
    settings = AugmentationSettings(
        mirror_axes=(), overrides={"rotation.probability": 0.5, "scale.probability": 0.5}
    )
    smaller = 0
    for batch in loader(cache, augmentation=settings, stop_step=8, batch_size=4):
        whole, maps = [], []
        for plan in batch.plans:  # as every sample was read before: float32, one size for all
            start = patch_start(plan, cache, plan.patch)
            start = [s - (e - p) // 2 for s, e, p in zip(start, plan.extent, plan.patch, strict=True)]
            whole.append(torch.from_numpy(cache.image_patch(plan.case, start, plan.extent)))
            maps.append(torch.from_numpy(cache.labels_patch(plan.case, start, plan.extent)))
        before = augment(torch.stack(whole), torch.stack(maps), batch.plans, settings)
        images = [torch.from_numpy(image) for image in batch.image]
        now = augment(images, [torch.from_numpy(labels) for labels in batch.labels], batch.plans, settings)
        assert torch.equal(now[0], before[0])
        assert torch.equal(now[1], before[1])
        assert {image.dtype for image in images} == {torch.float16}
        smaller += sum(image[0].numel() < whole[0][0].numel() for image in images)
    assert smaller > 8


class Watched(Arena):
    """Notes in this process which slots are read."""

    taken: ClassVar[list[tuple[int, int]]] = []

    def take(self, slot, placed):
        Watched.taken.append((self.slots, slot))
        return super().take(slot, placed)


@pytest.mark.ci
def test_memory_of_the_workers_is_bounded_and_used_again(cache, monkeypatch):
    Watched.taken.clear()
    monkeypatch.setattr(sampling, "Arena", Watched)
    assert len(list(loader(cache, stop_step=30, workers=1, batch_size=2))) == 30
    slots = 2 + 3 + 1  # a batch in use, three tasks of the worker, one being handed over
    assert {many for many, _ in Watched.taken} == {slots}
    assert {slot for _, slot in Watched.taken} <= set(range(slots))
    assert len(Watched.taken) == 60


def test_world_size_changes_no_sample(cache):
    augmentation = AugmentationSettings()
    for step, whole in enumerate(loader(cache, batch_size=4, augmentation=augmentation, stop_step=6)):
        parts = [
            next(
                iter(
                    loader(
                        cache,
                        batch_size=4,
                        augmentation=augmentation,
                        start_step=step,
                        stop_step=step + 1,
                        rank=rank,
                        world=2,
                    )
                )
            )
            for rank in range(2)
        ]
        for rank, part in enumerate(parts):
            for ours, theirs in zip(part.image, whole.image[rank::2], strict=True):
                np.testing.assert_array_equal(ours, theirs)
            assert part.plans == whole.plans[rank::2]


def test_every_case_is_seen_equally_often_whatever_order_the_ids_come_in():
    seen = Counter()
    for step in range(50):
        plans = plan_samples(0, step, 3, IDS, foreground_fraction=0.33)
        assert [p.case for p in plans] == [
            p.case for p in plan_samples(0, step, 3, IDS[::-1], foreground_fraction=0.33)
        ]
        seen.update(plan.case for plan in plans)
        assert max(seen[i] for i in IDS) - min(seen[i] for i in IDS) <= 1
    uniform = Counter(
        plan.case
        for step in range(500)
        for plan in plan_samples(0, step, 4, IDS, foreground_fraction=0, order="uniform")
    )
    assert all(abs(uniform[case] - 2000 / 7) < 80 for case in IDS)


@pytest.mark.parametrize(
    ("batch", "fraction", "forced"),
    [(2, 0.33, 1), (1, 0.33, 1), (8, 0.33, 3), (4, 1.0, 4), (4, 0.0, 0), (9, 0.05, 1)],
)
def test_the_last_samples_of_a_batch_are_forced_into_a_structure(batch, fraction, forced):
    plans = plan_samples(3, 11, batch, IDS, foreground_fraction=fraction)
    assert [p.foreground for p in plans] == [i >= batch - forced for i in range(batch)]


def test_forced_patches_hold_a_structure_and_labels_are_equally_likely(cache):
    centres = Counter()
    for step in range(300):
        plan = plan_samples(1, step, 1, ["case-0"], foreground_fraction=1.0)[0]
        start = patch_start(plan, cache, (4, 4, 4))
        labels = cache.labels_patch(plan.case, start, (4, 4, 4))
        assert labels.any()
        centres[int(labels[2, 2, 2])] += 1
    # the single voxel of label 3 is the centre as often as any of the 160 of label 1
    assert 110 < centres[3] < 190


def test_regions_are_chosen_in_place_of_labels(cache):
    plans = [plan_samples(1, step, 1, ["case-0"], foreground_fraction=1.0)[0] for step in range(200)]
    starts = [patch_start(plan, cache, (4, 4, 4), regions=((3,), (9,))) for plan in plans]
    assert all(cache.labels_patch("case-0", start, (4, 4, 4))[2, 2, 2] == 3 for start in starts)


def test_the_ignore_label_is_never_a_centre(cache):
    plans = [plan_samples(1, step, 1, ["case-0"], foreground_fraction=1.0)[0] for step in range(60)]
    starts = [patch_start(plan, cache, (4, 4, 4), ignore_label=3) for plan in plans]
    assert all(cache.labels_patch("case-0", start, (4, 4, 4))[2, 2, 2] == 1 for start in starts)


def test_free_patches_cover_the_scan_to_its_last_voxel(cache):
    starts = np.array(
        [
            patch_start(plan_samples(2, step, 1, ["case-1"], foreground_fraction=0)[0], cache, (16, 16, 16))
            for step in range(400)
        ]
    )
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert starts.max(axis=0).tolist() == [4, 9, 6]


def test_cases_smaller_than_the_patch_are_centred_and_padded_with_zeros(cache):
    batch = next(
        iter(
            PatchLoader(
                cache,
                ["case-6"],
                patch=(16, 16, 16),
                batch_size=1,
                seed=0,
                foreground_fraction=0,
                stop_step=1,
            )
        )
    )
    (image,) = batch.image
    assert image.shape == (2, 16, 16, 16)
    assert (image[:, :3] == 0).all()
    assert (image[:, 13:] == 0).all()
    assert (image[:, 3:13, :, 4:12] != 0).all()
    assert (image[..., :3] == 0).all()


def test_case_without_foreground_gives_a_free_patch(cache):
    plan = plan_samples(1, 0, 1, ["case-5"], foreground_fraction=1.0)[0]
    assert plan.foreground
    assert min(patch_start(plan, cache, (8, 8, 8))) >= 0


def test_what_lies_outside_gets_the_ignore_label(cache):
    options = {"patch": (16, 16, 16), "batch_size": 1, "seed": 0, "foreground_fraction": 0, "stop_step": 1}
    plain, ignoring = (
        next(iter(PatchLoader(cache, ["case-6"], **options, ignore_label=label))) for label in (None, 7)
    )
    outside = np.ones((16, 16, 16), dtype=bool)
    outside[3:13, :, 3:12] = False
    assert (plain.labels[0][outside] == 0).all()
    assert (ignoring.labels[0][outside] == 7).all()
    np.testing.assert_array_equal(plain.labels[0][~outside], ignoring.labels[0][~outside])


def test_larger_crops_hold_the_patch_in_their_middle(cache):
    settings = AugmentationSettings(overrides={"rotation.probability": 1.0, "scale.probability": 1.0})
    plain, larger = loader(cache, stop_step=4), loader(cache, stop_step=4, augmentation=settings)
    for small, big in zip(plain, larger, strict=True):
        assert small.plans == big.plans
        for ours, theirs, maps, their_maps in zip(
            small.image, big.image, small.labels, big.labels, strict=True
        ):
            assert max(theirs.shape[1:]) <= 24, "at most 1.5 times the patch"
            cut = tuple(slice((n - 16) // 2, (n - 16) // 2 + 16) for n in theirs.shape[1:])
            np.testing.assert_array_equal(theirs[(..., *cut)], ours)
            np.testing.assert_array_equal(their_maps[cut], maps)


def test_a_damaged_case_is_prepared_once_more_then_given_up(tmp_path):
    labels = np.ones((8, 8, 8), dtype=np.uint8)
    good = PreparedCase(np.ones((1, 8, 8, 8), dtype=np.float32), labels, {})
    write_case(tmp_path, "a", good)
    path = tmp_path / "cases" / "a" / "image.b2nd"

    def damage():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))

    def run(repair):
        cache = Cache(tmp_path, repair=repair)
        options = {"patch": (8, 8, 8), "batch_size": 1, "seed": 0, "foreground_fraction": 0.0, "stop_step": 3}
        return [batch.image[0].mean() for batch in PatchLoader(cache, ["a"], **options)]

    damage()
    with pytest.raises(CacheDamagedError):
        Cache(tmp_path).verify("a")
    assert run(lambda case: write_case(tmp_path, case, good)) == [1.0, 1.0, 1.0]
    damage()
    with pytest.raises(SegbenchError) as caught:
        run(lambda case: None)
    assert caught.value.code == "SB501"
    assert caught.value.case == "a"


@pytest.mark.slow
def test_a_killed_worker_is_tried_once_more_and_then_named(cache, monkeypatch):
    whole = [digest(batch) for batch in loader(cache, stop_step=3)]
    monkeypatch.setenv("SEGBENCH_FAULT", "worker:3:kill")
    assert [digest(batch) for batch in loader(cache, stop_step=3, workers=1)] == whole
    monkeypatch.setenv("SEGBENCH_FAULT", "worker:1:kill")
    with pytest.raises(SegbenchError) as caught:
        list(loader(cache, workers=2))
    assert caught.value.code == "SB503"
    assert caught.value.case in IDS
    assert "SIGKILL" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"patch": (16, 16)}, {"patch": (0, 1, 1)}, {"rank": 2, "world": 2}, {"batch_size": 1, "world": 2}],
)
def test_arguments_that_make_no_batch_are_refused(cache, changes):
    with pytest.raises(ValueError):
        loader(cache, **changes)
    with pytest.raises(ValueError):
        plan_samples(0, 0, 2, [], foreground_fraction=0.3)
