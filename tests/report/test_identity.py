"""Runs that differ in more than fold and seed are never averaged, nor tested where data or rules differ."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbench.core.errors import SegbenchError
from segbench.records.conditions import identity_of
from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.options import make_options
from segbench.report.read.runs import read_runs

REGIONS = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
CASES = [f"case-0{number:03d}" for number in range(12)]
QUICK = {"resamples": 100}


def record() -> dict[str, Any]:
    """The record of a run whose every part of the identity is known."""
    return {
        "kind": "trained",
        "model": {
            "slug": "mine",
            "arguments": {"width": 8},
            "card": {"implementation": "mynet:MyNet", "arguments": {"depth": 3}, "family": "convolution"},
        },
        "code": {"package": "mynet", "digest": "1" * 64},
        "dataset": {"slug": "data-x", "digest": "2" * 64},
        "protocol": {"name": "standard", "optimiser": {"lr": 0.01}, "budget": {"samples": 100}},
        "split": {"name": "patient-safe", "digest": "3" * 64, "test": CASES},
        "metric_profile": {
            "name": "honest",
            "digest": "4" * 64,
            "empty_policy": "worst",
            "regions": REGIONS,
            "nsd_tolerance": 1.0,
        },
        "references": {case: f"{number:064x}" for number, case in enumerate(CASES)},
    }


def at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one field of a record."""

    def change(content: dict[str, Any]) -> None:
        *above, last = path.split("/")
        for name in above:
            content = content[name]
        content[last] = value

    return change


ROWS = {  # what makes another row that may be compared: the recipe and the model
    "protocol field": at("protocol/optimiser/lr", 0.02),
    "new protocol field": at("protocol/budget/epochs", 3),
    "card argument": at("model/card/arguments/depth", 4),
    "argument as built": at("model/arguments/width", 16),
    "implementation": at("model/card/implementation", "mynet:Other"),
    "code": at("code/digest", "a" * 64),
    "unknown code": at("code", None),
}
BLOCKS = {  # what may not be compared: data, split and rules, with the word that has to be named
    "split digest": (at("split/digest", "b" * 64), "split differs (fold 0"),
    "references": (
        at("references", {case: "c" * 64 for case in CASES}),
        "reference label map differs (case-0000",
    ),
    "tolerance": (at("metric_profile/nsd_tolerance", 2.0), "NSD tolerance of WT (mm)"),
    "region labels": (at("metric_profile/regions", {**REGIONS, "WT": [1, 2]}), "labels of region WT"),
    "profile": (at("metric_profile/digest", "d" * 64), "metric profile"),
    "empty policy": (at("metric_profile/empty_policy", "nan"), "empty policy"),
    "lesion parameters": (at("metric_profile/lesionwise", {"dilation": 3}), ""),
}


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    content = copy.deepcopy(record())
    change(content)
    return content


def write(runs: Any, content: dict[str, Any], *, seed: int, folder: str, skill: float = 0.8) -> None:
    rows = runs.rows("mine", dataset="data-x", protocol="standard", seed=seed, cases=12, skill=skill)
    run_id = f"{rows[0]['run_id']}-{folder}"
    runs.write(
        [{**row, "run_id": run_id} for row in rows], record={**content, "run_id": run_id}, folder=folder
    )


def analysed(runs: Any, **options: Any) -> Any:
    return analyse([runs.root], make_options(**{**QUICK, **options}))


def test_seeds_and_folds_alone_join(runs: Any) -> None:
    for seed in range(3):
        write(runs, record(), seed=seed, folder=f"s{seed}")
    (entry,) = analysed(runs).entries
    assert (entry.label, len(entry.runs)) == ("mine", 3)
    digests = {identity_of(run.record).digest for run in read_runs([runs.root])}
    assert len(digests) == 1


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("seed", [0, 1])
def test_another_recipe_or_model_is_a_row_of_its_own(runs: Any, name: str, seed: int) -> None:
    """Whether or not the seeds are the same: never one mean over two recipes."""
    write(runs, record(), seed=0, folder="one", skill=0.6)
    write(runs, changed(ROWS[name]), seed=seed, folder="two", skill=0.9)
    found = analysed(runs)
    assert len(found.entries) == 2
    assert len({entry.label for entry in found.entries}) == 2
    assert len(found.blocks) == 1
    means = sorted(mean.value for mean in found.main_columns()[0].means.values())
    assert means[0] < 0.65 < 0.75 < means[1]


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_other_data_or_rules_are_set_apart_and_not_tested(runs: Any, name: str, seed: int) -> None:
    change, word = BLOCKS[name]
    write(runs, record(), seed=0, folder="one", skill=0.6)
    write(runs, changed(change), seed=seed, folder="two", skill=0.9)
    found = analysed(runs)
    assert len(found.entries) == 2
    if word:
        assert len(found.blocks) == 2
        message = next(item.message for item in found.findings if item.code == "not-comparable")
        assert word in message, message
        assert all(not column.comparisons for column in found.columns.values())
        assert found.exit_code == 3


def test_a_dataset_of_other_content_is_not_compared_where_references_are_unknown(runs: Any) -> None:
    for folder, digest in (("one", "2" * 64), ("two", "e" * 64)):
        content = record() | {"references": None}
        content["dataset"]["digest"] = digest
        write(runs, content, seed=0, folder=folder)
    found = analysed(runs)
    assert (len(found.entries), len(found.blocks)) == (2, 2)
    assert "dataset files" in next(i.message for i in found.findings if i.code == "not-comparable")


def test_one_prediction_folder_after_another_under_one_name_is_refused(runs: Any) -> None:
    for folder, skill in (("v1", 0.6), ("v2", 0.9)):
        content = record() | {"kind": "external", "code": None, "external": {"prediction": folder}}
        content["model"] = {"slug": "mine"}
        write(runs, content | {"created": f"2026-01-0{folder[1]}"}, seed=0, folder=folder, skill=skill)
    with pytest.raises(SegbenchError) as caught:
        analysed(runs)
    assert caught.value.code == "SB702"
    text = caught.value.message + " ".join(caught.value.details) + (caught.value.mend or "")
    for word in ("-v1", "-v2", "--select", "--name"):
        assert word in text
    (mean,) = analysed(runs, select="newest").main_columns()[0].means.values()
    assert mean.value > 0.75


def test_a_region_that_was_not_asked_for_is_absent_not_missing(runs: Any) -> None:
    few = {"WT": REGIONS["WT"]}
    content = changed(at("metric_profile/regions", few))
    content["protocol"]["optimiser"]["lr"] = 0.5
    write(runs, record(), seed=0, folder="one")
    rows = [
        row
        for row in runs.rows("mine", dataset="data-x", protocol="standard", cases=12)
        if row["region"] == "WT"
    ]
    run_id = f"{rows[0]['run_id']}-two"
    runs.write(
        [{**row, "run_id": run_id} for row in rows], record={**content, "run_id": run_id}, folder="two"
    )
    found = analysed(runs)
    (block,) = found.blocks
    (absent,) = [scores.label for scores in block.scores if not scores.asked.all()]
    for column in found.columns.values():
        assert (absent in column.means) == (column.region == "WT")
        assert all(absent not in (pair.a, pair.b) for pair in column.comparisons if column.region != "WT")
    assert "missing-cases" not in {item.code for item in found.findings}
    assert "regions-differ" in {item.code for item in found.findings}


def test_a_copied_run_counts_once(runs: Any) -> None:
    rows = runs.rows("mine", dataset="data-x", protocol="standard", cases=12)
    for seed in range(2):
        named = [{**row, "seed": seed, "run_id": f"mine-s{seed}"} for row in rows]
        runs.write(named, record={**record(), "run_id": f"mine-s{seed}"}, folder=f"s{seed}")
    found = analysed(runs)
    (entry,) = found.entries
    assert (len(entry.runs), len(entry.copies)) == (1, 1)
    assert "copied-run" in {item.code for item in found.findings}


def test_a_copied_folder_is_told_and_counts_once(runs: Any) -> None:
    rows = runs.rows("mine", dataset="data-x", protocol="standard", cases=12)
    named = [{**row, "run_id": "mine-s0"} for row in rows]
    for folder in ("here", "there"):
        runs.write(named, record={**record(), "run_id": "mine-s0"}, folder=folder)
    found = analysed(runs)
    (entry,) = found.entries
    assert (len(entry.runs), len(entry.copies)) == (1, 1)
    (told,) = [item for item in found.findings if item.code == "copied-run"]
    assert "mine-s0" in told.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=2),
    max_leaves=3,
)
PATHS = [
    "model/card/implementation", "model/card/arguments/depth", "model/arguments/width",
    "protocol/optimiser/lr",
    "protocol/budget/samples", "code/digest", "dataset/digest", "split/name", "split/digest",
    "metric_profile/digest", "metric_profile/empty_policy", "metric_profile/nsd_tolerance",
    "metric_profile/regions", "metric_profile/spacing", "protocol/anything",
]  # fmt: skip


@pytest.mark.ci
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), value=JSON, same_seed=st.booleans())
def test_any_changed_field_keeps_two_runs_apart(
    factory_at: Any, tmp_path_factory: Any, path: str, value: Any, same_seed: bool
) -> None:
    """Two rows, or blocks with the field named, or SB702 with both runs: one mean of both is never seen."""
    content = changed(at(path, value))
    original: Any = record()
    for name in path.split("/"):
        original = original.get(name) if isinstance(original, dict) else None
    if original == value and type(original) is type(value):
        return
    runs = factory_at(tmp_path_factory.mktemp("identity") / "runs")
    write(runs, record(), seed=0, folder="one", skill=0.5)
    write(runs, content, seed=0 if same_seed else 1, folder="two", skill=0.95)
    try:
        found = analysed(runs)
    except SegbenchError as error:
        assert error.code == "SB702"
        assert "-one" in " ".join(error.details) and "-two" in " ".join(error.details)
        return
    for column in found.main_columns():
        for mean in column.means.values():
            assert mean.value is None or not 0.55 < mean.value < 0.85, (path, value)


@pytest.mark.parametrize(
    "changed",
    [
        {"channels": {"normalisation": ["ct"]}},
        {"geometry": {"spacing_mm": [2.0, 1.0, 1.0]}},
        {"evaluation": {"ignore_label": 3}},
    ],
)
def test_settings_of_the_dataset_card_are_part_of_the_identity(changed: dict[str, Any]) -> None:
    from segbench.records.schema import RunRecord

    def run(card: dict[str, Any]) -> RunRecord:
        dataset = {"slug": "d", "card": {"channels": {"normalisation": ["zscore"]}, **card}}
        return RunRecord(
            schema_version=1, run_id="m__d__p__f0__s0__00000000", kind="trained", status="complete",
            model={"slug": "m"}, dataset=dataset,
        )  # fmt: skip

    assert identity_of(run({})).digest == identity_of(run({})).digest
    assert identity_of(run(changed)).digest != identity_of(run({})).digest


def test_a_network_of_another_monai_is_another_row_and_an_unknown_one_stays_unknown(runs: Any) -> None:
    model = {"slug": "unetr", "card": {"implementation": "monai.networks.nets:UNETR"}}
    for seed, version in enumerate(("1.4.0", "1.4.0", "1.5.0", None)):
        versions = {} if version is None else {"versions": {"monai": version, "torch": "2"}}
        runs.run("unetr", seed=seed, record={"model": model, **versions})
    found = {
        entry.label: [run.seed for run in entry.runs]
        for entry in analyse([runs.root], make_options(**QUICK)).entries
    }
    assert found == {
        "unetr (monai 1.4.0)": [0, 1],
        "unetr (monai 1.5.0)": [2],
        "unetr (code not recorded)": [3],
    }
