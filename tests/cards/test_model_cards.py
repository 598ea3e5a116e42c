"""Model cards: what they may say, and that all faults come at once."""

import re

import pytest
from pydantic import ValidationError

from segbench.cards import list_model_cards, load_model_card
from segbench.cards.model_card import ModelCard, parse_model_card, read_model_card
from segbench.core.errors import SegbenchError

GOOD = {
    "slug": "mine",
    "title": "Mine",
    "kind": "network",
    "family": "convolution",
    "provenance": "paper",
    "implementation": "my_package.nets:Mine",
    "requires": ["my_package"],
    "arguments": {"width": 8, "strides": [1, [1, 2, 2]], "rate": 0.5, "norm": "batch", "deep": True},
    "input": {"divisor": 16, "minimum": 32},
    "source": {"code": "https://example.org/mine", "licence": "MIT"},
    "fidelity": {"reproduces": "the paper's figure 2"},
}


def changed(**changes):
    return {key: value for key, value in {**GOOD, **changes}.items() if value is not None}


def test_a_card_keeps_its_values_and_their_types():
    card = parse_model_card(GOOD)
    assert card.arguments == {
        "width": 8,
        "strides": (1, (1, 2, 2)),
        "rate": 0.5,
        "norm": "batch",
        "deep": True,
    }
    assert [type(value) for value in card.arguments.values()] == [int, tuple, float, str, bool]
    with pytest.raises(ValidationError):
        card.slug = "other"


def test_all_faults_come_at_once_one_line_each():
    wrong = changed(
        slug="Not A Slug",
        provenance="guessed",
        colour="red",
        input={"divisor": 0, "minimum": 32},
        source=None,
        fidelity={"reproduces": "x", "parameters": "many"},
        title=None,
    )
    with pytest.raises(SegbenchError) as caught:
        parse_model_card(wrong, path="models/mine/card.toml")
    assert caught.value.code == "SB110"
    assert caught.value.exit_code == 2
    assert caught.value.message == "models/mine/card.toml has 6 faults"
    keys = sorted(line.split(":")[0] for line in caught.value.details)
    assert keys == ["colour", "fidelity.parameters", "input.divisor", "provenance", "slug", "title"]
    by_key = {line.split(":")[0]: line for line in caught.value.details}
    assert by_key["colour"] == "colour: found 'red'; no such key"
    assert by_key["title"] == "title: found nothing; this key is required"
    assert "'guessed'" in by_key["provenance"]
    assert "'released'" in by_key["provenance"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"requires": ["other"]}, "lies in none of requires"),
        ({"family": "floor"}, "do not go together"),
        ({"source": None, "fidelity": None}, r"needs \[source\]"),
        ({"input": {"divisor": 16, "minimum": 40}}, "minimum 40 is not a multiple of divisor 16"),
        ({"implementation": "../nets/net.py:Net"}, "implementation"),
        ({"implementation": "my_package.nets"}, "implementation"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(SegbenchError) as caught:
        parse_model_card(changed(**changes))
    assert caught.value.code == "SB110"
    assert any(re.search(message, line) for line in caught.value.details)


def test_files_that_are_no_cards_are_refused(tmp_path):
    path = tmp_path / "card.toml"
    for content, message in [
        (b"slug = ", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (b"# " + b"x" * 1_000_001, "larger than"),
    ]:
        path.write_bytes(content)
        with pytest.raises(SegbenchError, match=message) as caught:
            read_model_card(path)
        assert caught.value.code == "SB110"
    with pytest.raises(SegbenchError, match="cannot be read"):
        read_model_card(tmp_path / "absent.toml")


def test_every_shipped_card_is_valid_and_says_what_it_must():
    slugs = list_model_cards()
    assert {"segmamba-v2", "nnunet", "empty", "mean-atlas", "intensity", "atlas-intensity"} <= set(slugs)
    for slug in slugs:
        card = load_model_card(slug)
        assert isinstance(card, ModelCard)
        assert card.limits, slug
        if card.kind == "network":
            assert card.citation, slug
            assert card.input is not None
            assert card.fidelity is not None
            # A reconstruction or a control never claims an authors' recipe or a reproduction.
            if card.provenance in ("figure", "paper", "control"):
                assert card.published_recipe is None, slug
                assert card.fidelity.deviations, slug
