"""Fingerprints: every network rebuilt from its card gives the numbers that its card carries."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from segbench.cards import find_card_folder
from segbench.core.errors import SegbenchError
from segbench.networks import build_network, list_networks
from segbench.networks import fingerprint as fp

QUICK = (
    "segmamba-v2",
    "nnunet",
    "nnunet-tiny",
    "resenc-l",
    "umamba-bot",
    "umamba-base",
    "stunet-b",
    "stunet-l",
)
SCRIPT = Path(__file__).parents[2] / "scripts" / "fingerprints.py"
NEEDS_EINOPS = {"swin-unetr", "swin-unetr-v2", "unetr"}


def the_script():
    """The module of scripts/fingerprints.py."""
    spec = importlib.util.spec_from_file_location("fingerprints", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.ci
@pytest.mark.parametrize(
    "slug", [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in list_networks()]
)
def test_network_still_has_its_fingerprint(slug):
    if slug in NEEDS_EINOPS and importlib.util.find_spec("einops") is None:
        pytest.skip("MONAI's transformer networks need einops")
    assert fp.check_fingerprint(slug, full=False) == ()


def test_probe_weights_depend_on_names_shapes_and_places_alone():
    network = build_network("segmamba-v2-tiny", 1, 2)
    torch.manual_seed(1)
    fp.set_pcg64_weights(network, 5)
    names = sorted(name for name, _ in network.named_parameters())
    parameters = dict(network.named_parameters())

    def drawn(name):
        r = np.random.Generator(np.random.PCG64(5 + names.index(name))).standard_normal(
            parameters[name].shape
        )
        return torch.from_numpy(r.astype(np.float32).astype(np.float64)).float()

    def last(ending):
        return next(name for name in names if name.endswith(ending))

    conv = last("local.0.deep.0.conv.weight")
    assert torch.allclose(parameters[conv], drawn(conv) * 1.2 / (parameters[conv][0].numel() ** 0.5))
    norm, bias = last("toom.0.norm.weight"), last("deep.0.conv.bias")
    assert torch.allclose(parameters[norm], 1 + 0.2 * drawn(norm))
    assert torch.allclose(parameters[bias], 0.1 * drawn(bias))
    decay, direct, delta = last("A_log"), last("mamba.D"), last("dt_proj.bias")
    assert torch.allclose(parameters[decay], torch.log(torch.arange(1.0, 17.0)) + 0.1 * drawn(decay))
    assert torch.allclose(parameters[direct], 1 + 0.2 * drawn(direct))
    assert torch.allclose(parameters[delta], -3.5 + 0.8 * drawn(delta))


def test_branch_suffixes_count_as_their_base():
    network = build_network("segmamba-tiny", 1, 2)
    fp.set_pcg64_weights(network, 5)
    layer = network.encoder[0].layers[0].mamba
    for suffix in ("", "_b", "_s"):
        assert abs(layer.get_parameter(f"D{suffix}").mean() - 1) < 0.3
        assert abs(layer.get_parameter(f"A{suffix}_log").mean() - 1.9) < 0.3
        assert abs(layer.get_parameter(f"dt_proj{suffix}.bias").mean() + 3.5) < 1


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["probe"].__setitem__("mean", content["probe"]["mean"] + 1e-6),
        lambda content: content["probe"]["samples"].__setitem__(3, 0.0),
        lambda content: content["gradient"]["norm_by_top_module"].__setitem__("head", 1.0),
        lambda content: content.__setitem__("keys_sha256", "0" * 64),
        lambda content: content["parameters"].__setitem__("tiny", 1),
        lambda content: content.__setitem__("official_keys_sha256", None),
    ],
)
def test_a_difference_is_found(change, tmp_path, monkeypatch):
    content = json.loads((find_card_folder("models", "nnunet-tiny") / fp.FILE).read_text())
    change(content)
    (tmp_path / fp.FILE).write_text(json.dumps(content))
    monkeypatch.setattr(fp, "find_card_folder", lambda kind, slug: tmp_path)
    assert len(fp.check_fingerprint("nnunet-tiny", full=False)) == 1


def test_a_verified_fingerprint_is_not_overwritten_without_force(tmp_path, monkeypatch):
    content = json.loads((find_card_folder("models", "nnunet-tiny") / fp.FILE).read_text())
    content["verified_against"] = {"source": "somewhere", "how": "somehow", "date": "2026-01-01"}
    (tmp_path / fp.FILE).write_text(json.dumps(content))
    script = the_script()
    for module in (fp, script):
        monkeypatch.setattr(module, "find_card_folder", lambda kind, slug: tmp_path)
    with pytest.raises(SegbenchError, match="not overwritten"):
        script.write_fingerprint("nnunet-tiny")
    assert json.loads((tmp_path / fp.FILE).read_text()) == content
    script.write_fingerprint("nnunet-tiny", force=True)
    assert json.loads((tmp_path / fp.FILE).read_text())["verified_against"] is None


def test_a_missing_or_damaged_fingerprint_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fp, "find_card_folder", lambda kind, slug: tmp_path)
    with pytest.raises(SegbenchError, match=r"has no fingerprint\.json") as caught:
        fp.check_fingerprint("nnunet-tiny")
    assert caught.value.code == "SB110"
    (tmp_path / fp.FILE).write_text("{")
    with pytest.raises(SegbenchError, match="is not JSON"):
        fp.check_fingerprint("nnunet-tiny")
    (tmp_path / fp.FILE).write_text('{"schema": "other"}')
    with pytest.raises(SegbenchError, match="schema other"):
        fp.check_fingerprint("nnunet-tiny")


def test_command_checks_and_says_so(capsys):
    assert the_script().main(["--check", "nnunet-tiny"]) == 0
    assert capsys.readouterr().out == "nnunet-tiny: as stored\n"
