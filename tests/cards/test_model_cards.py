"""Model cards: what they may say, and that all faults come at once."""

import re

import pytest
from pydantic import ValidationError

from segbench.cards import list_model_cards, load_model_card
from segbench.cards.bibtex import parse_bibtex
from segbench.cards.model_card import ModelCard, parse_model_card, read_model_card
from segbench.cards.registry import card_file
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
        ({"requires": ["other"]}, r"^implementation 'my_package\S+' is in .* but `requires` lists only"),
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


@pytest.mark.parametrize("slug", [slug for slug in list_model_cards() if slug.endswith("-tiny")])
def test_a_small_variant_is_named_by_its_size_first(slug: str):
    card = load_model_card(slug)
    size = f"{card.fidelity.parameters / 1e6:.1f} M: "
    assert card.title.startswith(size)
    assert card.short_name.startswith(size)


def test_short_names_fit_a_table_and_tell_models_apart():
    names = [load_model_card(slug).short_name for slug in list_model_cards()]
    assert all(0 < len(name) <= 24 for name in names)
    assert len(set(names)) == len(names)
    with pytest.raises(SegbenchError, match="1 fault") as caught:
        parse_model_card(changed(short_name="n" * 25))
    assert "24 characters" in caught.value.details[0]


def test_every_published_network_has_its_entry_and_one_key_is_one_entry():
    entries = {}
    for slug in list_model_cards():
        card = load_model_card(slug)
        assert bool(card.bibtex) == (card.paper is not None), slug
        if card.paper is None:
            continue
        entry = parse_bibtex(card.bibtex)
        assert entry.fields["title"] == f"{{{card.paper.title}}}", slug
        assert entry.fields["year"] == str(card.paper.year), slug
        assert entry.fields["doi"] == card.paper.doi, slug
        assert entry.fields["author"].replace(" and ", ", ") in card.citation, slug
        assert entries.setdefault(entry.key, entry.text()) == entry.text(), slug
    assert len(set(entries.values())) == len(entries)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = {x}", "expected one entry"),
        ("@book{key with space, title = {x}}", "expected one entry"),
        ("@preamble{k, title = {x}}", "unknown entry type @preamble"),
        ("@book{k, title = {x}", "closing brace"),
        ("@book{k, title = {x}} @book{l, title = {y}}", "closing brace"),
        ("@book{k, title = {a{b}}", "closing brace"),
        ("@book{k, title = {a}b}, year = 2}", "closing brace"),
        ("@book{k, title = {x}, Title = {y}}", "title appears twice"),
        ("@book{k, author = {A}}", "title is missing"),
        ("@book{k, title = x # y}", "field title"),
        ("@book{k, title = {}}", "title is empty"),
        (r"@book{k, title = {\input{/etc/passwd}}}", r"\\input is not allowed"),
        (r"@book{k, title = {\csname input\endcsname}}", r"\\csname is not allowed"),
        ("@book{k, title = {50 % of it}}", "needs a backslash"),
        ("@book{k, title = {a ^^5cinput}}", "needs a backslash"),
        ("@book{k, title = {A & B}}", "needs a backslash"),
        ("@book{k, title = {a\N{RIGHT-TO-LEFT OVERRIDE}b}}", "direction characters"),
    ],
)
def test_a_bibtex_entry_that_would_not_compile_or_runs_something_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_bibtex(text)
    with pytest.raises(SegbenchError) as caught:
        parse_model_card(changed(bibtex=text))
    assert [line.split(":")[0] for line in caught.value.details] == ["bibtex"]


def test_a_bibtex_entry_is_read_as_bibtex_reads_it():
    entry = parse_bibtex(
        '@Article{doe2024:a, Author = "D{\\"o}e, J. and Mu\\~noz, {\\v c}",\n'
        "title={{U-Net} \\& co},\nyear=2024}"
    )
    assert (entry.kind, entry.key) == ("article", "doe2024:a")
    assert entry.fields == {
        "author": 'D{\\"o}e, J. and Mu\\~noz, {\\v c}',
        "title": "{U-Net} \\& co",
        "year": "2024",
    }
    assert parse_bibtex(entry.text()) == entry


def test_a_card_that_is_called_otherwise_than_its_folder_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "models" / "copy-of-it"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_bytes(card_file("models", "nnunet-tiny").read_bytes())
    monkeypatch.setenv("SEGBENCH_CARDS", str(tmp_path))
    with pytest.raises(SegbenchError, match="the card in the folder copy-of-it calls itself nnunet-tiny"):
        load_model_card("copy-of-it")
