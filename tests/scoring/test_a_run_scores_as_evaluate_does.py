"""A run's evaluate stage takes the path of `segbench evaluate`: its cores, and nothing lost with a worker."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import preloaded
import pytest

from segbench.records import read_run
from segbench.runs.api import run
from segbench.runs.runner import run_cell
from segbench.scoring import cases as scoring_cases

POOL = (
    "import sys; from segbench.data import workers; from segbench.scoring import cases\n"
    "cases.SMALL_BYTES = 0\n"
    "real = workers._Pool._spawn\n"
    "def spawn(self): print('a worker begins', file=sys.stderr); return real(self)\n"
    "workers._Pool._spawn = spawn\n"
    "from segbench.cli.main import entry_point; entry_point()"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of a baseline on generated scans, planned for two threads."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGBENCH_THREADS", "2")
        patch.setenv("SEGBENCH_NO_NUMBA", "1")
        patch.setenv("SEGBENCH_CACHE", str(root / "cache"))
        ((planned, record),) = run(
            "mean-atlas",
            "phantom-msd",
            split="random-40-10-50",
            results=root / "runs",
            data_dir=root / "data",
        ).cells
    assert record is not None and record.status == "complete"
    return planned.cell.folder


@pytest.fixture
def cell(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_DATA", str(finished.parents[1] / "data"))
    monkeypatch.setenv("SEGBENCH_THREADS", "2")
    monkeypatch.setenv("SEGBENCH_NO_NUMBA", "1")
    monkeypatch.setenv("SEGBENCH_CACHE", str(finished.parents[1] / "cache"))
    return Path(shutil.copytree(finished, tmp_path / "runs" / finished.name))


def lines_of(folder: Path) -> dict[str, dict[str, Any]]:
    lines = map(json.loads, (folder / "cases.jsonl").read_text().splitlines())
    return {line["case"]: {key: line[key] for key in ("rows", "reference", "notes")} for line in lines}


@pytest.mark.ci
@pytest.mark.parametrize("fault", ["worker:2:kill", pytest.param("worker:1:kill", marks=pytest.mark.slow)])
def test_a_killed_worker_leaves_the_same_rows_or_names_its_case(cell: Path, fault: str) -> None:
    table, lines, before = (cell / "cases.csv").read_bytes(), lines_of(cell), read_run(cell)
    command = ("-c", POOL, "cell", str(cell.resolve()), "--fresh", "evaluate")
    done = preloaded.run(*command, env={**os.environ, "SEGBENCH_FAULT": fault})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("a worker begins") > 2, "two processes scored, and one at least was replaced"
    after = read_run(cell)
    assert after.references == before.references
    if fault == "worker:2:kill":  # each case is some worker's first task in the end
        assert (cell / "cases.csv").read_bytes() == table
        assert lines_of(cell) == lines
        assert after.digests == before.digests
    else:
        assert {row["code"] for line in lines_of(cell).values() for row in line["rows"]} == {"SB503"}
        (told,) = (text for text in after.warnings or () if "SB503" in text)
        assert sum(case in told for case in lines) == min(3, len(lines))  # three and a count


@pytest.mark.ci
def test_a_stage_begun_again_scores_only_what_is_left(cell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_cell(cell, fresh="evaluate")  # the fixture is a copy: its files are not those that were stamped
    table, kept = (cell / "cases.csv").read_bytes(), (cell / "cases.jsonl").read_text().splitlines()
    real, scored = scoring_cases.ordered_map, list[str]()

    def watched(function: Any, tasks: Any, *more: Any, **named: Any) -> Any:
        for task, *answer in real(function, tasks, *more, **named):
            scored.append(task.case)
            yield task, *answer

    monkeypatch.setattr(scoring_cases, "ordered_map", watched)
    monkeypatch.setattr("segbench.runs.runner.drop_from", lambda folder, stage: forget(folder, kept[:2]))
    record = run_cell(cell, fresh="evaluate")
    assert record.status == "complete"
    assert len(kept) > 3
    assert scored == [json.loads(line)["case"] for line in kept[2:]]
    assert (cell / "cases.csv").read_bytes() == table


def forget(folder: Path, lines: list[str]) -> None:
    """What a run that was killed in its evaluate stage leaves."""
    from segbench.runs.stages import drop_from

    drop_from(folder, "evaluate")
    (folder / "cases.jsonl").write_text("".join(line + "\n" for line in lines))


def test_a_prediction_the_model_did_not_make_says_why(cell: Path) -> None:
    from segbench.runs.results import _predictions

    manifest = cell / "predictions" / "manifest.jsonl"
    case = json.loads(manifest.read_text().splitlines()[0])["case"]
    with manifest.open("a") as stream:
        stream.write(json.dumps({"case": case, "error": "out of memory", "code": "SB504"}) + "\n")
    context = SimpleNamespace(folder=cell, split=SimpleNamespace(test=(case, "unknown")))
    found = _predictions(context)  # type: ignore[arg-type]
    assert found.absent == {case: "out of memory", "unknown": "the model made none"}
    assert found.paths == {case: None, "unknown": None}
