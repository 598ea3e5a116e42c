"""The command that `segbench show run:ID` prints plans the same run: the same id, whatever was asked for."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from segbench.cards import load_dataset_card
from segbench.cards.protocol import load_protocol, parse_setting
from segbench.cli.main import build_app
from segbench.data import open_dataset
from segbench.data.adapters.base import named, whose
from segbench.data.splits import load_split, save_split
from segbench.records import RunRecord, read_run
from segbench.runs.rerun import (
    _settings,  # pyright: ignore[reportPrivateUsage]
    _toml,  # pyright: ignore[reportPrivateUsage]
    deciding,
    difference_lines,
    differences,
    rerun_command,
)


def segbench(*words: str) -> str:
    done = CliRunner().invoke(build_app(), list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    dataset = open_dataset("phantom-brats", data_dir=folder)
    save_split(load_split("folds-3", dataset), folder / "my folds.json")
    return folder


@pytest.mark.ci
@pytest.mark.parametrize(
    "flags",
    [
        ("--model", "nnunet-tiny", "--protocol", "demo"),
        ("--model", "mean-atlas", "--protocol", "demo"),
        ("--model", "nnunet-tiny", "--protocol", "demo", "--set", "budget.samples=6", "--limit", "2"),
        ("--model", "nnunet-tiny", "--protocol", "demo", "--set", "split.limit=2"),
        ("--model", "segmamba-v2", "--protocol", "standard"),
        ("--model", "segmamba-v2", "--protocol", "published"),
        ("--model", "nnunet-tiny", "--protocol", "standard", "--set", "inference.mirror_axes=none"),
        ("--model", "nnunet-tiny", "--protocol", "demo", "--split", "folds-4", "--fold", "3"),
        ("--model", "nnunet-tiny", "--protocol", "demo", "--split", "FOLDS", "--fold", "1"),
        ("--model", "nnunet-tiny", "--protocol", "demo", "--split", "FOLDS", "--fold", "2", "--limit", "2"),
    ],
    ids=lambda flags: " ".join(flags)[8:60],
)
def test_the_printed_command_plans_the_same_run(
    flags: tuple[str, ...], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_DATA", str(data))
    words = [str(data / "my folds.json") if word == "FOLDS" else word for word in flags]
    segbench(
        "run", "--dataset", "phantom-brats", *words, "--seed", "1", "--print-jobs", "--results", "old runs"
    )
    (folder,) = (path.parent for path in Path("old runs").glob("*/run.json"))
    shown = segbench("show", f"run:{folder.name}", "--results", "old runs").splitlines()[-1]
    program, *command = shlex.split(shown.removeprefix("rebuild with: "))
    assert program == "segbench"
    plan = json.loads(segbench(*command, "--dry-run", "--json"))
    assert [cell["run_id"] for cell in plan["cells"]] == [folder.name]
    # what the shipped protocol says anyway is not said again
    assert command.count("--set") == flags.count("--set")


@pytest.mark.parametrize(
    ("program", "typed"),
    [("/opt/env/bin/segbench", "segbench"), ("lib/segbench/__main__.py", "segbench"), ("mine.py", "mine.py")],
)
def test_scores_are_rebuilt_by_a_command_that_can_be_typed_elsewhere(program: str, typed: str) -> None:
    record = {"kind": "external", "command": [program, "evaluate", "my predictions", "labels"]}
    assert rerun_command(record) == f"{typed} evaluate 'my predictions' labels"
    assert rerun_command({"kind": "external"}) == "not recorded"


LEADERBOARD = Path(__file__).resolve().parents[2] / "results" / "leaderboard"
COMMITTED = sorted(path.parent for path in LEADERBOARD.glob("*/runs/*/run.json"))


class Stored:
    """The dataset of a record, without its scans: what planning asks of it."""

    is_generated = stands_in = False
    root = Path("scans")

    def __init__(self, record: RunRecord) -> None:
        assert record.dataset is not None
        assert record.split is not None
        self.card = load_dataset_card(str(record.dataset["slug"]))
        self.digest = record.dataset["digest"]
        parts = (record.split.train, record.split.validation, record.split.test)
        self.case_ids = tuple(sorted(case for part in parts for case in part or ()))

    def split_files(self) -> dict[str, Path]:
        return {}

    def patient_of(self, case: str) -> str:
        match = re.fullmatch(self.card.layout.case_pattern, case)
        return case if match is None else whose(self.card, case, named(match))[0]


@pytest.mark.ci
@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_every_committed_record_is_planned_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed command, typed as it stands, gives the same run id: ids of shipped networks never move."""
    record = read_run(folder)
    if (own := folder.parents[1] / "cards").is_dir():  # of a board whose datasets have no shipped card
        monkeypatch.setenv("SEGBENCH_CARDS", str(own))
    monkeypatch.setattr("segbench.runs.plan.open_dataset", lambda *_, **__: Stored(record))
    monkeypatch.setattr("segbench.runs.plan.content_digest", lambda dataset: dataset.digest)
    shown = segbench("show", f"run:{folder}").splitlines()[-1]
    _, *command = shlex.split(shown.removeprefix("rebuild with: "))
    plan = json.loads(segbench(*command, "--dry-run", "--json", "--results", str(tmp_path)))
    assert [cell["run_id"] for cell in plan["cells"]] == [record.run_id] == [folder.name]


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("augment.overrides.gamma.probability=0.5", "overrides", {"gamma.probability": 0.5}),
        ('loss.terms={"dice" = 1.0}', "terms", {"dice": 1.0}),
        ("data.normalisation=none", "normalisation", "none"),
    ],
)
def test_settings_come_back_as_they_were(setting: str, field: str, value: object) -> None:
    section = setting.partition(".")[0]
    own = load_protocol("standard", dict([parse_setting(setting)])).resolved()
    found = _settings(own, load_protocol("standard").resolved())
    again = load_protocol("standard", dict(parse_setting(f"{key}={text}") for key, text in found.items()))
    assert again.resolved() == own
    assert own[section][field] == value


def test_a_table_emptied_is_set_to_an_empty_table() -> None:
    ours = {"augment": {"overrides": {}}, "loss": {"terms": {"dice": 1.0}}}
    shipped = {"augment": {"overrides": {"a.b": 1}}, "loss": {"terms": {"dice": 1.0, "ce": 1.0}}}
    assert _settings(ours, shipped) == {"augment.overrides": "{}", "loss.terms": '{"dice" = 1.0}'}


@given(st.recursive(
    st.booleans() | st.integers(-10**9, 10**9) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), min_size=1),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text("ab. ", min_size=1), part, max_size=3),
    max_leaves=6,
))  # fmt: skip
def test_any_value_of_a_protocol_can_be_set(value: object) -> None:
    assert parse_setting(f"key={_toml(value)}") == ("key", value)


# ---- what differs


def two(changes: dict[str, object]) -> list[tuple[str, str, str]]:
    record = read_run(COMMITTED[1])
    content = record.model_dump(mode="json")
    other = RunRecord.model_validate({**content, **changes})
    return differences(deciding(record), deciding(other))


@pytest.mark.parametrize(
    "changes",
    [
        {"command": ["another"]},
        {"machine": {"cpu": "other"}},
        {"created": "2020-01-01", "finished": "2020-01-02", "durations": {"train": 1.0}},
        {"status": "failed", "warnings": ["x"], "execution": {"device": "cuda"}, "peak_memory_bytes": 1},
        {"digests": {"cases": "0"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_decides_nothing_is_no_difference(changes: dict[str, object]) -> None:
    assert two(changes) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 7}, "seed"),
        ({"code": {"package": "mynet", "digest": "a" * 64}}, "code.digest"),
        ({"references": {"case": "b" * 64}}, "references"),
        ({"rules_digest": "c" * 64}, "rules_digest"),
        ({"versions": {"torch": "1"}}, "versions.torch"),
        ({"split": {"test": [f"case-{n}" for n in range(99)]}}, "split.test"),
        ({"external": {"prediction": "a/b"}}, "external.prediction"),
    ],
)
def test_what_decides_is_a_difference(changes: dict[str, object], field: str) -> None:
    rows = two(changes)
    assert field in [row[0] for row in rows]
    for width in (40, 80):
        assert max(map(len, difference_lines(rows, ("a" * 100, "b" * 100), width))) <= width


@pytest.mark.parametrize("width", [40, 80, 120])
@settings(max_examples=80)
@given(head=st.text("xy", max_size=90), a=st.text("ab", max_size=9), b=st.text("cd", min_size=1, max_size=9),
       tail=st.text("xy", max_size=90))  # fmt: skip
def test_shortening_never_hides_what_differs(width: int, head: str, a: str, b: str, tail: str) -> None:
    lines = difference_lines([("field." * 9, head + a + tail, head + b + tail)], ("A", "B"), width)
    assert max(map(len, lines)) <= width
    first, second = lines[-1].split()[-2:] if a or head or tail else ("", lines[-1].split()[-1])
    assert first != second


def test_the_command_prints_it_within_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    pairs = [(COMMITTED[0], COMMITTED[1]), (COMMITTED[1], COMMITTED[-1]), (COMMITTED[1], COMMITTED[1])]
    shown = [segbench("show", f"run:{a}", "--diff", f"run:{b}") for a, b in pairs]
    assert max(len(line) for text in shown for line in text.splitlines()) <= 80
    assert shown[2].splitlines()[-1] == "nothing that decides numbers differs"
    assert all("citation" not in text and "command" not in text for text in shown)
