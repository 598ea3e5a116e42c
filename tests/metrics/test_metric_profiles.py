"""Profiles: the shipped ones as specified, a user's own checked whole, digests that move when numbers
could.
"""

import dataclasses

import pytest

from segbench.core.errors import SegbenchError
from segbench.metrics import load_profile
from segbench.metrics.profiles import list_profiles
from segbench.metrics.registry import DEFAULT_METRICS, METRICS


def test_the_shipped_ones():
    brats = ("brats2023", "brats2023-men", "brats2023-met", "brats2026", "brats2026-gli", "brats2026-goat")
    more = ("brats2026-men", "brats2026-men-rt", "brats2026-met", "brats2026-ped")
    assert list_profiles() == ("aiib2023", *brats, *more, "honest", "nnunet", "segmamba-v2-release")


def test_no_two_profiles_of_brats_are_taken_for_one():
    names = [name for name in list_profiles() if name.startswith("brats")]
    assert len({load_profile(name).digest() for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "metrics", "policy", "spacing", "geometry", "sets"),
    [
        ("honest", DEFAULT_METRICS, "worst", "header", "strict", ()),
        ("segmamba-v2-release", ("dice", "hd95"), "paper", "unit", "shape", ()),
        (
            "brats2023",
            ("dice", "hd95_max", "recall", "precision"),
            "brats",
            "header",
            "strict",
            ("lesionwise",),
        ),
        ("aiib2023", ("dice", "iou"), "worst", "header", "strict", ("airway",)),
        ("nnunet", ("dice", "iou"), "nan", "header", "shape", ()),
    ],
)
def test_shipped_profiles(name, metrics, policy, spacing, geometry, sets):
    profile = load_profile(name)
    assert profile.name == name
    assert set(profile.metrics) == set(metrics)
    assert (profile.empty_policy, profile.spacing, profile.geometry, profile.sets) == (
        policy, spacing, geometry, sets,
    )  # fmt: skip
    assert set(profile.headline) <= set(profile.columns)
    assert profile.notes


def test_both_hd95_are_always_written_together_by_the_default():
    assert {"hd95", "hd95_max"} <= set(load_profile("honest").metrics)


def test_digest_moves_with_what_moves_numbers(monkeypatch):
    profile = load_profile("honest")
    digest = profile.digest()
    assert load_profile("honest").digest() == digest
    assert dataclasses.replace(profile, empty_policy="inf").digest() != digest
    assert dataclasses.replace(profile, notes=("other words",)).digest() == digest
    raised = dict(METRICS) | {"dice": dataclasses.replace(METRICS["dice"], version=2)}
    monkeypatch.setattr("segbench.metrics.profiles.METRICS", raised)
    assert profile.digest() != digest


def test_a_user_profile(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'metrics = ["dice", "hd95"]\nempty_policy = "inf"\nnsd_tolerance = 2\n[regions]\nliver = [1, 2]\n'
    )
    profile = load_profile(path)
    assert (profile.name, profile.regions, profile.nsd_tolerance) == ("mine", {"liver": (1, 2)}, 2)
    assert load_profile(str(path)) == profile
    assert len(profile.digest()) == 64


def test_all_faults_at_once(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        'metrics = ["dice", "dise"]\nempty_policy = "kind"\nspacings = "header"\nnsd_tolerance = -1\n'
        'sets = ["trees"]\nlesionwise = "brats2022"\n[regions]\na = [0]\n'
    )
    with pytest.raises(SegbenchError) as caught:
        load_profile(path)
    assert caught.value.code == "SB110"
    text = "\n".join(caught.value.details)
    for word in ("dise", "kind", "spacings", "nsd_tolerance", "trees", "brats2022", "regions.a"):
        assert word in text
    assert "did you mean" in text


def test_unknown_and_unreadable(tmp_path):
    with pytest.raises(SegbenchError) as caught:
        load_profile("honnest")
    assert caught.value.code == "SB101"
    assert "honest" in caught.value.mend
    for content in (b"\xff\xfe", b"metrics = ["):
        (tmp_path / "x.toml").write_bytes(content)
        with pytest.raises(SegbenchError) as caught:
            load_profile(tmp_path / "x.toml")
        assert caught.value.code == "SB110"
