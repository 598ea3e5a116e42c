"""Every finding is raised where it should be, is silent where it should not, and has its effect on marks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segbench.core.errors import SegbenchError
from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.findings import SEVERITY, SEVERITY_WORDS, gathered
from segbench.report.analysis.options import make_options
from segbench.report.write.tables import score_tables
from segbench.report.write.terminal import finding_lines

PROTOCOL = {
    "name": "standard",
    "optimiser": {"name": "sgd", "lr": 0.01},
    "inference": {"overlap": 0.5, "mirror_axes": ["z"]},
    "metrics": {"profile": "honest"},
}


def record(**changes: Any) -> dict[str, Any]:
    """A record of a training run without anything to complain about."""
    base: dict[str, Any] = {
        "kind": "trained",
        "digests": "own",
        "protocol": PROTOCOL,
        "metric_profile": {"name": "honest", "digest": "a" * 64, "empty_policy": "worst"},
        "split": {"name": "patient-safe", "digest": "b" * 64},
        "samples_seen": 1000,
        "segbench": {"version": "1", "git": {"commit": "c", "dirty": False}},
    }
    return base | changes


def write(runs: Any, model: str, *, seeds: int = 3, kind: str = "trained", **how: Any) -> None:
    changes = how.pop("changes", {})
    for seed in range(seeds):
        runs.run(
            model,
            seed=seed,
            kind=kind,
            dataset=how.get("dataset", "data-x"),
            protocol=how.get("protocol", "standard"),
            cases=how.get("cases", 30),
            skill=how.get("skill", 0.8),
            run_noise=0.002,
            fold=how.get("fold", 0),
            record=record(kind=kind, **changes),
        )


def analysed(runs: Any, **options: Any) -> Any:
    return analyse([runs.root], make_options(**{"resamples": 200, "metrics": "dice", **options}))


def codes(found: Any) -> dict[str, str]:
    return {item.code: item.severity for item in found.findings}


def message(found: Any, code: str) -> str:
    return next(item.message for item in found.findings if item.code == code)


def best(found: Any) -> set[str]:
    """Models marked best in Table 1."""
    tables = score_tables(found)
    return {
        row.label for table in tables for row in table.rows if any(cell.mark == "best" for cell in row.cells)
    }


def test_a_clean_comparison_has_none(runs: Any) -> None:
    write(runs, "alpha", skill=0.7)
    write(runs, "beta", skill=0.9)
    found = analysed(runs)
    assert codes(found) == {}
    assert (found.exit_code, best(found)) == (0, {"beta"})


def test_other_recipes_are_named_field_by_field(runs: Any) -> None:
    write(runs, "alpha", skill=0.7)
    other = {**PROTOCOL, "optimiser": {"name": "adamw", "lr": 0.01}}
    write(runs, "beta", skill=0.9, changes={"protocol": other})
    found = analysed(runs)
    assert codes(found) == {"recipe-differs": "warn"}
    assert "optimiser.name adamw (beta), sgd (alpha)" in message(found, "recipe-differs")
    assert "optimiser.lr" not in message(found, "recipe-differs")
    assert best(found) == {"beta"}


def test_unknown_is_said_and_never_taken_for_equal(runs: Any) -> None:
    for model in ("alpha", "beta"):
        write(runs, model, changes={"protocol": None, "split": None, "metric_profile": None})
    unknown = [item for item in analysed(runs).findings if item.code == "not-known-equal"]
    assert {words for item in unknown for words in ("recipe", "split", "rules") if words in item.message} == {
        "recipe",
        "split",
        "rules",
    }
    assert {item.severity for item in unknown} == {"warn"}


@pytest.mark.parametrize(
    "change",
    [
        {"split": {"name": "patient-safe", "digest": "c" * 64}},
        {"metric_profile": {"name": "nnunet", "digest": "d" * 64, "empty_policy": "nan"}},
    ],
)
def test_contradictions_open_a_block_of_their_own(runs: Any, change: Any) -> None:
    write(runs, "alpha", skill=0.7)
    write(runs, "beta", skill=0.9)
    write(runs, "gamma", skill=0.95, changes=change)
    found = analysed(runs)
    assert codes(found)["not-comparable"] == "error"
    assert found.exit_code == 3
    pairs = {(pair.a, pair.b) for column in found.columns.values() for pair in column.comparisons}
    assert pairs <= {("alpha", "beta"), ("beta", "alpha")} and pairs
    assert best(found) == {"beta"}


START = {"name": "w.safetensors", "sha256": "e" * 64, "trained_on": [{"case": "elsewhere"}]}


def test_pretrained_models_stand_in_tables_of_their_own(runs: Any) -> None:
    write(runs, "alpha", skill=0.7)
    write(runs, "beta", skill=0.75)
    write(runs, "gamma", skill=0.9, changes={"init": START})
    write(runs, "delta", skill=0.8, changes={"init": START})
    found = analysed(runs)
    assert codes(found) == {"start-differs": "warn"}
    assert "start is from scratch" in message(found, "start-differs")
    assert "pretrained" in message(found, "start-differs")
    assert found.exit_code == 0
    pairs = {frozenset((pair.a, pair.b)) for column in found.columns.values() for pair in column.comparisons}
    assert pairs == {frozenset(("alpha", "beta")), frozenset(("gamma", "delta"))}


def test_seeds_from_other_weights_are_another_row(runs: Any) -> None:
    write(runs, "alpha", seeds=1, changes={"init": START})
    other = runs.rows("alpha", dataset="data-x", protocol="standard", seed=1)
    runs.write(other, record=record(init={**START, "sha256": "f" * 64}))
    assert len(analysed(runs).entries) == 2


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ({**START, "overlap": ["case-0001", "case-0002"]}, "2 of 30 test cases were seen by the weights"),
        ({**START, "trained_on": None}, "it is not known what the weights it started from were trained on"),
    ],
)
def test_weights_that_saw_test_cases_are_a_leak(runs: Any, init: Any, words: str) -> None:
    write(runs, "alpha", skill=0.7, changes={"init": START})
    write(runs, "beta", skill=0.9, changes={"init": init})
    found = analysed(runs)
    assert words in message(found, "leak")
    assert found.exit_code == 3
    assert best(found) == {"alpha"}


def test_cases_differ(runs: Any) -> None:
    write(runs, "alpha")
    rows = runs.rows("beta", dataset="data-x", protocol="standard")
    split = {"name": "patient-safe", "digest": "b" * 64, "test": sorted({row["case"] for row in rows})[:28]}
    runs.write([row for row in rows if row["case"] < "case-0026"], record=record(split=split))
    found = codes(analysed(runs))
    assert found["missing-cases"] == "error"
    assert found["cases-differ"] == "warn"


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"leaks": {"patients": 3, "test_cases": 7}}, "7 of 30 test cases share a patient with training"),
        ({"train": ["case-0001", "x"], "test": None}, "1 of 30 test cases are in the training list"),
        (
            {"validation": ["case-0000", "case-0001"], "test": None},
            "2 of 30 test cases were used to select the weights",
        ),
        ({"acknowledged_leaks": True}, "known to leak"),
    ],
)
def test_a_leak_is_an_error_and_never_best(runs: Any, split: Any, words: str) -> None:
    if "test" in split:
        split = {**split, "test": [f"case-{number:04d}" for number in range(30)]}
    write(runs, "alpha", skill=0.7)
    write(runs, "beta", skill=0.9, changes={"split": {"name": "patient-safe", "digest": "b" * 64, **split}})
    write(runs, "gamma", skill=0.75)
    found = analysed(runs)
    assert words in message(found, "leak")
    assert "upper bounds" in message(found, "leak")
    assert found.exit_code == 3
    assert best(found) == {"gamma"}


def test_below_the_baseline_which_is_never_compared(runs: Any) -> None:
    write(runs, "alpha", skill=0.5)
    write(runs, "beta", skill=0.9)
    write(runs, "atlas", kind="floor", seeds=1, skill=0.6)
    found = analysed(runs)
    below = [item.message for item in found.findings if item.code == "below-baseline"]
    assert below == ["data-x: alpha is not significantly better than the baseline atlas"]
    compared = {name for c in found.columns.values() for pair in c.comparisons for name in (pair.a, pair.b)}
    assert compared == {"alpha", "beta"}
    (table,) = score_tables(found)
    assert table.groups[-1][0] == "Baseline"
    assert [(row.label, {cell.mark for cell in row.cells}) for row in table.groups[-1][1]] == [
        ("atlas", {""})
    ]


@pytest.mark.parametrize(
    ("kind", "words", "others"),
    [
        ("trained", "only one training run of alpha, beta: results hold for these weights", "predictions"),
        ("external", "only one set of predictions of alpha, beta: results hold for these", "training run"),
    ],
)
def test_what_stands_alone_is_called_by_its_kind(runs: Any, kind: str, words: str, others: str) -> None:
    for model in ("alpha", "beta"):
        runs.run(model, cases=40, kind=kind)
    (found,) = (item for item in analysed(runs).findings if item.code == "single-seed")
    assert words in found.message
    assert others not in found.message


def test_what_several_datasets_have_in_common_is_said_once(runs: Any) -> None:
    """Three are named and the others counted; a document keeps a finding for each dataset."""
    for number in range(5):
        for model in ("alpha", "beta"):
            runs.run(model, dataset=f"set{number}", cases=4 + number)
    findings = analysed(runs).findings
    assert sum(item.code == "single-seed" for item in findings) == 5
    lines = [item.message for item in gathered(findings)]
    assert len(lines) == len({item.code for item in findings}) + 2  # of not-known-equal there are three
    (few,) = (line for line in lines if "too short" in line)
    assert few == (
        "set0: only 4 test cases, set1: only 5 test cases, set2: only 6 test cases and 2 more: "
        "intervals are wide and may be too short"
    )
    (single,) = (line for line in lines if "only one set of predictions" in line)
    assert single.startswith("set0, set1, set2 and 2 more: only one set of predictions of alpha, beta: ")


@pytest.mark.parametrize(("seeds", "code"), [(1, "single-seed"), (2, "two-seeds")])
def test_few_seeds_carry_no_claim_about_the_method(runs: Any, seeds: int, code: str) -> None:
    for model, skill in (("alpha", 0.7), ("gamma", 0.75)):
        write(runs, model, skill=skill)
    write(runs, "beta", skill=0.9, seeds=seeds)
    found = analysed(runs)
    assert "train three seeds, better five, to measure run-to-run variation" in message(found, code)
    assert "several-datasets" not in codes(found)
    for column in found.main_columns():
        for pair in column.comparisons:
            if "beta" in (pair.a, pair.b):
                assert pair.claim == "weights" or pair.verdict == "inconclusive"


def test_findings_name_models_as_the_tables_do(runs: Any) -> None:
    for slug, short in (("alpha-slug", "Alpha"), ("beta-slug", "Beta")):
        card = {"model": {"slug": slug, "card": {"title": short, "short_name": short}}}
        write(runs, slug, cases=5, seeds=1, changes=card)
    write(runs, "atlas-slug", kind="floor", seeds=1, cases=4, skill=0.95)
    messages = " ".join(item.message for item in analysed(runs).findings)
    assert "Alpha" in messages
    assert "Beta" in messages
    assert "alpha-slug" not in messages
    assert "beta-slug" not in messages


def test_few_cases(runs: Any) -> None:
    write(runs, "alpha", cases=29)
    assert codes(analysed(runs))["few-cases"] == "warn"


def test_inference_and_budget(runs: Any) -> None:
    write(runs, "alpha")
    other = {**PROTOCOL, "inference": {"overlap": 0.5, "mirror_axes": ["z", "y", "x"]}}
    write(runs, "beta", changes={"protocol": other, "samples_seen": 2000})
    found = codes(analysed(runs))
    assert found["inference-differs"] == "warn"
    assert found["budget-differs"] == "warn"
    assert "recipe-differs" not in found


def test_findings_about_single_runs(runs: Any) -> None:
    write(runs, "alpha", changes={"degraded": True, "segbench": {"git": {"dirty": True}}})
    write(runs, "beta", dataset="phantom-crc")
    failed = record(status="failed", failure={"class": "oom"})
    runs.write(runs.rows("gamma", dataset="data-x", protocol="standard"), status="failed", record=failed)
    found = analysed(runs)
    assert {"degraded-run", "modified-code", "demo-data", "unfinished-run"} <= set(codes(found))
    assert "failed: oom" in message(found, "unfinished-run")
    assert (
        message(found, "several-datasets")
        == "a verdict holds for its own dataset; there is no test across datasets"
    )
    assert found.exit_code == 0


def test_an_unreadable_run_is_an_error_by_name_and_the_others_are_reported(runs: Any) -> None:
    write(runs, "alpha")
    place = runs.run("beta", dataset="data-x", protocol="standard", record=record())
    data = (place / "cases.csv").read_bytes()
    (place / "cases.csv").write_bytes(data[: len(data) // 2])
    found = analysed(runs)
    assert "cut short" in message(found, "unusable-run")
    assert found.exit_code == 3
    assert {entry.label for entry in found.entries} == {"alpha"}


def test_an_edited_record_is_taken_only_when_asked_and_said_first(runs: Any) -> None:
    write(runs, "alpha")
    place = runs.run("beta", dataset="data-x", protocol="standard", record=record())
    content = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps(content | {"digests": {"cases": "0" * 64}}))
    assert "was changed after it was written" in message(analysed(runs), "unusable-run")
    found = analysed(runs, allow_edited=True)
    assert found.findings[0].code == "edited-record"
    assert found.exit_code == 3


def test_one_id_of_another_form_leaves_the_other_patients_whole(runs: Any) -> None:
    """Five scans of each of six patients are six patients, and a stranger makes seven."""
    card = {"layout": {"case_pattern": "(?P<patient>p\\d)-.+"}, "patient": {"group": "patient"}}
    for name in ("alpha", "beta"):
        rows = runs.rows(name, dataset="data-x", protocol="standard")
        cases = sorted({row["case"] for row in rows})
        names = {case: f"p{place // 5}-{place % 5}" for place, case in enumerate(cases)} | {
            cases[-1]: "pilot"
        }
        runs.write(
            [row | {"case": names[row["case"]]} for row in rows],
            record=record(dataset={"slug": "data-x", "card": card}),
        )
    (column,) = analysed(runs).main_columns()
    assert (len(column.block.cases), len(column.block.units), column.block.unit) == (30, 7, "patients")


def test_as_many_cases_but_others_differ(runs: Any) -> None:
    for name, folds in (("alpha", (0, 1)), ("beta", (1, 2))):
        for fold in folds:
            write(runs, name, fold=fold, changes={"split": {"name": "cv", "digest": f"{fold}" * 64}})
    assert "cases-differ" in codes(analysed(runs))


def test_folds_at_hand_that_differ_are_compared_on_common_cases(runs: Any) -> None:
    for fold in range(2):
        write(runs, "alpha", fold=fold, changes={"split": {"name": "cv", "digest": f"{fold}" * 64}})
    write(runs, "beta", skill=0.9, changes={"split": {"name": "cv", "digest": "0" * 64}})
    found = analysed(runs)
    (column,) = found.main_columns()
    assert (column.means["alpha"].n, column.means["beta"].n) == (60, 30)
    assert column.means["beta"].failed == 0
    assert "cases-differ" in codes(found)
    assert [pair.n for pair in column.comparisons] == [30]


def test_every_finding_is_worded_within_80_columns(runs: Any) -> None:
    write(runs, "alpha", cases=5, seeds=1, changes={"segbench": {"git": {"dirty": True}}})
    write(runs, "a-model-with-quite-a-long-name", cases=4, seeds=1)
    lines = finding_lines(analysed(runs).findings)
    assert max(map(len, lines)) <= 80
    heads = [line.split(":")[0] for line in lines if line and not line.startswith(" ")]
    assert heads == sorted(heads, key=["error", "warning", "note"].index)
    assert set(SEVERITY.values()) == set(SEVERITY_WORDS)


@pytest.mark.parametrize("digests", [None, {}, "gone", {"cases": None}, {"weights": "a" * 64}])
def test_a_record_without_a_digest_of_its_scores_says_that_nothing_was_checked(
    runs: Any, digests: Any
) -> None:
    place = runs.run("alpha", record={"digests": digests})
    runs.run("beta", record={"digests": "own"})
    found = analyse([runs.root], make_options(resamples=100))
    (told,) = [item for item in found.findings if item.code == "not-checked"]
    assert (told.severity, told.runs) == ("warn", (json.loads((place / "run.json").read_text())["run_id"],))


def test_an_error_about_edited_runs_names_the_way_out(runs: Any) -> None:
    for model in ("alpha", "beta"):
        runs.run(model, record={"digests": {"cases": "0" * 64}})
    with pytest.raises(SegbenchError) as caught:
        analyse([runs.root], make_options())
    assert caught.value.code == "SB701"
    assert "--allow-edited" in caught.value.mend
    assert all("was changed after it was written" in line for line in caught.value.details)


def test_progress_counts_models_in_english(runs: Any) -> None:
    said: list[str] = []
    runs.run("alpha", cases=8)
    analyse([runs.root], make_options(resamples=100), progress=said.append)
    assert "reading 1 model on phantom-brats" in said
    runs.run("beta", cases=8)
    analyse([runs.root], make_options(resamples=100), progress=said.append)
    assert said[-1] == "comparing 2 models on phantom-brats"
