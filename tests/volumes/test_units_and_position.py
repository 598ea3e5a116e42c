"""Lengths are in millimetres whatever the file states them in, and a guess at a position decides nothing."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nifti_bytes import nifti, write

from segbench.core.errors import SegbenchError
from segbench.data.scan_file import write_scan
from segbench.volumes import compare_geometry, read_header, read_label_map, read_volume, write_label_map

ARRAY = (np.arange(4 * 5 * 6).reshape(4, 5, 6) % 3).astype(np.uint8)
OBLIQUE = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -40], [0, 0, 3.0, 50], [0, 0, 0, 1]])
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001, 5: 1.0}


def saved(path, *, affine=OBLIQUE, code=2, spacing=None, units=2, form="sform"):
    """A file of nibabel with one form, or with none."""
    image = nib.Nifti1Image(ARRAY.T, affine if form != "none" else None)
    if form != "none":
        image.set_sform(affine if form == "sform" else None, code if form == "sform" else 0)
        image.set_qform(affine if form == "qform" else None, code if form == "qform" else 0)
    if spacing is not None and form == "none":
        image.header.set_zooms(spacing)
    image.header["xyzt_units"] = units
    nib.save(image, path)
    return path


@pytest.mark.parametrize("form", ["sform", "qform", "none"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("units", sorted(MILLIMETRES))
def test_nifti_lengths_are_converted_by_the_files_own_word(tmp_path, units, version, form):
    codes = {"sform_code": int(form == "sform"), "qform_code": int(form == "qform")}
    fields = {"quatern": [0, 0, 0], "qoffset": [7.0, 8.0, 9.0]} if form == "qform" else {}
    affine = np.array([[2.0, 0, 0, 7], [0, 4, 0, 8], [0, 0, 6, 9], [0, 0, 0, 1]])
    # The time unit shares the byte and must not matter.
    data = nifti(ARRAY, version=version, affine=affine, xyzt_units=units | 8, **codes, **fields)
    path = write(tmp_path / "x.nii.gz", data)
    factor = np.array([*[MILLIMETRES[units]] * 3, 1.0])[:, np.newaxis]
    volume = read_label_map(path)
    assert volume.spacing_mm == pytest.approx([size * MILLIMETRES[units] for size in (6, 4, 2)], rel=1e-12)
    assert np.allclose(volume.affine, nib.load(path).affine * factor, rtol=1e-12)
    assert read_header(path).unit == volume.unit == {1: "m", 2: "mm", 3: "um"}.get(units, "")


@pytest.mark.parametrize("form", ["sform", "qform", "none"])
@pytest.mark.parametrize("units", [0, 1, 2, 3])
def test_what_is_written_lies_on_its_scan_for_readers_that_look_at_no_unit(tmp_path, units, form):
    scan = saved(tmp_path / "scan.nii.gz", units=units, form=form, spacing=(1.5, 2, 3))
    theirs, ours = nib.load(scan), read_volume(scan, raw=True)
    label = write_label_map(tmp_path / "label.nii.gz", ARRAY, ours)
    channel = write_scan(tmp_path / "channel.nii.gz", ARRAY, ours.affine, like=ours)
    for path in (label, channel):
        written = nib.load(path)
        assert np.allclose(written.affine, theirs.affine, atol=1e-5)
        assert int(written.header["xyzt_units"]) & 7 == units
        assert (int(written.header["sform_code"]) == int(written.header["qform_code"]) == 0) == (
            form == "none"
        )
        assert compare_geometry(ours, read_volume(path)).same_grid


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 5, 6), (5, 6)])
def test_without_any_form_the_affine_is_nibabels(tmp_path, shape):
    data = nifti(np.ones(shape, np.uint8), sform_code=0, qform_code=0, spacing=(0.5, 2.0, 3.0))
    volume = read_volume(write(tmp_path / "x.nii", data))
    assert np.array_equal(volume.affine, nib.load(tmp_path / "x.nii").affine)
    assert not volume.positioned


def test_a_guessed_position_decides_nothing_and_shape_and_spacing_do(tmp_path):
    lost = read_volume(saved(tmp_path / "lost.nii.gz", form="none", spacing=(1.5, 2, 3)))
    there = read_volume(saved(tmp_path / "there.nii.gz", affine=np.diag([1.5, 2, 3, 1.0])))
    other = read_volume(saved(tmp_path / "other.nii.gz", affine=np.diag([1.5, 2, 4, 1.0])))
    for first, second in ((lost, there), (there, lost), (lost, lost)):
        compared = compare_geometry(first, second)
        assert compared.same_grid and not compared.position_known and compared.displacement_voxels is None
    assert not compare_geometry(lost, other).same_grid
    assert compare_geometry(there, there).position_known


NRRD = (
    "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 6 5 4\nencoding: raw\nspace: left-posterior-superior\n"
    "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (10,20,30)\n"
)
MHA = (
    "ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementSpacing = 2 3 4\nOffset = 10 20 30\n"
    "ElementType = MET_UCHAR\n{}ElementDataFile = LOCAL\n"
)


@pytest.mark.parametrize(
    ("words", "factor"),
    [
        ('"mm" "mm" "mm"', 1.0),
        ('"um" "um" "um"', 0.001),
        ('"\u00b5m" "\u00b5m" "\u00b5m"', 0.001),
        ('"micron" "micron" "micron"', 0.001),
        ('"m" "m" "m"', 1000.0),
        ('"cm" "cm" "cm"', 10.0),
        ("mm mm mm", 1.0),
        ('"" "" ""', 1.0),
    ],
)
def test_nrrd_units_of_space(tmp_path, words, factor):
    path = tmp_path / "x.nrrd"
    path.write_bytes((NRRD + f"space units: {words}\n\n").encode() + ARRAY.tobytes())
    volume = read_volume(path)
    assert volume.spacing_mm == pytest.approx([4 * factor, 3 * factor, 2 * factor])
    assert np.allclose(volume.affine[:3, 3], np.array([-10, -20, 30]) * factor)


def test_nrrd_units_that_differ_by_direction_and_units_of_axes(tmp_path):
    path = tmp_path / "x.nrrd"
    path.write_bytes((NRRD + 'space units: "um" "mm" "cm"\n\n').encode() + ARRAY.tobytes())
    volume = read_volume(path)
    assert volume.spacing_mm == pytest.approx((40.0, 3.0, 0.002))
    assert np.allclose(volume.affine[:3, 3], (-0.01, -20, 300))
    plain = NRRD.split("space: ")[0] + 'spacings: 2 3 4\nunits: "um" "um" "mm"\n\n'
    path.write_bytes(plain.encode() + ARRAY.tobytes())
    volume = read_volume(path)
    assert volume.spacing_mm == pytest.approx((4.0, 0.003, 0.002))
    assert not volume.positioned  # spacings alone say nothing about where it lies


@pytest.mark.parametrize(
    ("unit", "factor"), [("", 1.0), ("?", 1.0), ("mm", 1.0), ("um", 0.001), ("cm", 10.0)]
)
def test_metaimage_units(tmp_path, unit, factor):
    path = tmp_path / "x.mha"
    text = MHA.format(f"DistanceUnits = {unit}\n" if unit else "")
    path.write_bytes(text.encode() + ARRAY.tobytes())
    assert read_volume(path).spacing_mm == pytest.approx([4 * factor, 3 * factor, 2 * factor])


@pytest.mark.parametrize(
    "words", ['"mm" "mm"', '"mm" "mm" "furlong"', '"mm" "mm" "mm', '"mm" x "mm" "mm"', ""]
)
def test_units_that_cannot_be_are_refused(tmp_path, words):
    path = tmp_path / "x.nrrd"
    path.write_bytes((NRRD + f"space units: {words}\n\n").encode() + ARRAY.tobytes())
    with pytest.raises(SegbenchError) as caught:
        read_volume(path)
    assert caught.value.code == "SB207"


@pytest.mark.parametrize("step", [1e150, 1e-150, 1e61, 1e-61])
def test_a_spacing_that_no_metric_takes_is_refused_by_the_reader(tmp_path, step):
    data = nifti(ARRAY, version=2, affine=np.diag([step, step, step, 1.0]))
    with pytest.raises(SegbenchError) as caught:
        read_header(write(tmp_path / "x.nii.gz", data))
    assert caught.value.code == "SB209"


def test_a_length_in_metres_is_the_millimetres_it_says() -> None:
    from segbench.volumes.header import in_millimetres

    stored = np.diag([*[float(np.float32(0.001))] * 3, 1.0])  # a header holds float32
    assert np.array_equal(in_millimetres(stored, "m"), np.eye(4))
