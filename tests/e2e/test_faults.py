"""A run killed or out of disk at any of its writes: nothing final is torn, the same command ends alike."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import blosc2
import preloaded
import pytest
from safetensors.numpy import load_file

from segbench.core.atomic import read_lines
from segbench.core.hashing import sha256_file
from segbench.records import read_cases, read_run

FLAGS = (
    "--model", "nnunet-tiny", "--dataset", "phantom-msd", "--protocol", "demo", "--set", "budget.samples=4",
    "--set", "patch.size=16", "--set", "inference.overlap=0", "--limit", "2", "--device", "cpu",
    "--checkpoint-minutes", "0",
)  # fmt: skip


LIMITED = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)\n"
LIMITED += "from segbench.cli.main import entry_point; entry_point()"


def plan_cells(root: Path, environment: dict[str, str], *flags: str) -> None:
    """Plan the cells of FLAGS, and of further flags, in `root/planned`."""
    line = ("-m", "segbench", "run", *FLAGS, *flags, "--data-dir", str(root / "data"))
    done = preloaded.run(*line, "--results", str(root / "planned"), "--print-jobs", env=environment)
    assert done.returncode == 0, done.stderr


def run_cell(
    folder: Path, environment: dict[str, str], fault: str = "", limit: int | None = None
) -> tuple[int, str]:
    """Exit status (negative: killed) and output of `segbench cell`, with a cache beside the folder.

    Args:
        limit: Bytes beyond which no file may grow: the system's own "disk full".
    """
    begin = ("-m", "segbench") if limit is None else ("-c", LIMITED, str(limit))
    variables = {**environment, "SEGBENCH_CACHE": str(folder.parent / "cache"), "SEGBENCH_FAULT": fault}
    process = preloaded.Python(*begin, "cell", str(folder), "--no-progress", env=variables, merged=True)
    said, _ = process.communicate()
    return process.wait(), said


class Cells:
    """Fresh copies of one planned cell, run with faults."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **os.environ,
            "SEGBENCH_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "SEGBENCH_FAULT": "",
        }
        plan_cells(root, self.environment)
        (self.planned,) = (path.parent for path in (root / "planned").glob("*/run.json"))
        self.number = 0
        self.reference, counted = self.fresh(), root / "counts.jsonl"
        code, said = self.run(self.reference, f"count:{counted}")
        assert code == 0, said
        (main,) = (t for t in map(json.loads, counted.read_text().splitlines()) if t["run_id"])
        self.totals: dict[str, int] = main["totals"]

    def fresh(self) -> Path:
        """A planned cell of its own with an empty cache beside it."""
        self.number += 1
        folder = self.root / f"n{self.number}" / self.planned.name
        shutil.copytree(self.planned, folder)
        return folder

    def run(self, folder: Path, fault: str = "", limit: int | None = None) -> tuple[int, str]:
        """As `run_cell`."""
        return run_cell(folder, self.environment, fault, limit)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return Cells(tmp_path_factory.mktemp("faults"))


def contents(folder: Path) -> dict[str, str]:
    """Digests of everything that counts: weights, predictions, scores."""
    names = [
        "cases.csv",
        "checkpoints/final.safetensors",
        *(f"predictions/{p.name}" for p in predictions(folder)),
    ]
    return {name: sha256_file(folder / name) for name in names}


def predictions(folder: Path) -> list[Path]:
    return sorted((folder / "predictions").glob("*.nii.gz"))


def assert_nothing_torn(root: Path) -> None:
    """Every file under a final name parses to its end; temporaries begin with a dot and do not count."""
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if hidden or not path.is_file() or path.name == "log.txt":
            continue
        assert path.stat().st_size > 0, f"{path} is empty"
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            read_lines(path)  # a torn last line is allowed; it is cut off when the file is opened again
        elif path.suffix == ".csv":
            read_cases(path)
        elif path.suffix == ".gz":
            gzip.decompress(path.read_bytes())
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".b2nd":
            blosc2.open(str(path), mode="r")[:]
        else:
            assert path.suffix == ".txt" or path.name in {"lease.beat"} or "lease" in path.name, path


def assert_ends_like_the_reference(cells: Cells, folder: Path) -> None:
    """The same command again: complete, the same bytes, no case twice, no gap, nothing left over."""
    code, said = cells.run(folder)
    assert code == 0, said
    assert read_run(folder).status == "complete"
    assert contents(folder) == contents(cells.reference)
    for name, key in (("cases.jsonl", "case"), ("epochs.jsonl", "step")):
        lines = read_lines(folder / name)
        wanted = [line[key] for line in read_lines(cells.reference / name)]
        assert sorted(str(line[key]) for line in lines) == sorted(map(str, wanted)), name
    left = [p.name for p in folder.rglob("*") if ".tmp-" in p.name or "lease" in p.name]
    assert left == []


def spread(count: int, few: int) -> list[int]:
    """`few` numbers from 1 to `count`, both ends among them."""
    return sorted({1 + round(i * (count - 1) / (few - 1)) for i in range(few)})


def killed_then_again(cells: Cells, points: Sequence[int], point: str = "write") -> None:
    for n in points:
        folder = cells.fresh()
        code, said = cells.run(folder, f"{point}:{n}")
        assert code == -9, f"{point}:{n} ended with {code}:\n{said}"
        assert_nothing_torn(folder.parent)
        assert_ends_like_the_reference(cells, folder)
        shutil.rmtree(folder.parent)


def out_of_disk_then_again(cells: Cells, points: Sequence[int]) -> None:
    for n in points:
        folder = cells.fresh()
        code, said = cells.run(folder, f"write:{n}:enospc")
        assert "lease.beat" in said or code in {0, 3, 5}, f"write:{n}:enospc ended with {code}:\n{said}"
        if code:
            assert "SB505" in said, f"write:{n}:enospc: the cause is not named:\n{said}"
            assert "internal error" not in said
            record = read_run(folder)
            if code == 3:
                assert record.failure is not None
                assert (record.failure.failure_class, record.failure.code) == ("environment", "SB505")
        assert_nothing_torn(folder.parent)
        assert_ends_like_the_reference(cells, folder)
        shutil.rmtree(folder.parent)


@pytest.mark.ci
def test_a_kill_at_some_writes(cells: Cells) -> None:
    assert cells.totals["write"] > 60
    killed_then_again(cells, spread(cells.totals["write"], 5))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(8))
def test_a_kill_at_every_write(cells: Cells, part: int) -> None:
    killed_then_again(cells, range(1 + part, cells.totals["write"] + 1, 8))


@pytest.mark.ci
@pytest.mark.parametrize("point", ["stage", "step", "checkpoint", "case"])
def test_a_kill_at_the_other_points(cells: Cells, point: str) -> None:
    assert cells.totals[point] >= 2
    killed_then_again(cells, [cells.totals[point]], point)


@pytest.mark.ci
def test_a_full_disk_at_some_writes(cells: Cells) -> None:
    out_of_disk_then_again(cells, spread(cells.totals["write"], 3))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(8))
def test_a_full_disk_at_every_write(cells: Cells, part: int) -> None:
    out_of_disk_then_again(cells, range(1 + part, cells.totals["write"] + 1, 8))


@pytest.mark.ci
@pytest.mark.parametrize(
    "limit", [pytest.param(1, marks=pytest.mark.slow), 3000, pytest.param(60_000, marks=pytest.mark.slow)]
)
def test_a_limit_on_the_size_of_files_is_a_full_disk(cells: Cells, limit: int) -> None:
    folder = cells.fresh()
    code, said = cells.run(folder, limit=limit)
    assert code in {3, 5}, said
    assert "SB505" in said
    assert_nothing_torn(folder.parent)
    assert_ends_like_the_reference(cells, folder)


@pytest.mark.ci
def test_killed_twice_in_a_row(cells: Cells) -> None:
    folder = cells.fresh()
    for n in (cells.totals["write"] // 3, cells.totals["write"] // 4):
        assert cells.run(folder, f"write:{n}")[0] == -9
    assert_ends_like_the_reference(cells, folder)
