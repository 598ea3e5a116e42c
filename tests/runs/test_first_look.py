"""Before the first long cell every dataset is verified and every model makes a step; short ones just run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from segbench.data import open_dataset
from segbench.launch import Job, Need
from segbench.records import read_run
from segbench.runs import build
from segbench.runs.cell import Execution, Plan, PlannedCell
from segbench.runs.drive import LONG_STEPS, first_looks, groups_of, look_first, write_plan
from segbench.runs.plan import Request, make_plan
from segbench.runs.runner import look_at_cell

MODELS = ("nnunet-tiny", "segmamba-v2-tiny", "mean-atlas")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated scans, made once."""
    folder = tmp_path_factory.mktemp("scans")
    for slug in ("phantom-msd", "phantom-brats"):
        open_dataset(slug, data_dir=folder)
    return folder


@pytest.fixture
def data(tmp_path: Path, generated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEGBENCH_THREADS", "1")
    shutil.copytree(generated, tmp_path / "data")
    return tmp_path / "data"


def plan_of(data: Path, *, samples: int, datasets: Sequence[str] = ("phantom-msd",), **how: object) -> Plan:
    """Two networks of two seeds each and a baseline, planned on disk; two samples are a step."""
    request = Request(
        models=how.pop("models", MODELS),  # type: ignore[arg-type]
        datasets=datasets,
        results=data.parent / "runs",
        protocol="demo",
        overrides={"budget.samples": samples, "patch.size": 32, "split.limit": 2, **how},
        seeds=(0, 1),
        data_dir=data,
    )
    plan = make_plan(request)
    write_plan(plan, Execution(device="cpu", data_dir=str(data)))
    return plan


def names(plan: Plan) -> list[str]:
    return [p.cell.model.slug for p in looks_of(plan)]


def looks_of(plan: Plan) -> list[PlannedCell]:
    return first_looks(plan.cells, *groups_of(plan.cells))


class Looks:
    """A launcher whose looks happen here."""

    name, detached, poll_s, slots = "looks", False, 0.0, 1

    def __init__(self) -> None:
        self.starts: list[str] = []

    def start(self, cells: Sequence[Path], need: Need) -> list[Job]:
        self.starts += [folder.name.partition("__")[0] for folder in cells]
        return [Job(folder, folder.name) for folder in cells]

    def poll(self, jobs: Sequence[Job]) -> list[Job]:
        return [
            job.now("done", exit_code=3 if look_at_cell(job.folder).status == "failed" else 0) for job in jobs
        ]

    def cancel(self, jobs: Sequence[Job]) -> None:
        raise AssertionError


def look(plan: Plan) -> tuple[list[str], dict[str, str]]:
    """Which models were looked at, and the endings by model and seed."""
    launcher = Looks()
    ended = look_first(launcher, plan.cells, *groups_of(plan.cells), lambda folder: Need())
    return launcher.starts, {f"{f.name.split('__')[0]} {f.name.split('__')[4]}": e for f, e in ended.items()}


@pytest.mark.ci
def test_one_cell_of_each_kind_where_the_trainings_are_long(data: Path) -> None:
    assert names(plan_of(data, samples=2 * LONG_STEPS)) == []
    plan = plan_of(data, samples=2 * LONG_STEPS + 2)
    assert sorted(names(plan)) == ["nnunet-tiny", "segmamba-v2-tiny"]
    assert {planned.cell.seed for planned in looks_of(plan)} == {0}
    assert names(plan_of(data, samples=1000, models=("nnunet-tiny", "mean-atlas"))) == []  # one kind of step


@pytest.mark.ci
def test_a_kind_that_has_trained_is_not_looked_at_again(data: Path) -> None:
    plan = plan_of(data, samples=1000)
    for planned in plan.cells:
        if planned.cell.model.slug == "nnunet-tiny" and planned.cell.seed == 1:
            (planned.cell.folder / "checkpoints" / "step-000000007").mkdir(parents=True)
            record = json.loads((planned.cell.folder / "run.json").read_text())
            (planned.cell.folder / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    plan = plan_of(data, samples=1000)
    assert names(plan) == ["segmamba-v2-tiny"]


def test_a_dataset_of_floors_alone_is_verified_too(data: Path) -> None:
    long = plan_of(data, samples=1000, models=("nnunet-tiny",))
    floors = plan_of(data, samples=1000, models=("mean-atlas",), datasets=("phantom-brats",))
    cells = (*long.cells, *floors.cells)
    chosen = first_looks(cells, *groups_of(cells))
    assert [p.cell.dataset.slug for p in chosen] == ["phantom-msd", "phantom-brats"]


def test_what_is_whole_is_noted_once_and_left_planned(data: Path) -> None:
    plan = plan_of(data, samples=1000)
    starts, ended = look(plan)
    assert (sorted(starts), ended) == (["nnunet-tiny", "segmamba-v2-tiny"], {})
    for planned in looks_of(plan):
        folder = planned.cell.folder
        assert read_run(folder).status == "planned"
        noted = json.loads((folder / "startup.json").read_text())
        assert (noted["device"], noted["schema_version"]) == ("cpu", 1)
        assert (folder / "stages" / "verify.json").is_file()
        assert "one step on zeros" in (folder / "log.txt").read_text()
        assert not (folder / "checkpoints").exists()
        before = (folder / "startup.json").stat().st_mtime_ns
        look_at_cell(folder)
        assert (folder / "startup.json").stat().st_mtime_ns == before


@pytest.mark.ci
def test_a_model_that_does_not_fit_ends_its_own_cells_only(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build.build_seeded

    def too_large(context: object) -> torch.nn.Module:
        if context.model.slug == "segmamba-v2-tiny":  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("no more")
        return whole(context)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "build_seeded", too_large)
    plan = plan_of(data, samples=1000)
    _, ended = look(plan)
    assert ended == {"segmamba-v2-tiny s0": "failed", "segmamba-v2-tiny s1": "failed"}
    for planned in plan.cells:
        record = read_run(planned.cell.folder)
        if planned.cell.model.slug != "segmamba-v2-tiny":
            assert record.status == "planned"
            continue
        failure = record.failure
        assert failure is not None
        assert (record.status, failure.failure_class, failure.code) == ("failed", "oom", "SB504")
        assert ("not started" in failure.message) == (planned.cell.seed == 1)
    monkeypatch.setattr(build, "build_seeded", whole)  # mended: the same command looks and goes on
    assert look(plan_of(data, samples=1000))[1] == {}
    assert {read_run(p.cell.folder).failure for p in plan.cells if p.cell.seed == 0} == {None}


def test_damaged_data_ends_every_cell_that_reads_them(data: Path) -> None:
    case = plan_of(data, samples=1000).cells[0].cell.split.train[0]
    (scan,) = data.rglob(f"imagesTr/{case}*.nii.gz")
    scan.write_bytes(scan.read_bytes()[:-20])
    plan = plan_of(data, samples=1000)
    starts, ended = look(plan)
    assert len(starts) == 1  # the second look would have read the same scans
    assert list(ended.values()) == ["failed"] * 5
    for planned in plan.cells:
        failure = read_run(planned.cell.folder).failure
        assert failure is not None and failure.failure_class == "data"
