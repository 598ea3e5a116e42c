"""Protocols: what they hold, what is hashed; cells: classes, fit, identity."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from segbench.cards import (
    Protocol,
    list_model_cards,
    list_protocols,
    load_dataset_card,
    load_model_card,
    load_protocol,
)
from segbench.cards.protocol import parse_setting
from segbench.core.errors import SegbenchError
from segbench.runs.build import augmentation_of
from segbench.runs.cell import identify, network_arguments
from segbench.runs.fit import check_fit, classes_of, protocol_for


def test_the_shipped_protocols() -> None:
    assert set(list_protocols()) == {"demo", "standard", "standard-ds", "published", "segmamba-v2-release"}
    standard = load_protocol("standard")
    assert standard.budget.samples == 250_000
    assert standard.optimiser.name == "sgd"
    assert standard.for_family("transformer").optimiser.name == "adamw"
    assert standard.for_family("transformer").schedule.warmup_fraction == 0.05
    release = load_protocol("segmamba-v2-release")
    assert release.budget.samples == 62 * 1000 * 8
    assert release.loss.terms == {"ce": 1.0}
    assert release.metrics.profile == "segmamba-v2-release"


def test_the_variant_with_deep_supervision_is_standard_otherwise() -> None:
    plain, variant = load_protocol("standard").resolved(), load_protocol("standard-ds").resolved()
    assert not plain["loss"].pop("deep_supervision")
    assert variant["loss"].pop("deep_supervision")
    for content in (plain, variant):
        content.pop("name"), content.pop("notes")
    assert plain == variant
    card, protocol = load_dataset_card("phantom-brats"), load_protocol("standard-ds")
    assert network_arguments(load_model_card("nnunet"), card, protocol)["deep_supervision"] is True
    assert "deep_supervision" not in network_arguments(load_model_card("segmamba-v2"), card, protocol)


@pytest.mark.parametrize(
    "setting",
    [
        "optimiser.lr=inf",
        "optimiser.lr=true",
        "optimiser.betas=0.9,1.0",
        "schedule.power=nan",
        "schedule.power=-1",
        "train.clip_norm=1e400",
        "train.ema_decay=1",
        "train.tf32=0",
        "sampling.batch_size=true",
        "sampling.batch_size=2.5",
        "patch.size=true",
        "patch.size=[32, 32]",
        "data.spacing=[1, 0, 1]",
        "data.spacing=[1, -1, 1]",
        "loss.terms={}",
        "loss.terms={ce = 0}",
        "seeds.default=[]",
        "validation.selection=ema",
        "validation.selection=best_validation",
        "inference.mirror_axes=[a]",
    ],
)
def test_a_value_that_cannot_be_is_sb104(setting: str) -> None:
    key, value = parse_setting(setting)
    with pytest.raises(SegbenchError) as caught:
        load_protocol("demo", {key: value})
    assert caught.value.code == "SB104"
    assert caught.value.details
    assert all("Value error" not in line and len(line) < 250 for line in caught.value.details)


def test_nesterov_without_momentum_is_said_before_torch_says_it() -> None:
    with pytest.raises(SegbenchError) as caught:
        load_protocol("standard", {"optimiser.momentum": 0})
    assert "nesterov = false" in caught.value.details[0]
    assert load_protocol("standard", {"optimiser.momentum": 0, "optimiser.nesterov": False})


def test_what_is_set_by_hand_holds_for_every_family() -> None:
    """A transformer's own learning rate must not undo `--set optimiser.lr`."""
    protocol = load_protocol("standard", {"optimiser.lr": 5e-4})
    transformer = protocol.for_family("transformer").optimiser
    assert transformer.lr == protocol.for_family("mamba").optimiser.lr == 5e-4
    assert transformer.name == "adamw"
    own = load_protocol("standard", {"family.transformer.optimiser.lr": 3e-4})
    assert own.for_family("transformer").optimiser.lr == 3e-4
    assert own.for_family("mamba").optimiser.lr == 1e-2


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("gamma.probability", 2, "between 0 and 1"),
        ("gamma.range", [0, 1.5], "positive"),
        ("noise.range", [-1, 0.1], "positive"),
        ("blur.range", [0, 1], "positive"),
        ("blurr.range", [0.5, 1], "unknown augmentation override"),
        ("image_order", 2, "1 or 3"),
    ],
)
def test_transforms_are_overridden_by_name_and_checked_before_training(
    key: str, value: object, said: str
) -> None:
    protocol = load_protocol("standard", {f"augment.overrides.{key}": value})
    assert set(protocol.augment.overrides) == {key}
    problem = check_fit(protocol, load_model_card("nnunet"))
    assert problem is not None
    assert problem.code == "SB104"
    assert said in problem.message
    fine = load_protocol("standard", {"augment.overrides.gamma.probability": 0.5})
    assert check_fit(fine, load_model_card("nnunet")) is None


def test_the_release_augments_as_its_scripts_do_whatever_the_card_says() -> None:
    """batchgenerators v1: cubic splines, and mirrors along three axes also where the card allows two."""
    release = load_protocol("segmamba-v2-release")
    assert release.augment.overrides == {"image_order": 3}
    card = load_dataset_card("crc-2000")
    assert tuple(card.geometry.mirror_axes) == ("z", "y")

    def axes(protocol: Protocol) -> tuple[str, ...]:
        own = protocol_for(protocol, load_model_card("segmamba-v2"), card)
        return augmentation_of(SimpleNamespace(protocol=own, dataset=card)).mirror_axes  # type: ignore[arg-type]

    assert axes(release) == ("z", "y", "x")
    assert axes(load_protocol("standard")) == ("z", "y")
    assert "mirror_axes" not in load_protocol("standard").resolved()["augment"]


def test_published_takes_spacing_and_splines_too() -> None:
    card, published = load_dataset_card("msd-spleen"), load_protocol("published")
    own = protocol_for(published, load_model_card("segmamba-v2"), card)
    assert own.data.spacing == (1.0, 1.0, 1.0)
    assert own.augment.overrides == {"image_order": 3}
    nnunet = protocol_for(published, load_model_card("nnunet"), card)
    assert nnunet.augment.overrides == {}
    assert (
        nnunet.data.spacing
        == protocol_for(load_protocol("standard"), load_model_card("nnunet"), card).data.spacing
    )
    model = load_model_card("segmamba-v2")
    assert model.published_recipe is not None
    told = model.published_recipe.model_copy(update={"spacing_mm": "as the dataset's planner says"})
    words = protocol_for(published, model.model_copy(update={"published_recipe": told}), card)
    assert words.data.spacing == nnunet.data.spacing


def test_every_published_recipe_makes_a_protocol() -> None:
    card, published = load_dataset_card("phantom-brats"), load_protocol("published")
    for slug in list_model_cards():
        assert protocol_for(published, load_model_card(slug), card).digest()


def test_overrides_rename_and_move_the_digest() -> None:
    plain, other = load_protocol("demo"), load_protocol("demo", {"budget.samples": 4})
    assert other.name == "demo+custom"
    assert other.digest() != plain.digest()
    assert load_protocol("demo", {"samples": 4}).digest() == other.digest()
    assert load_protocol("demo", {"patch.size": 64}).patch.size == (64, 64, 64)


def test_notes_and_seeds_are_not_hashed() -> None:
    plain = load_protocol("demo")
    told = plain.model_copy(update={"notes": plain.notes.model_copy(update={"purpose": "other"})})
    assert told.digest() == plain.digest()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b=1e-3", 1e-3),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=1,2", [1, 2]),
        ("a.b=zscore", "zscore"),
        ("a.b=true", True),
    ],
)
def test_settings_are_read_as_toml_or_text(text: str, value: object) -> None:
    assert parse_setting(text) == ("a.b", value)


def test_a_protocol_file_with_faults_names_them_all(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\n[patch]\nsize = [0, 1, 2]\n[budget]\nsamples = "many"\n[nonsense]\na = 1\n'
    )
    with pytest.raises(SegbenchError) as caught:
        load_protocol(path)
    assert caught.value.code == "SB110"
    told = " ".join(caught.value.details)
    for key in ("patch.size", "budget.samples", "nonsense"):
        assert key in told


def test_the_card_fills_in_what_the_protocol_leaves_to_it() -> None:
    card = load_dataset_card("brats2023-gli")
    own = protocol_for(load_protocol("standard"), load_model_card("segmamba-v2"), card)
    assert own.data.spacing == (1.0, 1.0, 1.0)
    assert own.inference.mirror_axes == ("z", "y", "x")


def test_published_takes_the_authors_recipe() -> None:
    card = load_dataset_card("brats2023-gli")
    own = protocol_for(load_protocol("published"), load_model_card("segmamba-v2"), card)
    assert own.sampling.batch_size == 8
    assert own.budget.samples == 496_000
    assert own.loss.terms == {"ce": 1.0}
    for slug in list_model_cards():
        protocol_for(load_protocol("published"), load_model_card(slug), card)


def test_a_patch_a_network_cannot_take_is_said_with_the_mend() -> None:
    card = load_dataset_card("brats2023-gli")
    model = load_model_card("nnunet")
    own = protocol_for(load_protocol("demo"), model, card)
    problem = check_fit(own, model)
    assert problem is not None
    assert problem.code == "SB104"
    assert "64" in problem.mend
    assert check_fit(protocol_for(load_protocol("standard"), model, card), model) is None


def test_classes_and_regions() -> None:
    card = load_dataset_card("brats2023-gli")
    softmax = classes_of(card, "softmax")
    assert softmax.values == (0, 1, 2, 3)
    assert softmax.channels == 4
    regions = classes_of(card, "regions")
    assert regions.regions == ((1, 2, 3), (1, 3), (3,))
    assert regions.region_labels == (2, 1, 3)
    assert regions.region_classes == ((1, 2, 3), (1, 3), (3,))
    with pytest.raises(SegbenchError):
        classes_of(load_dataset_card("kits23").model_copy(update={"regions": {"a": (1, 2)}}), "regions")


def test_identity_moves_with_what_changes_numbers_and_with_nothing_else() -> None:
    card, model = load_dataset_card("brats2023-gli"), load_model_card("segmamba-v2-tiny")
    own = protocol_for(load_protocol("demo"), model, card)

    def content(c=card, m=model, p=own, data="d", split="s", code=None):
        return identify(m, c, p, dataset_digest=data, split_digest=split, code_digest=code)

    same = content(c=card.model_copy(update={"title": "another title"}))
    assert same == content()
    tolerance = card.evaluation.model_copy(update={"nsd_tolerance_mm": {"default": 3.0}})
    assert content(c=card.model_copy(update={"evaluation": tolerance})) != content()
    assert content(data="e") != content()
    assert content(split="t") != content()
    assert content(code="a") != content() != content(code="b") != content(code="a")
    assert content(p=load_protocol("demo", {"budget.samples": 4})) != content()
    assert network_arguments(model, card, own) == {"in_channels": 4, "out_channels": 4}


def test_a_field_that_came_later_moves_no_digest_unless_it_is_used() -> None:
    plain, saving = load_protocol("standard"), load_protocol("standard", {"train.checkpointing": True})
    assert "checkpointing" not in plain.resolved()["train"]
    assert saving.resolved()["train"]["checkpointing"] is True
    assert saving.digest() != plain.digest()
    assert Protocol.model_validate(plain.resolved()) == plain


def test_a_cell_is_no_ensemble() -> None:
    problem = check_fit(
        load_protocol("demo", {"inference.ensemble": "seeds"}), load_model_card("nnunet-tiny")
    )
    assert problem is not None
    assert problem.code == "SB104"
    assert "segbench predict --run" in problem.mend
