"""Rows from fresh processes: measured ones, refused ones, crashed, killed and late ones; the command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from jsonschema import validate
from latex_lint import lint_latex
from typer.testing import CliRunner

from segbench.cli import common
from segbench.cli.main import build_app
from segbench.profiling import ProfileDocument, ProfileRequest, ProfileRow, profile_rows, rows


def small(model: str = "nnunet-tiny", **changes: object) -> ProfileRequest:
    values = {"model": model, "input_shape": (1, 1, 32, 32, 32), "out_channels": 2, "device": "cpu"}
    return ProfileRequest.model_validate({**values, **changes})


@pytest.mark.ci
def test_a_measured_row_has_everything_and_zero_stands_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from segbench.profiling import measure
    from segbench.profiling.latency import Timing

    brief = Timing(least_warm_up=1, most_warm_up=1, warm_up_s=0, iterations=3, seconds=600)
    monkeypatch.setattr(Timing, "of", lambda device: brief)
    monkeypatch.setattr(measure, "limit_address_space", lambda: None)  # this process lives on
    monkeypatch.delenv("SEGBENCH_SCAN", raising=False)
    row = measure.measure_row(small("segmamba-v2-tiny"))
    assert row.status == "ok", row.reason
    assert row.scan_backend == "numba"
    assert row.latency.n == 3
    assert 0 < row.latency.p10_s <= row.latency.median_s <= row.latency.p99_s
    assert row.memory.weights_bytes == 4 * (row.params.total + row.params.buffers)
    assert row.memory.gradients_bytes is None
    assert row.memory.allocated_peak_bytes is None
    # In a process that has run other tests the activations may find room that is already resident.
    assert 0 <= row.memory.activations_bytes < row.memory.process_peak_bytes
    assert row.throughput.windows_per_s == pytest.approx(1 / row.latency.median_s)
    assert row.energy.joules_per_iteration is None
    assert row.energy.reason
    assert row.environment["versions"]["torch"]
    assert not row.environment["cudnn_benchmark"]  # never on a CPU


@pytest.mark.ci
def test_the_scan_of_a_row_is_the_one_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one that `auto` would have named; a network without a scan has none."""
    from segbench.profiling import measure
    from segbench.profiling.latency import Timing

    brief = Timing(least_warm_up=1, most_warm_up=1, warm_up_s=0, iterations=1, seconds=1)
    monkeypatch.setattr(Timing, "of", lambda device: brief)
    monkeypatch.setattr(measure, "limit_address_space", lambda: None)
    monkeypatch.setenv("SEGBENCH_SCAN", "torch")
    assert measure.measure_row(small("segmamba-v2-tiny")).scan_backend == "torch"
    assert measure.measure_row(small("nnunet-tiny")).scan_backend is None


@pytest.mark.slow
def test_training_adds_gradients_and_optimiser() -> None:
    row, late = profile_rows([small("segmamba-v2-tiny", mode="train"), small(limit_s=0.01)])
    assert row.status == "ok", row.reason
    assert 0 < row.memory.activations_bytes < row.memory.process_peak_bytes
    assert row.memory.gradients_bytes == 4 * row.params.trainable
    assert row.memory.optimizer_bytes == 4 * row.params.trainable
    (counted,) = profile_rows([small("segmamba-v2-tiny", device="meta")])
    assert row.cost.gmacs > 2 * counted.cost.gmacs
    assert late.status == "timeout"
    assert late.cost is None or late.cost.gmacs > 0


@pytest.mark.ci
def test_what_a_network_refuses_is_a_row_and_the_others_go_on() -> None:
    seen = []
    found = profile_rows(
        [small(device="meta", input_shape=(1, 1, 30, 32, 32)), small(device="meta")],
        report=lambda row: seen.append(row.status),
    )
    assert [row.status for row in found] == ["unsupported", "ok"]
    assert seen == ["unsupported", "ok"]
    assert "multiple of" in found[0].reason
    assert found[0].params is None
    assert found[1].latency is None


def test_too_late_is_a_row() -> None:
    (row,) = profile_rows([small(device="meta", limit_s=0.01)])
    assert row.status == "timeout"
    assert "0.01 s" in row.reason


STUB = """
import os, signal, sys, types
stub = types.ModuleType("segbench.profiling.measure")
def measure_row(request):
    {code}
stub.measure_row = measure_row
sys.modules["segbench.profiling.measure"] = stub
"""


@pytest.mark.ci
@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "error", "signal SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "oom", "signal 9"),
        ("os._exit(3)", "error", "exit code 3"),
    ],
)
def test_a_process_that_dies_is_a_row(
    code: str, status: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(STUB.format(code=code))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = profile_rows([small(device="meta"), small(device="meta")])
    assert [row.status for row in found] == [status, status]
    assert reason in found[0].reason


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore"), "oom", "can't allocate memory"),
        (RuntimeError("something else"), "error", "RuntimeError: something else"),
        (RuntimeError("\"conv\" not implemented for 'Half'"), "unsupported", "not implemented for 'Half'"),
        (NotImplementedError("no fp16 here"), "unsupported", "no fp16 here"),
        (MemoryError(), "oom", "MemoryError"),
    ],
)
def test_what_python_raises_is_a_status(
    error: Exception, status: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segbench.profiling import measure, worker

    def fail(request: ProfileRequest) -> None:
        raise error

    monkeypatch.setattr(measure, "measure_row", fail)
    answer = worker.answer({"task": "row", "request": small().model_dump(mode="json")})
    assert answer["status"] == status
    assert answer["reason"].endswith(reason)


@pytest.mark.slow
def test_real_memory_shortage_on_cpu_is_a_row() -> None:
    """An input of 256 GiB fits in no machine of ours; the allocation fails, the machine lives."""
    (row,) = profile_rows([small(input_shape=(1, 1, 4096, 4096, 4096))])
    assert row.status == "oom"
    assert row.cost is not None


@pytest.mark.slow
def test_the_largest_patch_is_searched_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LARGEST_CUBE", 64)
    (row,) = profile_rows([small(max_patch=True)])
    assert row.memory.max_patch == 64
    assert row.memory.max_patch_note == "larger cubes than 64 were not tried"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command counts in this process, which is quicker."""
    from segbench import profiling
    from segbench.profiling import worker

    class Here:
        alive = True

        def __init__(self, module: str, *, silent: bool) -> None:
            assert module == worker.__name__

        def ask(self, question: dict, *, limit_s: float):
            return worker.answer(question)

        def stop(self) -> None:
            pass

    monkeypatch.setattr(profiling.rows, "Child", Here)


@pytest.fixture(autouse=True)
def flags_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "_settings", common.Settings())


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(build_app(), ["profile", *arguments])
    return done.exit_code, done.stdout


def test_command_prints_one_valid_document(here) -> None:
    models = ("--model", "nnunet-tiny,segmamba-v2-tiny", "--input", "1x1x32x32x32")
    code, out = run(*models, "--device", "meta", "--json")
    assert code == 0
    document = json.loads(out)
    validate(document, ProfileDocument.model_json_schema(by_alias=True))
    assert [row["model"] for row in document["rows"]] == ["nnunet-tiny", "segmamba-v2-tiny"]
    assert document["schema"] == "segbench.profile/1"


def test_command_exit_is_3_when_a_row_failed(here) -> None:
    code, out = run("--model", "nnunet-tiny", "--input", "1x1x30x30x30", "--device", "meta")
    assert code == 3
    assert "unsupported" in out


@pytest.mark.parametrize(
    "flags",
    [
        ["--model", "nnunett"],
        ["--model", "nnunet-tiny", "--input", "128"],
        ["--model", "nnunet-tiny", "--mode", "test"],
        ["--model", "nnunet-tiny", "--dtype", "int8"],
        ["--model", "nnunet-tiny", "--device", "tpu"],
        ["--model", "nnunet-tiny", "--format", "html"],
    ],
)
def test_wrong_flags_are_refused(flags: list[str]) -> None:
    assert run(*flags)[0] == 2


def test_a_gpu_that_is_not_here_is_exit_5() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert run("--model", "nnunet-tiny", "--device", "cuda")[0] == 5


def test_a_floor_is_no_unknown_model() -> None:
    done = CliRunner().invoke(build_app(), ["profile", "--model", "nnunet-tiny,mean-atlas"])
    assert done.exit_code == 2
    assert "'mean-atlas' is a floor" in str(done.exception or done.output) + done.stderr


def test_what_was_only_counted_leaves_what_was_measured(tmp_path: Path) -> None:
    from segbench.cli.profile import write

    facts = {"model": "m", "status": "ok", "input_shape": [1, 1, 32, 32, 32], "out_channels": 4}
    facts |= {"mode": "infer", "dtype": "fp32", "environment": {"cpu": "some", "cores": 2}}
    for device in ("cpu", "meta"):
        row = ProfileRow.model_validate({**facts, "device": device})
        write(ProfileDocument(rows=[row]), tmp_path)
    kept = sorted(path.name for path in tmp_path.rglob("*.json"))
    assert kept == ["m__1x1x32x32x32__infer__fp32.json", "m__1x1x32x32x32__infer__fp32__meta.json"]


def test_ways_of_segbench_fast_stand_in_every_form_and_only_where_they_were_on(
    here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--model", "nnunet-tiny", "--input", "1x1x32x32x32", "--device", "meta")
    said = {}
    for ways in ("", "no-benchmark", "no-benchmark,channels-last"):
        monkeypatch.setenv("SEGBENCH_FAST", ways)
        (line,) = csv.DictReader(run(*common, "--format", "csv", "--output", str(tmp_path))[1].splitlines())
        newest = max(tmp_path.rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        (row,) = json.loads(newest.read_text())["rows"]
        table = "".join(run(*common)[1].split())  # a narrow terminal breaks its lines
        how = table.partition("inferfp32")[2].partition("meta")[0]
        said[ways] = (row["environment"].get("fast"), line.get("environment.fast"), how)
    both = "channels-last+no-benchmark"
    assert said == {
        "": (None, None, ""),
        "no-benchmark": ("no-benchmark",) * 3,
        "no-benchmark,channels-last": (both,) * 3,
    }
    assert len(list(tmp_path.rglob("*.json"))) == len(said)  # none takes the place of another


def test_csv_latex_and_files(here, tmp_path: Path) -> None:
    common = ("--model", "nnunet-tiny", "--input", "1x1x32x32x32", "--classes", "2", "--device", "meta")
    code, out = run(*common, "--format", "csv", "--output", str(tmp_path / "a.json"))
    assert code == 0
    line = next(csv.DictReader(out.splitlines()))
    document = ProfileDocument.model_validate_json((tmp_path / "a.json").read_text())
    assert int(line["params.total"]) == document.rows[0].params.total
    assert line["latency.median_s"] == ""
    code, out = run(*common, "--format", "latex", "--output", str(tmp_path / "machines"))
    assert code == 0
    assert r"\toprule" in out
    assert "selective scan" in out
    (path,) = (tmp_path / "machines").rglob("*.json")
    assert path.name == "nnunet-tiny__1x1x32x32x32__infer__fp32__meta.json"
    assert not lint_latex(out)


@pytest.mark.parametrize(
    ("words", "shape", "told"),
    [
        (["--device", "cpu"], (1, 4, 64, 64, 64), True),
        (["--device", "meta"], (1, 4, 128, 128, 128), False),
        (["--device", "cpu", "--input", "1x1x32x32x32"], (1, 1, 32, 32, 32), False),
    ],
)
def test_without_an_input_a_cpu_takes_one_that_it_can_finish_and_says_so(
    words: list[str], shape: tuple[int, ...], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from segbench import profiling
    from segbench.cli.main import build_app

    asked: list[tuple[int, ...]] = []

    def rows(requests, *, report):
        asked.extend(tuple(request.input_shape) for request in requests)
        return []

    monkeypatch.setattr(profiling, "profile_rows", rows)
    done = CliRunner().invoke(build_app(), ["profile", "--model", "nnunet-tiny", *words])
    assert done.exit_code == 0, done.output
    assert asked == [shape]
    assert ("on a CPU: input 1x4x64x64x64" in done.stderr) == told
