"""`segbench predict` on what people really have: missing channels, doubled names, nameless weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.core.errors import SegbenchError
from segbench.networks import build_network
from segbench.networks.weights import WeightsMetadata, write_weights
from segbench.predict.images import predict_images
from segbench.records import RunRecord, write_run
from segbench.volumes import Volume, read_volume, write_label_map

Scan = Callable[..., Path]


def weights(path: Path, *, channels: tuple[str, ...], spacing: object = "native", **more: object) -> Path:
    """An untrained network's weights, described as a run describes its own."""
    torch.manual_seed(0)
    count = len(channels)
    network = build_network("nnunet-tiny", count, 3, features=(4, 8))
    extra = {
        "normalisation": ["zscore"] * count,
        "spacing_mm": spacing,
        "patch": [16, 16, 16],
        "label_values": [0, 1, 2],
        **more,
    }
    metadata = WeightsMetadata("nnunet-tiny", count, 3, {"features": [4, 8]}, channels, (), extra)
    write_weights(path, network.state_dict(), metadata)
    return path


@pytest.fixture
def scan() -> Scan:
    def make(path: Path, shape: tuple[int, int, int] = (12, 14, 10), spacing: float = 1.0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
        affine = np.diag([spacing, spacing, spacing, 1.0])
        like = Volume(array, (spacing, spacing, spacing), affine, sform_code=1, qform_code=1)
        write_label_map(path, array, like)
        return path

    return make


def test_a_case_without_a_channel_fails_alone(tmp_path: Path, scan: Scan) -> None:
    for name in ("a_0000", "a_0001", "b_0000", "c_0000", "c_0001", "c_0002"):
        scan(tmp_path / "in" / f"{name}.nii.gz")
    report = predict_images(
        weights(tmp_path / "w.safetensors", channels=("t1", "t2")), [tmp_path / "in"], tmp_path / "out"
    )
    assert [path.name for path in report.written] == ["a.nii.gz"]
    assert set(report.failures) == {"b", "c"}
    assert all(error.code == "SB103" for error in report.failures.values())
    assert report.failures["c"].expected == "channels 0 to 1"


def test_two_images_of_one_name_are_not_written_over_each_other(tmp_path: Path, scan: Scan) -> None:
    pair = [scan(tmp_path / "one" / "x.nii.gz"), scan(tmp_path / "other" / "x.nii.gz")]
    with pytest.raises(SegbenchError) as caught:
        predict_images(weights(tmp_path / "w.safetensors", channels=("t1",)), pair, tmp_path / "out")
    assert caught.value.code == "SB104"
    assert "such as x" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_files_without_a_channel_number_are_named_not_dropped_in_silence(
    tmp_path: Path, scan: Scan, capsys: pytest.CaptureFixture[str]
) -> None:
    scan(tmp_path / "in" / "a_0000.nii.gz")
    scan(tmp_path / "in" / "plain.nii.gz")
    one = weights(tmp_path / "w.safetensors", channels=("t1",))
    assert len(predict_images(one, [tmp_path / "in"], tmp_path / "out").written) == 1
    assert "left out" in capsys.readouterr().err
    (tmp_path / "in" / "a_0000.nii.gz").unlink()
    two = weights(tmp_path / "w2.safetensors", channels=("t1", "t2"))
    with pytest.raises(SegbenchError, match="no file says which one"):
        predict_images(two, [tmp_path / "in"], tmp_path / "out")


@pytest.mark.ci
def test_weights_that_name_no_channels_take_them_from_the_dataset(tmp_path: Path, scan: Scan) -> None:
    file = scan(tmp_path / "in" / "x.nii.gz")
    nameless = tmp_path / "w.safetensors"
    network = build_network("nnunet-tiny", 1, 3)
    write_weights(nameless, network.state_dict(), WeightsMetadata("nnunet-tiny", 1, 3, {}))
    with pytest.raises(SegbenchError) as caught:
        predict_images(nameless, [file], tmp_path / "out")
    assert caught.value.code == "SB103"
    assert "--dataset" in caught.value.mend
    report = predict_images(nameless, [file], tmp_path / "out", dataset="msd-hippocampus")
    assert len(report.written) == 1
    folder = predict_images(nameless, [tmp_path / "in"], tmp_path / "out2", dataset="msd-hippocampus")
    assert len(folder.written) == 1
    with pytest.raises(SegbenchError) as caught:  # four channels for a network of one
        predict_images(nameless, [file], tmp_path / "out", dataset="phantom-brats")
    assert caught.value.code == "SB103"
    assert "4 are named" in caught.value.message


@pytest.mark.parametrize(("files", "code"), [((), "SB301"), (("notes.txt",), "SB302")])
def test_a_folder_that_is_neither_dataset_nor_images_is_said(
    tmp_path: Path, files: tuple[str, ...], code: str
) -> None:
    (tmp_path / "in").mkdir()
    for name in files:
        (tmp_path / "in" / name).touch()
    one = weights(tmp_path / "w.safetensors", channels=("t1",))
    with pytest.raises(SegbenchError) as caught:
        predict_images(one, [tmp_path / "in"], tmp_path / "out", dataset="msd-hippocampus")
    assert caught.value.code == code


def test_a_spacing_in_the_wrong_unit_is_refused_and_the_others_go_on(tmp_path: Path, scan: Scan) -> None:
    """40 000 mm voxels would become a grid of 10^17: refused before it is asked of the system."""
    files = [scan(tmp_path / "huge.nii.gz", spacing=4e4), scan(tmp_path / "usual.nii.gz")]
    one = weights(tmp_path / "w.safetensors", channels=("t1",), spacing=[1.0, 1.0, 1.0])
    report = predict_images(one, files, tmp_path / "out")
    assert [path.name for path in report.written] == ["usual.nii.gz"]
    assert report.failures["huge"].code == "SB208"
    assert "40000" in str(report.failures["huge"].found)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 14, 10), (40, 1, 3)])
def test_scans_smaller_than_the_patch_come_back_in_their_shape(
    tmp_path: Path, scan: Scan, shape: tuple[int, int, int]
) -> None:
    one = weights(tmp_path / "w.safetensors", channels=("t1",), spacing=[1.5, 0.7, 1.0])
    report = predict_images(one, [scan(tmp_path / "x.nii.gz", shape)], tmp_path / "out")
    assert not report.failures
    assert read_volume(report.written[0]).array.shape == shape


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 bytes")]
)
def test_want_of_memory_fails_the_case_not_the_command(
    tmp_path: Path, scan: Scan, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from segbench.predict import case as one_case

    real, calls = one_case.predict_planes, iter(range(9))

    def starved(*arguments: Any, **named: Any) -> Any:
        if next(calls) == 0:
            raise error
        return real(*arguments, **named)

    monkeypatch.setattr(one_case, "predict_planes", starved)
    files = [scan(tmp_path / "a.nii.gz"), scan(tmp_path / "b.nii.gz")]
    report = predict_images(weights(tmp_path / "w.safetensors", channels=("t1",)), files, tmp_path / "out")
    assert report.failures["a"].code == "SB504"
    assert [path.name for path in report.written] == ["b.nii.gz"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"patch": [0, 16, 16]}, "patch[0]"),
        ({"patch": "16"}, "patch"),
        ({"normalisation": ["zscore", "zscore"]}, "2 normalisation"),
        ({"normalisation": ["standard"]}, "normalisation[0]"),
        ({"spacing": [1.0, 0.0, 1.0]}, "spacing_mm"),
        ({"label_values": [0, 1]}, "2 labels"),
        ({"label_values": [0, 1, 70000]}, "label_values[2]"),
        ({"inference": {"overlap": 1.0}}, "inference.overlap"),
        ({"inference": {"mirror_axes": ["w"]}}, "inference.mirror_axes"),
        ({"precision": "int8"}, "precision"),
    ],
)
def test_weights_that_say_what_cannot_be_are_refused_by_name(
    tmp_path: Path, scan: Scan, fault: dict[str, Any], said: str
) -> None:
    path = weights(tmp_path / "w.safetensors", channels=("t1",), **fault)
    with pytest.raises(SegbenchError) as caught:
        predict_images(path, [scan(tmp_path / "x.nii.gz")], tmp_path / "out")
    assert caught.value.code == "SB406"
    assert said in f"{caught.value.message} {caught.value.details}"


def test_weights_for_ct_without_their_statistics_say_so(tmp_path: Path, scan: Scan) -> None:
    path = weights(tmp_path / "w.safetensors", channels=("ct",), normalisation=["ct"])
    with pytest.raises(SegbenchError, match="statistics that CT") as caught:
        predict_images(path, [scan(tmp_path / "x.nii.gz")], tmp_path / "out")
    assert caught.value.code == "SB103"


def test_weights_whose_tensors_are_not_the_networks_are_refused(tmp_path: Path, scan: Scan) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = weights(tmp_path / "w.safetensors", channels=("t1",))
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        words = file.metadata()
    tensors.pop(next(iter(tensors)))
    save_file(tensors, path, words)
    with pytest.raises(SegbenchError) as caught:
        predict_images(path, [scan(tmp_path / "x.nii.gz")], tmp_path / "out")
    assert caught.value.code == "SB406"
    save_file(tensors, path, {**words, "arguments": "[1]"})
    with pytest.raises(SegbenchError, match="arguments is not a dict"):
        predict_images(path, [scan(tmp_path / "x.nii.gz")], tmp_path / "out")


@pytest.mark.parametrize(("name", "code"), [("scored", "SB104"), ("nothing.safetensors", "SB201")])
def test_a_run_or_file_without_weights_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    record = RunRecord(schema_version=1, run_id="scored", kind="external", status="complete")
    write_run(tmp_path / "runs" / "scored", record)
    told = CliRunner().invoke(
        build_app(), ["predict", "x", "--run", name, "--results", "runs", "--output", "o"]
    )
    assert f"error[{code}]" in told.stderr
