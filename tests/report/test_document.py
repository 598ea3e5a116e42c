"""report.json: valid by its schema, complete, the same bytes twice, and no word about the machine."""

from __future__ import annotations

import json
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from segbench.report.analysis.analysis import Analysis, analyse
from segbench.report.analysis.options import make_options
from segbench.report.write import markdown
from segbench.report.write.document import document, files, plain

REPORT_SCHEMA = json.loads(
    resources("segbench.report").joinpath("schema", "report.schema.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory, factory_at: Any) -> Analysis:
    runs = factory_at(tmp_path_factory.mktemp("document") / "runs")
    for place, model in enumerate(("alpha", "beta", "gamma")):
        for seed in range(3):
            runs.run(model, seed=seed, cases=12, skill=0.7 + 0.06 * place, run_noise=0.002)
    runs.run("one-seed", cases=12, skill=0.8)
    runs.run("atlas", cases=12, skill=0.4, kind="floor")
    rows = runs.rows("alpha", dataset="organs", regions=("liver",), cases=8)
    runs.write([{**rows[0], "status": "missing", "dice": "", "hd95": "", "nsd": ""}, *rows[1:]])
    return analyse([runs.root], make_options(reference="alpha", resamples=200))


def test_it_is_valid_by_its_schema(analysis: Analysis) -> None:
    validator = jsonschema.Draft202012Validator(REPORT_SCHEMA)
    validator.check_schema(REPORT_SCHEMA)
    content = json.loads(files(analysis)["report.json"])
    validator.validate(content)
    assert content["schema_version"] == 2
    for key in content:
        assert not validator.is_valid({name: value for name, value in content.items() if name != key})
    assert not validator.is_valid({**content, "pairwise": []})


def test_it_holds_every_column_with_its_verdicts(analysis: Analysis) -> None:
    content = document(analysis)
    assert len(content["columns"]) == len(analysis.columns)
    for stored, column in zip(content["columns"], analysis.columns.values(), strict=True):
        assert set(stored["means"]) == set(column.means)
        verdicts = [(pair["a"], pair["b"], pair["verdict"]) for pair in stored["comparisons"]]
        assert verdicts == [(pair.a, pair.b, pair.verdict) for pair in column.comparisons]
        for label, mean in column.means.items():
            assert stored["means"][label]["value"] == mean.value
    assert any(pair["verdict"] == "better" for item in content["columns"] for pair in item["comparisons"])
    assert [entry["label"] for entry in content["entries"] if entry["baseline"]] == ["atlas"]
    assert content["blocks"][0]["failures"] == [{"entry": "alpha", "case": "case-0000", "status": "missing"}]


def test_the_same_records_give_the_same_bytes_and_no_place(analysis: Analysis) -> None:
    text = files(analysis)["report.json"]
    again = analyse([run.folder for run in reversed(analysis.runs) if run.folder], analysis.options)
    assert files(again)["report.json"] == text
    folder = next(run.folder for run in analysis.runs if run.folder)
    assert str(folder.parent) not in str(text)
    assert str(Path.home()) not in str(text)


def test_numbers_that_json_does_not_know_are_told() -> None:
    array = np.array([[1.5, np.nan], [np.inf, -np.inf]])
    assert plain({"a": (array, np.int64(3), True)}) == {"a": [[[1.5, None], ["inf", "-inf"]], 3, True]}


def test_published_numbers_beside_ours_stand_in_json_and_markdown(runs: Any) -> None:
    runs.run("segmamba-v2", dataset="brats2023-gli")
    analysis = analyse([runs.root], make_options(resamples=100))
    content = document(analysis)
    jsonschema.validate(content, REPORT_SCHEMA)
    own = [row for row in content["published"] if row["our_value"] is not None]
    assert {row["our_model"] for row in own} == {"segmamba-v2"}
    text = str(markdown.files(analysis)["report.md"])
    lines = [line for line in text.splitlines() if "; grade " in line]
    assert len(lines) == sum(row["region"] == "mean" for row in own) > 0
    assert all("difference" in line for line in lines)
    quiet = analyse([runs.root], make_options(resamples=100, published=False))
    assert document(quiet)["published"] == []
    assert "grade" not in str(markdown.files(quiet)["report.md"])
