"""Every guard fires where it should, stays silent where it should not, and has its effect on marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from segbench.report.finding import SEVERITY

from segbench.report import build_report

QUICK = {"resamples": 200, "viewer": "none", "published": False, "format": "json", "metrics": "dice"}
PROTOCOL = {
    "name": "standard",
    "optimiser": {"name": "sgd", "lr": 0.01},
    "inference": {"overlap": 0.5, "mirror_axes": ["z"]},
    "metrics": {"profile": "honest"},
    "notes": {"fairness": ["No tuning per model."]},
}


def record(**changes: Any) -> dict[str, Any]:
    """A record of a training run without anything to complain about."""
    base: dict[str, Any] = {
        "kind": "trained",
        "protocol": PROTOCOL,
        "metric_profile": {"name": "honest", "digest": "a" * 64, "empty_policy": "worst"},
        "split": {"name": "patient-safe", "digest": "b" * 64},
        "samples_seen": 1000,
        "segbench": {"version": "1", "git": {"commit": "c", "dirty": False}},
    }
    return base | changes


def write(runs: Any, model: str, *, seeds: int = 2, kind: str = "trained", **how: Any) -> None:
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


def report(runs: Any, tmp_path: Path, **options: Any) -> Any:
    return build_report(runs.root, tmp_path / "out", **{**QUICK, **options})


def codes(result: Any) -> dict[str, str]:
    return {item.code: item.severity for item in result.guards}


def best(result: Any) -> set[str]:
    return {row["model"] for row in result.document["summary"] if row["best"]}


def test_a_clean_comparison_has_only_the_note_on_datasets(runs: Any, tmp_path: Path) -> None:
    write(runs, "alpha", skill=0.7)
    write(runs, "beta", skill=0.9)
    result = report(runs, tmp_path)
    assert codes(result) == {"few-datasets": "info"}
    assert (result.exit_code, best(result)) == (0, {"beta"})
    assert "No tuning per model." in result.document["notes"]


def test_recipe_differs_prints_the_fields_and_withholds_marks(runs: Any, tmp_path: Path) -> None:
    write(runs, "alpha", skill=0.7)
    other = {**PROTOCOL, "optimiser": {"name": "adamw", "lr": 0.01}}
    write(runs, "beta", skill=0.9, changes={"protocol": other})
    result = report(runs, tmp_path)
    guard = next(item for item in result.guards if item.code == "recipe-differs")
    assert guard.severity == "warn"
    assert "optimiser.name: adamw (beta) / sgd (alpha)" in guard.message
    assert best(result) == set()
    assert len(guard.runs) == 4


def test_a_recipe_set_by_family_keeps_its_marks(runs: Any, tmp_path: Path) -> None:
    write(runs, "alpha", skill=0.7, changes={"model": {"slug": "alpha", "card": {"family": "convolution"}}})
    other = {**PROTOCOL, "optimiser": {"name": "adamw", "lr": 0.0001}}
    card = {"model": {"slug": "beta", "card": {"family": "transformer"}}, "protocol": other}
    write(runs, "beta", skill=0.9, changes=card)
    result = report(runs, tmp_path)
    assert "by family" in next(item.message for item in result.guards if item.code == "recipe-differs")
    assert best(result) == {"beta"}


def test_unknown_is_said_and_never_taken_for_equal(runs: Any, tmp_path: Path) -> None:
    write(runs, "alpha", changes={"protocol": None, "split": None, "metric_profile": None})
    write(runs, "beta", changes={"protocol": None, "split": None, "metric_profile": None})
    result = report(runs, tmp_path)
    unknown = [item for item in result.guards if "unknown for" in item.message]
    assert {item.code for item in unknown} == {"recipe-differs", "split-differs", "profile-differs"}
    assert {item.severity for item in unknown} == {"warn"}
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"split": {"name": "other", "digest": "c" * 64}}, "split-differs"),
        (
            {"metric_profile": {"name": "nnunet", "digest": "d" * 64, "empty_policy": "nan"}},
            "profile-differs",
        ),
    ],
)
def test_contradictions_open_a_block_of_their_own(runs: Any, tmp_path: Path, change: Any, code: str) -> None:
    write(runs, "alpha", skill=0.7)
    write(runs, "beta", skill=0.9)
    write(runs, "gamma", skill=0.95, changes=change)
    result = report(runs, tmp_path)
    assert codes(result)[code] == "error"
    assert result.exit_code == 3
    assert {(p["a"], p["b"]) for p in result.document["pairwise"]} == {("alpha", "beta")}
    rows = {row["model"]: row for row in result.document["summary"] if row["region"] == "WT"}
    assert (rows["gamma"]["variant"], rows["gamma"]["rank"], rows["gamma"]["best"]) == (1, None, False)
    assert rows["beta"]["best"]


def test_cases_differ(runs: Any, tmp_path: Path) -> None:
    write(runs, "alpha")
    rows = [
        row for row in runs.rows("beta", dataset="data-x", protocol="standard") if row["case"] < "case-0028"
    ]
    runs.write(rows, record=record())
    result = report(runs, tmp_path)
    assert codes(result)["cases-differ"] == "warn"
    assert codes(result)["missing-cases"] == "error"


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"leaks": {"patients": 3, "test_cases": 7}}, "7 of 30 test cases share a patient with training"),
        ({"train": ["case-0001", "x"], "test": None}, "1 of 30 test cases stand in the training list"),
        (
            {"validation": ["case-0000", "case-0001"], "test": None},
            "2 of 30 test cases were used for model selection",
        ),
        ({"acknowledged_leaks": True}, "known to leak"),
    ],
)
def test_leaks_are_banners_and_never_best(runs: Any, tmp_path: Path, split: Any, words: str) -> None:
    test = [f"case-{number:04d}" for number in range(30)]
    if "test" in split:
        split = {**split, "test": test}
    base = {"name": "official", "digest": "b" * 64, **split}
    write(runs, "alpha", skill=0.7)
    write(runs, "beta", skill=0.9, changes={"split": base})
    write(runs, "gamma", skill=0.75)
    result = report(runs, tmp_path)
    guard = next(item for item in result.guards if item.code == "leak")
    assert words in guard.message
    assert "upper bounds" in guard.message
    assert (guard.severity, result.exit_code) == ("error", 3)
    assert best(result) == {"gamma"}


def test_below_floor_and_the_floor_is_never_ranked(runs: Any, tmp_path: Path) -> None:
    write(runs, "alpha", skill=0.5)
    write(runs, "beta", skill=0.9)
    write(runs, "atlas", kind="floor", seeds=1, skill=0.6)
    result = report(runs, tmp_path, format="json,markdown")
    below = [item.message for item in result.guards if item.code == "below-floor"]
    assert below == ["alpha does not beat the floor atlas on data-x"]
    rows = [row for row in result.document["summary"] if row["model"] == "atlas"]
    assert all(row["floor"] and row["rank"] is None and not row["best"] for row in rows)
    assert "atlas" not in {name for pair in result.document["pairwise"] for name in (pair["a"], pair["b"])}
    assert "| atlas (floor) |" in (tmp_path / "out" / "tables" / "main.md").read_text()


def test_single_seed_is_marked_in_every_table(runs: Any, tmp_path: Path) -> None:
    write(runs, "alpha", skill=0.7)
    write(runs, "beta", skill=0.9, seeds=1)
    result = report(runs, tmp_path, format="json,markdown,latex")
    assert codes(result)["single-seed"] == "warn"
    text = (tmp_path / "out" / "tables" / "main.md").read_text()
    assert "_</sup>" not in text
    line = next(line for line in text.splitlines() if line.startswith("| beta"))
    assert line.count("<sup>1</sup>") == 4
    latex = (tmp_path / "out" / "tables" / "main.tex").read_text()
    assert "\\textit{" in latex
    assert "no claim about the method" in latex
    assert "<sup>1</sup>" not in next(line for line in text.splitlines() if line.startswith("| alpha"))


def test_cannot_rank_withholds_marks_where_retraining_moves_more(runs: Any, tmp_path: Path) -> None:
    for model in ("alpha", "beta"):
        for seed in range(3):
            runs.run(
                model, seed=seed, skill=0.7 + 0.1 * seed, cases=30, noise=0.001,
                dataset="data-x", protocol="standard", record=record(),
            )  # fmt: skip
    result = report(runs, tmp_path)
    assert codes(result)["cannot-rank"] == "warn"
    assert best(result) == set()
    assert all(row["cannot_rank"] for row in result.document["discrimination"])


def test_few_cases(runs: Any, tmp_path: Path) -> None:
    write(runs, "alpha", cases=29)
    assert codes(report(runs, tmp_path))["few-cases"] == "warn"


def test_inference_and_budget(runs: Any, tmp_path: Path) -> None:
    write(runs, "alpha")
    other = {**PROTOCOL, "inference": {"overlap": 0.5, "mirror_axes": ["z", "y", "x"]}}
    write(runs, "beta", changes={"protocol": other, "samples_seen": 2000})
    found = codes(report(runs, tmp_path))
    assert found["inference-differs"] == "warn"
    assert found["budget-differs"] == "warn"


def test_findings_about_single_runs(runs: Any, tmp_path: Path) -> None:
    write(runs, "alpha", changes={"degraded": True, "segbench": {"git": {"dirty": True}}})
    write(runs, "beta", dataset="phantom-crc")
    runs.write(
        runs.rows("gamma", dataset="data-x", protocol="standard"),
        status="failed",
        record=record(status="failed"),
    )
    result = report(runs, tmp_path, format="json,markdown")
    found = codes(result)
    assert {"degraded-run", "modified-code", "demo-data", "unfinished-run"} <= set(found)
    assert result.exit_code == 0
    text = (tmp_path / "out" / "tables" / "main.md").read_text()
    assert "<sup>2</sup>" in next(line for line in text.splitlines() if line.startswith("| alpha"))
    assert "not used: failed" in (tmp_path / "out" / "tables" / "missing.md").read_text()


def test_an_unreadable_run_is_an_error_and_listed(runs: Any, tmp_path: Path) -> None:
    write(runs, "alpha")
    place = runs.run("beta", dataset="data-x", protocol="standard", record=record())
    data = (place / "cases.csv").read_bytes()
    (place / "cases.csv").write_bytes(data[: len(data) // 2])
    result = report(runs, tmp_path, format="json,markdown")
    assert result.exit_code == 3
    assert "cut short" in next(item.message for item in result.guards if item.code == "missing-cases")
    assert "cut short" in (tmp_path / "out" / "tables" / "missing.md").read_text()


def test_failed_cells_show_their_state(runs: Any, tmp_path: Path) -> None:
    """A model without a number stands in the table by its failure class, never as nothing."""
    write(runs, "alpha", skill=0.7)
    write(runs, "beta", dataset="data-y")
    for model, failure, machine in (
        ("beta", {"class": "oom"}, {"gpu": {"memory_bytes": 24 * 2**30}}),
        ("gamma", {"class": "diverged"}, {}),
    ):
        rows = runs.rows(model, dataset="data-x", protocol="standard", cases=1)
        runs.write(rows, status="failed", record=record(status="failed", failure=failure, machine=machine))
    write(runs, "gamma", dataset="data-y")
    report(runs, tmp_path, format="json,markdown")
    text = (tmp_path / "out" / "tables" / "main.md").read_text()
    assert "OOM (24 GiB)" in next(line for line in text.splitlines() if line.startswith("| beta"))
    assert "diverged" in next(line for line in text.splitlines() if line.startswith("| gamma"))


def test_folds_at_hand_that_differ_leave_no_rank(runs: Any, tmp_path: Path) -> None:
    for fold in range(2):
        write(runs, "alpha", fold=fold, changes={"split": {"digest": f"{fold}" * 64}})
    write(runs, "beta", skill=0.9, changes={"split": {"digest": "0" * 64}})
    result = report(runs, tmp_path)
    rows = {row["model"]: row for row in result.document["summary"] if row["region"] == "WT"}
    assert (rows["alpha"]["n"], rows["beta"]["n"]) == (60, 30)
    assert rows["beta"]["n_missing"] == 0
    assert rows["beta"]["rank"] is None
    assert "cases-differ" in codes(result)
    assert all(pair["n"] == 30 for pair in result.document["pairwise"])


def test_every_code_has_a_severity() -> None:
    assert set(SEVERITY.values()) == {"error", "warn", "info"}
    assert len(SEVERITY) == 18
