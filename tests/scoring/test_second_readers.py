"""A second reader: scored against the first by the same rules, shown above the models, never compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.report import build_report
from segbench.volumes import Volume, write_label_map

CASES = 6


def write(folder: Path, shift: int, cases: int = CASES) -> Path:
    folder.mkdir()
    for number in range(cases):
        array = np.zeros((12, 16, 16), np.uint8)
        array[3:9, 3 + shift : 11 + shift, 3 + number % 3 : 11] = 1
        like = Volume(array, (2.0, 1.0, 1.0), np.diag([1.0, 1.0, 2.0, 1.0]))
        write_label_map(folder / f"case{number}.nii.gz", array, like)
    return folder


def run(*words: str | Path) -> tuple[int, dict, str]:
    done = CliRunner().invoke(build_app(), ["--json", "evaluate", *map(str, words)])
    return done.exit_code, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stderr


@pytest.mark.ci
def test_the_ceiling_stands_above_the_models_and_is_compared_with_none(tmp_path: Path) -> None:
    first, second = write(tmp_path / "A", 0), write(tmp_path / "B", 1)
    results = tmp_path / "runs"
    for name, shift in (("good", 2), ("poor", 4)):
        folder = write(tmp_path / name, shift)
        sides = (folder, "--reference", first, "--reference", second, "--results", results)
        code, document, _ = run(*sides, "--region", "organ=1")
        assert code == 0
        (reader,) = document["readers"]
        dice = {row["metric"]: row["mean"] for row in reader["summary"]}["dice"]
        assert dice > {row["metric"]: row["mean"] for row in document["summary"]}["dice"]
    record = json.loads((Path(reader["run_directory"]) / "run.json").read_text())
    assert record["external"]["reader"] is True
    assert record["spacing_mm"] == [2.0, 1.0, 1.0]
    result = build_report(results, tmp_path / "report", formats="markdown,csv,html")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Readers agree at" in text
    assert f"{CASES} cases" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    places = [
        next(i for i, line in enumerate(table) if name in line) for name in ("reader B", "good", "poor")
    ]
    assert places == sorted(places)
    pairs = (tmp_path / "report/tables/comparisons.csv").read_text()
    assert "good" in pairs
    assert "reader" not in pairs
    assert "grey, above the models: a second reader" in (tmp_path / "report/report.html").read_text()
    assert all("single-seed" != item.code or "reader" not in item.message for item in result.findings)


def test_a_reader_who_saw_other_cases_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    first, second = write(tmp_path / "A", 0), write(tmp_path / "B", 1, cases=CASES - 2)
    folder, results = write(tmp_path / "P", 2), tmp_path / "runs"
    sides = (folder, "--reference", first, "--reference", second, "--results", results)
    code, _, said = run(*sides, "--region", "organ=1")
    assert code == 2
    assert "lacks 2 of 6 cases" in said
    assert not results.exists()
    few = tmp_path / "few.txt"
    few.write_text("case0\ncase1\n")
    assert run(*sides, "--region", "organ=1", "--cases", few)[0] == 0


def test_a_file_of_a_reader_that_cannot_be_scored_is_no_disagreement(tmp_path: Path) -> None:
    first, second = write(tmp_path / "A", 0), write(tmp_path / "B", 1)
    folder, results = write(tmp_path / "P", 2), tmp_path / "runs"
    (second / "case3.nii.gz").write_bytes(b"cut short")
    sides = (folder, "--reference", first, "--reference", second, "--results", results)
    code, _, said = run(*sides, "--region", "organ=1")
    assert code == 2
    assert "lacks 1 of 6 cases" in said
    assert "case3" in said
    assert not list(results.glob("*/run.json"))  # a report would find its zeros there
    few = tmp_path / "few.txt"
    few.write_text("case0\ncase1\n")
    assert run(*sides, "--region", "organ=1", "--cases", few)[0] == 0


def test_labels_that_nobody_named_are_those_of_the_prediction_for_both(tmp_path: Path) -> None:
    first, second, folder = write(tmp_path / "A", 0), write(tmp_path / "B", 1), write(tmp_path / "P", 2)
    sides = (folder, "--reference", first, "--reference", second)
    code, _, _ = run(*sides, "--results", tmp_path / "runs")
    assert code == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/run.json")]
    assert len(records) == 2
    assert len({record["rules_digest"] for record in records}) == 1
    assert len({json.dumps(record["references"], sort_keys=True) for record in records}) == 1


CARD = """
schema_version = 1
slug = "two-readers"
title = "Two readers"
modality = "MR"
[availability]
kind = "private"
[location]
folders = ["two-readers"]
[layout]
adapter = "tree"
[[layout.form]]
name = "flat"
images = "images/{case}.nii.gz"
labels = "A/{case}.nii.gz"
[channels]
order = ["MRI"]
normalisation = "zscore"
[labels]
0 = "background"
1 = "organ"
[regions]
organ = [1]
[evaluation]
readers = ["B"]
"""


def test_a_reader_that_the_card_names_is_scored_as_one_named_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways give the same rows; the run of the predictions is the one without a reader in the card."""
    root, found = tmp_path / "data" / "two-readers", []
    root.mkdir(parents=True)
    for name, shift in (("A", 0), ("B", 1), ("images", 0)):
        write(root / name, shift)
    predictions = write(tmp_path / "P", 2)
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path / "data"))

    def use_card(text: str) -> None:
        folder = tmp_path / f"cards{len(found)}" / "datasets" / "two-readers"
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(text)
        monkeypatch.setenv("SEGBENCH_CARDS", str(folder.parents[1]))

    by_hand = ("--reference", root / "A", "--reference", root / "B")
    for text, given in ((CARD, ()), (CARD.partition("[evaluation]")[0], by_hand)):
        use_card(text)
        results = tmp_path / f"runs{len(found)}"
        code, document, said = run(
            "--prediction", predictions, "--dataset", "two-readers", *given, "--results", results
        )
        assert code == 0, said
        (reader,) = document["readers"]
        record = json.loads((Path(reader["run_directory"]) / "run.json").read_text())
        assert record["external"]["reader"] is True
        found.append((reader["summary"], document["summary"], record["rules_digest"]))
    assert found[0] == found[1]
    use_card(CARD.replace('"B"', '"C"'))
    code, _, said = run("--prediction", predictions, "--dataset", "two-readers", "--results", tmp_path / "no")
    assert (code, "SB201" in said, str(root / "C") in said) == (4, True, True)


@pytest.mark.parametrize("words", [["P", "A", "--reference", "B"]])
def test_folders_are_named_in_one_way(words: list[str], tmp_path: Path) -> None:
    code, _, said = run(*words, "--results", tmp_path)
    assert code == 2
    assert "more folders than predictions and references" in said
