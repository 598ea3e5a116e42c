"""Volumes behind the rows: cropping, the comparison mask, real scans, and whole patients in the bootstrap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.report.analysis import analyse
from segbench.report.options import make_options
from segbench.report.runs import Run
from segbench.report.scans import AGREE, EXTRA, MISSED, ScanSource, shown_case
from segbench.volumes import Volume


def volume(array: np.ndarray, spacing: tuple[float, float, float] = (3.0, 1.0, 1.0)) -> Volume:
    affine = np.diag([spacing[2], spacing[1], spacing[0], 1.0])
    return Volume(array=array, spacing_mm=spacing, affine=affine)


def test_the_crop_keeps_a_border_and_the_classes() -> None:
    reference, prediction = np.zeros((60, 80, 90), dtype=np.uint8), np.zeros((60, 80, 90), dtype=np.uint8)
    reference[30, 40, 40:50] = 1
    prediction[30, 40, 45:55] = 1
    prediction[30, 40, 48] = 2  # the wrong label
    image = np.linspace(0, 1000, reference.size).reshape(reference.shape)
    scan = shown_case(image, volume(reference), prediction, window=(0.0, 1000.0))
    assert scan is not None
    assert scan.reference.shape == (33, 33, 47)
    mask = scan.comparison
    assert [int((mask == code).sum()) for code in (AGREE, MISSED, EXTRA)] == [4, 6, 5]
    assert scan.worst_slices()[:2] == (16, 16)
    assert scan.image is not None
    assert scan.image.dtype == np.uint8
    assert scan.spacing_mm == (3.0, 1.0, 1.0)


def test_a_large_crop_is_thinned_and_an_empty_case_is_none() -> None:
    reference = np.zeros((4, 500, 20), dtype=np.uint8)
    reference[:, 10:490] = 1
    scan = shown_case(None, volume(reference), reference, window=None)
    assert scan is not None
    assert (scan.step, scan.spacing_mm) == (3, (9.0, 3.0, 3.0))
    assert max(scan.reference.shape) <= 192
    assert shown_case(None, volume(reference * 0), reference * 0, window=None) is None


def test_absent_volumes_are_none(tmp_path: Path) -> None:
    run = Run("r", "external", "complete", "m", "no-such-dataset", "external", 0, 0, folder=tmp_path)
    source = ScanSource(str(tmp_path))
    assert not source.has(run, "case")
    assert source.load(run, "case") is None


def test_a_phantom_that_is_not_there_is_not_generated(tmp_path: Path) -> None:
    run = Run("r", "trained", "complete", "m", "phantom-brats", "demo", 0, 0, folder=tmp_path)
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "BraTS-GLI-90000-000.nii.gz").write_bytes(b"")
    assert ScanSource(str(tmp_path / "data")).load(run, "BraTS-GLI-90000-000") is None
    assert not (tmp_path / "data").exists()


def test_a_broken_prediction_is_none(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "c.nii.gz").write_bytes(b"not a volume")
    record = {"external": {"prediction": str(tmp_path / "p"), "reference": str(tmp_path / "p")}}
    run = Run("r", "external", "complete", "m", "x", "external", 0, 0, record=record, folder=tmp_path)
    source = ScanSource()
    assert source.has(run, "c")
    assert source.load(run, "c") is None


@pytest.mark.real_data
def test_real_scans_are_shown_with_their_image(real_data: Path, tmp_path: Path) -> None:
    """A hippocampus as predicted by its own reference: image found by the card, everything agrees."""
    labels = real_data / "Task04_Hippocampus" / "labelsTr"
    case = sorted(path.name for path in labels.glob("hippocampus_*.nii.gz"))[0].removesuffix(".nii.gz")
    record = {"external": {"prediction": str(labels), "reference": str(labels)}}
    run = Run(
        "r", "external", "complete", "m", "msd-hippocampus", "external", 0, 0, record=record, folder=tmp_path
    )
    scan = ScanSource(str(real_data)).load(run, case)
    assert scan is not None
    assert scan.image is not None
    assert scan.image.shape == scan.reference.shape
    assert np.ptp(scan.image) > 200
    assert set(np.unique(scan.comparison).tolist()) == {0, AGREE}


def test_whole_patients_are_drawn_where_case_ids_tell(runs: Any) -> None:
    """Two time points a patient: the bootstrap of ranks equals that of stats with groups, and says so."""
    from segbench.report.tables.comparison import ranks_table
    from segbench.stats import rank_stability

    names = [f"BraTS-GLI-{number // 2:05d}-{number % 2:03d}" for number in range(20)]
    tables = []
    for model, skill in (("a", 0.8), ("b", 0.805)):
        rows = runs.rows(model, cases=20, regions=("WT",), dataset="brats2023-gli", skill=skill)
        for row, name in zip(rows, names, strict=True):
            row["case"] = name
        runs.write(rows)
        tables.append([row["dice"] for row in rows])
    table = np.array(tables).T
    for pseudonyms in (False, True):
        options = make_options(metrics="dice", resamples=400, pseudonyms=pseudonyms)
        analysis = analyse([runs.root], options)
        ranks = analysis.ranks[0, "WT", "dice"]
        expected = rank_stability(table, resamples=400, seed=0, groups=[name[:15] for name in names])
        assert ranks.n_patients == 10
        assert ranks.probability_best.tolist() == np.asarray(expected.probability_best).tolist()
        shown = ranks_table(analysis, analysis.metrics[0], (0, "WT", "dice"))
        assert shown is not None
        assert "10 whole patients" in shown.caption
