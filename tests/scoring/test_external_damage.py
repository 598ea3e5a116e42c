"""Never silent: every damaged prediction gets its status, its code and the worst values, and the mean pays
for it.
"""

import gzip
import json
import math
import struct
import zlib

import nibabel
import numpy as np
import pytest

from segbench.core.errors import SegbenchError
from segbench.metrics import evaluate_case
from segbench.metrics.policies import POLICIES
from segbench.metrics.summary import summarise
from segbench.records import read_cases
from segbench.scoring.evaluate import Request, evaluate_predictions
from segbench.volumes import Volume, write_label_map

SHAPE = (12, 20, 18)
SPACING = (2.0, 1.0, 0.5)
AFFINE = np.diag([0.5, 1.0, 2.0, 1.0])
DIAGONAL = math.sqrt(24**2 + 20**2 + 9**2)


def reference():
    rng = np.random.default_rng(5)
    array = (rng.random(SHAPE) < 0.3).astype(np.uint8)
    array[3:9, 4:15, 3:12] = 1
    return array


def prediction():
    array = reference()
    array[:, :, :5] = 0
    return array


def whole_bytes():
    """A good prediction as .nii.gz."""
    image = nibabel.Nifti1Image(np.ascontiguousarray(prediction().T), AFFINE)
    return gzip.compress(image.to_bytes(), mtime=0)


def nii(array, affine=AFFINE, dtype=None):
    data = np.ascontiguousarray(np.asarray(array).T)
    image = nibabel.Nifti1Image(data if dtype is None else data.astype(dtype), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return gzip.compress(image.to_bytes(), mtime=0)


def patched(offset, form, *values):
    """A good prediction with some header bytes replaced."""
    raw = bytearray(gzip.decompress(whole_bytes()))
    struct.pack_into(form, raw, offset, *values)
    return gzip.compress(bytes(raw), mtime=0)


def flipped_bit(share):
    data = bytearray(whole_bytes())
    data[int(len(data) * share)] ^= 16
    return bytes(data)


def bomb():
    """A header that announces 32767^3 voxels."""
    raw = bytearray(gzip.decompress(whole_bytes()))
    struct.pack_into("<8h", raw, 40, 3, 32767, 32767, 32767, 1, 1, 1, 1)
    return gzip.compress(bytes(raw), mtime=0)


def shifted(voxels):
    affine = AFFINE.copy()
    affine[2, 3] += voxels * 0.5
    return nii(prediction(), affine)


def with_nan():
    array = prediction().astype(np.float32)
    array[4, 4, 4] = np.nan
    return nii(array, dtype=np.float32)


# name: (bytes, status, code)
UNUSABLE = {
    "cut10": (whole_bytes()[: len(whole_bytes()) // 10], "unreadable", "SB204"),
    "cut50": (whole_bytes()[: len(whole_bytes()) // 2], "unreadable", "SB204"),
    "cut90": (whole_bytes()[: len(whole_bytes()) * 9 // 10], "unreadable", "SB204"),
    "cut99": (whole_bytes()[: len(whole_bytes()) * 99 // 100], "unreadable", "SB204"),
    "trailer": (whole_bytes()[:-8], "unreadable", "SB204"),
    "crc": (whole_bytes()[:-8] + b"\0\0\0\0" + whole_bytes()[-4:], "unreadable", "SB205"),
    "bit30": (flipped_bit(0.3), "unreadable", None),
    "bit70": (flipped_bit(0.7), "unreadable", None),
    "second": (whole_bytes() + gzip.compress(b"more"), "unreadable", "SB206"),
    "tail": (whole_bytes() + b"tail", "unreadable", "SB206"),
    "empty": (b"", "unreadable", "SB201"),
    "html": (b"<!DOCTYPE html><html>404</html>", "unreadable", "SB202"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "unreadable", "SB202"),
    "plain": (gzip.decompress(whole_bytes()), "unreadable", "SB203"),
    "dims": (patched(40, "<8h", 3, -18, 20, 12, 1, 1, 1, 1), "unreadable", "SB207"),
    "axes": (patched(40, "<8h", 4, 18, 5, 4, 12, 1, 1, 1), "unreadable", "SB207"),
    "bomb": (bomb(), "unreadable", "SB208"),
    "slope": (patched(112, "<f", math.inf), "unreadable", "SB210"),
    "nan": (with_nan(), "unreadable", "SB211"),
    "float": (nii(prediction() * 0.5, dtype=np.float32), "unreadable", "SB212"),
    "label7": (nii(prediction() * 7), "unreadable", "SB213"),
    "shape": (nii(prediction()[:-1]), "geometry_mismatch", "SB214"),
    "spacing": (nii(prediction(), np.diag([0.5, 1.0, 9.0, 1.0])), "geometry_mismatch", "SB214"),
    "origin": (shifted(1.0), "geometry_mismatch", "SB214"),
}
BY_HAND = {"folder": "SB201", "loop": "SB201", "dangling": "SB201", "short": "SB204"}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """One run over the whole corpus, and how it ended."""
    root = tmp_path_factory.mktemp("damage")
    (root / "preds").mkdir()
    like = Volume(reference(), SPACING, AFFINE)
    names = ["good", "absent", "flip", "near", *UNUSABLE, *BY_HAND]
    for name in names:
        (root / "refs").mkdir(exist_ok=True)
        write_label_map(root / "refs" / f"{name}.nii.gz", reference(), like)
    for name, (content, _, _) in UNUSABLE.items():
        (root / "preds" / f"{name}.nii.gz").write_bytes(content)
    (root / "preds" / "good.nii.gz").write_bytes(whole_bytes())
    (root / "preds" / "near.nii.gz").write_bytes(shifted(0.1))
    flip = AFFINE.copy()
    flip[0, 0], flip[0, 3] = -0.5, 0.5 * (SHAPE[2] - 1)
    (root / "preds" / "flip.nii.gz").write_bytes(nii(prediction()[:, :, ::-1], flip))
    (root / "preds" / "folder.nii.gz").mkdir()
    (root / "preds" / "loop.nii.gz").symlink_to("loop.nii.gz")
    (root / "preds" / "dangling.nii.gz").symlink_to("nowhere")
    (root / "preds" / "short.nii").write_bytes(gzip.decompress(whole_bytes())[:-100])
    (root / "preds" / "extra.nii.gz").write_bytes(whole_bytes())
    request = Request(
        prediction=root / "preds", reference=root / "refs", regions={"object": (1,)}, results=root / "runs",
        workers=1,
    )  # fmt: skip
    evaluation = evaluate_predictions(request)
    return evaluation, {row["case"]: row for row in read_cases(evaluation.folder)}


@pytest.mark.parametrize("name", sorted(UNUSABLE))
def test_unusable_predictions_score_worst(damaged, name):
    _, status, code = UNUSABLE[name]
    row = damaged[1][name]
    assert row["status"] == status
    assert row["code"] == code or (code is None and row["code"] in ("SB204", "SB205", "SB206"))
    assert float(row["dice"]) == float(row["nsd"]) == float(row["precision"]) == 0.0
    assert float(row["hd95"]) == float(row["assd"]) == pytest.approx(DIAGONAL, abs=1e-9)
    assert row["relative_volume_error"] == ""
    assert "hd95" in row["penalised"].split(";")
    assert int(row["reference_voxels"]) == int(reference().sum())


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_what_is_no_file_scores_worst(damaged, name):
    row = damaged[1][name]
    assert (row["status"], row["code"]) == ("unreadable", BY_HAND[name])
    assert float(row["dice"]) == 0.0


def test_an_absent_prediction_is_missing(damaged):
    assert (damaged[1]["absent"]["status"], damaged[1]["absent"]["code"]) == ("missing", "SB215")


def test_the_good_ones_are_measured(damaged):
    expected = evaluate_case(reference(), prediction(), spacing_mm=SPACING, regions={"object": (1,)})[
        "object"
    ]
    for name in ("good", "flip", "near"):
        row = damaged[1][name]
        assert (row["status"], row["code"], row["penalised"]) == ("ok", "", "")
        assert {key: float(row[key]) for key in expected} == dict(expected)


def test_what_was_done_to_a_good_one_is_said(damaged):
    warnings = damaged[0].warnings
    assert any("flip" in text and "axis" in text for text in warnings)
    assert any("near" in text and "voxels" in text for text in warnings)
    assert not any(text.startswith("good") for text in warnings)


def test_each_failure_is_counted_and_named(damaged):
    evaluation = damaged[0]
    document = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    failed = len(UNUSABLE) + len(BY_HAND) + 1
    assert document["n_failed"] == failed
    assert document["n_expected"] == failed + 3
    assert document["extra_predictions"] == ["extra.nii.gz"]
    assert {failure["case"] for failure in document["failures"]} == {
        case for case, row in damaged[1].items() if row["code"]
    }
    dice = next(s for s in document["summary"] if s["metric"] == "dice")
    good = float(damaged[1]["good"]["dice"])
    assert dice["mean"] == pytest.approx(3 * good / (failed + 3), abs=1e-12)


@pytest.mark.ci
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_deleting_predictions_never_improves_a_mean(tmp_path, policy):
    rng = np.random.default_rng(3)
    arrays = {
        "miss": (reference(), np.zeros(SHAPE, np.uint8)),
        "false": (np.zeros(SHAPE, np.uint8), prediction()),
        "nothing": (np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)),
        "bad": (reference(), (rng.random(SHAPE) < 0.02).astype(np.uint8)),
        "good": (reference(), prediction()),
    }
    like = Volume(reference(), SPACING, AFFINE)
    for name, (truth, guess) in arrays.items():
        for folder, array in (("refs", truth), ("preds", guess)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_label_map(tmp_path / folder / f"{name}.nii.gz", array, like)

    def means():
        evaluation = evaluate_predictions(
            Request(
                prediction=tmp_path / "preds",
                reference=tmp_path / "refs",
                regions={"object": (1,)},
                results=tmp_path / "runs",
                empty_policy=policy,
                workers=1,
            )
        )
        return {s.metric: s.mean for s in summarise(evaluation.rows, evaluation.rules.columns)}

    before = means()
    for name in arrays:
        (tmp_path / "preds" / f"{name}.nii.gz").unlink()
        if name == "good":  # the last one: a folder without any prediction is no model
            with pytest.raises(SegbenchError, match="nothing was scored"):
                means()
            break
        after = means()
        for metric in ("dice", "iou", "precision", "recall", "volume_similarity", "nsd"):
            assert math.isnan(before[metric]) or after[metric] <= before[metric] + 1e-12, (name, metric)
        for metric in ("hd", "hd95", "hd95_max", "assd", "masd"):
            assert math.isnan(before[metric]) or after[metric] >= before[metric] - 1e-9, (name, metric)
        before = after


def test_the_fixture_is_what_it_says():
    assert zlib.crc32(gzip.decompress(whole_bytes())) == int.from_bytes(whole_bytes()[-8:-4], "little")
