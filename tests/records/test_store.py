"""Records: what is written can be read by anyone, holds no NaN whose meaning is lost, and runs no formula."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest

from segbench.core.errors import SegbenchError
from segbench.records import (
    CASE_COLUMNS,
    Failure,
    RunRecord,
    append_case,
    cases_csv_text,
    find_runs,
    parse_run_id,
    read_case_lines,
    read_cases,
    read_run,
    run_id,
    write_cases_csv,
    write_run,
)


def record(**fields: object) -> RunRecord:
    return RunRecord(schema_version=1, run_id="a", kind="trained", status="complete", **fields)  # type: ignore[arg-type]


def test_a_record_round_trips_and_leaves_out_what_does_not_apply(tmp_path: Path) -> None:
    written = record(failure=Failure(failure_class="oom", code="SB504", message="m"), fold=0, seed=3)
    write_run(tmp_path, written)
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["failure"]["class"] == "oom"
    assert "degraded" not in content
    assert read_run(tmp_path) == written


def test_readers_need_four_fields_and_ignore_unknown_ones(tmp_path: Path) -> None:
    minimal = {
        "schema_version": 1,
        "run_id": "x",
        "kind": "external",
        "status": "complete",
        "later": {"a": 1},
    }
    (tmp_path / "run.json").write_text(json.dumps(minimal))
    assert read_run(tmp_path).seed is None
    for missing in ("schema_version", "run_id", "kind", "status"):
        (tmp_path / "run.json").write_text(json.dumps({k: v for k, v in minimal.items() if k != missing}))
        with pytest.raises(SegbenchError) as caught:
            read_run(tmp_path)
        assert caught.value.code == "SB602"


def test_a_newer_record_is_refused_by_name(tmp_path: Path) -> None:
    content = {"schema_version": 99, "run_id": "x", "kind": "trained", "status": "complete"}
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(SegbenchError) as caught:
        read_run(tmp_path)
    assert caught.value.code == "SB604"


def test_cases_are_sorted_the_last_record_wins_and_bytes_do_not_depend_on_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    rows = {c: [{"case": c, "region": r, "dice": 0.1} for r in ("b", "a")] for c in ("c2", "c1")}
    for folder, order in ((one, ("c2", "c1")), (two, ("c1", "c2"))):
        for case in order:
            append_case(folder, case, rows[case], inputs={"x": 1})
        write_cases_csv(folder, ["dice"])
    assert (one / "cases.csv").read_bytes() == (two / "cases.csv").read_bytes()
    assert [(r["case"], r["region"]) for r in read_cases(one)] == [
        ("c1", "a"),
        ("c1", "b"),
        ("c2", "a"),
        ("c2", "b"),
    ]
    append_case(one, "c1", [{"case": "c1", "region": "a", "dice": 0.9}], inputs={"x": 2})
    write_cases_csv(one, ["dice"])
    assert [r["dice"] for r in read_cases(one) if r["case"] == "c1"] == ["0.90000000000000002"]
    assert read_case_lines(one)["c1"]["inputs"] == {"x": 2}


def test_numbers_keep_every_bit_and_undefined_is_empty() -> None:
    values = [0.1, 1 / 3, 1e-300, math.pi, math.nan, math.inf, None]
    text = cases_csv_text([{"case": str(i), "dice": v} for i, v in enumerate(values)], ["dice"])
    read = [row["dice"] for row in csv.DictReader(text.splitlines())]
    assert [float(x) for x in read[:4]] == values[:4]
    assert read[4:] == ["", "inf", ""]
    assert text.splitlines()[0].split(",")[: len(CASE_COLUMNS)] == list(CASE_COLUMNS)


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_cell_is_a_formula(name: str) -> None:
    text = cases_csv_text([{"case": name}], [])
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["case"] == "'" + name.replace("\r", " ")


def test_a_short_row_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case,region,dice\na,r,0.5\nb,r\n")
    with pytest.raises(SegbenchError, match="line 3"):
        read_cases(tmp_path)


def test_run_ids_say_what_they_are_and_stay_in_their_folder() -> None:
    identity = run_id("a/../b", "d", "demo+custom", fold=2, seed=7, content={"x": 1})
    assert "/" not in identity
    parsed = parse_run_id(identity)
    assert parsed is not None
    assert (parsed.dataset, parsed.protocol, parsed.fold, parsed.seed) == ("d", "demo+custom", 2, 7)
    assert run_id("m", "d", "p", fold=0, seed=0, content={"x": 1}) != run_id(
        "m", "d", "p", fold=0, seed=0, content={"x": 2}
    )


def test_runs_are_found_in_a_folder_or_are_the_folder(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_run(tmp_path / name, record())
    (tmp_path / "c").mkdir()
    assert [p.name for p in find_runs(tmp_path)] == ["a", "b"]
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]
    assert find_runs(tmp_path / "nowhere") == []
