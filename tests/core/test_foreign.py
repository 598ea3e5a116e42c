"""A few kilobytes of brackets are no JSON and no TOML, wherever a file of others is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from segbench.core.atomic import read_lines
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json, parse_toml

DEEP = "[" * 100_000


def test_what_is_read_is_what_the_standard_library_reads() -> None:
    for text in ("1", '{"a": [1, null, "x"]}', "[[[[]]]]"):
        assert parse_json(text) == parse_json(text.encode()) == json.loads(text)
    assert parse_toml("a = [[1], [2]]") == {"a": [[1], [2]]}
    for text in ("", "{", DEEP, DEEP.encode()):
        with pytest.raises(ValueError):
            parse_json(text)
    for text in ("a", "a = " + DEEP):
        with pytest.raises(ValueError):
            parse_toml(text)


def run(folder: Path) -> object:
    from segbench.records import read_run

    (folder / "run.json").write_text(DEEP)
    return read_run(folder)


def lines(folder: Path) -> object:
    (folder / "x.jsonl").write_text(f'{{"a": 1}}\n{DEEP}\n{{"a": 1}}\n')
    return read_lines(folder / "x.jsonl")


def dataset_json(folder: Path) -> object:
    from segbench.data import open_dataset

    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
    (folder / "dataset.json").write_text(DEEP)
    return open_dataset(folder).case_ids


def card(folder: Path) -> object:
    from segbench.cards.model_card import read_model_card

    (folder / "card.toml").write_text("a = " + DEEP)
    return read_model_card(folder / "card.toml")


def protocol(folder: Path) -> object:
    from segbench.cards import load_protocol

    (folder / "p.toml").write_text("a = " + DEEP)
    return load_protocol(str(folder / "p.toml"))


def profile(folder: Path) -> object:
    from segbench.metrics.profiles import load_profile

    (folder / "p.toml").write_text("a = " + DEEP)
    return load_profile(str(folder / "p.toml"))


def published(folder: Path) -> object:
    from segbench.published.tables import load_published

    (folder / "p.toml").write_text("a = " + DEEP)
    return load_published(folder)


@pytest.mark.parametrize(
    ("read", "code"),
    [
        (run, "SB602"), (lines, "SB602"), (dataset_json, "SB331"), (card, "SB110"), (protocol, "SB110"),
        (profile, "SB110"), (published, "SB703"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)  # fmt: skip
def test_every_reader_says_so_with_its_code(
    read: Callable[[Path], object], code: str, tmp_path: Path
) -> None:
    with pytest.raises(SegbenchError) as caught:
        read(tmp_path)
    assert caught.value.code == code


def test_one_hostile_run_spoils_no_list_of_runs(tmp_path: Path) -> None:
    from segbench.runs.status import read_status

    for name, text in (("bad", DEEP), ("good", '{"run_id": "good", "status": "complete"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
        (tmp_path / name / "cases.csv").touch()
    states = {cell.run_id: cell.state for cell in read_status(tmp_path).cells}
    assert states == {"bad": "failed", "good": "done"}
