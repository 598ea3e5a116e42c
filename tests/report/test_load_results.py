"""Records in: the tidy frame, tolerance of absent fields, strictness about rows, and the missing policy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbench.core.errors import SegbenchError
from segbench.metrics.policies import POLICIES
from segbench.metrics.registry import METRICS
from segbench.report import load_results
from segbench.report.analysis.analysis import FRAME_COLUMNS
from segbench.report.analysis.arrays import fill
from segbench.report.analysis.blocks import STATUS_CODE
from segbench.report.read.runs import read_runs


def test_the_frame_is_long_and_sorted(runs: Any) -> None:
    runs.run("beta", cases=3, seed=1)
    runs.run("alpha", cases=3)
    frame = load_results(runs.root)
    assert tuple(frame.columns) == FRAME_COLUMNS
    assert len(frame) == 2 * 3 * 3 * 3
    keys = frame[list(FRAME_COLUMNS[:8])].apply(tuple, axis=1).tolist()
    assert keys == sorted(keys)
    one = frame.query("model == 'alpha' and region == 'WT' and metric == 'dice' and case == 'case-0001'")
    stored = next(r for r in runs.rows("alpha", cases=3) if r["case"] == "case-0001" and r["region"] == "WT")
    assert one.value.item() == stored["dice"]  # 17 digits survive the file


def test_shuffled_rows_and_columns_give_the_same_frame(runs: Any, factory_at: Any, tmp_path: Path) -> None:
    rows = runs.rows("alpha", cases=4)
    runs.write(rows)
    other = factory_at(tmp_path / "other")
    other.write(rows[::-1], folder="renamed", columns=list(reversed(rows[0])))
    first, second = load_results(runs.root), load_results(other.root)
    assert first.equals(second)
    digests = [read_runs([root])[0].rows.digest for root in (runs.root, other.root)]  # type: ignore[union-attr]
    assert digests[0] == digests[1]


def test_only_four_fields_of_the_record_are_required(runs: Any) -> None:
    place = runs.run("alpha", cases=2, record={"unknown_key": {"deep": 1}, "protocol": None, "split": "odd"})
    assert len(load_results(place)) == 18
    record = json.loads((place / "run.json").read_text())
    del record["kind"]
    (place / "run.json").write_text(json.dumps(record))
    with pytest.raises(SegbenchError, match="no usable run") as found:
        load_results(place)
    assert found.value.code == "SB701"
    assert any("lacks kind" in line for line in found.value.details)


def test_optional_columns_may_be_absent(runs: Any) -> None:
    rows = runs.rows("alpha", cases=2)
    columns = [c for c in rows[0] if c not in {"diagonal_mm", "penalised", "code", "reference_volume_ml"}]
    runs.write(rows, columns=columns)
    assert len(load_results(runs.root)) == 18


def test_bom_and_crlf_are_read(runs: Any) -> None:
    place = runs.run("alpha", cases=2)
    text = (place / "cases.csv").read_text()
    (place / "cases.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_results(place).value.notna().all()


def test_a_name_defused_for_spreadsheets_comes_back(runs: Any) -> None:
    runs.write([{**row, "model": "'=cmd"} for row in runs.rows("=cmd", cases=1)])
    assert set(load_results(runs.root).model) == {"=cmd"}


@pytest.mark.parametrize("keep", [0.2, 0.55, 0.9, -1])
def test_a_cut_file_is_refused_not_shortened(runs: Any, keep: float) -> None:
    """At 20, 55, 90 %, and one byte short: never a number from half a file."""
    place = runs.run("alpha", cases=5)
    data = (place / "cases.csv").read_bytes()
    (place / "cases.csv").write_bytes(data[: int(keep * len(data))] if keep > 0 else data[:-1])
    with pytest.raises(SegbenchError) as found:
        load_results(place)
    assert found.value.code == "SB701"
    assert any("cut short" in line for line in found.value.details)


def test_a_file_cut_at_a_line_end_is_seen_by_its_stage(runs: Any) -> None:
    place = runs.run("alpha", cases=5)
    lines = (place / "cases.csv").read_bytes().splitlines(keepends=True)
    outputs = [{"path": "cases.csv", "bytes": sum(map(len, lines)), "sha256": ""}]
    (place / "stages").mkdir()
    (place / "stages" / "evaluate.json").write_text(json.dumps({"outputs": outputs}))
    assert len(load_results(place)) == 45
    (place / "cases.csv").write_bytes(b"".join(lines[:-2]))
    with pytest.raises(SegbenchError):
        load_results(place)


def test_duplicate_rows_name_both_lines(runs: Any) -> None:
    rows = runs.rows("alpha", cases=3)
    runs.write([*rows, rows[1]])
    with pytest.raises(SegbenchError) as found:
        load_results(runs.root)
    assert found.value.code == "SB701"
    assert "lines 3 and 11" in found.value.details[0]


def test_no_common_case_is_an_error(runs: Any) -> None:
    runs.run("alpha", cases=2)
    runs.write([{**row, "case": "other-" + row["case"]} for row in runs.rows("beta", cases=2)])
    with pytest.raises(SegbenchError) as found:
        load_results(runs.root)
    assert found.value.code == "SB705"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"status": "fine"}, "unknown status"),
        ({"region": "mean"}, "called 'mean'"),
        ({"dice": "high"}, "text in the metric column dice"),
        ({"seed": "first"}, "column seed: 'first'"),
        ({"model": ""}, "column model: ''"),
    ],
)
def test_rows_that_cannot_be_used(runs: Any, change: dict[str, str], word: str) -> None:
    runs.write([{**row, **change} for row in runs.rows("alpha", cases=1, regions=("TC",))])
    with pytest.raises(SegbenchError) as found:
        load_results(runs.root)
    assert any(word in line for line in found.value.details), found.value.details


def test_absent_cases_are_rows_at_their_worst(runs: Any) -> None:
    runs.run("alpha", cases=4)
    rows = [row for row in runs.rows("beta", cases=4) if row["case"] != "case-0002"]
    runs.write(rows)
    frame = load_results(runs.root)
    lost = frame.query("model == 'beta' and case == 'case-0002' and region == 'TC'").set_index("metric")
    assert set(lost.status) == {"missing"}
    assert lost.value.to_dict() == {"dice": 0.0, "hd95": 250.0, "nsd": 0.0}
    assert (frame.status == "missing").sum() == 9


def test_split_test_says_which_cases_are_expected(runs: Any) -> None:
    record = {"split": {"test": ["case-0000", "case-0001", "never-scored"]}}
    runs.run("alpha", cases=3, record=record)
    frame = load_results(runs.root)
    assert set(frame.case) == {"case-0000", "case-0001", "never-scored"}
    assert set(frame.query("case == 'never-scored'").status) == {"missing"}
    assert (
        frame.query("case == 'never-scored' and metric == 'hd95'").value.isna().all()
    )  # no diagonal anywhere


def test_drop_case_leaves_all_models(runs: Any) -> None:
    runs.run("alpha", cases=4)
    runs.write([row for row in runs.rows("beta", cases=4) if row["case"] != "case-0002"])
    frame = load_results(runs.root, missing="drop-case")
    assert "case-0002" not in set(frame.case)
    with pytest.raises(SegbenchError) as found:
        load_results(runs.root, missing="error")
    assert found.value.code == "SB215"
    assert found.value.exit_code == 4
    assert any("case-0002" in line for line in found.value.details)


def test_unfinished_runs_are_left_out_until_asked_for(runs: Any) -> None:
    runs.run("alpha", cases=3)
    runs.write(runs.rows("beta", cases=3)[:3], status="failed")
    assert set(load_results(runs.root).model) == {"alpha"}
    frame = load_results(runs.root, include_unfinished=True)
    assert set(frame.query("model == 'beta'").status) == {"ok", "missing"}


# ---- the missing policy itself

CASES = 4


def filled(
    status: str, stored: float, *, metric: str, policy: str | None = None, diagonal: float = 100.0
) -> float:
    values = np.full((CASES, 1, 1), 0.5)
    codes = np.full((CASES, 1), STATUS_CODE["ok"], dtype=np.uint8)
    values[0], codes[0] = stored, STATUS_CODE[status]
    return float(fill(values, codes, np.full(CASES, diagonal), [metric], empty_policy=policy)[0][0, 0, 0])


@pytest.mark.parametrize("status", ["missing", "unreadable", "geometry_mismatch"])
def test_failures_take_the_worst_whatever_is_stored(status: str) -> None:
    assert filled(status, 0.99, metric="dice") == 0.0
    assert filled(status, math.nan, metric="dice") == 0.0
    assert filled(status, 3.0, metric="hd95") == 100.0
    assert filled(status, 374.0, metric="hd95") == 374.0  # a worse stored penalty stays
    assert filled(status, math.inf, metric="hd95") == math.inf
    assert math.isnan(filled(status, 3.0, metric="hd95", diagonal=math.nan))  # not known: never a guess
    assert filled(status, 3.0, metric="lesionwise_hd95", diagonal=math.nan) == 374.0
    assert math.isnan(filled(status, 3.0, metric="relative_volume_error"))


def test_what_brats_2026_leaves_undefined_is_not_a_failure() -> None:
    nan = math.nan
    assert filled("missing", 373.0, metric="lesionwise_hd95", policy="brats2026", diagonal=nan) == 373.0
    assert math.isnan(filled("ok", nan, metric="lesionwise_dice", policy="brats2026"))
    assert filled("ok", nan, metric="lesionwise_dice", policy="brats") == 0.0
    assert filled("ok", nan, metric="dice", policy="brats2026") == 0.0
    assert filled("ok", math.inf, metric="lesionwise_hd95", policy="brats2026") == 373.0


def test_one_side_empty_keeps_a_finite_value() -> None:
    for status in ("prediction_empty", "reference_empty"):
        assert filled(status, 50.0, metric="hd95") == 50.0
        assert filled(status, math.nan, metric="hd95") == 100.0
        assert filled(status, math.nan, metric="recall") == 0.0


def test_both_empty_keeps_what_is_stored() -> None:
    assert filled("both_empty", 1.0, metric="dice") == 1.0
    assert math.isnan(filled("both_empty", math.nan, metric="dice"))


def test_a_metric_that_was_not_measured_stays_undefined() -> None:
    values = np.full((3, 1, 1), np.nan)
    codes = np.full((3, 1), STATUS_CODE["ok"], dtype=np.uint8)
    codes[0] = STATUS_CODE["missing"]
    assert np.isnan(fill(values, codes, np.full(3, 9.0), ["hd95"], empty_policy=None)[0]).all()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metric=st.sampled_from(["dice", "hd95", "nsd", "recall", "assd", "lesionwise_hd95"]),
    policy=st.sampled_from(sorted(POLICIES)),
    statuses=st.lists(st.sampled_from(sorted(STATUS_CODE)), min_size=3, max_size=8),
    data=st.data(),
)
def test_losing_a_case_never_helps(
    metric: str, policy: str, statuses: list[str], data: st.DataObject
) -> None:
    """For each policy and metric: turning any row into missing, or deleting it, never improves the mean."""
    from segbench.metrics.policies import filled_value

    diagonal = 120.0
    info = METRICS[metric]
    measured = st.floats(0, 1) if info.unit == "1" else st.floats(0, diagonal)

    def stored(status: str) -> float:
        if status == "ok" or info.group != "region":
            return data.draw(measured)
        return filled_value(metric, status, policy=policy, diagonal_mm=diagonal)

    values = np.array([stored(status) for status in statuses])[:, None, None]
    codes = np.array([STATUS_CODE[status] for status in statuses], dtype=np.uint8)[:, None]

    def mean(v: np.ndarray, s: np.ndarray) -> float:
        out = fill(v, s, np.full(len(v), diagonal), [metric], empty_policy=policy)[0]
        known = out[~np.isnan(out)]
        return float(np.mean(known)) if known.size else math.nan

    before = mean(values, codes)
    place = data.draw(st.integers(0, len(statuses) - 1))
    for kept in (values[place, 0, 0], math.nan):  # the row stays with its value, or is gone
        changed, lost = values.copy(), codes.copy()
        changed[place], lost[place] = kept, STATUS_CODE["missing"]
        after = mean(changed, lost)
        if math.isnan(after) or (math.isnan(before)):
            continue
        worse = after <= before + 1e-12 if info.direction == "higher" else after >= before - 1e-9
        assert worse, (before, after)
