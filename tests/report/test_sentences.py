"""What the records answer in sentences, and that marks, verdicts and sentences agree."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.options import make_options
from segbench.report.analysis.sentences import (
    context,
    excluded_words,
    headline,
    pair_answer,
    pair_sentence,
    verdicts,
)
from segbench.report.write.tables import pair_tables, score_tables


def analysed(runs: Any, **options: Any) -> Any:
    return analyse([runs.root], make_options(**{"resamples": 400, **options}))


def text_of(found: Any) -> str:
    return " ".join(sentence for _, sentences in headline(found) for sentence in sentences)


def said(text: str) -> set[tuple[str, str, str]]:
    """(model, better or worse, other) of every claim in sentences."""
    found = set(re.findall(r"(\w+) is significantly (better|worse) than (\w+):", text))
    for verdict, other, listed in re.findall(
        r"Significantly (better|worse)(?: than (\w+))?: (.*?\))\.", text
    ):
        for item in re.findall(r"(\w+)(?: than (\w+))? \(", listed):
            found.add((item[0], verdict, other or item[1]))
    return found


def test_a_clear_gain_is_significant_and_said_with_its_numbers(runs: Any) -> None:
    for model, skill in (("good", 0.92), ("fair", 0.85), ("poor", 0.70)):
        for seed in range(3):
            runs.run(model, skill=skill, seed=seed, noise=0.01, run_noise=0.003)
    found = analysed(runs)
    text = text_of(found)
    assert said(text) == {("good", "better", "fair"), ("good", "better", "poor"), ("fair", "better", "poor")}
    assert re.search(r"good than poor \(\+2\d\.\d+ points \[2\d\.\d+, 2\d\.\d+\], adjusted p <0\.001\)", text)
    assert "inconclusive" not in text
    assert "The data show that the models differ" in text
    assert "would be found in 80 % of repeats" in text


def test_no_sentence_takes_back_a_pair_that_is_told_apart(runs: Any) -> None:
    """One pair of four can be clear where the test of all at once is not; both are not said together."""
    for model, skill in (("good", 0.92), ("poor", 0.80)):
        for seed in range(3):
            runs.run(model, skill=skill, seed=seed, noise=0.01, run_noise=0.003)
    runs.run("fair", skill=0.85, noise=0.01)
    (column,) = analysed(runs).main_columns()
    assert column.omnibus is not None
    unclear = replace(column, omnibus=replace(column.omnibus, p=0.4))
    assert any(pair.verdict in ("better", "worse") for pair in unclear.comparisons)
    assert "do not show" not in " ".join(context(unclear))
    open_pairs = [replace(pair, verdict="inconclusive") for pair in unclear.comparisons]
    assert "do not show" in " ".join(context(replace(unclear, comparisons=tuple(open_pairs))))


def test_equal_methods_under_noisy_retraining_are_not_called_different(runs: Any) -> None:
    """The usual test of one run each claims differences here; the page says so, and makes no such claim."""
    for model in ("a", "b", "c", "d"):
        for seed in range(3):
            runs.run(model, skill=0.85, seed=seed, noise=0.005, run_noise=0.02, cases=60)
    found = analysed(runs)
    (column,) = found.main_columns()
    assert {pair.verdict for pair in column.comparisons} == {"inconclusive"}
    assert column.null.significant >= 4
    text = text_of(found)
    assert f"usual one-run paired test calls {column.null.significant} different" in text
    assert "6 of 6 comparisons are inconclusive" in text
    assert "inconclusive does not mean equal" in text


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_a_ranking_is_called_unreliable_where_models_differ_no_more_than_retrainings(
    runs: Any, gap: float
) -> None:
    for place, model in enumerate(("a", "b", "c")):
        for seed in range(3):
            runs.run(model, skill=0.7 + gap * place, seed=seed, noise=0.02, run_noise=0.02)
    found = analysed(runs)
    (column,) = found.main_columns()
    assert (column.omnibus.p < 0.05) == (gap > 0)
    (line,) = [line for line in context(column) if "that the models differ" in line]
    assert line.startswith("The data show") == (gap > 0)
    assert line.endswith("): their ranking is not reliable.") == (gap == 0)


def test_below_the_patients_of_a_verdict_the_data_show_nothing_of_all_models_either(runs: Any) -> None:
    for place, model in enumerate(("a", "b", "c")):
        runs.run(model, skill=0.3 + 0.3 * place, noise=0.001, cases=2)
    text = text_of(analysed(runs))
    assert "2 cases: no verdict below 6 cases." in text
    assert "The data" not in text


def test_too_few_patients_are_called_patients_and_told_once(runs: Any) -> None:
    """Thirty images of three patients: n counts patients, and so do the reasons."""
    card = {"layout": {"case_pattern": r"case-00(?P<patient>\d)\d"}, "patient": {"group": "patient"}}
    for model in ("a. b", "c. d", "e"):  # a name may hold what ends a sentence
        for seed in range(2):
            named = {"dataset": {"slug": "phantom-brats", "card": card}}
            runs.run(model, cases=30, seed=seed, record=named)
    (column,) = analysed(runs).main_columns()
    text = " ".join(verdicts(column))
    assert text.count("3 patients: no verdict below 6 patients.") == 1
    assert "cases" not in text
    for told in re.findall(r"By the mean (.+?) is ahead, on .+? of 3 patients (.+?) is\.", text):
        assert set(told) <= {"a. b", "c. d", "e"}
    assert column.ranks is not None
    assert column.ranks.rank_low.size == 0, "no ranks are drawn where no verdict may be given"


def test_one_run_each_claims_nothing_about_methods(runs: Any) -> None:
    for model, skill in (("a", 0.9), ("b", 0.8)):
        runs.run(model, skill=skill)
    found = analysed(runs)
    assert "; these predictions only." in text_of(found)
    (column,) = found.main_columns()
    assert column.ranks is not None
    assert all(value != value for value in column.ranks.probability_best.tolist())


def test_better_on_most_cases_and_worse_by_the_mean_names_no_winner(runs: Any) -> None:
    """37 of 40 cases better, three failures, one seed: what findings/cases calls the reversed winner."""
    rows = runs.rows("steady", cases=40, skill=0.85, regions=("WT",), noise=0.0)
    runs.write(rows)
    run_id = rows[0]["run_id"].replace("steady", "risky")
    lost = {3, 17, 29}
    risky = [
        {
            **row,
            "run_id": run_id,
            "model": "risky",
            "dice": 0.0 if n in lost else row["dice"] + 0.01 + n / 1e4,
        }
        for n, row in enumerate(rows)
    ]
    runs.write(risky)
    found = analysed(runs, metrics="dice")
    (pair,) = found.main_columns()[0].comparisons
    assert pair.verdict == "inconclusive"
    assert "By the mean steady is ahead, on 37 of 40 cases risky is." in text_of(found)
    assert not any(cell.star for table in score_tables(found) for row in table.rows for cell in row.cells)


def test_equivalent_needs_a_declared_margin(runs: Any) -> None:
    for model in ("a", "b"):
        for seed in range(3):
            runs.run(model, skill=0.85, seed=seed, noise=0.004, run_noise=0.0005)
    assert "equivalent" not in text_of(analysed(runs))
    found = analysed(runs, margin={"dice": 0.01})
    (pair,) = found.main_columns()[0].comparisons
    assert pair.verdict == "equivalent"
    assert "are equivalent within the declared margin of 1.00 points" in text_of(found)
    assert max(-pair.low, pair.high) <= 0.01  # the interval beside it is the one that decided


def test_a_small_gain_is_told_with_the_unit_of_its_margin(runs: Any) -> None:
    for model, skill in (("a", 0.85), ("b", 0.84)):
        for seed in range(3):
            runs.run(model, skill=skill, seed=seed, noise=0.002, run_noise=0.0001)
    found = analysed(runs, margin={"dice": 0.02}, metrics="dice")
    (pair,) = found.main_columns()[0].comparisons
    assert pair.verdict == "better"
    assert "The difference lies within the declared margin of 2.00 points." in text_of(found)


def test_what_is_significant_before_correction_only_is_said_so(runs: Any) -> None:
    for number in range(6):
        for seed in range(3):
            runs.run(f"m{number}", skill=0.85 + 0.002 * number, seed=seed, noise=0.02, run_noise=0.003)
    found = analysed(runs)
    (column,) = found.main_columns()
    before = [p for p in column.comparisons if p.p < 0.05 and p.verdict == "inconclusive"]
    assert before, "the scores should leave such pairs"
    assert f"({len(before)} significant before correction only)" in text_of(found)
    sentence = pair_answer(column, before[0])
    assert "Significant before correction only" in sentence
    assert "leaves open" not in sentence


def test_a_comparison_turned_says_the_same_of_the_other_model(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "scripts"))
    from comparison_board import turned

    for model, skill in (("a", 0.9), ("b", 0.8)):
        for seed in range(3 if model == "a" else 2):
            runs.run(model, skill=skill, seed=seed)
    found = analysed(runs)
    (column,) = found.main_columns()
    (pair,) = column.comparisons
    other = turned(pair)
    assert turned(other) == replace(pair, note=other.note)
    assert (other.a, other.low, other.verdict) == (pair.b, -pair.high, "worse")
    assert "b is significantly worse than a: -" in pair_sentence(column, other)
    assert "2 against 3 seeds" in pair_sentence(column, other)


@pytest.mark.parametrize("reference", ["none", "m1"])
def test_no_output_contradicts_the_decision(runs: Any, reference: str) -> None:
    for number in range(4):
        for seed in range(3):
            runs.run(f"m{number}", skill=0.8 + 0.02 * number, seed=seed, noise=0.02, run_noise=0.004)
    found = analysed(runs, reference=reference)
    (column,) = found.main_columns()
    decided = {(pair.a, pair.b, pair.verdict) for pair in column.comparisons}
    (table, *_) = pair_tables(found)
    assert {
        (row.name, reference if reference != "none" else row.cells[0], row.cells[-1]) for row in table.rows
    } == decided
    claims = {(a, verdict, b) for a, b, verdict in decided if verdict in {"better", "worse"}}
    assert said(" ".join(verdicts(column))) == claims
    stars = {
        row.label
        for row in score_tables(found)[0].rows
        for cell, head in zip(row.cells, score_tables(found)[0].heads[1:], strict=True)
        if cell.star and (head.text, head.above) == ("mean", f"Dice (%) {column.metric.arrow}")
    }
    better = {a for a, b, verdict in decided if verdict == "better" and b == column.reference}
    assert stars == (better if reference != "none" else set())


def test_a_detectable_difference_beyond_the_range_of_the_metric_is_left_out(runs: Any) -> None:
    for model, skill in (("a", 0.8), ("b", 0.82)):
        for seed in range(2):
            runs.run(model, skill=skill, seed=seed, cases=6, run_noise=0.004)
    found = analysed(runs)
    (column,) = found.main_columns()
    (pair,) = column.comparisons
    for value, told in ((0.5, True), (1.0, True), (1.2, False)):
        changed = replace(column, comparisons=(replace(pair, detectable_difference=value, degenerate=False),))
        assert ("would be found in 80 %" in " ".join(context(changed))) == told


def test_what_the_range_of_the_metric_excludes_is_not_said(runs: Any) -> None:
    for model in ("a", "b"):
        runs.run(model, cases=2, seed=0)
    found = analysed(runs)
    (column,) = found.main_columns()
    (pair,) = column.comparisons
    wide = excluded_words(column, replace(pair, low=-0.9, high=1.0))
    assert wide == "a loss of more than 90.00 points is excluded"
    assert excluded_words(column, replace(pair, low=-1.0, high=1.0)) == ""


def test_one_model_in_common_is_reported_dataset_by_dataset(runs: Any) -> None:
    for name, dataset in (("alpha", "one"), ("beta", "one"), ("alpha", "two"), ("gamma", "two")):
        runs.run(name, dataset=dataset, cases=6)
    found = analysed(runs, metrics="dice")
    assert [where for where, _ in headline(found)] == [
        "one, Dice, mean over regions",
        "two, Dice, mean over regions",
    ]
    assert sorted(found.ordered(["alpha", "beta", "gamma"])) == ["alpha", "beta", "gamma"]
    (table,) = score_tables(found)
    assert {head.above for head in table.heads[table.facts + 1 :]} == {"one", "two"}
