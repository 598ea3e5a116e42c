"""Real scans: all are read, and as nibabel and SimpleITK read them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from segbench.volumes import from_canonical, read_label_map, read_volume, to_canonical, write_label_map

pytestmark = pytest.mark.real_data


@pytest.mark.parametrize(
    "limit", [100_000, pytest.param(None, marks=pytest.mark.slow)], ids=["small-files", "all-files"]
)
def test_every_scan_as_nibabel_reads_it(real_data, limit):
    paths = [p for p in sorted(real_data.rglob("*.nii.gz")) if limit is None or p.stat().st_size < limit]
    assert len(paths) > 300
    for path in paths[:: 1 if limit is None else 8]:
        volume, image = read_volume(path, allow_channels=True), nib.load(path)
        stored = np.asarray(image.dataobj).T.reshape(volume.array.shape)
        assert np.array_equal(volume.array, stored.astype(np.float32)), path.name
        # nibabel leaves lengths in the unit of the header; ours are millimetres
        unit = {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)
        in_mm = np.diag([unit, unit, unit, 1.0]) @ image.affine
        assert np.allclose(volume.affine, in_mm, atol=1e-5), path.name


def test_every_nrrd_as_simpleitk_reads_it(real_data):
    sitk = pytest.importorskip("SimpleITK")
    paths = sorted(real_data.rglob("*.nrrd"))
    assert paths
    for path in paths:
        assert np.array_equal(
            read_volume(path, raw=True).array, sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        )


@pytest.mark.ci
def test_slice_first_labels_go_round(real_data, tmp_path):
    for path in sorted(real_data.glob("kits19_labels_only/**/*.nii.gz")):
        label = read_label_map(path, labels=[0, 1, 2])
        canonical = to_canonical(label)
        assert np.array_equal(from_canonical(canonical.array, label), label.array)
        back = read_label_map(write_label_map(tmp_path / "p.nii.gz", label.array, label))
        assert np.array_equal(back.array, label.array)
        assert np.allclose(back.affine, label.affine, atol=1e-6)


def test_float_labels_are_whole(real_data):
    label = read_label_map(real_data / "brain_slab_tissue4" / "sub01_seg.nii.gz", labels=range(5))
    assert label.array.dtype == np.uint8
    assert set(np.unique(label.array)) <= set(range(5))
