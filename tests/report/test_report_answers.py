"""What the records answer in sentences, and that marks, verdicts and sentences agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from segbench.report.figures.labels import fitted, most_lines

from segbench.report import build_report

LOST = {"reference_voxels", "prediction_voxels", "reference_volume_ml", "prediction_volume_ml"}


def report_of(runs: Any, out: Path, **options: Any) -> Any:
    chosen = {"format": "json,markdown", "resamples": 400, "published": False, **options}
    return build_report(runs.root, out, **chosen)


def sentences(result: Any, metric: str = "dice") -> str:
    return " ".join(
        text for item in result.document["answers"] if item["metric"] == metric for text in item["sentences"]
    )


def test_a_clear_gain_is_told_apart_and_stands_after_holm(runs: Any, tmp_path: Path) -> None:
    for model, skill in (("good", 0.92), ("fair", 0.85), ("poor", 0.70)):
        for seed in range(3):
            runs.run(model, skill=skill, seed=seed, noise=0.01, run_noise=0.003)
    result = report_of(runs, tmp_path / "out")
    text = sentences(result)
    assert "Told apart (seeds and cases counted as random; Holm, alpha 0.05): 3 of 3 pairs" in text
    assert "good over poor by 2" in text
    assert "Undecided" not in text
    assert "Smallest detectable gain: with 3 seeds and 30 cases" in text
    assert "Nothing speaks against it" in text
    assert {pair["p_decision"] < 0.05 for pair in result.document["pairwise"]} == {True}
    assert text.split(".")[0] in (tmp_path / "out" / "report.md").read_text()


def test_equal_methods_under_noisy_retraining_are_not_told_apart(runs: Any, tmp_path: Path) -> None:
    """The case-level test alone claims differences here; the sentences and the stars do not."""
    for model in ("a", "b", "c", "d"):
        for seed in range(3):
            runs.run(model, skill=0.85, seed=seed, noise=0.005, run_noise=0.02, cases=60)
    result = report_of(runs, tmp_path / "out")
    pairs = [pair for pair in result.document["pairwise"] if pair["metric"] == "dice"]
    assert any(pair["p_holm"] < 0.05 for pair in pairs), "the case-level test should be fooled"
    assert "0 of 6 pairs" in sentences(result)
    assert "Undecided is not equal" in sentences(result)


def test_one_run_each_claims_nothing_about_methods(runs: Any, tmp_path: Path) -> None:
    for model, skill in (("a", 0.9), ("b", 0.8)):
        runs.run(model, skill=skill)
    text = sentences(report_of(runs, tmp_path / "out"))
    assert "over cases, for these weights only" in text
    assert "one training run of each model, so its spread is not known" in text
    assert "Smallest detectable gain" not in text
    assert "Not known: method noise unknown" in text


def test_a_dataset_that_cannot_rank_yields_no_claim(runs: Any, tmp_path: Path) -> None:
    """Retraining moves every model further than models differ: nothing is marked and no pair is named."""
    for number, model in enumerate("abc"):
        for seed in range(2):
            runs.run(model, skill=0.80 + 0.002 * number + 0.08 * seed, seed=seed)
    result = report_of(runs, tmp_path / "out")
    assert any(item.code == "cannot-rank" for item in result.guards)
    text = sentences(result)
    assert "No: models differ by" in text
    assert " over b by" not in text
    summary = [row for row in result.document["summary"] if row["metric"] == "dice"]
    flagged = {row["region"] for row in result.document["discrimination"] if row["cannot_rank"]}
    assert not any(row["best"] for row in summary if row["region"] in flagged)


def test_findings_of_one_metric_stay_out_of_the_tables_of_others(runs: Any, tmp_path: Path) -> None:
    for model, skill in (("a", 0.9), ("b", 0.8)):
        for seed in range(2):
            rows = runs.rows(model, skill=skill, seed=seed)
            for row in rows:
                row["hd95"] = 2.0 + 3.0 * (seed + row["dice"] / 10)  # the seed decides, not the model
            runs.write(rows)
    result = report_of(runs, tmp_path / "out")
    assert any(item.code == "cannot-rank" and item.metric == "hd95" for item in result.guards)
    notes = {item.name: item.tables[0].notes for item in result.tables if item.kind == "main"}
    assert not any("cannot-rank" in note for note in notes["main"])
    assert any("cannot-rank" in note for note in notes["main_hd95"])


def test_verdict_words_say_where_holm_takes_a_difference_back(runs: Any, tmp_path: Path) -> None:
    for number in range(7):
        for seed in range(2):
            runs.run(f"m{number}", skill=0.85 + 0.004 * number, seed=seed, noise=0.02, run_noise=0.004)
    result = report_of(runs, tmp_path / "out")
    taken_back = [
        pair
        for pair in result.document["pairwise"]
        if pair["verdict"] in {"better", "worse"} and pair["p_decision"] >= 0.05
    ]
    assert taken_back
    assert "not after Holm" in (tmp_path / "out" / "report.md").read_text()


def test_the_interval_in_the_table_is_that_of_the_verdict(runs: Any, tmp_path: Path) -> None:
    """An interval without 0 beside the word undecided would contradict itself."""
    for model in ("a", "b", "c"):
        for seed in range(2):
            runs.run(model, skill=0.85, seed=seed, noise=0.005, run_noise=0.02)
    result = report_of(runs, tmp_path / "out")
    for item in result.tables:
        if item.kind != "pairwise":
            continue
        for table in item.tables:
            for row in table.rows:
                cell, verdict = row.cells[1], row.cells[-1].text
                if verdict == "undecided" and cell.low is not None and cell.high is not None:
                    assert cell.low <= 0 <= cell.high


def test_unfinished_runs_are_named(runs: Any, tmp_path: Path) -> None:
    for seed in range(3):
        folder = runs.run("a", seed=seed)
        runs.run("b", seed=seed)
    record = json.loads((folder / "run.json").read_text()) | {"status": "failed", "failure": {"class": "oom"}}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "cases.csv").unlink()
    result = report_of(runs, tmp_path / "out")
    message = next(item.message for item in result.guards if item.code == "unfinished-run")
    assert message == "1 run is not complete: a on phantom-brats, seed 2 (failed: oom)"


def test_cost_names_the_device_that_was_timed_not_the_counter(runs: Any, tmp_path: Path) -> None:
    facts = {
        "execution": {"device": "cpu"},
        "machine": {"cpu": "Some CPU"},
        "durations": {"predict": 30.0},
        "peak_memory_bytes": 2**30,
    }
    profile = {"rows": [{"status": "ok", "device": "meta", "dtype": "fp32", "input_shape": [1, 1, 8, 8, 8],
                         "cost": {"gmacs": 1.5}, "params": {"total": 2_000_000}}]}  # fmt: skip
    for model in ("a", "b"):
        folder = runs.run(model, record=facts)
        (folder / "profile.json").write_text(json.dumps(profile))
    result = report_of(runs, tmp_path / "out")
    assert {row["device"] for row in result.document["cost"]} == {"cpu, Some CPU"}
    assert {row["input_shape"] for row in result.document["cost"]} == {"1x1x8x8x8"}


LONG = {
    "v2-matched": "SegMamba-V2, parameter-matched convolutions, tiny (control)",
    "v2-nomamba": "SegMamba-V2 without Mamba, tiny (control)",
    "plain": "plain",
    "snake": "a_name_that_is_full_of_underscores_and_goes_on",
    "x" * 90: "y" * 90,
    "x" * 89 + "z": "y" * 89 + "w" + "y" * 30,
}


@pytest.mark.parametrize("lines", [1, 2])
@pytest.mark.parametrize("length", [12, 22, 28])
def test_short_names_fit_and_differ(length: int, lines: int) -> None:
    texts = fitted(LONG, length=length, lines=lines)
    assert len(set(texts.values())) == len(LONG)
    assert most_lines(texts) <= lines
    assert all(len(line) <= length for text in texts.values() for line in text.split("\n"))
    assert texts["plain"] == "plain"


def test_names_that_share_their_beginning_show_where_they_differ() -> None:
    long = [f"my_long_model_name_with_under_scores_{i:02d}_variant_of_the_kind" for i in range(20)]
    texts = fitted({name: name for name in long}, length=26, lines=1)
    assert len(set(texts.values())) == 20
    assert all(f"{place:02d}_" in texts[name] for place, name in enumerate(long))
