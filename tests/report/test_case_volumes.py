"""Volumes behind the rows: cropping, the comparison mask, real scans, and which cases are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.records.schema import RunRecord
from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.options import make_options
from segbench.report.read.runs import Run
from segbench.report.write import viewer
from segbench.report.write.viewer import (
    AGREE,
    EXTRA,
    MISSED,
    load_case,
    load_pictures,
    shown_case,
    worst_cases,
)
from segbench.volumes import Volume


def volume(array: np.ndarray, spacing: tuple[float, float, float] = (3.0, 1.0, 1.0)) -> Volume:
    affine = np.diag([spacing[2], spacing[1], spacing[0], 1.0])
    return Volume(array=array, spacing_mm=spacing, affine=affine)


def a_run(
    folder: Path, dataset: str, *, kind: str = "external", external: dict[str, str] | None = None
) -> Run:
    record = RunRecord.model_validate(
        {
            "schema_version": 1,
            "run_id": "r",
            "kind": kind,
            "status": "complete",
            "model": {"slug": "m"},
            "dataset": {"slug": dataset},
            "external": external,
        }
    )
    return Run(record, folder=folder)


def test_the_crop_keeps_a_border_and_the_classes() -> None:
    reference, prediction = np.zeros((60, 80, 90), dtype=np.uint8), np.zeros((60, 80, 90), dtype=np.uint8)
    reference[30, 40, 40:50] = 1
    prediction[30, 40, 45:55] = 1
    prediction[30, 40, 48] = 2  # the wrong label
    image = np.linspace(0, 1000, reference.size).reshape(reference.shape)
    scan = shown_case(image, volume(reference), prediction, window=(0.0, 1000.0))
    assert scan is not None
    assert scan.mask.shape == (33, 33, 47)
    mask = scan.mask
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
    assert max(scan.mask.shape) <= 192
    assert shown_case(None, volume(reference * 0), reference * 0, window=None) is None


def test_absent_volumes_are_none(tmp_path: Path) -> None:
    run = a_run(tmp_path, "no-such-dataset")
    assert load_case(run, "case", str(tmp_path)) is None


def test_a_phantom_that_is_not_there_is_not_generated(tmp_path: Path) -> None:
    run = a_run(tmp_path, "phantom-brats", kind="trained")
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "BraTS-GLI-90000-000.nii.gz").write_bytes(b"")
    assert load_case(run, "BraTS-GLI-90000-000", str(tmp_path / "data")) is None
    assert not (tmp_path / "data").exists()


def test_a_broken_prediction_is_none(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "c.nii.gz").write_bytes(b"not a volume")
    run = a_run(tmp_path, "x", external={"prediction": str(tmp_path / "p"), "reference": str(tmp_path / "p")})
    assert load_case(run, "c") is None


@pytest.mark.real_data
def test_real_scans_are_shown_with_their_image(real_data: Path, tmp_path: Path) -> None:
    """A hippocampus as predicted by its own reference: image found by the card, everything agrees."""
    labels = real_data / "Task04_Hippocampus" / "labelsTr"
    case = sorted(path.name for path in labels.glob("hippocampus_*.nii.gz"))[0].removesuffix(".nii.gz")
    external = {"prediction": str(labels), "reference": str(labels)}
    run = a_run(tmp_path, "msd-hippocampus", external=external)
    scan = load_case(run, case, str(real_data))
    assert scan is not None
    assert scan.image is not None
    assert scan.image.shape == scan.mask.shape
    assert np.ptp(scan.image) > 200
    assert set(np.unique(scan.mask).tolist()) == {0, AGREE}


def test_worst_cases_come_worst_first_and_at_most_three_of_a_model(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model, skill in (("alpha", 0.6), ("beta", 0.9)):
        for seed in (0, 1):
            runs.run(model, cases=8, skill=skill, seed=seed)
    ball = np.zeros((4, 4, 4), dtype=np.uint8)
    ball[1:3, 1:3, 1:3] = 1
    scan = shown_case(None, volume(ball), ball, window=None)
    monkeypatch.setattr(viewer, "prediction_folders", lambda run: [tmp_path])
    monkeypatch.setattr(
        viewer, "load_case", lambda run, case, data_dir: scan if case != "case-0003" else None
    )
    analysis = analyse([runs.root], make_options(metrics="hd95", resamples=100, viewer="worst:10"))
    found = load_pictures(analysis)
    assert [item.label for item in found] == ["alpha"] * 3 + ["beta"] * 3
    values = [item.value for item in found]
    assert values == sorted(values, reverse=True)  # of a distance the largest is the worst
    assert len({(item.label, item.case) for item in found}) == 6
    assert all(item.case != "case-0003" for item in found)
    every = worst_cases(analysis)
    assert len(every) == 16  # each case once for each model, whatever its seeds
    column, scores = analysis.main_columns()[0], analysis.blocks[0].models[0]
    table = analysis.blocks[0].per_case(scores, column.region, "hd95")
    assert every[0].value == table.max()
