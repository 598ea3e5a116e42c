"""Real label maps: equal to medpy on the crop, to the plain engine on the whole, and to themselves
perfect.
"""

import itertools

import numpy as np
import pytest

from segbench.metrics import evaluate_case
from segbench.metrics.boxes import box_of
from segbench.metrics.engine import _native, _plain
from segbench.metrics.registry import DEFAULT_METRICS
from segbench.records import read_cases
from segbench.scoring.evaluate import Request, evaluate_predictions
from segbench.volumes import read_label_map

pytestmark = pytest.mark.real_data


def same(reference, prediction, spacing, regions):
    options = {"spacing_mm": spacing, "regions": regions, "distances": True}
    ours = _native.measure(reference, prediction, **options)
    plain = _plain.measure(reference, prediction, **options)
    for name in regions:
        assert ours[name].counts == plain[name].counts
        for mine, other in ((ours[name].d1, plain[name].d1), (ours[name].d2, plain[name].d2)):
            np.testing.assert_array_equal(
                mine if mine is not None else [], other if other is not None else []
            )


def like_medpy(reference, prediction, spacing, regions):
    binary = pytest.importorskip("medpy.metric.binary")
    found = evaluate_case(reference, prediction, spacing_mm=spacing, regions=regions)
    for name, labels in regions.items():
        r, p = np.isin(reference, labels), np.isin(prediction, labels)
        if not r.any() or not p.any():
            continue
        box = box_of(r, p)
        # Cropping moves no distance; it spares medpy minutes.
        r, p = (np.pad(mask[box], 1) for mask in (r, p))
        assert found[name]["dice"] == binary.dc(p, r)
        assert found[name]["hd95"] == binary.hd95(p, r, voxelspacing=spacing)
        assert found[name]["hd"] == binary.hd(p, r, voxelspacing=spacing)
        assert found[name]["assd"] == pytest.approx(binary.assd(p, r, voxelspacing=spacing), abs=1e-12)


def perfect(labels, spacing, regions):
    for score in evaluate_case(labels, labels, spacing_mm=spacing, regions=regions).values():
        assert score.status in ("ok", "both_empty")
        for name in DEFAULT_METRICS:
            assert score[name] == (
                0.0 if name in ("hd", "hd95", "hd95_max", "assd", "masd", "relative_volume_error") else 1.0
            )


def singles(*maps):
    labels = sorted({int(value) for labels in maps for value in np.unique(labels)} - {0})
    return {f"label{label}": (label,) for label in labels}


def test_five_algorithms_on_one_tumour(real_data):
    files = sorted((real_data / "brats_multi_algorithm").glob("*/segmentation/*.nii.gz"))
    maps = [read_label_map(path) for path in files]
    assert len(maps) == 5
    regions = {"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)}  # the labels of editions before 2023
    first = maps[0]
    perfect(first.array, first.spacing_mm, regions)
    for other in maps[1:]:
        same(first.array, other.array, first.spacing_mm, regions)
    like_medpy(first.array, maps[1].array, first.spacing_mm, regions)


def test_two_models_on_one_ct_with_many_labels(real_data):
    folder = real_data / "ct_totalseg_small"
    one, two = (read_label_map(folder / name) for name in ("example_seg.nii.gz", "example_seg_fast.nii.gz"))
    regions = singles(one.array, two.array)
    assert len(regions) > 15
    same(one.array, two.array, one.spacing_mm, regions)
    like_medpy(one.array, two.array, one.spacing_mm, regions)
    perfect(one.array, one.spacing_mm, regions)


def test_thick_slices_of_a_spine(real_data):
    one, two = (read_label_map(real_data / "spine_semantic" / f"{name}.nii.gz") for name in ("ref", "pred"))
    regions = singles(one.array, two.array)
    same(one.array, two.array, one.spacing_mm, regions)
    like_medpy(one.array, two.array, one.spacing_mm, dict(itertools.islice(regions.items(), 4)))


def test_a_whole_body_with_117_classes(real_data):
    volume = read_label_map(real_data / "ct_totalseg_fullbody3mm" / "seg117.nii.gz")
    regions = singles(volume.array)
    moved = np.roll(volume.array, 2, axis=1)
    same(volume.array, moved, volume.spacing_mm, regions)
    perfect(volume.array, volume.spacing_mm, regions)


def test_slice_axis_first(real_data):
    path = real_data / "kits19_labels_only" / "case_00007" / "segmentation.nii.gz"
    volume = read_label_map(path)
    regions = {"kidney": (1, 2), "tumour": (2,)}
    same(volume.array, np.roll(volume.array, 3, axis=2), volume.spacing_mm, regions)
    perfect(volume.array, volume.spacing_mm, regions)


@pytest.mark.slow
def test_five_teams_on_one_airway_tree(real_data):
    files = sorted((real_data / "airway_multi_team" / "ATM_305_0000").glob("*.nii.gz"))
    first = read_label_map(files[0])
    for path in files[1:]:
        same(first.array, read_label_map(path).array, first.spacing_mm, {"airway": (1,)})


def test_two_readers_through_the_command(real_data, tmp_path):
    folder = real_data / "two_reader_headneck" / "0522c0017"
    request = Request(
        prediction=folder / "radiographer", reference=folder / "oncologist", regions={"organ": (1,)},
        results=tmp_path, workers=1,
    )  # fmt: skip
    evaluation = evaluate_predictions(request)
    assert not evaluation.failures
    rows = {row["case"]: row for row in read_cases(evaluation.folder)}
    assert set(rows) == {"Brainstem", "Mandible", "Parotid-Lt", "Spinal-Cord", "Submandibular-Rt"}
    for case in ("Brainstem", "Spinal-Cord"):
        one, two = (
            read_label_map(folder / reader / f"{case}.nrrd") for reader in ("oncologist", "radiographer")
        )
        expected = evaluate_case(one.array, two.array, spacing_mm=one.spacing_mm, regions={"organ": (1,)})[
            "organ"
        ]
        assert {name: float(rows[case][name]) for name in expected} == dict(expected)


def test_a_reference_scored_against_itself_in_old_and_new_labels(real_data, tmp_path):
    """Old BraTS labels are refused by name, not scored as they happen to fall."""
    folder = real_data / "brats_multi_algorithm" / "TCGA-FG-6692"
    request = Request(
        prediction=folder / "segmentation", reference=folder / "segmentation", dataset="brats2023-gli",
        results=tmp_path, workers=1,
    )  # fmt: skip
    with pytest.raises(Exception, match="reference") as caught:
        evaluate_predictions(request)
    assert getattr(caught.value, "code", "") == "SB213"
