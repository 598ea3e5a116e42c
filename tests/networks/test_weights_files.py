"""Weights files: what is read, what is refused unread, what is written, and that nothing in a file runs."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from segbench.core.errors import SegbenchError
from segbench.networks import build_network, export_official_weights
from segbench.networks.fingerprint import set_pcg64_weights
from segbench.networks.released.official import read_weights
from segbench.networks.weights import (
    WeightsMetadata,
    export_weights,
    import_weights,
    read_metadata,
    write_weights,
)

SMALL = {"features": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "hidden": 16}


class Payload:
    """Unpickled, it makes the file that it names."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def network(slug="segmamba-v2", inputs=2, outputs=3, seed=1, **overrides):
    built = build_network(slug, inputs, outputs, **(overrides or SMALL))
    set_pcg64_weights(built, seed)
    return built


@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt", ".bin"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_file_that_would_run_something_is_refused_and_does_not(tmp_path, ending, whole):
    trap, file = tmp_path / "made", tmp_path / f"weights{ending}"
    content = Payload(trap) if whole else {"head.weight": torch.zeros(2), "extra": Payload(trap)}
    torch.save(content, file)
    for use in (read_weights, lambda f: import_weights(f, "nnunet-tiny", tmp_path / "out.safetensors")):
        with pytest.raises(SegbenchError) as caught:
            use(file)
        assert caught.value.code == "SB406"
        assert caught.value.exit_code == 4
    assert not trap.exists()
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".npz", ".pkl", ".npy"])
def test_pickles_under_any_name_are_refused_and_do_nothing(tmp_path, ending):
    trap, file = tmp_path / "made", tmp_path / f"weights{ending}"
    file.write_bytes(pickle.dumps(Payload(trap)))
    with pytest.raises(SegbenchError) as caught:
        read_weights(file)
    assert caught.value.code == "SB406"
    assert not trap.exists()


def test_files_cut_short_changed_empty_or_absent_are_refused(tmp_path):
    good_pt, good_st = tmp_path / "good.pt", tmp_path / "good.safetensors"
    weights = network().state_dict()
    torch.save(weights, good_pt)
    save_file(weights, good_st)
    for good in (good_pt, good_st):
        raw = good.read_bytes()
        for share in (0, 0.1, 0.5, 0.9):
            cut = tmp_path / f"cut{good.suffix}"
            cut.write_bytes(raw[: int(len(raw) * share)])
            with pytest.raises(SegbenchError) as caught:
                read_weights(cut)
            assert caught.value.code == "SB406"
            assert caught.value.path == cut
    for absent in ("absent.pt", "absent.safetensors"):
        with pytest.raises(SegbenchError, match="there is no weights file"):
            read_weights(tmp_path / absent)
    torch.save([torch.zeros(2)], good_pt)
    with pytest.raises(SegbenchError, match="holds a list"):
        read_weights(good_pt)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("wrapper", "ending"),
    [
        (None, ".pt"),
        ("state_dict", ".pt"),
        ("network_weights", ".pth"),
        ("module", ".pt"),
        (None, ".safetensors"),
    ],
)
def test_import_finds_the_channels_and_keeps_the_tensors(tmp_path, wrapper, ending):
    source = network(inputs=3, outputs=4)
    official = {name: tensor.clone() for name, tensor in export_official_weights(source).items()}
    file, output = tmp_path / f"official{ending}", tmp_path / "mine.safetensors"
    if ending == ".safetensors":
        save_file(official, file)
    else:
        torch.save({wrapper: official, "epoch": 1} if wrapper else official, file)
    report = import_weights(
        file, "segmamba-v2", output, channels=("t1n", "t1c", "t2w"), labels=("bg", "a", "b", "c"), **SMALL
    )
    assert len(report.loaded) == len(source.state_dict())
    written = load_file(output)
    assert written.keys() == source.state_dict().keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in source.state_dict().items())
    metadata = read_metadata(output)
    assert metadata is not None
    assert (metadata.model, metadata.in_channels, metadata.out_channels) == ("segmamba-v2", 3, 4)
    assert metadata.channels == ("t1n", "t1c", "t2w")
    assert metadata.labels == ("bg", "a", "b", "c")
    assert metadata.arguments["features"] == [8, 8, 16, 16]


def test_export_is_the_inverse_of_import(tmp_path):
    source = network()
    official = {name: tensor.clone() for name, tensor in export_official_weights(source).items()}
    torch.save(official, tmp_path / "a.pt")
    import_weights(tmp_path / "a.pt", "segmamba-v2", tmp_path / "b.safetensors", **SMALL)
    for ending in (".pt", ".safetensors"):
        names = export_weights(tmp_path / "b.safetensors", "segmamba-v2", tmp_path / f"c{ending}")
        again = read_weights(tmp_path / f"c{ending}")
        assert set(names) == set(again) == set(official)
        assert all(torch.equal(again[name], tensor) for name, tensor in official.items())


def test_nnunet_export_repeats_its_aliases(tmp_path):
    source = network("nnunet", 1, 2, features=(4, 8))
    torch.save(source.state_dict(), tmp_path / "a.pt")
    import_weights(tmp_path / "a.pt", "nnunet", tmp_path / "b.safetensors", features=(4, 8))
    export_weights(tmp_path / "b.safetensors", "nnunet", tmp_path / "c.pt")
    exported = read_weights(tmp_path / "c.pt")
    alias = "decoder.encoder.stages.0.0.convs.0.all_modules.0.weight"
    assert torch.equal(exported[alias], exported["encoder.stages.0.0.convs.0.conv.weight"])


@pytest.mark.ci
def test_weights_of_another_model_are_refused(tmp_path):
    torch.save(network().state_dict(), tmp_path / "v2.pt")
    with pytest.raises(SegbenchError, match="holds no weights of 'nnunet'") as caught:
        import_weights(tmp_path / "v2.pt", "nnunet", tmp_path / "out.safetensors")
    assert caught.value.code == "SB406"
    with pytest.raises(SegbenchError, match="do not fit the network") as caught:
        import_weights(tmp_path / "v2.pt", "segmamba-v2", tmp_path / "out.safetensors")
    assert caught.value.code == "SB406"
    assert not (tmp_path / "out.safetensors").exists()
    import_weights(tmp_path / "v2.pt", "segmamba-v2", tmp_path / "mine.safetensors", **SMALL)
    with pytest.raises(SegbenchError, match="holds weights of 'segmamba-v2', not of 'segmamba'"):
        export_weights(tmp_path / "mine.safetensors", "segmamba", tmp_path / "out.pt")


def test_names_of_channels_must_be_as_many_as_the_channels(tmp_path):
    torch.save(network().state_dict(), tmp_path / "v2.pt")
    with pytest.raises(SegbenchError, match="3 names of channels for weights with 2") as caught:
        import_weights(tmp_path / "v2.pt", "segmamba-v2", tmp_path / "o.safetensors", channels="abc", **SMALL)
    assert caught.value.code == "SB103"


def test_output_must_be_safetensors(tmp_path):
    torch.save(network().state_dict(), tmp_path / "v2.pt")
    with pytest.raises(SegbenchError, match=r"written as \.safetensors"):
        import_weights(tmp_path / "v2.pt", "segmamba-v2", tmp_path / "out.pt", **SMALL)


def test_metadata_of_a_written_file_are_read_back(tmp_path):
    file = tmp_path / "w.safetensors"
    metadata = WeightsMetadata(
        "nnunet", 1, 2, {"features": [4, 8]}, ("CT",), ("bg", "liver"), {"spacing_mm": [1.0, 2.0, 3.0]}
    )
    shared = torch.arange(4.0)
    write_weights(file, {"a": shared, "b": shared, "c": shared[::2]}, metadata)
    assert read_metadata(file) == metadata
    assert torch.equal(load_file(file)["c"], torch.tensor([0.0, 2.0]))
    save_file({"a": torch.zeros(1)}, file)
    assert read_metadata(file) is None
    save_file({"a": torch.zeros(1)}, file, metadata={"format": "segbench.weights/1", "model": "x"})
    with pytest.raises(SegbenchError, match="metadata of"):
        read_metadata(file)
    words = metadata.as_strings()
    assert json.loads(words["arguments"]) == {"features": [4, 8]}


def test_numpy_archives_are_no_weights(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    with pytest.raises(SegbenchError, match=r"weights files end in \.safetensors"):
        read_weights(tmp_path / "w.npz")


def test_a_refusal_says_what_was_met_and_never_how_to_switch_protection_off(tmp_path):
    (tmp_path / "text.pt").write_text("garbage")

    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"w": Harmful()}, tmp_path / "harmful.pt")
    for name in ("text.pt", "harmful.pt"):
        with pytest.raises(SegbenchError) as caught:
            read_weights(tmp_path / name)
        assert caught.value.code == "SB406"
        told = f"{caught.value} {caught.value.found} {caught.value.mend}"
        assert "weights_only" not in told
        assert "nsupported" in str(caught.value.found), name
    assert not (tmp_path / "executed").exists()


@pytest.mark.ci
@pytest.mark.parametrize(
    "arguments",
    [
        {"features": [10**6] * 6},
        {"blocks": 10**7},  # many small layers
    ],
)
def test_a_network_larger_than_its_file_is_refused_before_it_is_built(tmp_path, monkeypatch, arguments):
    from segbench.networks import weights
    from segbench.predict.members import load_members

    path = tmp_path / "bomb.safetensors"
    model = "nnunet-tiny"
    sound = build_network(model, 1, 3)
    write_weights(path, sound.state_dict(), WeightsMetadata(model, 1, 3, arguments))
    monkeypatch.setattr(weights, "build_network", lambda *a, **k: pytest.fail("it was built"))
    for read in (
        lambda: load_members([path], torch.device("cpu"), dataset="msd-hippocampus"),
        lambda: export_weights(path, model, tmp_path / "out.safetensors"),
        lambda: import_weights(path, model, tmp_path / "out.safetensors", **arguments),
    ):
        with pytest.raises(SegbenchError) as caught:
            read()
        assert (caught.value.code, caught.value.exit_code) == ("SB406", 4)
        assert "larger than the file" in caught.value.message
