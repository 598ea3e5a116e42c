"""`--slices`: the table is read whole, groups of patients are tested, the worst one is named."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from segbench.core.errors import SegbenchError
from segbench.report import build_report
from segbench.report.analysis.slices import read_slices


def table(folder: Path, cases: int, columns: dict[str, Any], name: str = "participants.tsv") -> Path:
    rows = [["participant_id", *columns]]
    rows += [[f"sub-case-0{i:03d}", *(str(value(i)) for value in columns.values())] for i in range(cases)]
    path = folder / name
    path.write_text("\n".join("\t".join(row) for row in rows) + "\n", encoding="utf-8")
    return path


def planted(runs: Any, gap: float, cases: int = 60) -> None:
    """Two models; beta loses `gap` at every third case."""
    runs.run("alpha", cases=cases, seed=0)
    rows = runs.rows("beta", cases=cases)
    for row in rows:
        if int(row["case"][-3:]) % 3 == 0:
            row["dice"] -= gap
    runs.write(rows)


def test_a_planted_gap_is_named_on_the_first_page(runs: Any, tmp_path: Path) -> None:
    planted(runs, 0.1)
    path = table(
        tmp_path, 60, {"site": lambda i: "ABC"[i % 3], "age": lambda i: 20 + i, "one": lambda i: "x"}
    )
    result = build_report(runs.root, tmp_path / "report", slices=f"{path}:site,age,one")
    (found,) = [item for item in result.findings if item.code == "slices-differ"]
    assert "over site" in found.message
    assert "beta falls furthest short on site A" in found.message
    assert found.message in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report/tables/subgroups.csv").read_text())))
    assert {row["slice"] for row in rows} == {"site", "age", "one"}
    thirds = {(row["group"], row["least"], row["most"]) for row in rows if row["slice"] == "age"}
    assert thirds == {("small", "20", "39"), ("middle", "40", "59"), ("large", "60", "79")}
    assert {row["n"] for row in rows if row["slice"] == "site" and row["metric"] == "dice"} == {"20"}
    assert all(row["p"] == "" for row in rows if row["slice"] == "one")  # a single group is not tested
    tested = {row["slice"]: float(row["p_adjusted"]) for row in rows if row["p"] and row["metric"] == "dice"}
    assert tested["site"] < 0.01 < 0.05 < tested["age"]


def test_small_groups_and_unknown_patients_stay_out(runs: Any, tmp_path: Path) -> None:
    planted(runs, 0.1, cases=20)
    path = table(tmp_path, 18, {"site": lambda i: "A" if i < 3 else "B" if i < 10 else "n/a"})
    result = build_report(runs.root, tmp_path / "report", slices=f"{path}:site")
    assert "slices-differ" not in {item.code for item in result.findings}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report/tables/subgroups.csv").read_text())))
    assert {(row["group"], row["n"]) for row in rows} == {("B", "7")}


def test_without_slices_the_appendix_has_the_size(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=30)
    build_report(runs.root, tmp_path / "report", appendix=True)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report/tables/subgroups.csv").read_text())))
    sizes = {(row["slice"], row["group"], row["n"], row["p"]) for row in rows}
    assert sizes == {("reference_ml", size, "10", "") for size in ("small", "middle", "large")}


def test_patients_of_one_case_each_are_cases(runs: Any, tmp_path: Path) -> None:
    """A card that names patients changes nothing where none has two cases: as in BraTS."""
    card = {"layout": {"case_pattern": "case-(?P<patient>.+)"}, "patient": {"group": "patient"}}
    runs.run("alpha", cases=30, record={"dataset": {"slug": "phantom-brats", "card": card}})
    path = table(tmp_path, 30, {"site": lambda i: "AB"[i % 2]})
    build_report(runs.root, tmp_path / "report", appendix=True, slices=f"{path}:site", format="csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report/tables/subgroups.csv").read_text())))
    groups = {(row["slice"], row["group"], row["n"]) for row in rows}
    sizes = {("reference_ml", size, "10") for size in ("small", "middle", "large")}
    assert groups == sizes | {("site", "A", "15"), ("site", "B", "15")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "FILE:COLUMN"),
        ("{}:", "FILE:COLUMN"),
        ("{}:cite", "no column cite"),
        ("{}.gone:site", "not readable"),
        ("{}:twice", "two values"),
    ],
)
def test_tables_that_cannot_serve(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("case,site,twice\nc1,A,1\nc1,A,2\n", encoding="utf-8")
    with pytest.raises(SegbenchError, match=words) as caught:
        read_slices(text.format(path))
    assert caught.value.code == "SB104"


def test_a_table_of_other_cases_is_refused(runs: Any, tmp_path: Path) -> None:
    runs.run("alpha", cases=10)
    path = tmp_path / "t.csv"
    path.write_text("case,site\nother,A\n", encoding="utf-8")
    with pytest.raises(SegbenchError, match="no case of phantom-brats"):
        build_report(runs.root, tmp_path / "report", slices=f"{path}:site")
