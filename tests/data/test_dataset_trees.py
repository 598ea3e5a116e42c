"""Each further dataset in a toy tree of its documented file names, and trees that are not as documented."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from segbench.cards import load_dataset_card
from segbench.cards.dataset_card import parse_dataset_card, read_dataset_card
from segbench.core.errors import SegbenchError
from segbench.data import Dataset, open_dataset
from segbench.data.exchange.importing import import_dataset
from segbench.data.scan_file import write_scan
from segbench.volumes import Volume, write_label_map

SHAPE = (4, 5, 6)


def write(root: Path, name: str, value: int | None = None) -> None:
    """An image, or a label map of one value; NRRD and MetaImage by hand, so that no extra is needed."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.arange(120, dtype=np.int16).reshape(SHAPE) if value is None else np.zeros(SHAPE, np.uint8)
    if value is not None:
        array[1:3, 1:3, 1:3] = value
    kind = "short" if value is None else "uchar"
    if name.endswith(".nrrd"):
        head = (
            f"NRRD0004\ntype: {kind}\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\n"
            "space directions: (1,0,0) (0,1,0) (0,0,1)\nkinds: domain domain domain\nendian: little\n"
            "encoding: raw\nspace origin: (0,0,0)\n\n"
        )
        path.write_bytes(head.encode() + array.tobytes())
    elif name.endswith(".mha"):
        head = (
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
            f"ElementSpacing = 1 1 1\nDimSize = 6 5 4\nElementType = MET_{kind.upper()}\n"
            "ElementDataFile = LOCAL\n"
        )
        path.write_bytes(head.encode() + array.tobytes())
    elif value is None:
        write_scan(path, array, np.eye(4))
    else:
        write_label_map(path, array, Volume(array, (1.0, 1.0, 1.0), np.eye(4)))


def nnunet_json(root: Path, channels: list[str], labels: Mapping[str, int], ending: str, count: int) -> None:
    document = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": {"background": 0, **labels},
        "numTraining": count,
        "file_ending": ending,
    }
    (root / "dataset.json").write_text(json.dumps(document))


def autopet(root: Path) -> None:
    for case in (
        "fdg_0011f3deaf_03-23-2003-NA-PET-CT Ganzkoerper primaer mit KM-94910",
        "psma_95b8_2018-05-02",
    ):
        write(root, f"imagesTr/{case}_0000.nii.gz")
        write(root, f"imagesTr/{case}_0001.nii.gz")
        write(root, f"labelsTr/{case}.nii.gz", 1)
    nnunet_json(root, ["CT", "PET"], {"tumor": 1}, ".nii.gz", 2)


def autopet_of_tcia(root: Path) -> None:
    for study in ("03-23-2003-NA-PET-CT", "06-01-2004-NA-PET-CT"):
        for name in ("CTres", "SUV", "CT", "PET"):
            write(root, f"FDG-PET-CT-Lesions/PETCT_0011f3deaf/{study}/{name}.nii.gz")
        write(root, f"FDG-PET-CT-Lesions/PETCT_0011f3deaf/{study}/SEG.nii.gz", 1)


def brats2024(root: Path) -> None:
    for case in ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101"):
        for contrast in ("t1n", "t1c", "t2w", "t2f"):
            write(root, f"training_data1_v2/{case}/{case}-{contrast}.nii.gz")
        write(root, f"training_data1_v2/{case}/{case}-seg.nii.gz", 4)


def toothfairy2(root: Path) -> None:
    for case in ("ToothFairy2F_001", "ToothFairy2P_406"):
        write(root, f"imagesTr/{case}_0000.mha")
        write(root, f"labelsTr/{case}.mha", 48)
    nnunet_json(root, ["CBCT"], {"Lower Jawbone": 1, "Lower Right Third Molar": 48, "NA1": 19}, ".mha", 2)


def flare22(root: Path) -> None:
    for number in (1, 2):
        write(root, f"images/FLARE22_Tr_{number:04d}_0000.nii.gz")
        write(root, f"labels/FLARE22_Tr_{number:04d}.nii.gz", 13)


def word(root: Path) -> None:
    for part, number in (("Tr", 2), ("Val", 1), ("Ts", 14)):
        write(root, f"WORD-V0.1.0/images{part}/word_{number:04d}.nii.gz")
        write(root, f"WORD-V0.1.0/labels{part}/word_{number:04d}.nii.gz", 16)


def mama_mia(root: Path) -> None:
    for case in ("DUKE_001", "ISPY1_1001"):
        for phase in range(4):
            write(root, f"images/{case}/{case}_{phase:04d}.nii.gz")
        write(root, f"segmentations/expert/{case}.nii.gz", 1)
        write(root, f"segmentations/automatic/{case}.nii.gz", 1)
    (root / "train_test_splits.csv").write_text("train_split,test_split\nDUKE_001,ISPY1_1001\n")


def atlas_v2(root: Path) -> None:
    for subject in ("r001s001", "r003s002"):
        stem = f"sub-{subject}_ses-1_space-MNI152NLin2009aSym"
        folder = f"Training/R{subject[1:4]}/sub-{subject}/ses-1/anat"
        write(root, f"{folder}/{stem}_T1w.nii.gz")
        write(root, f"{folder}/{stem}_label-L_desc-T1lesion_mask.nii.gz", 1)
    (root / "Training" / "dataset_description.json").write_text('{"Name": "ATLAS", "BIDSVersion": "1.0.0"}')
    (root / "20220425_ATLAS_2.0_MetaData.csv").write_text("Subject ID,Session\n")


def mnms(root: Path) -> None:
    for frame in ("frame00", "frame09"):
        write(root, f"imagesTr/A0S9V9_{frame}_0000.nii.gz")
        write(root, f"labelsTr/A0S9V9_{frame}.nii.gz", 3)
    nnunet_json(root, ["cineMRI"], {"LVBP": 1, "LVM": 2, "RV": 3}, ".nii.gz", 2)


def totalsegmentator_mri(root: Path) -> None:
    for case in ("s0001", "s0002"):
        write(root, f"{case}/mri.nii.gz")
        for structure in load_dataset_card("totalsegmentator-mri").regions:
            write(root, f"{case}/segmentations/{structure}.nii.gz", 1)
    (root / "meta.csv").write_text("image_id;split\n")


def han_seg(root: Path) -> None:
    organs = (
        "A_Carotid_L A_Carotid_R Arytenoid Bone_Mandible Brainstem BuccalMucosa Cavity_Oral Cochlea_L "
        "Cochlea_R Cricopharyngeus Esophagus_S Eye_AL Eye_AR Eye_PL Eye_PR Glnd_Lacrimal_L Glnd_Lacrimal_R "
        "Glnd_Submand_L Glnd_Submand_R Glnd_Thyroid Glottis Larynx_SG Lips OpticChiasm OpticNrv_L "
        "OpticNrv_R Parotid_L Parotid_R Pituitary SpinalCord"
    ).split()
    for case in ("case_01", "case_42"):
        write(root, f"HaN-Seg/set_1/{case}/{case}_IMG_CT.nrrd")
        write(root, f"HaN-Seg/set_1/{case}/{case}_IMG_MR_T1.nrrd")
        for organ in organs:
            write(root, f"HaN-Seg/set_1/{case}/{case}_OAR_{organ}.seg.nrrd", 1)
    (root / "HaN-Seg" / "set_1" / "OAR_data.csv").write_text("case,A_Carotid_L\n")


def isles22(root: Path) -> None:
    for number in (1, 2):
        case = f"sub-strokecase{number:04d}"
        for folder, kind in (("dwi", "dwi"), ("dwi", "adc"), ("anat", "FLAIR")):
            write(root, f"{case}/ses-0001/{folder}/{case}_ses-0001_{kind}.nii.gz")
        write(root, f"derivatives/{case}/ses-0001/{case}_ses-0001_msk.nii.gz", 1)
    (root / "dataset_description.json").write_text('{"Name": "ISLES 2022", "BIDSVersion": "1.4.0"}')
    lines = ["participant_id\tsite\tsex", "sub-strokecase0001\tA\tF", "sub-strokecase0002\tB\tM"]
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")


def isles22_first_release(root: Path) -> None:
    for number in (1, 2):
        case = f"sub-strokecase{number:04d}"
        for kind in ("dwi", "adc", "flair"):
            write(root, f"rawdata/{case}/ses-0001/{case}_ses-0001_{kind}.nii.gz")
        write(root, f"derivatives/{case}/ses-0001/{case}_ses-0001_msk.nii.gz", 1)


def topcow(root: Path) -> None:
    for modality in ("ct", "mr"):
        write(root, f"imagesTr/topcow_{modality}_001_0000.nii.gz")
        write(root, f"cow_seg_labelsTr/topcow_{modality}_001.nii.gz", 15)
        (root / "roi_loc_labelsTr").mkdir(exist_ok=True)
        (root / "roi_loc_labelsTr" / f"topcow_{modality}_001.txt").write_text("Size: 1 1 1\n")


TREES: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...], int]] = {
    "autopet": (
        "autopet",
        autopet,
        ("fdg_0011f3deaf_03-23-2003-NA-PET-CT Ganzkoerper primaer mit KM-94910", "psma_95b8_2018-05-02"),
        2,
    ),
    "autopet of TCIA": (
        "autopet",
        autopet_of_tcia,
        ("PETCT_0011f3deaf_03-23-2003-NA-PET-CT", "PETCT_0011f3deaf_06-01-2004-NA-PET-CT"),
        1,
    ),
    "brats2024-gli": ("brats2024-gli", brats2024, ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101"), 1),
    "toothfairy2": ("toothfairy2", toothfairy2, ("ToothFairy2F_001", "ToothFairy2P_406"), 2),
    "flare22": ("flare22", flare22, ("FLARE22_Tr_0001", "FLARE22_Tr_0002"), 2),
    "word": ("word", word, ("word_0001", "word_0002", "word_0014"), 3),
    "mama-mia": ("mama-mia", mama_mia, ("DUKE_001", "ISPY1_1001"), 2),
    "atlas-v2": ("atlas-v2", atlas_v2, ("sub-r001s001_ses-1", "sub-r003s002_ses-1"), 2),
    "mnms": ("mnms", mnms, ("A0S9V9_frame00", "A0S9V9_frame09"), 1),
    "totalsegmentator-mri": ("totalsegmentator-mri", totalsegmentator_mri, ("s0001", "s0002"), 2),
    "han-seg": ("han-seg", han_seg, ("case_01", "case_42"), 2),
    "isles22": ("isles22", isles22, ("sub-strokecase0001_ses-0001", "sub-strokecase0002_ses-0001"), 2),
    "isles22, first release": (
        "isles22",
        isles22_first_release,
        ("sub-strokecase0001_ses-0001", "sub-strokecase0002_ses-0001"),
        2,
    ),
    "topcow": ("topcow", topcow, ("topcow_ct_001", "topcow_mr_001"), 1),
}
"""Card, the tree as documented, the ids of its cases, how many patients they are of."""


def findings(dataset: Dataset) -> list[tuple[str, str, str | None]]:
    return sorted((f.code, f.severity, f.file) for f in dataset.layout_findings if f.code != "SB305")


def code_of(call: Callable[[], object]) -> SegbenchError:
    with pytest.raises(SegbenchError) as caught:
        call()
    return caught.value


@pytest.mark.ci
@pytest.mark.parametrize("name", TREES)
def test_a_tree_as_its_documentation_shows_it_is_read_whole(tmp_path: Path, name: str) -> None:
    slug, plant, cases, patients = TREES[name]
    plant(tmp_path)
    dataset = open_dataset(slug, path=tmp_path)
    assert dataset.case_ids == cases
    assert {code for code, severity, _ in findings(dataset) if severity != "info"} == set()
    assert len({dataset.patient_of(case) for case in cases}) == patients
    image, reference = dataset.read_image(cases[0]), dataset.read_reference(cases[0])
    assert image.array.shape == (len(dataset.card.channels.order), *SHAPE)
    assert set(np.unique(reference.array)) <= {0, *dataset.card.labels}
    assert (reference.array > 0).sum() == 8


def test_atlas_tests_have_no_masks_and_that_is_no_error(tmp_path: Path) -> None:
    atlas_v2(tmp_path)
    stem = "sub-r002s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz"
    write(tmp_path, f"Testing/R002/sub-r002s001/ses-1/anat/{stem}")
    dataset = open_dataset("atlas-v2", path=tmp_path)
    assert dataset.cases_without_reference == ("sub-r002s001_ses-1",)
    assert [(code, severity) for code, severity, _ in findings(dataset)] == [("SB303", "info")]


class TestNotAsDocumented:
    """Wrong trees: each case is told with its file, none is lost."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        isles22(tmp_path)
        return tmp_path

    def told(self, root: Path, slug: str = "isles22") -> list[tuple[str, str, str | None]]:
        return findings(open_dataset(slug, path=root))

    def test_an_image_without_its_label_in_the_other_tree(self, root: Path) -> None:
        name = "derivatives/sub-strokecase0002/ses-0001/sub-strokecase0002_ses-0001_msk.nii.gz"
        (root / name).unlink()
        assert self.told(root) == [("SB303", "error", name)]
        assert open_dataset("isles22", path=root).case_ids == ("sub-strokecase0001_ses-0001",)

    def test_a_label_without_its_image(self, root: Path) -> None:
        name = "derivatives/sub-strokecase0003/ses-0001/sub-strokecase0003_ses-0001_msk.nii.gz"
        write(root, name, 1)
        assert self.told(root) == [("SB304", "error", name)]

    def test_a_missing_channel(self, root: Path) -> None:
        name = "sub-strokecase0001/ses-0001/dwi/sub-strokecase0001_ses-0001_adc.nii.gz"
        (root / name).unlink()
        assert self.told(root) == [("SB303", "error", name)]

    def test_two_files_for_one_slot(self, root: Path) -> None:
        name = "sub-strokecase0001/ses-0001/dwi/sub-strokecase0001_ses-0001_adc.nii"
        write(root, name)
        assert [(code, severity) for code, severity, _ in self.told(root)] == [("SB306", "error")]

    def test_a_subject_without_the_session_level(self, root: Path) -> None:
        write(root, "sub-strokecase0004/dwi/sub-strokecase0004_dwi.nii.gz")
        assert self.told(root) == [("SB303", "error", "sub-strokecase0004")]

    def test_one_case_in_two_forms(self, root: Path) -> None:
        for kind in ("dwi", "adc"):
            case = "sub-strokecase0001"
            write(root, f"rawdata/{case}/ses-0001/{case}_ses-0001_{kind}.nii.gz")
        assert [(code, severity) for code, severity, _ in self.told(root)] == [("SB306", "error")]

    @pytest.mark.parametrize("ending", [".mgz", ".nii.bz2", ".mhd"])
    @pytest.mark.parametrize(
        "name",
        [
            "sub-strokecase0001/ses-0001/dwi/sub-strokecase0001_ses-0001_adc",
            "derivatives/sub-strokecase0001/ses-0001/sub-strokecase0001_ses-0001_msk",
        ],
    )
    def test_a_format_that_is_not_read_is_never_missing(self, root: Path, name: str, ending: str) -> None:
        (root / f"{name}.nii.gz").rename(root / f"{name}{ending}")
        told = self.told(root)
        assert ("SB202", "error", f"{name}{ending}") in told
        assert f"{name}.nii.gz" not in {file for _, _, file in told}

    def test_images_by_case_with_labels_flat_in_another_folder(self, tmp_path: Path) -> None:
        mama_mia(tmp_path)
        (tmp_path / "segmentations/expert/DUKE_001.nii.gz").unlink()
        write(tmp_path, "segmentations/expert/DUKE_777.nii.gz", 1)
        write(tmp_path, "segmentations/expert/notes on DUKE.nii.gz", 1)
        told = findings(open_dataset("mama-mia", path=tmp_path))
        assert [(code, file) for code, _, file in told] == [
            ("SB303", "segmentations/expert/DUKE_001.nii.gz"),
            ("SB304", "segmentations/expert/DUKE_777.nii.gz"),
            ("SB304", "segmentations/expert/notes on DUKE.nii.gz"),
        ]

    def test_a_missing_column_of_participants_is_named(self, root: Path) -> None:
        content = load_dataset_card("isles22").model_dump(exclude_unset=True)
        group = {"table": "participants.tsv", "case": "participant_id", "patient": "family"}
        content["patient"] = {"group": group}
        dataset = open_dataset(parse_dataset_card(content), path=root)
        error = code_of(lambda: dataset.patient_of(dataset.case_ids[0]))
        assert error.code == "SB303" and "'family'" in error.message
        assert error.path == root / "participants.tsv"

    def test_rows_of_subjects_tell_the_patients_of_their_scans(self, root: Path) -> None:
        content = load_dataset_card("isles22").model_dump(exclude_unset=True)
        group = {"table": "participants.tsv", "case": "participant_id", "patient": "site"}
        content["patient"] = {"group": group}
        dataset = open_dataset(parse_dataset_card(content), path=root)
        assert [dataset.patient_of(case) for case in dataset.case_ids] == ["A", "B"]


class TestBidsWithoutACard:
    """A folder with `dataset_description.json` describes itself: masks, images, subjects, sessions."""

    def test_the_tree_of_isles_is_read_as_its_card_reads_it(self, tmp_path: Path) -> None:
        isles22(tmp_path)
        for number in (1, 2):  # as in the release: the FLAIR has a grid of its own
            case = f"sub-strokecase{number:04d}"
            name = f"{case}/ses-0001/anat/{case}_ses-0001_FLAIR.nii.gz"
            write_scan(tmp_path / name, np.zeros((8, 5, 6), np.int16), np.eye(4))
        alone, by_card = open_dataset(tmp_path), open_dataset("isles22", path=tmp_path)
        assert alone.case_ids == by_card.case_ids
        assert alone.card.channels.order == ("adc", "dwi")
        assert alone.card.notes == ("FLAIR lies on another grid than the mask and is not a channel.",)
        assert alone.patient_of(alone.case_ids[0]) == "strokecase0001"
        case = alone.case_ids[1]
        np.testing.assert_array_equal(alone.read_reference(case).array, by_card.read_reference(case).array)
        assert findings(alone) == []

    def test_scans_with_and_without_sessions(self, tmp_path: Path) -> None:
        for scan in ("sub-01", "sub-02_ses-a", "sub-02_ses-b"):
            folder = scan.replace("_", "/")
            write(tmp_path, f"{folder}/anat/{scan}_T1w.nii.gz")
            write(tmp_path, f"{folder}/func/{scan}_task-rest_bold.nii.gz")
            write(tmp_path, f"derivatives/manual/{folder}/anat/{scan}_label-lesion_mask.nii.gz", 1)
        (tmp_path / "dataset_description.json").write_text('{"Name": "two visits", "License": "CC0"}')
        dataset = open_dataset(tmp_path)
        assert dataset.case_ids == ("sub-01", "sub-02_ses-a", "sub-02_ses-b")
        assert [dataset.patient_of(case) for case in dataset.case_ids] == ["01", "02", "02"]
        assert (dataset.card.title, dataset.card.availability.licence) == ("two visits", "CC0")
        assert dict(dataset.card.regions) == {"lesion": (1,)}
        assert [each for each in findings(dataset) if each[1] != "info"] == []

    def test_a_segmentation_has_the_names_of_its_table(self, tmp_path: Path) -> None:
        for subject in ("sub-01", "sub-02"):
            write(tmp_path, f"{subject}/anat/{subject}_T2w.nii.gz")
            write(tmp_path, f"derivatives/seg/{subject}/anat/{subject}_dseg.nii.gz", 2)
        (tmp_path / "dataset_description.json").write_text("{}")
        error = code_of(lambda: open_dataset(tmp_path))
        assert error.code == "SB302" and "dseg.tsv" in error.message
        table = tmp_path / "derivatives" / "seg" / "dseg.tsv"
        table.write_text("index\tname\n0\tBackground\n1\tgrey matter\n2\twhite matter\n3\tgrey-matter\n")
        dataset = open_dataset(tmp_path)
        regions = {"grey_matter": (1,), "white_matter": (2,), "grey_matter_2": (3,)}
        assert dict(dataset.card.regions) == regions, "no region is lost to another of its name"
        assert dataset.case_ids == ("sub-01", "sub-02")

    def test_a_tree_that_a_card_reads_is_named(self, tmp_path: Path) -> None:
        atlas_v2(tmp_path)
        error = code_of(lambda: open_dataset(tmp_path))
        assert error.code == "SB302" and "atlas-v2" in error.mend

    def test_two_kinds_of_mask_are_not_guessed_between(self, tmp_path: Path) -> None:
        write(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
        for kind in ("brain", "lesion"):
            write(tmp_path, f"derivatives/sub-01/anat/sub-01_label-{kind}_mask.nii.gz", 1)
        (tmp_path / "dataset_description.json").write_text("{}")
        error = code_of(lambda: open_dataset(tmp_path))
        assert error.code == "SB302" and "2 kinds of mask" in error.message and "card" in error.mend
        assert "label-brain" in str(error.found) and "label-lesion" in str(error.found)

    @pytest.mark.parametrize(("text", "code"), [("[]", "SB331"), ("{", "SB331"), ("{}", "SB302")])
    def test_a_description_alone_is_refused(self, tmp_path: Path, text: str, code: str) -> None:
        write(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
        (tmp_path / "dataset_description.json").write_text(text)
        assert code_of(lambda: open_dataset(tmp_path)).code == code

    def test_its_card_can_be_written_and_edited(self, tmp_path: Path) -> None:
        isles22(tmp_path / "bids")
        path, card = import_dataset(tmp_path / "bids", output=tmp_path / "cards", slug="strokes")
        again = read_dataset_card(path)
        assert again.layout == card.layout and again.slug == "strokes"
        assert open_dataset(again).case_ids == ("sub-strokecase0001_ses-0001", "sub-strokecase0002_ses-0001")


@pytest.mark.parametrize(
    ("change", "where", "said"),
    [
        ({"images": "{case}/{nobody}_{channel}.nii.gz"}, "images.dwi", "nobody"),
        ({"images": "{case}/x.nii.gz"}, "images", "{channel}"),
        ({"images": "fixed_{channel}.nii.gz"}, "images.dwi", "{case}"),
        ({"labels": "labels/{structure}.nii.gz"}, "labels", "{structure}"),
        ({"labels": "../labels/{case}.nii.gz"}, "labels", "inside"),
        ({"labels": "{case"}, "labels", "expected '}'"),
    ],
)
def test_a_template_that_cannot_be_filled_is_a_fault_of_the_card(
    change: dict[str, str], where: str, said: str
) -> None:
    content = load_dataset_card("isles22").model_dump(exclude_unset=True)
    content["layout"]["form"] = [{**content["layout"]["form"][0], **change}]
    error = code_of(lambda: parse_dataset_card(content))
    assert error.code == "SB110"
    assert any(line.startswith(f"layout.form[0].{where}") and said in line for line in error.details)
