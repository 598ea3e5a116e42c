"""Runs are checked when they are read: a damaged one is left out by name, the others are read on."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbench.core.errors import SegbenchError
from segbench.metrics.policies import POLICIES, STATUSES, filled_value
from segbench.metrics.registry import METRICS
from segbench.records import facts
from segbench.report.read.rows import UnusableRowsError, read_table
from segbench.report.read.runs import Run, read_runs

REPOSITORY = Path(__file__).resolve().parents[2]
COLUMNS = ("dice", "hd95", "nsd")


def one(path: Path, *, allow_edited: bool = False) -> Run:
    (run,) = read_runs([path], allow_edited=allow_edited)
    return run


def with_cell(runs: Any, column: str, value: str, **changes: Any) -> Run:
    """A run of six rows, the fourth of which holds the value; read beside a sound run."""
    rows = [{**row, **changes} for row in runs.rows("alpha", cases=2)]
    rows[3] = {**rows[3], column: value}
    columns = [*rows[0], *([] if column in rows[0] else [column])]
    place = runs.write(rows, columns=columns)
    runs.run("beta", cases=2)
    found = {run.model: run for run in read_runs([runs.root])}
    assert found["beta"].rows is not None, "one run never ends the report of the others"
    assert found["alpha"].folder == place
    return found["alpha"]


def seal(place: Path, **fields: Any) -> None:
    """Write the digest of cases.csv into run.json, as a run does when it ends."""
    record = json.loads((place / "run.json").read_text())
    sha = hashlib.sha256((place / "cases.csv").read_bytes()).hexdigest()
    (place / "run.json").write_text(json.dumps({**record, "digests": {"cases": sha}, **fields}))


BOARDS = REPOSITORY / "results" / "leaderboard"


@pytest.mark.parametrize("board", sorted(path.parent.name for path in BOARDS.glob("*/runs")))
def test_the_committed_runs_of_each_board_are_sound(board: str) -> None:
    """By board: one seed may have been run on two machines, and these are two results under one id."""
    found = read_runs([BOARDS / board])
    assert [run.problem for run in found] == [""] * len(found)
    assert all(run.rows is not None and not run.edited and run.complete for run in found)


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("dice", "1.2", "0 to 1"),
        ("dice", "-0.001", "0 to 1"),
        ("nsd", "85.2", "0 to 1"),
        ("dice", "inf", "0 to 1"),
        ("hd95", "-3", "0 to 250"),
        ("hd95", "250.1", "0 to 250"),
        ("hd95", "inf", "0 to 250"),
        ("hd95", "1e999", "0 to 250"),
        ("lesions_fp", "-1", "0 or more"),
        ("relative_volume_error", "-1.5", "-1 or more"),
        ("diagonal_mm", "-250", "0 or more"),
        ("diagonal_mm", "inf", "0 or more"),
        ("reference_voxels", "-7", "0 or more"),
    ],
)
def test_a_value_that_no_metric_gives(runs: Any, column: str, value: str, allowed: str) -> None:
    run = with_cell(runs, column, value)
    assert run.rows is None
    assert f"cases.csv line 5, column {column}: {value!r} is outside {allowed}" in run.problem


@pytest.mark.parametrize(
    "value", ["0,5", "0x1p-1", "1_0", " 0.5", "+0.5", "nan", "NaN", "٠", "½", "0.5 ", "--1"]
)
@pytest.mark.parametrize("column", ["dice", "diagonal_mm"])
def test_numbers_are_spelled_plainly(runs: Any, column: str, value: str) -> None:
    run = with_cell(runs, column, value)
    assert run.rows is None
    assert f"column {column}" in run.problem
    assert "line 5" in run.problem
    assert repr(value) in run.problem


@pytest.mark.parametrize(
    "value", ["0.5", "1", "0", "1e-05", "5e-324", "0.99999999999999989", "", "1.0000000000000002"]
)
def test_numbers_as_segbench_writes_them(runs: Any, value: str) -> None:
    run = with_cell(runs, "dice", value)
    assert run.rows is not None, run.problem
    got = run.rows.metrics["dice"][3]
    assert got == float(value) if value else math.isnan(got)


@pytest.mark.ci
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    policy=st.sampled_from(sorted(POLICIES)),
    status=st.sampled_from(STATUSES),
    diagonal=st.sampled_from([20.0, 120.5, 1e4]),
    told=st.booleans(),
)
def test_what_a_policy_fills_in_is_allowed(
    runs: Any, policy: str, status: str, diagonal: float, told: bool
) -> None:
    """Penalties of 50 and 374 mm may exceed the grid; infinity stands only where the policy puts it."""
    record = {"metric_profile": {"name": "p", "empty_policy": policy}} if told else {}
    names = [name for name, info in METRICS.items() if info.group == "region" and not info.descriptive]
    row = runs.rows("alpha", cases=1, regions=("TC",), diagonal=diagonal)[0] | {"status": status}
    if status != "ok":
        row |= {name: filled_value(name, status, policy=policy, diagonal_mm=diagonal) for name in names}
    row = {key: "inf" if value == math.inf else value for key, value in row.items()}
    run = one(runs.write([row], record=record, folder="one"))
    assert run.rows is not None, run.problem
    row |= {"hd95": "inf"}
    allowed = status not in {"ok", "both_empty"} and (policy == "inf" or not told)
    again = one(runs.write([row], record=record, folder="one"))
    if policy != "nan" or status == "ok":
        assert (again.rows is not None) is allowed


def test_an_edited_file_is_left_out_until_allowed(runs: Any) -> None:
    place = runs.run("alpha", cases=2)
    seal(place)
    assert one(place).rows is not None
    text = (place / "cases.csv").read_text()
    lines = text.splitlines(keepends=True)
    (place / "cases.csv").write_text("".join(lines[:-3]))  # cut at a line's end, still well formed
    assert one(place).rows is None
    assert "changed after it was written" in one(place).problem
    run = one(place, allow_edited=True)
    assert run.edited
    assert run.rows is not None
    (place / "cases.csv").write_text(
        text.replace(lines[1], lines[1].replace(",ok,", ",ok,,").replace(",,", ",9,", 1))
    )
    assert one(place, allow_edited=True).rows is None, "values that no metric gives are never taken"


@pytest.mark.parametrize(
    ("column", "value"),
    [("model", "other"), ("dataset", "x"), ("protocol", "y"), ("fold", "1"), ("seed", "1"), ("run_id", "z")],
)
@pytest.mark.parametrize("all_rows", [True, False])
def test_rows_of_another_run(runs: Any, column: str, value: str, all_rows: bool) -> None:
    """In whatever column of the identity, in every row or in one, and whoever of record and id says so."""
    rows = runs.rows("alpha", cases=2)
    place = runs.write(rows)
    named = json.loads((place / "run.json").read_text())["run_id"]
    for number in range(len(rows)) if all_rows else [4]:
        rows[number] = {**rows[number], column: value}
    runs.write(rows, folder=place.name, record={"run_id": named})
    run = one(place)
    assert run.rows is None
    assert f"line {2 if all_rows else 6}, column {column}: {value!r}" in run.problem
    assert run.model == "alpha"
    allowed = one(place, allow_edited=True)
    assert allowed.edited
    assert (allowed.model, allowed.run_id, allowed.seed) == ("alpha", named, 0)


def test_the_record_names_the_run(runs: Any) -> None:
    record = {"model": {"slug": "gamma"}, "run_id": "my own name"}
    rows = [{**row, "run_id": ""} for row in runs.rows("alpha", cases=1)]
    run = one(runs.write(rows, record=record))
    assert "but run.json says 'gamma'" in run.problem
    assert run.model == "gamma"


def test_a_case_twice_is_left_out(runs: Any) -> None:
    rows = runs.rows("alpha", cases=3)
    runs.write([*rows, rows[1]])
    runs.run("beta")
    found = {run.model: run for run in read_runs([runs.root])}
    assert "lines 3 and 11" in found["alpha"].problem
    assert found["beta"].rows is not None


def test_one_id_with_two_contents_is_refused(runs: Any) -> None:
    rows = runs.rows("alpha", cases=2)
    runs.write(rows, folder="a")
    runs.write(rows, folder="b")
    assert len(read_runs([runs.root])) == 2  # a copy: told and counted once by the analysis
    runs.write([{**row, "dice": 0.5} for row in rows], folder="b")
    with pytest.raises(SegbenchError) as found:
        read_runs([runs.root])
    assert found.value.code == "SB702"
    (runs.root / "b" / "cases.csv").write_text("")  # damaged: told by name, no longer a second content
    assert sorted(run.problem for run in read_runs([runs.root])) == ["", "cases.csv is empty"]


def test_equal_numbers_under_two_ids_are_seen(runs: Any) -> None:
    rows = runs.rows("alpha", cases=2)
    runs.write(rows)
    copied = [{**row, "seed": 1, "run_id": row["run_id"].replace("__s0__", "__s1__")} for row in rows]
    runs.write(copied)
    runs.run("beta", cases=2)
    found = read_runs([runs.root])
    digests = {(run.model, run.seed): run.rows.digest for run in found if run.rows is not None}
    assert digests[("alpha", 0)] == digests[("alpha", 1)] != digests[("beta", 0)]


def test_quotes_line_ends_and_their_line_numbers(runs: Any) -> None:
    """The quick way of splitting and the csv module give the same columns, and lines as an editor counts."""
    rows = runs.rows("alpha", cases=3)
    place = runs.write(rows)
    plain = one(place)
    rows[0] = {**rows[0], "code": 'a, "b"'}
    runs.write(rows, folder=place.name)
    quoted = one(place)
    assert plain.rows is not None
    assert quoted.rows is not None
    assert plain.rows.digest == quoted.rows.digest
    assert quoted.rows.case == plain.rows.case
    rows[0] = {**rows[0], "code": "two\nlines"}
    rows[1] = {**rows[1], "dice": 2.0}
    runs.write(rows, folder=place.name)
    assert "line 4, column dice: '2'" in one(place).problem


@pytest.mark.parametrize(
    "text", ["\n", "a\n", "a,b\n1\n", "a,b\n\n1,2\n", 'a,"b\n', "\x00\n", "model,model\n1,2\n"]
)
def test_texts_that_are_no_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(UnusableRowsError):
        read_table(tmp_path / "cases.csv")
    assert one(tmp_path).rows is None


def test_a_file_without_a_record_is_left_out_and_says_how_it_becomes_a_run(runs: Any, tmp_path: Path) -> None:
    place = runs.run("alpha", cases=2)
    (place / "run.json").unlink()
    (place / "cases.csv").rename(tmp_path / "scores.csv")
    for path in (tmp_path / "scores.csv", place):
        (place / "cases.csv").write_text((tmp_path / "scores.csv").read_text())
        (found,) = read_runs([path])
        assert found.rows is None
        assert "segbench data import scores" in found.problem


FACTS = [
    getattr(facts, name) for name in dir(facts) if callable(getattr(facts, name)) and not name.startswith("_")
]
ODD = [
    None,
    1,
    -2.5,
    "text",
    [],
    [1, "a", None],
    {},
    {"slug": 3, "card": [], "gpu": "A100"},
    {"digest": 7},
    True,
]


@pytest.mark.ci
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_record_may_hold_anything(runs: Any, data: st.DataObject) -> None:
    """Any field beside the four required ones may be anything; it is then unknown and never an error."""
    from segbench.records.schema import RunRecord

    names = [
        name for name in RunRecord.model_fields if name not in {"schema_version", "run_id", "kind", "status"}
    ]
    inner = st.dictionaries(
        st.sampled_from(["slug", "card", "name", "test", "gpu", "x"]), st.sampled_from(ODD)
    )
    record = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from(ODD) | inner, max_size=6))
    for name in ("fold", "seed"):  # these would contradict the rows, which is another test
        record.pop(name, None)
    for name in ("model", "dataset", "protocol"):
        if isinstance(record.get(name), str) or (isinstance(record.get(name), dict) and name == "protocol"):
            record.pop(name)
        elif isinstance(record.get(name), dict):
            record[name] = {key: value for key, value in record[name].items() if key != "slug"}
    run = one(runs.write(runs.rows("alpha", cases=1), folder="odd", record=record))
    assert run.rows is not None, run.problem
    assert (run.model, run.dataset, run.protocol) == ("alpha", "phantom-brats", "external")
    for fact in FACTS:
        if fact.__module__ == facts.__name__ and fact not in {facts.table, facts.text, facts.flat}:
            fact(run.record)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "not valid JSON"),
        ("[1]", "not a record"),
        ("{}", "lacks schema_version"),
        ('{"schema_version": 99, "run_id": "a", "kind": "external", "status": "complete"}', "newer than"),
        ('{"schema_version": 1, "run_id": "a", "kind": "magic", "status": "complete"}', "unusable kind"),
        ('{"schema_version": 1, "run_id": {}, "kind": "external", "status": "complete"}', "unusable run_id"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a":' * 200 + "1" + "}" * 200, "not a record"),
    ],
)
def test_a_record_that_is_none(runs: Any, content: str, word: str) -> None:
    place = runs.run("alpha", cases=1)
    (place / "run.json").write_text(content)
    assert word in one(place).problem
    assert one(place).rows is None


def test_names_in_place_of_tables_are_understood(runs: Any) -> None:
    record = {"model": "alpha", "dataset": "phantom-brats", "protocol": "external", "metric_profile": "brats"}
    run = one(runs.run("alpha", cases=1, record=record))
    assert (run.model, run.problem) == ("alpha", "")
    assert facts.metric_profile(run.record) == {"name": "brats"}
