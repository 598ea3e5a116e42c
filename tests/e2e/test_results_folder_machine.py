"""A state machine over a results folder: whatever happens in whatever order, it says what is and ends alike.

The model knows of each seed only a word (absent, planned, resumable, done). After every step the plan, the
status and the files must agree with it, nothing final may be torn, and what is done is what an undisturbed
run leaves, byte for byte.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from test_faults import FLAGS, assert_nothing_torn, contents, plan_cells, run_cell

from segbench.core.atomic import read_lines
from segbench.records import read_run
from segbench.records.lease import Lease
from segbench.runs.plan import Request, make_plan
from segbench.runs.status import read_status

SEEDS = (0, 1)
STEPS = 5
SEED = st.sampled_from(SEEDS)


class Matrix:
    """The planned cells of all seeds, their undisturbed ends, and the server that runs them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.environment = {**os.environ, "SEGBENCH_THREADS": "1", "OMP_NUM_THREADS": "1"}
        seeds = ("--seed", ",".join(map(str, SEEDS)), "--set", f"budget.samples={2 * STEPS}")
        plan_cells(root, self.environment, *seeds)
        names = sorted(path.parent.name for path in (root / "planned").glob("*/run.json"))
        self.names = dict(zip(SEEDS, names, strict=True))
        self.number = 0
        self.reference = {}
        for seed in SEEDS:
            folder = root / "reference" / self.names[seed]
            shutil.copytree(root / "planned" / folder.name, folder)
            assert self.run(folder)[0] == 0
            self.reference[seed] = contents(folder)

    def run(self, folder: Path, fault: str = "") -> tuple[int, str]:
        return run_cell(folder, self.environment, fault)

    def states(self, results: Path) -> dict[int, str]:
        """What `segbench run --dry-run` says of every seed."""
        flags = dict(zip(FLAGS[::2], FLAGS[1::2], strict=True))
        overrides: dict[str, object] = {"budget.samples": 2 * STEPS, "patch.size": 16, "inference.overlap": 0}
        plan = make_plan(
            Request(
                models=[flags["--model"]], datasets=[flags["--dataset"]], protocol="demo", seeds=SEEDS,
                overrides=overrides, limit=2, data_dir=self.data, results=results,
            )
        )  # fmt: skip
        assert {p.cell.run_id for p in plan.cells} == set(self.names.values())
        return {p.cell.seed: p.state for p in plan.cells}


class ResultsFolder(RuleBasedStateMachine):
    """One folder of runs, at the mercy of its rules."""

    matrix: Matrix

    def __init__(self) -> None:
        super().__init__()
        self.matrix.number += 1
        self.results = self.matrix.root / f"n{self.matrix.number}"
        self.results.mkdir()
        self.model = dict.fromkeys(SEEDS, "absent")

    def folder(self, seed: int) -> Path:
        return self.results / self.matrix.names[seed]

    def start(self, seed: int, fault: str = "") -> tuple[int, str]:
        code, said = self.matrix.run(self.folder(seed), fault)
        assert "internal error" not in said, said
        assert code in {0, 143, -9} if fault else code == 0, (fault, code, said)
        if self.model[seed] != "done":
            begun = read_run(self.folder(seed)).status != "planned"  # killed before it could say so?
            assert begun or self.model[seed] == "planned"
            self.model[seed] = "done" if code == 0 else "resumable" if begun else "planned"
        return code, said

    def open_seeds(self) -> list[int]:
        return [seed for seed in SEEDS if self.model[seed] in {"planned", "resumable"}]

    @precondition(lambda self: "absent" in self.model.values())
    @rule()
    def add_a_seed(self) -> None:
        seed = next(seed for seed in SEEDS if self.model[seed] == "absent")
        shutil.copytree(self.matrix.root / "planned" / self.matrix.names[seed], self.folder(seed))
        self.model[seed] = "planned"

    @precondition(lambda self: set(self.model.values()) != {"absent"})
    @rule(seed=SEED)
    def run_to_the_end(self, seed: int) -> None:
        if self.model[seed] == "absent":
            return
        before = {p: p.stat().st_mtime_ns for p in self.folder(seed).rglob("*") if p.is_file()}
        was = self.model[seed]
        self.start(seed)
        if was == "done":  # the same command does nothing
            assert {p: p.stat().st_mtime_ns for p in self.folder(seed).rglob("*") if p.is_file()} == before

    @precondition(lambda self: self.open_seeds())
    @rule(
        which=st.integers(0, 1),
        where=st.sampled_from(["write", "stage", "step", "case", "checkpoint"]),
        n=st.integers(1, 120),
        action=st.sampled_from(["kill", "kill", "term"]),
    )
    def stop_in_the_middle(self, which: int, where: str, n: int, action: str) -> None:
        seed = self.open_seeds()[which % len(self.open_seeds())]
        at = (
            n
            if where == "write"
            else 1 + n % {"stage": 6, "step": STEPS, "case": 4, "checkpoint": STEPS}[where]
        )
        self.start(seed, f"{where}:{at}:{action}")

    @precondition(lambda self: self.open_seeds())
    @rule(which=st.integers(0, 1), n=st.integers(3, STEPS), offset=st.integers(1, 10**6))
    def rot_in_the_newest_checkpoint(self, which: int, n: int, offset: int) -> None:
        """Killed in training; then a bit of the newest checkpoint's weights flips on the disk."""
        seed = self.open_seeds()[which % len(self.open_seeds())]
        self.start(seed, f"step:{n}:kill")
        steps = sorted((self.folder(seed) / "checkpoints").glob("step-*"))
        trains = not (self.folder(seed) / "stages" / "train.json").exists()
        if self.model[seed] == "resumable" and trains and len(steps) > 1:
            file = steps[-1] / "weights.safetensors"
            data = bytearray(file.read_bytes())
            data[-1 - offset % (len(data) // 2)] ^= 0x40
            file.write_bytes(bytes(data))

    @precondition(lambda self: "resumable" in self.model.values())
    @rule(
        name=st.sampled_from(["cases.jsonl", "epochs.jsonl"]),
        tail=st.sampled_from(['{"case": "ph', "{", "\x00"]),
    )
    def tear_the_last_line(self, name: str, tail: str) -> None:
        for seed in SEEDS:
            path = self.folder(seed) / name
            if self.model[seed] == "resumable" and path.is_file():
                read_lines(path, repair=True)
                with path.open("a") as stream:
                    stream.write(tail)

    @precondition(lambda self: self.open_seeds())
    @rule()
    def leave_a_dead_lease_and_a_temporary(self) -> None:
        folder = self.folder(self.open_seeds()[0])
        gone = {"token": "0" * 32, "pid": 1, "process_start": "1", "created": "2020-01-01T00:00:00+00:00"}
        dead = asdict(Lease(folder).holder) | gone
        (folder / "lease.json").write_text(json.dumps(dead))
        (folder / ".cases.csv.tmp-999999999-0badcafe").write_bytes(b"half")

    @invariant()
    def the_plan_and_the_status_agree(self) -> None:
        said = {**dict.fromkeys(SEEDS, "planned"), **{s: w for s, w in self.model.items() if w != "absent"}}
        assert self.matrix.states(self.results) == said
        status = {cell.run_id: cell.state for cell in read_status(self.results).cells}
        assert status == {self.matrix.names[s]: w for s, w in self.model.items() if w != "absent"}

    @invariant()
    def nothing_is_torn_and_what_is_done_is_right(self) -> None:
        for seed, word in self.model.items():
            if word == "done":
                assert contents(self.folder(seed)) == self.matrix.reference[seed]
                cases = [line["case"] for line in read_lines(self.folder(seed) / "cases.jsonl")]
                assert len(cases) == len(set(map(str, cases)))
                left = [
                    p.name for p in self.folder(seed).rglob("*") if ".tmp-" in p.name or "lease" in p.name
                ]
                assert left == []
                assert_nothing_torn(self.folder(seed))

    def teardown(self) -> None:
        for seed in self.open_seeds():
            self.start(seed)
        self.the_plan_and_the_status_agree()
        self.nothing_is_torn_and_what_is_done_is_right()
        shutil.rmtree(self.results)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(tmp_path_factory.mktemp("machine"))


def play(matrix: Matrix, *, examples: int, steps: int) -> None:
    machine = type("OneFolder", (ResultsFolder,), {"matrix": matrix})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_whatever_happens_in_whatever_order(matrix: Matrix) -> None:
    play(matrix, examples=12, steps=10)
