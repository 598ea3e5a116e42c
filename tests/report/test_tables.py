"""Tables as printed: marks, stars, notes and numbers, decided once for every view."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.report.analysis.analysis import Analysis, analyse
from segbench.report.analysis.metric import format_number, format_p
from segbench.report.analysis.options import make_options
from segbench.report.write.tables import DASH, ScoreCell, Table, pair_tables, score_tables


def analysed(runs: Any, **options: Any) -> Analysis:
    return analyse([runs.root], make_options(**{"resamples": 100, "metrics": "dice", **options}))


def model(runs: Any, name: str, values: list[float], *, record: Any = None, seed: int = 0) -> None:
    """A run whose cases have these Dice values in one region."""
    rows = runs.rows(name, cases=len(values), regions=("r",), seed=seed)
    runs.write([row | {"dice": value} for row, value in zip(rows, values, strict=True)], record=record)


def marks(table: Table, column: int = 0) -> dict[str, str]:
    cells = {row.name: row.cells[table.facts + column] for row in table.rows}
    return {name: cell.mark for name, cell in cells.items() if isinstance(cell, ScoreCell)}


def test_equal_printed_numbers_share_a_mark_and_unequal_ones_never(runs: Any) -> None:
    model(runs, "a", [0.80001, 0.90001])
    model(runs, "b", [0.80000, 0.90000])
    model(runs, "c", [0.79990, 0.89990])
    model(runs, "d", [0.5, 0.6])
    (table,) = score_tables(analysed(runs))
    assert marks(table) == {"a": "best", "b": "best", "c": "second", "d": ""}
    (finer,) = score_tables(analysed(runs, digits=3))
    assert marks(finer) == {"a": "best", "b": "second", "c": "", "d": ""}
    assert "bold: best, underlined: second" in table.notes


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([0.5, 0.50004, 0.50006, 0.7, 0.70001, 0.9]), min_size=1, max_size=5),
    st.integers(1, 3),
)
def test_marks_follow_a_plain_definition(
    tmp_path_factory: pytest.TempPathFactory, factory_at: Any, means: list[float], digits: int
) -> None:
    """Best: the highest printed number; second: the next one; a single model has no mark."""
    runs = factory_at(tmp_path_factory.mktemp("marks") / "runs")
    for place, mean in enumerate(means):
        model(runs, f"m{place}", [mean, mean])
    (table,) = score_tables(analysed(runs, digits=digits))
    printed = [format_number(mean, scale=100.0, digits=digits) for mean in means]
    ranked = sorted(set(printed), key=float, reverse=True)
    words = {0: "best", 1: "second"}
    expected = {
        f"m{place}": words.get(ranked.index(text), "") if len(means) > 1 else ""
        for place, text in enumerate(printed)
    }
    assert marks(table) == expected


def test_of_a_distance_the_smallest_is_best(runs: Any) -> None:
    for name, skill in (("near", 0.9), ("far", 0.5)):
        runs.run(name, skill=skill, regions=("r",), cases=8)
    (table,) = score_tables(analysed(runs, metrics="hd95"))
    assert marks(table) == {"near": "best", "far": "second"}
    assert table.heads[table.facts + 1].text == "HD95 (mm) \N{DOWNWARDS ARROW}"


def test_what_leaks_is_not_marked(runs: Any) -> None:
    split = {"name": "s", "digest": "a" * 64}
    model(runs, "leaks", [0.95, 0.95], record={"split": split | {"acknowledged_leaks": True}})
    model(runs, "clean", [0.8, 0.8], record={"split": split})
    model(runs, "other", [0.7, 0.7], record={"split": split})
    (table,) = score_tables(analysed(runs))
    assert marks(table) == {"leaks": "", "clean": "best", "other": "second"}


def test_a_dataset_without_the_model_is_a_dash_with_a_note(runs: Any) -> None:
    for name, dataset in (("both", "one"), ("both", "two"), ("single", "one")):
        runs.run(name, dataset=dataset, regions=("r",), cases=8)
    (table,) = score_tables(analysed(runs))
    assert [head.above for head in table.heads[table.facts + 1 :]] == ["one", "two"]
    cells = {row.name: [c.value for c in row.cells if isinstance(c, ScoreCell)] for row in table.rows}
    assert cells["single"][-1] == DASH
    assert DASH not in cells["both"][table.facts :]
    assert any(note.startswith(f"{DASH}: not scored") for note in table.notes)


@pytest.mark.parametrize(("seeds", "star", "sign"), [(3, "method", "*"), (1, "weights", "\N{DAGGER}")])
def test_stars_say_what_they_are_about(runs: Any, seeds: int, star: str, sign: str) -> None:
    for name, skill in (("base", 0.7), ("good", 0.9)):
        for seed in range(seeds):
            runs.run(name, skill=skill, seed=seed, cases=20)
    found = analysed(runs, reference="base")
    (table,) = score_tables(found)
    stars = {row.name: {c.star for c in row.cells if isinstance(c, ScoreCell)} for row in table.rows}
    assert stars == {"good": {"", star}, "base": {""}}  # single regions carry none
    (note,) = (note for note in table.notes if "significantly better than base" in note)
    assert note.startswith(f"{sign}: ")
    assert ("these predictions only" in note) == (seeds == 1)
    (pairs,) = pair_tables(found)
    (row,) = pairs.rows
    assert row.cells[-1] == ("better" if seeds > 1 else "better \N{DAGGER}")
    assert any(n.startswith("\N{DAGGER}: one set of") for n in pairs.notes) == (seeds == 1)


def test_without_stars_marks_or_failures_no_note_speaks_of_them(runs: Any) -> None:
    runs.run("only", cases=8)
    (table,) = score_tables(analysed(runs))
    assert not any(word in note for note in table.notes for word in ("bold", "significantly", "superscript"))
    assert pair_tables(analysed(runs)) == []


def test_seeds_are_a_note_when_equal_and_a_column_when_not(runs: Any) -> None:
    for name, seeds in (("a", 2), ("b", 2)):
        for seed in range(seeds):
            runs.run(name, seed=seed, cases=8)
    (equal,) = score_tables(analysed(runs))
    assert "training runs of each model: 2" in equal.notes
    assert "Seeds" not in [head.text for head in equal.heads]
    runs.run("b", seed=2, cases=8)
    (table,) = score_tables(analysed(runs))
    place = [head.text for head in table.heads].index("Seeds") - 1
    assert {row.name: row.cells[place] for row in table.rows} == {"a": ScoreCell("2"), "b": ScoreCell("3")}


def test_of_many_pairs_only_those_with_a_verdict_are_kept_and_the_others_counted(runs: Any) -> None:
    for number in range(4):
        for seed in range(3):
            skill = 0.9 if number == 3 else 0.7
            runs.run(f"m{number}", skill=skill, seed=seed, cases=20, noise=0.02, run_noise=0.01)
    found = analysed(runs, reference="none")
    (whole,), (short,) = pair_tables(found), pair_tables(found, most=3)
    kept = [row for row in whole.rows if row.cells[-1] != "inconclusive"]
    assert 0 < len(kept) < len(whole.rows) == 6
    assert list(short.rows) == kept
    assert f"{6 - len(kept)} inconclusive comparisons are not shown" in short.notes


@pytest.mark.parametrize(
    ("value", "digits", "scale", "printed"),
    [
        (0.91235, 2, 100, "91.24"),  # half to even on the decimal string, not on the binary value
        (0.91245, 2, 100, "91.24"),
        (2.675, 2, 1, "2.68"),
        (-0.0001, 2, 1, "0.00"),
        (-0.0, 0, 1, "0"),
        (1e-9, 3, 1, "0.000"),
        (123456789.125, 2, 1, "123456789.12"),
        (math.inf, 2, 100, "inf"),
        (-math.inf, 2, 1, "-inf"),
    ],
)
def test_printed_numbers(value: float, digits: int, scale: float, printed: str) -> None:
    assert format_number(value, scale=scale, digits=digits) == printed


@pytest.mark.parametrize(
    ("p", "printed"),
    [(0.0, "<0.001"), (0.00099, "<0.001"), (0.001, "0.001"), (0.04999, "0.050"), (1.0, "1.000"),
     (None, "n/a"), (math.nan, "n/a")],
)  # fmt: skip
def test_printed_p_values(p: float | None, printed: str) -> None:
    assert format_p(p) == printed


def test_on_a_screen_what_decides_stands_first_and_facts_last(runs: Any) -> None:
    """A window of 400 px holds the names and one column: the mean, not a region; only the order differs."""
    for name, skill in (("segmamba-v2", 0.8), ("nnunet", 0.7)):
        card = {"fidelity": {"parameters": 12_000_000, "gmacs": 34.5}}
        runs.run(name, cases=6, skill=skill, record={"model": {"slug": name, "card": card}})
    analysis = analysed(runs, metrics="dice,hd95")
    (paper,), (screen,) = score_tables(analysis), score_tables(analysis, screen=True)
    metrics = [metric.head for metric in analysis.metrics]
    scores = [(head.above.rpartition(" ")[0], head.text) for head in screen.heads[1:] if head.above]
    assert scores == [(metric, region) for metric in metrics for region in ("mean", "TC", "WT", "ET")]
    facts = [head.text for head in screen.heads if not head.above][1:]
    assert facts == [head.text for head in paper.heads[1 : 1 + paper.facts]] == ["Params (M)", "GMAC"]
    assert sorted(map(repr, screen.heads)) == sorted(map(repr, paper.heads))
    for shown, printed in zip(screen.rows, paper.rows, strict=True):
        assert (shown.name, sorted(map(repr, shown.cells))) == (
            printed.name,
            sorted(map(repr, printed.cells)),
        )
    assert screen.notes == paper.notes
