"""Labels under a scaling: accepted where the scaling rounded them, refused where it took them away."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nifti_bytes import nifti, write

from segbench.core.errors import SegbenchError
from segbench.volumes import as_label_array, read_label_map

LABELS = (np.arange(60).reshape(3, 4, 5) % 3).astype(np.uint8)


def refusal(array, **scaling) -> SegbenchError:
    with pytest.raises(SegbenchError) as caught:
        as_label_array(array, **scaling)
    return caught.value


@given(
    labels=st.lists(st.integers(0, 40), min_size=1, max_size=40),
    stored=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32]),
    factor=st.floats(0.5, 1.0),
)
@settings(max_examples=200, deadline=None)
def test_labels_that_a_writer_scaled_are_read_as_what_they_were(labels, stored, factor):
    """Floats over the whole range of an integer type, as nibabel and others save them; float32 slope."""
    values = np.array([0, *labels, max(labels)], dtype=np.float64)
    info = np.iinfo(stored)
    slope = float(np.float32(values.max() / (float(info.max) - float(info.min)) / factor)) or 1.0
    inter = float(np.float32(-float(info.min) * slope))
    kept = np.clip(np.rint((values - inter) / slope), info.min, info.max).astype(stored)
    assert np.array_equal(as_label_array(kept, slope=slope, inter=inter), values)


def test_as_nibabel_saves_floats_under_an_integer_header(tmp_path):
    image = nib.Nifti1Image(LABELS.T.astype(np.float64) * 1.0, np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "x.nii.gz")
    assert np.array_equal(read_label_map(tmp_path / "x.nii.gz").array, LABELS)


@pytest.mark.parametrize("slope", [1e-30, 1e-7, 1e-3, -1e-30, 0.3, 0.7, 1.3])
@pytest.mark.parametrize("kind", ["u1", "i2", "i8", "f4", "f8"])
@pytest.mark.parametrize("inter", [0.0, 1.0])
def test_labels_that_a_scale_took_away_are_refused_by_name(tmp_path, slope, kind, inter):
    path = write(tmp_path / "x.nii", nifti(LABELS.astype(kind), scl_slope=slope, scl_inter=inter))
    with pytest.raises(SegbenchError) as caught:
        read_label_map(path)
    assert caught.value.code == "SB212"
    assert "scl_slope" in str(caught.value.mend) and "integers" in str(caught.value.mend)


def test_one_label_lost_among_others_is_refused():
    """2 steps of 1e-18 are not 0, and beside an offset of 1 they are not 1."""
    for inter in (0.0, 1.0):
        error = refusal(np.array([0, 2, 10**18]), slope=1e-18, inter=inter)
        assert error.code == "SB212"
    assert refusal(np.array([0.0, 2.0, 1e30]), slope=1e-30).code == "SB212"


def test_probabilities_under_a_scaling_stay_no_labels():
    error = refusal(np.arange(256, dtype=np.uint8), slope=1 / 255)
    assert error.code == "SB212"


def test_floats_that_differ_and_would_all_be_one_label_are_refused():
    assert refusal(np.array([0.0, 1e-7], dtype=np.float32)).code == "SB212"
    assert refusal(np.array([0.0, 1e-30])).code == "SB212"
    assert np.array_equal(as_label_array(np.array([0.0, 0.99999994], dtype=np.float32)), [0, 1])
    assert np.array_equal(as_label_array(np.zeros(3)), [0, 0, 0])


@pytest.mark.parametrize(("slope", "inter"), [(2.0, 1.0), (-1.0, 2.0), (0.5, 0.0), (1.0, 0.0)])
def test_exact_scalings_are_exact(slope, inter):
    stored = np.array([0, 2, 2, 0], dtype=np.int16)
    assert np.array_equal(as_label_array(stored, slope=slope, inter=inter), stored * slope + inter)
