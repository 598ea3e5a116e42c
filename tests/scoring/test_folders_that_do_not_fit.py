"""What `segbench evaluate` says of folders where no case finds its file, and of labels that nobody named."""

from pathlib import Path

import numpy as np
import pytest
from test_external_evaluate import save

from segbench.core.errors import SegbenchError
from segbench.data.adapters.dataset_json import read_labels
from segbench.scoring.found import found_labelling
from segbench.scoring.request import Request, prepare
from segbench.scoring.sources import find_predictions

MAP = np.arange(27, dtype=np.int16).reshape(3, 3, 3) % 3


@pytest.mark.parametrize(
    ("names", "code", "fix"),
    [
        (["out/c1.nii.gz", "out/c2.nii.gz"], "SB215", "name that folder"),
        (["liver/c1.nii.gz", "spleen/c1.nii.gz"], "SB215", "liver, spleen hold files named as the cases"),
        (["c1_seg.nii.gz", "c2_seg.nii"], "SB215", "take _seg out of the names"),
        (["c1_liver.nii.gz", "c1_spleen.nii.gz"], "SB215", "c1/liver.nii.gz, not c1_liver.nii.gz"),
        (["other.nii.gz"], "SB215", "give files the names of the references"),
        (["c1.mgz", "c2.mgz"], "SB202", "mri_convert 'c1.mgz'"),
        (["c1/seg.dcm", "c2/1.dcm"], "SB202", "DICOM-SEG"),
    ],
)
def test_where_no_case_finds_its_file_it_is_said_what_lies_there(tmp_path, names, code, fix):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SegbenchError, match="nothing was scored") as caught:
        find_predictions(tmp_path, ["c1", "c2"], ["c1", "c2"])
    assert (caught.value.code, caught.value.exit_code) == (code, 4)
    assert fix in caught.value.mend


def test_a_case_of_another_format_beside_others_fails_alone(tmp_path):
    save(tmp_path / "c1.nii.gz", MAP)
    (tmp_path / "c2").mkdir()
    (tmp_path / "c2" / "seg.dcm").write_bytes(b"x")
    found = find_predictions(tmp_path, ["c1", "c2"], ["c1", "c2"])
    assert found.paths["c2"] == tmp_path / "c2" / "seg.dcm"


def labelled(root: Path, reference: np.ndarray, prediction: np.ndarray):
    save(root / "refs" / "c1.nii.gz", reference)
    save(root / "preds" / "c1.nii.gz", prediction)
    return found_labelling(root / "refs", root / "preds", profile=None, label_names={}, max_bytes=2**30)


def test_labels_of_one_side_alone_are_told(tmp_path, capsys):
    found = labelled(tmp_path, (MAP > 0).astype(np.uint8), (MAP > 0).astype(np.uint8) * 255)
    assert found is not None
    assert list(found.regions) == ["1", "255"]
    assert "not seen in the predictions: 1; not seen in the references: 255" in capsys.readouterr().err


def test_images_are_not_taken_for_label_maps_and_objects_are_scored(tmp_path):
    image = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    with pytest.raises(
        SegbenchError, match="labels in the references: 1, in the predictions: 999; are these images"
    ):
        labelled(tmp_path / "a", (image > 5).astype(np.uint8), image)
    found = labelled(tmp_path / "b", image, image)
    assert found is not None
    assert len(found.regions) == 999


def test_folders_of_background_alone_say_so(tmp_path):
    with pytest.raises(SegbenchError, match="no file holds a label above 0"):
        labelled(tmp_path, MAP * 0, MAP * 0)


def test_names_of_labels_beside_regions_are_refused(tmp_path):
    request = Request(prediction=tmp_path, reference=tmp_path, regions={"a": (1,)}, label_names={1: "b"})
    with pytest.raises(SegbenchError, match="--labels needs all labels scored"):
        prepare(request)


def test_labels_by_number_are_read_in_every_dataset_json_and_no_name_twice(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text('{"channel_names": {"0": "CT"}, "labels": {"0": "Background", "2": "b", "5": "a"}}')
    assert read_labels(path).regions == {"b": (2,), "a": (5,)}
    path.write_text('{"labels": {"0": "background", "1": "a", "2": "a"}}')
    with pytest.raises(SegbenchError) as caught:
        read_labels(path)
    assert caught.value.details == ("labels.1: found 'a' twice",)
