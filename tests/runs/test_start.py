"""Starts from weights: identity, what they were trained on, and what fits of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.core.errors import SegbenchError
from segbench.core.hashing import sha256_file
from segbench.networks import build_network, build_on_meta, export_official_weights
from segbench.networks.weights import load_start
from segbench.records.schema import StartRecord, TrainedOn
from segbench.runs import start
from segbench.runs.cell import Execution
from segbench.runs.plan import Request, expanded, make_plan
from segbench.runs.rerun import rerun_command
from segbench.runs.runner import plan_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with six generated cases."""
    folder = tmp_path_factory.mktemp("data")
    done = CliRunner().invoke(
        build_app(), ["data", "phantom", "msd", str(folder), "--cases", "6", "--no-traps"]
    )
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_file(build_network("nnunet-tiny", 1, 3).state_dict(), path)
    return path


def planned(data: Path, tmp_path: Path, **asked: object):
    models, results = [asked.pop("model", "nnunet-tiny")], tmp_path / "r"
    request = Request(models, ["phantom-msd"], results, data_dir=data, **asked)
    return make_plan(expanded(request)).cells


def test_weights_are_part_of_the_run_id_and_without_them_it_stays(data, tmp_path, weights):
    (plain,) = planned(data, tmp_path)
    start.write_card(weights, [TrainedOn(case="of another study")])
    (one,) = planned(data, tmp_path, init=weights)
    assert one.state == "planned"
    assert one.cell.run_id != plain.cell.run_id
    assert plain.cell.init is None
    # The same bytes under another name are the same start; other bytes are not.
    again = tmp_path / "named otherwise.safetensors"
    again.write_bytes(weights.read_bytes())
    start.write_card(again, [TrainedOn(case="of another study")])
    assert planned(data, tmp_path, init=again)[0].cell.run_id == one.cell.run_id
    save_file(build_network("nnunet-tiny", 1, 3).state_dict(), again)
    start.write_card(again, [TrainedOn(case="of another study")])
    assert planned(data, tmp_path, init=again)[0].cell.run_id not in {one.cell.run_id, plain.cell.run_id}


def test_a_baseline_starts_from_nothing(data, tmp_path, weights):
    (plain,) = planned(data, tmp_path, model="mean-atlas")
    start.write_card(weights, [TrainedOn(case="x")])
    (same,) = planned(data, tmp_path, model="mean-atlas", init=weights)
    assert same.cell.run_id == plain.cell.run_id


def test_the_record_names_the_start_and_its_folder_keeps_it(data, tmp_path, weights):
    start.write_card(weights, [TrainedOn(case="x")])
    (one,) = planned(data, tmp_path, init=weights)
    record = plan_run(one.cell, Execution())
    assert record.init == StartRecord(
        name="w.safetensors", sha256=sha256_file(weights), trained_on=(TrainedOn(case="x"),)
    )
    assert sha256_file(one.cell.folder / start.START_WEIGHTS) == record.init.sha256
    content = json.loads((one.cell.folder / "run.json").read_text())
    assert f"--init {one.cell.folder / start.START_WEIGHTS}" in rerun_command(content, one.cell.folder)
    assert "--acknowledge" not in rerun_command(content, one.cell.folder)


@pytest.mark.parametrize("planted", ["id", "image under another id", "image alone", "id of no dataset"])
def test_a_planted_test_case_is_always_found(data, tmp_path, weights, planted):
    (plain,) = planned(data, tmp_path)
    dataset, case = plain.cell.data, plain.cell.split.test[0]
    (known,) = start.cases_of(dataset, [case])
    assert len(known.images) == len(dataset.card.channels.order)
    card = {
        "id": TrainedOn(case=case, dataset=dataset.card.slug),
        "image under another id": known.model_copy(update={"case": "s0001", "dataset": "elsewhere"}),
        "image alone": TrainedOn(images=known.images[-1:]),
        "id of no dataset": TrainedOn(case=case),
    }[planted]
    others = [TrainedOn(case=f"s{i}", images=("0" * 64,)) for i in range(3)]
    start.write_card(weights, [*others, card])
    (one,) = planned(data, tmp_path, init=weights)
    assert one.state == "blocked"
    assert one.problem is not None
    assert one.problem.code == "SB407"
    assert case in str(one.problem.found)
    (marked,) = planned(data, tmp_path, init=weights, acknowledge=True)
    assert marked.state == "planned"
    assert marked.cell.run_id == one.cell.run_id
    assert marked.cell.init.overlap == (case,)


def test_the_same_id_of_another_dataset_with_other_images_is_another_case(data, tmp_path, weights):
    (plain,) = planned(data, tmp_path)
    case = plain.cell.split.test[0]
    start.write_card(weights, [TrainedOn(case=case, dataset="elsewhere", images=("0" * 64,))])
    assert planned(data, tmp_path, init=weights)[0].state == "planned"


def test_a_patient_of_the_pretraining_is_a_seen_patient():
    dataset = SimpleNamespace(card=SimpleNamespace(slug="d"), patient_of=lambda case: case.split("_")[0])
    seen = StartRecord(sha256="0", trained_on=(TrainedOn(case="p1_a", dataset="d"),))
    assert start.overlap(seen, dataset, ["p1_b", "p2_a"]) == ("p1_b",)


def test_weights_of_unknown_origin_are_refused_or_marked(data, tmp_path, weights):
    (one,) = planned(data, tmp_path, init=weights)
    assert one.state == "blocked"
    assert one.problem.code == "SB407"
    assert "not known what" in one.problem.message
    (marked,) = planned(data, tmp_path, init=weights, acknowledge=True)
    assert marked.cell.init.trained_on is None
    content = {
        "init": marked.cell.init.model_dump(mode="json", exclude_none=True),
        "kind": "trained",
        "model": {"slug": "nnunet-tiny"},
        "dataset": {"slug": "x"},
        "protocol": {"name": "demo"},
    }
    assert "--acknowledge" in rerun_command(content)


def test_a_card_of_other_weights_or_a_damaged_one_is_refused(weights):
    start.write_card(weights, [TrainedOn(case="x")])
    save_file({"a": torch.ones(1)}, weights)
    with pytest.raises(SegbenchError, match="belongs to another file") as caught:
        start.start_of(weights)
    assert caught.value.code == "SB406"
    for damaged in (
        "{",
        "[]",
        '{"schema": "segbench.weights-card/1", "weights_sha256": "", "trained_on": [1]}',
    ):
        start.card_path(weights).write_text(damaged)
        with pytest.raises(SegbenchError, match=r"cannot be read|another file") as caught:
            start.start_of(weights)
        assert caught.value.code == "SB406"
    with pytest.raises(SegbenchError, match=r"is not a \.safetensors file") as caught:
        start.start_of(weights.with_suffix(".pt"))
    assert caught.value.code == "SB406"


def test_a_list_of_cases_becomes_the_card_and_is_shown(tmp_path, weights):
    (tmp_path / "cases.txt").write_text(f"s0001  # of the study\n\nsha256:{'a' * 64}\n")
    words = ["weights", "card", str(weights)]
    done = CliRunner().invoke(build_app(), [*words, "--trained-on", str(tmp_path / "cases.txt")])
    assert done.exit_code == 0, done.output
    assert start.start_of(weights).trained_on == (TrainedOn(case="s0001"), TrainedOn(images=("a" * 64,)))
    assert "trained on: 2 cases" in CliRunner().invoke(build_app(), words).output
    (tmp_path / "cases.txt").write_text("# nothing\n")
    done = CliRunner().invoke(build_app(), [*words, "--trained-on", str(tmp_path / "cases.txt")])
    assert done.exit_code == 2
    assert "lists no case" in done.output + (done.stderr or "")


SMALL = {"features": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "hidden": 16}
UNET = {"features": (4, 6, 8, 8)}
NAMES = {
    # Names and shapes as the released checkpoints have them, at their full size.
    "stunet-s": {
        "conv_blocks_context.0.0.conv1.weight": (16, 1, 3, 3, 3),
        "conv_blocks_context.5.0.conv3.weight": (256, 256, 1, 1, 1),
        "upsample_layers.0.conv.weight": (256, 256, 1, 1, 1),
        "conv_blocks_localization.4.0.norm2.bias": (16,),
        "seg_outputs.4.weight": (105, 16, 1, 1, 1),
    },
    "resenc-l": {
        "encoder.stem.convs.0.conv.weight": (32, 1, 3, 3, 3),
        "encoder.stem.convs.0.all_modules.0.weight": (32, 1, 3, 3, 3),
        "encoder.stages.1.blocks.0.skip.1.conv.weight": (64, 32, 1, 1, 1),
        "decoder.encoder.stages.5.blocks.5.conv2.norm.weight": (320,),
        "decoder.seg_layers.4.weight": (105, 32, 1, 1, 1),
    },
    "segmamba-v2": {
        "vit.downsample_layers.0.0.weight": (48, 48, 3, 3, 3),
        "vit.gscs.3.1.se.fc.2.weight": (384, 48),
        "vit.stages.2.0.mamba.A_log": (384, 16),
        "out.conv.conv.weight": (105, 48, 1, 1, 1),
    },
}


@pytest.mark.parametrize("slug", NAMES)
def test_the_layouts_have_the_released_names_and_shapes(slug):
    official = export_official_weights(build_on_meta(slug, 1, 105))
    assert {name: tuple(official[name].shape) for name in NAMES[slug]} == NAMES[slug]


@pytest.mark.parametrize(
    ("slug", "small", "theirs", "inputs", "fresh"),
    [
        # STU-Net: 104 structures and background of CT. nnssl: the encoder of one channel, with nnU-Net's
        # repeated names; of another number of channels the first convolution and its shortcut start fresh.
        # SegMamba: the official layout, the prefix of data-parallel training, another number of classes.
        ("stunet-s", UNET, {"classes": 105}, 1, ("seg_outputs",)),
        ("resenc-l", {**UNET, "blocks": 1}, {"kept": "encoder."}, 1, ("decoder",)),
        ("resenc-l", {**UNET, "blocks": 1}, {"kept": "encoder."}, 4, ("decoder", "encoder.stem")),
        ("segmamba-v2", SMALL, {"inputs": 4, "prefix": "module."}, 4, ("head",)),
        ("segmamba", SMALL, {"inputs": 4}, 4, ("head",)),
    ],
)
def test_released_layouts_start_a_network_of_other_classes(tmp_path, slug, small, theirs, inputs, fresh):
    official = export_official_weights(
        build_on_meta(slug, theirs.get("inputs", 1), theirs.get("classes", 4), **small)
    )
    file = {
        f"{theirs.get('prefix', '')}{name}": torch.full(tuple(tensor.shape), 0.25)
        for name, tensor in official.items()
        if name.startswith(theirs.get("kept", ""))
    }
    save_file(file, tmp_path / "theirs.safetensors")
    network = build_network(slug, inputs, 2, **small)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    line = load_start(network, tmp_path / "theirs.safetensors")
    left = [name for name, tensor in network.state_dict().items() if not bool((tensor == 0.25).all())]
    assert left
    assert all(name.startswith(fresh) for name in left)
    assert f"{len(network.state_dict()) - len(left)} of {len(network.state_dict())} tensors" in line


def test_weights_of_another_network_are_refused_and_nothing_of_it_is_kept(tmp_path):
    path = tmp_path / "theirs.safetensors"
    save_file({k: v.clone() for k, v in build_network("uxnet-tiny", 1, 2).state_dict().items()}, path)
    network = build_network("nnunet-tiny", 1, 2)
    with pytest.raises(SegbenchError, match="fit PlainUNet") as caught:
        load_start(network, path)
    assert caught.value.code == "SB406"
