"""Cards are data: any bytes are a card or a coded refusal, and nothing that a card names is run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.cards import list_dataset_cards, list_model_cards
from segbench.cards.dataset_card import read_dataset_card
from segbench.cards.model_card import read_model_card
from segbench.cards.registry import card_file, load_dataset_card
from segbench.cards.section import CARD_BYTES
from segbench.core.errors import SegbenchError

MODEL = card_file("models", "segmamba-v2").read_bytes()
DATASET = card_file("datasets", "msd-hippocampus").read_bytes()
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 6), st.binary(max_size=12)), min_size=1, max_size=6
)
WORDS = (
    b'"$(touch made)"',
    b"'''",
    b"[input]",
    b"= -1",
    b"= 1e999",
    b'"__import__(\\"os\\")"',
    b"nan",
    b"\x00",
)


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, cut, new in edits:
        at = int(place * len(data))
        data = data[:at] + new + data[at + cut :]
    return data


@pytest.mark.ci
@settings(max_examples=60, deadline=None, derandomize=True)
@given(edits=EDITS, word=st.sampled_from(WORDS), place=st.floats(0, 1), kind=st.booleans())
def test_any_card_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    edits: list[tuple[float, int, bytes]],
    word: bytes,
    place: float,
    kind: bool,
) -> None:
    folder = tmp_path_factory.mktemp("card") / ("segmamba-v2" if kind else "msd-hippocampus")
    folder.mkdir()
    path = folder / "card.toml"
    path.write_bytes(edited(MODEL if kind else DATASET, [*edits, (place, 0, word)]))
    modules = set(sys.modules)
    try:
        read_model_card(path) if kind else read_dataset_card(path, load_like=load_dataset_card)
    except SegbenchError as error:
        assert error.code in {"SB110", "SB101", "SB104"}
        assert error.exit_code == 2
        assert str(path.name) in str(error.path)
    assert not (Path.cwd() / "made").exists()
    assert {name for name in set(sys.modules) - modules if name.startswith("segbench.networks.")} == set()


def test_a_card_beyond_a_megabyte_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "big" / "card.toml"
    path.parent.mkdir()
    path.write_bytes(MODEL + b"#" * CARD_BYTES)
    with pytest.raises(SegbenchError) as caught:
        read_model_card(path)
    assert caught.value.code == "SB110"


@pytest.mark.parametrize(
    "implementation",
    [
        "os:system",
        "subprocess:run",
        "builtins:eval",
        "made_by_card:Network",
        "/tmp/x.py:Network",
        "..x:Y",
        "pickle:loads",
    ],
)
def test_an_implementation_outside_of_requires_is_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, implementation: str
) -> None:
    """A module that lies beside the data would be importable; the card may not name it."""
    from segbench.networks import build_network

    (tmp_path / "made_by_card.py").write_text("open('made', 'w').close()\nclass Network: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    card = tmp_path / "cards" / "models" / "evil" / "card.toml"
    card.parent.mkdir(parents=True)
    text = MODEL.decode().replace("segbench.networks.segmamba_v2:SegMambaV2", implementation)
    assert implementation in text
    card.write_text(text.replace('"segmamba-v2"', '"evil"', 1))
    monkeypatch.setenv("SEGBENCH_CARDS", str(tmp_path / "cards"))
    with pytest.raises(SegbenchError) as caught:
        build_network("evil", 1, 2)
    assert caught.value.code in {"SB110", "SB502"}
    assert not (tmp_path / "made").exists()


def test_the_shipped_cards_hold_no_code() -> None:
    for kind, names in (("models", list_model_cards()), ("datasets", list_dataset_cards())):
        for name in names:
            text = card_file(kind, name).read_text(encoding="utf-8")  # type: ignore[arg-type]
            assert not any(word in text for word in ("$(", "__import__", "lambda ", "eval(", "exec("))


@pytest.mark.parametrize("module", ["", ".", ".x", "no_such_package", "no_such_package.cards", "a b", "../x"])
def test_an_entry_point_that_names_no_package_takes_no_card_away(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import EntryPoint

    from segbench.cards import locate

    point = EntryPoint("evil", f"{module}:x", "segbench.cards")
    monkeypatch.setattr(locate, "entry_points", lambda group: [point])
    locate._installed_roots.cache_clear()
    try:
        assert locate._installed_roots() == ()
        assert locate.card_roots()
    finally:
        locate._installed_roots.cache_clear()


def test_an_entry_point_is_located_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from segbench.cards import locate

    (tmp_path / "cards_of_others").mkdir()
    (tmp_path / "cards_of_others" / "__init__.py").write_text(
        f"open({str(tmp_path / 'made')!r}, 'w').close()"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("others", "cards_of_others", "segbench.cards")
    monkeypatch.setattr(locate, "entry_points", lambda group: [point])
    locate._installed_roots.cache_clear()
    try:
        assert locate._installed_roots() == (tmp_path / "cards_of_others",)
    finally:
        locate._installed_roots.cache_clear()
    assert not (tmp_path / "made").exists() and "cards_of_others" not in sys.modules
