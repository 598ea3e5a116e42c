"""What was scored and by which rules stands in run.json: for `segbench run` and `segbench evaluate` alike."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from segbench.cards import load_dataset_card
from segbench.cli.main import build_app
from segbench.core.hashing import sha256_file
from segbench.metrics.profiles import load_profile
from segbench.records import CodeRecord, RunRecord, facts, read_case_lines, read_run
from segbench.report.read.runs import read_runs
from segbench.scoring.case import reference_digest
from segbench.scoring.rules import rules_for
from segbench.volumes import Volume, write_label_map


def volume(array: Any, spacing: tuple[float, float, float] = (2.0, 1.0, 0.5), origin: float = 0.0) -> Volume:
    affine = np.diag([*spacing[::-1], 1.0])
    affine[0, 3] = origin
    return Volume(array, spacing, affine)


def blob(shift: int = 0) -> Any:
    array = np.zeros((8, 12, 10), np.uint8)
    array[2:6, 3:9, 1 + shift : 7 + shift] = 1
    array[3:5, 4:6, 2 + shift : 5 + shift] = 2
    return array


EVALUATE = (
    "evaluate", "preds", "refs", "--region", "all=1,2", "--region", "core=2",
    "--results", "runs",
)  # fmt: skip


def evaluate(*words: str, exit_code: int = 0) -> RunRecord:
    done = CliRunner().invoke(build_app(), [*EVALUATE, *words], catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    (folder,) = Path("runs").iterdir()
    return read_run(folder)


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in ("refs", "preds"):
        Path(folder).mkdir()
        for number in range(3):
            write_label_map(Path(folder) / f"case{number}.nii.gz", blob(), volume(blob(number)))
    return tmp_path


# ---- the digest of a reference


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_voxel_or_one_step_of_the_grid_gives_another_digest(data: st.DataObject) -> None:
    array = np.array(data.draw(st.lists(st.integers(0, 3), min_size=24, max_size=24))).reshape(2, 3, 4)
    first = reference_digest(volume(array))
    for kind in (np.uint8, np.uint16, np.int64):
        assert reference_digest(volume(np.asfortranarray(array.astype(kind)))) == first
    place = tuple(data.draw(st.integers(0, n - 1)) for n in array.shape)
    changed = array.copy()
    changed[place] = data.draw(st.integers(0, 70_000).filter(lambda value: value != array[place]))
    others = [
        volume(changed),
        volume(array, spacing=(2.0, 1.0, 0.51)),
        volume(array, origin=0.5),
        volume(np.pad(array, ((0, 1), (0, 0), (0, 0)))),
        volume(np.pad(array, ((1, 0), (0, 0), (0, 0)))),
    ]
    digests = [reference_digest(other) for other in others]
    assert len({first, *digests}) == 6


def test_shifting_labels_by_a_voxel_is_seen() -> None:
    assert len({reference_digest(volume(blob(shift))) for shift in range(3)}) == 3
    empty = [reference_digest(volume(np.zeros(shape, np.uint8))) for shape in ((2, 2, 2), (2, 2, 3))]
    assert empty[0] != empty[1]


def test_headers_of_float32_and_float64_agree() -> None:
    spacing = (0.7, 1.1, 1.3)
    rough = tuple(float(np.float32(value)) for value in spacing)
    assert reference_digest(volume(blob(), spacing)) == reference_digest(volume(blob(), rough))  # type: ignore[arg-type]


# ---- evaluate


def test_an_evaluation_names_its_references_rules_and_rows(scans: Path) -> None:
    record = evaluate()
    assert record.references == {
        f"case{n}": reference_digest(volume(blob(n)).with_array(blob())) for n in range(3)
    }
    folder = next(Path("runs").iterdir())
    assert record.digests == {"cases": sha256_file(folder / "cases.csv")}
    assert record.rules_digest
    assert facts.region_labels(record) == {"all": (1, 2), "core": (2,)}
    (run,) = read_runs(["runs"])
    assert run.problem == ""


def test_packing_is_not_content(scans: Path) -> None:
    first = evaluate()
    for path in Path("refs").iterdir():
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    second = evaluate()
    assert second.references == first.references
    write_label_map(Path("refs") / "case1.nii.gz", blob(1), volume(blob(1)))
    third = evaluate()
    assert first.references is not None
    assert third.references is not None
    assert {case for case, found in third.references.items() if found != first.references[case]} == {"case1"}


@pytest.mark.parametrize("forget", [False, True])
def test_a_resume_has_the_references_without_scoring_again(scans: Path, forget: bool) -> None:
    """From cases.jsonl; a line of an older version, which lacks them, is scored again."""
    first = evaluate()
    folder = next(Path("runs").iterdir())
    lines = [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()]
    assert all(line["reference"] for line in lines)
    for line in lines if forget else ():
        del line["reference"]
    (folder / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = evaluate()
    assert again.references == first.references
    count = len((folder / "cases.jsonl").read_text().splitlines())
    assert count == (6 if forget else 3)


def test_an_unusable_prediction_keeps_its_reference(scans: Path) -> None:
    first = evaluate()
    (Path("preds") / "case1.nii.gz").write_bytes(b"no scan")
    assert evaluate(exit_code=3).references == first.references


def test_other_tolerances_are_other_rules(scans: Path) -> None:
    first = evaluate()
    (folder,) = Path("runs").iterdir()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink()
    folder.rmdir()
    second = evaluate("--nsd-tolerance", "3")
    assert first.rules_digest != second.rules_digest
    assert facts.nsd_tolerances(first) == {"all": 1.0, "core": 1.0}
    assert facts.nsd_tolerance(second) == 3.0


# ---- run


def test_a_run_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`segbench run` and `segbench evaluate` of its label maps state one set of references and rules."""
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "phantom-msd", "--results", "runs"]
    monkeypatch.setenv("SEGBENCH_DATA", str(tmp_path / "data"))
    from segbench.runs.api import run

    outcome = run("mean-atlas", "phantom-msd", seed=(0,), results="runs", data_dir=tmp_path / "data")
    ((planned, record),) = outcome.cells
    assert record is not None
    assert record.status == "complete"
    folder = planned.cell.folder
    card = load_dataset_card("phantom-msd")
    rules = rules_for(card, load_profile(planned.cell.protocol.metrics.profile))
    assert record.rules_digest == rules.digest()
    assert facts.region_labels(record) == {name: tuple(labels) for name, labels in rules.regions.items()}
    assert facts.nsd_tolerances(record) == dict(rules.tolerances_mm)
    assert set(record.references or {}) == set(planned.cell.split.test)
    assert {c: line["reference"] for c, line in read_case_lines(folder).items()} == record.references
    cases = tmp_path / "cases.txt"
    cases.write_text("\n".join(planned.cell.split.test))
    done = CliRunner().invoke(
        build_app(),
        ["evaluate", "--prediction", str(folder / "predictions"), *words, "--cases", str(cases),
         "--name", "again", "--profile", rules.profile.name],
        catch_exceptions=False,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    again = next(read_run(path) for path in Path("runs").glob("again__*"))
    assert again.references == record.references
    assert again.rules_digest == record.rules_digest
    assert again.metric_profile == json.loads(json.dumps(record.metric_profile))


# ---- the record


WORDS = st.text("ab1-", min_size=1, max_size=6)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "code": st.builds(CodeRecord, package=WORDS, version=WORDS, digest=WORDS, fingerprint=WORDS,
                      parameters=st.integers(0, 10**12)),
    "references": st.dictionaries(WORDS, WORDS, min_size=1, max_size=4),
    "rules_digest": WORDS,
    "metric_profile": st.dictionaries(WORDS, WORDS | st.floats(0, 1), min_size=1, max_size=4),
    "model": st.dictionaries(WORDS, WORDS, min_size=1),
    "seed": st.integers(0, 10**9),
    "fold": st.integers(0, 99),
    "protocol_digest": WORDS,
    "digests": st.dictionaries(WORDS, WORDS, min_size=1),
}  # fmt: skip


@pytest.mark.ci
@pytest.mark.parametrize("field", sorted(VALUES))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_one_field_changed_is_read_back_changed(
    tmp_path_factory: pytest.TempPathFactory, field: str, data: st.DataObject
) -> None:
    """Written, and read by the store and by the report: that field is new and no other one moved."""
    from segbench.records import write_run
    from segbench.records.foreign import read_record

    base = RunRecord(schema_version=1, run_id="a", kind="trained", status="complete", created="2026")
    changed = base.model_copy(update={field: data.draw(VALUES[field])})
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, changed)
    stored, problem = read_record(folder / "run.json")
    assert problem == ""
    assert read_run(folder) == stored == changed
    assert {name for name in RunRecord.model_fields if getattr(stored, name) != getattr(base, name)} == {
        field
    }
