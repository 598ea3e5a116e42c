"""A dataset prepared once per recipe: only what is missing, bad cases alone, the disk asked first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segbench.core.errors import SegbenchError
from segbench.data import open_dataset
from segbench.data.prepared.cache import Cache, CacheDamagedError
from segbench.data.prepared.eviction import evict, in_use, note_use
from segbench.data.prepared.prepare import (
    PreparationRecipe,
    forecast_preparation,
    prepare_case,
    prepare_dataset,
    prepared_folder,
)

IDS = [f"scan_{i:03d}" for i in range(5)]


@pytest.fixture
def dataset(tmp_path):
    """Five tiny CTs in the layout of the Decathlon; the last is the only one that is coarse."""
    root = tmp_path / "Task99_Tiny"
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    for i, case in enumerate(IDS):
        r = np.random.default_rng(i)
        image = r.integers(-1000, 1000, size=(20, 18, 12 + i)).astype(np.int16)
        labels = np.zeros(image.shape, dtype=np.uint8)
        labels[4:9, 4:9, 3:8] = 1
        image[labels == 1] = 100 + i
        affine = np.diag([1.0, 1.0, 3.0 if i == 4 else 1.5, 1.0])
        nibabel.save(nibabel.Nifti1Image(image, affine), root / "imagesTr" / f"{case}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, affine), root / "labelsTr" / f"{case}.nii.gz")
    (root / "dataset.json").write_text(
        json.dumps(
            {
                "name": "tiny",
                "modality": {"0": "CT"},
                "labels": {"0": "background", "1": "organ"},
                "numTraining": 5,
                "training": [
                    {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in IDS
                ],
                "test": [],
            }
        )
    )
    return open_dataset(root)


def recipe(scheme="zscore", spacing="native", **more):
    return PreparationRecipe(channels=("CT",), normalisation=(scheme,), spacing_mm=spacing, **more)


def written(folder):
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in Path(folder).rglob("*.b2nd")}


def test_prepared_cases_are_those_of_prepare_case(dataset, tmp_path):
    cache = prepare_dataset(dataset, IDS, recipe(), tmp_path / "cache", training_ids=IDS[:3])
    assert cache.case_ids == tuple(IDS)
    assert cache.folder == prepared_folder(tmp_path / "cache", "tiny", recipe(), IDS[:3])
    for case in IDS:
        files = dataset.case(case)
        alone = prepare_case(
            [files.images["CT"]], files.references, spacing_mm="native", normalisation=["zscore"]
        )
        np.testing.assert_allclose(cache.image(case), alone.image, rtol=2**-10, atol=1e-3)
        np.testing.assert_array_equal(cache.labels(case), alone.labels)
        assert cache.properties(case)["shape_after"] == list(alone.image.shape[1:])


def test_a_second_call_writes_nothing_and_other_cells_share_the_folder(dataset, tmp_path):
    first = prepare_dataset(dataset, IDS[:3], recipe(), tmp_path / "cache", training_ids=IDS[:2])
    before = written(first.folder)
    ready = []
    again = prepare_dataset(
        dataset, IDS, recipe(), tmp_path / "cache", training_ids=IDS[1:], progress=ready.append
    )
    assert again.folder == first.folder, "a z-score does not look at the split"
    assert sorted(ready) == IDS
    after = written(again.folder)
    assert {path: after[path] for path in before} == before
    assert again.case_ids == tuple(IDS)


def test_ct_statistics_come_from_the_training_split_alone(dataset, tmp_path):
    some = prepare_dataset(dataset, IDS, recipe("ct"), tmp_path / "cache", training_ids=IDS[:2])
    statistics = some.fingerprint["normalisation_statistics"][0]
    assert statistics["mean"] == pytest.approx(100.5)
    assert statistics["p005"] == 100
    others = prepare_dataset(dataset, IDS, recipe("ct"), tmp_path / "cache", training_ids=IDS[3:])
    assert others.folder != some.folder
    assert others.fingerprint["normalisation_statistics"][0]["mean"] == pytest.approx(103.5)
    raw = json.loads((some.folder / "cases" / IDS[0] / "case.json").read_text())
    assert raw["arrays"]["image"]["dtype"] == "int16", "nothing resampled: stored as it was"


def test_median_spacing_is_resolved_over_the_training_split(dataset, tmp_path):
    cache = prepare_dataset(dataset, IDS, recipe(spacing="median"), tmp_path / "cache", training_ids=IDS)
    assert cache.fingerprint["spacing_mm"] == [1.5, 1.0, 1.0]
    assert cache.shape(IDS[4]) == (1, 32, 18, 20), "16 slices of 3 mm become 32 of 1.5 mm"
    assert cache.shape(IDS[0]) == (1, 12, 18, 20)


@pytest.mark.slow
def test_workers_write_the_same_bytes(dataset, tmp_path):
    alone = prepare_dataset(dataset, IDS, recipe("ct"), tmp_path / "a", training_ids=IDS)
    many = prepare_dataset(dataset, IDS, recipe("ct"), tmp_path / "b", training_ids=IDS, workers=3)
    assert alone.digest(IDS) == many.digest(IDS)
    assert alone.fingerprint == many.fingerprint


def test_changed_files_are_prepared_again_and_touched_ones_are_not(dataset, tmp_path):
    cache = prepare_dataset(dataset, IDS, recipe(), tmp_path / "cache", training_ids=IDS)
    before = written(cache.folder)
    path = dataset.case(IDS[1]).images["CT"]
    os.utime(path, (1, 1))
    prepare_dataset(dataset, IDS, recipe(), tmp_path / "cache", training_ids=IDS)
    assert written(cache.folder) == before
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), image.affine), path)
    again = prepare_dataset(dataset, IDS, recipe(), tmp_path / "cache", training_ids=IDS)
    changed = {p.parts[1] for p, t in written(cache.folder).items() if before[p] != t}
    assert changed == {IDS[1]}
    files = dataset.case(IDS[1])
    fresh = prepare_case(
        [files.images["CT"]], files.references, spacing_mm="native", normalisation=["zscore"]
    )
    np.testing.assert_allclose(again.image(IDS[1]), fresh.image, rtol=2**-10, atol=1e-3)


def test_one_bad_case_stays_alone(dataset, tmp_path):
    path = dataset.case(IDS[2]).images["CT"]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SegbenchError) as caught:
        prepare_dataset(dataset, IDS, recipe(), tmp_path / "cache", training_ids=IDS[:2])
    assert caught.value.code in ("SB204", "SB205")
    assert caught.value.case == IDS[2]
    cache = prepare_dataset(
        dataset, IDS, recipe(), tmp_path / "cache", training_ids=IDS[:2], on_error="collect"
    )
    assert set(cache.failures) == {IDS[2]}
    assert cache.case_ids == tuple(i for i in IDS if i != IDS[2])


@pytest.mark.ci
@pytest.mark.parametrize(
    ("scheme", "stop_after", "left", "workers"),
    [("zscore", 2, 2, 0), ("ct", 2, 0, 0), ("ct", 4, 1, 0), ("zscore", 2, 2, 2)],
)
def test_a_stop_between_cases_keeps_what_is_done(dataset, tmp_path, scheme, stop_after, left, workers):
    """With `ct` the training cases are read first, for their statistics; a stop need not wait for that."""
    calls = iter(range(1, 99))

    def stop():
        if next(calls) == stop_after:
            raise KeyboardInterrupt

    more = {"training_ids": IDS[:3], "workers": workers}
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(dataset, IDS, recipe(scheme), tmp_path / "cache", between=stop, **more)
    folder = prepared_folder(tmp_path / "cache", "tiny", recipe(scheme), IDS[:3])
    whole = Cache(folder).case_ids
    assert whole[:left] == tuple(IDS[:left])
    assert len(whole) == left or workers  # workers are some cases ahead
    assert not list(folder.glob("cases/*tmp*")) or workers
    again = prepare_dataset(dataset, IDS, recipe(scheme), tmp_path / "cache", **more)
    assert again.case_ids == tuple(IDS)


def test_a_damaged_file_is_repaired_on_the_next_call_or_by_the_cache_itself(dataset, tmp_path):
    cache = prepare_dataset(dataset, IDS, recipe(), tmp_path / "cache", training_ids=IDS)
    good = cache.digest(IDS)
    path = cache.folder / "cases" / IDS[0] / "image.b2nd"
    path.write_bytes(path.read_bytes()[:-7])
    assert prepare_dataset(dataset, IDS, recipe(), tmp_path / "cache", training_ids=IDS).digest(IDS) == good
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    opened = prepare_dataset(dataset, IDS, recipe(), tmp_path / "cache", training_ids=IDS)
    with pytest.raises(CacheDamagedError):
        Cache(opened.folder).image(IDS[0])
    assert opened.image(IDS[0]).any()
    assert opened.digest(IDS) == good
    Cache(opened.folder).verify(IDS[0])
    path.write_bytes(bytes(content))
    opened.forget(IDS[0])
    with pytest.raises(SegbenchError) as caught:
        opened.image(IDS[0])
    assert caught.value.code == "SB501", "once is enough"


def test_forecast_counts_what_is_missing_and_the_disk_is_asked_first(dataset, tmp_path, monkeypatch):
    options = {"training_ids": IDS}
    missing, whole = forecast_preparation(dataset, IDS, recipe(), tmp_path / "cache", **options)
    assert missing == tuple(IDS)
    voxels = sum(20 * 18 * (12 + i) for i in range(5))
    assert whole == int(voxels * (2 * 0.25 + 0.05))
    _, finer = forecast_preparation(
        dataset, IDS, recipe(spacing=(0.75, 0.5, 0.5)), tmp_path / "cache", **options
    )
    assert finer > 7 * whole
    free = shutil.disk_usage(tmp_path)._replace(free=int(1.1 * whole))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: free)
    with pytest.raises(SegbenchError) as caught:
        prepare_dataset(dataset, IDS, recipe(), tmp_path / "cache", **options)
    assert caught.value.code == "SB505"
    assert not (tmp_path / "cache").exists(), "nothing was written"
    monkeypatch.undo()
    prepare_dataset(dataset, IDS[:2], recipe(), tmp_path / "cache", **options)
    assert forecast_preparation(dataset, IDS, recipe(), tmp_path / "cache", **options)[0] == tuple(IDS[2:])


def test_a_prepared_case_returns_to_the_stored_grid(dataset, tmp_path):
    from round_trip import export_case

    cache = prepare_dataset(dataset, IDS, recipe(spacing="median"), tmp_path / "cache", training_ids=IDS)
    for case in IDS:
        labels = cache.labels(case)
        logits = np.stack([labels == 0, labels == 1]).astype(np.float32)
        reference = dataset.read_reference(case)
        back = export_case(logits, cache.properties(case), reference)
        np.testing.assert_array_equal(back, reference.array)


def test_eviction_takes_the_longest_unused_and_never_one_in_use(dataset, tmp_path):
    root = tmp_path / "cache"
    old, used, new = (
        prepare_dataset(dataset, IDS[:2], recipe(scheme), root, training_ids=IDS[:2]).folder
        for scheme in ("zscore", "rescale01", "none")
    )
    assert in_use(old), "this process has it open"
    for age, folder in ((300, old), (200, used), (100, new)):
        shutil.rmtree(folder / "users")
        os.utime(folder / "recipe.json", (time.time() - age,) * 2)
    assert not in_use(old)
    sizes = sum(p.stat().st_size for p in root.rglob("*") if p.is_file())
    assert evict(root, sizes) == []
    note_use(used)
    assert evict(root, 0) == [old, new]
    assert used.is_dir()
    assert not old.exists()
    assert sorted(p.name for p in (root / "tiny").iterdir()) == [used.name]


def test_a_note_of_a_dead_process_does_not_keep_a_recipe(dataset, tmp_path):
    folder = prepare_dataset(dataset, IDS[:1], recipe(), tmp_path / "cache", training_ids=IDS[:1]).folder
    shutil.rmtree(folder / "users")
    code = (
        f"from segbench.data.prepared.eviction import *; f = {str(folder)!r}; note_use(f); assert in_use(f)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(list((folder / "users").iterdir())) == 1
    assert not in_use(folder)
    assert evict(tmp_path / "cache", 0) == [folder]


@pytest.mark.real_data
def test_real_hippocampus_cases(real_data, tmp_path):
    dataset = open_dataset(real_data / "Task04_Hippocampus")
    ids = dataset.case_ids[:6]
    plain = PreparationRecipe(
        channels=dataset.card.channels.order, normalisation=("zscore",), spacing_mm="native"
    )
    cache = prepare_dataset(dataset, ids, plain, tmp_path, training_ids=ids)
    assert isinstance(cache, Cache)
    for case in ids:
        assert abs(float(cache.image(case).mean())) < 1e-2
        assert cache.label_values(case) == (1, 2)
        np.testing.assert_array_equal(np.sort(np.unique(cache.labels(case))), [0, 1, 2])
