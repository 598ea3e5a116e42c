"""Which backend runs: auto never fails, a named one that cannot run says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scan_cases import scan_inputs

from segbench.core.errors import BackendUnavailable
from segbench.networks import scan
from segbench.networks.scan import (
    BACKENDS,
    choice,
    chosen_backend,
    scan_backends_report,
    scans_used,
    selective_scan,
)
from segbench.runs.doctor import diagnosis


@pytest.fixture(autouse=True)
def fresh_probes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SEGBENCH_SCAN", raising=False)
    choice._probe.cache_clear()
    yield
    choice._probe.cache_clear()


def test_report_has_every_backend_with_a_reason_where_it_cannot_run() -> None:
    report = {entry.backend: entry for entry in scan_backends_report("cpu")}
    assert tuple(report) == BACKENDS
    assert report["torch"].probe
    assert report["numba"].probe
    assert report["numba"].max_error is not None
    assert 0 < report["numba"].max_error < 1e-4
    for name in ("triton", "mamba_ssm"):
        assert not report[name].probe
        assert report[name].reason


def test_auto_on_cpu_is_numba_and_torch_where_numba_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_backend("cpu") == "numba"
    monkeypatch.setenv("SEGBENCH_NO_NUMBA", "1")
    choice._probe.cache_clear()
    assert chosen_backend("cpu") == "torch"
    assert selective_scan(*scan_inputs(1, 3, 2, 5), True).isfinite().all()


def test_a_broken_numba_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from segbench.networks.scan import numba_backend

    def broken(*arguments: object) -> None:
        raise RuntimeError("cannot compile\nlong trace")

    monkeypatch.setattr(numba_backend, "forward", broken)
    assert chosen_backend("cpu") == "torch"
    entry = next(e for e in scan_backends_report("cpu") if e.backend == "numba")
    assert entry.reason == "RuntimeError: cannot compile"


def test_a_backend_that_computes_something_else_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from segbench.networks.scan import numba_backend

    right = numba_backend.forward
    monkeypatch.setattr(numba_backend, "forward", lambda *a: (right(*a)[0] * 1.001, right(*a)[1]))
    assert chosen_backend("cpu") == "torch"
    entry = next(e for e in scan_backends_report("cpu") if e.backend == "numba")
    assert entry.reason is not None
    assert "differs from torch" in entry.reason


@pytest.mark.parametrize("name", ["triton", "mamba_ssm"])
def test_a_named_backend_that_cannot_run_says_why(name: str) -> None:
    with pytest.raises(BackendUnavailable, match=f"'{name}' cannot run on cpu") as caught:
        selective_scan(*scan_inputs(1, 3, 2, 5), True, backend=name)
    assert caught.value.code == "SB502"
    assert caught.value.exit_code == 5


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match="no scan backend 'cuda'; there are auto, reference"):
        selective_scan(*scan_inputs(1, 3, 2, 5), True, backend="cuda")


def test_auto_takes_what_the_run_took_so_far_where_it_can_run() -> None:
    with scans_used("torch") as used:
        selective_scan(*scan_inputs(1, 3, 2, 5), True)
    with scans_used("triton") as elsewhere:  # recorded on a machine with a GPU
        selective_scan(*scan_inputs(1, 3, 2, 5), True)
    assert (used, elsewhere) == ({"torch"}, {"numba"})


def test_auto_on_cuda_is_the_first_of_a_fixed_order_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    works = {"mamba_ssm", "triton", "torch"}
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)  # whoever ran before

    def probe(name: str, device: str) -> choice.BackendReport:
        return choice.BackendReport(
            name, True, name in works, None, None, None if name in works else "broken"
        )

    monkeypatch.setattr(choice, "probe", probe)
    for broken, expected in ((None, "mamba_ssm"), ("mamba_ssm", "triton"), ("triton", "torch")):
        works.discard(broken or "")
        assert {chosen_backend("cuda") for _ in range(3)} == {expected}
    works.add("mamba_ssm")
    assert choice.resolve_backend("auto", "cuda", True) == "torch"  # mamba_ssm takes no float64


def test_a_kernel_that_adds_atomically_is_not_taken_for_results_that_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = choice.BackendReport("any", True, True, None, None, None)
    monkeypatch.setattr(choice, "probe", lambda name, device: report)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert chosen_backend("cuda") == "triton"
    with scans_used("mamba_ssm"):
        assert chosen_backend("cuda") == "triton"
    with pytest.raises(BackendUnavailable, match="in no fixed order"):
        chosen_backend("cuda", backend="mamba_ssm")


def test_the_environment_overrides_auto_but_not_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGBENCH_SCAN", "reference")
    assert chosen_backend("cpu") == "reference"
    assert chosen_backend("cpu", backend="torch") == "torch"
    monkeypatch.setenv("SEGBENCH_SCAN", "nope")
    with pytest.raises(ValueError, match=r"'nope' \(from SEGBENCH_SCAN\)") as caught:
        chosen_backend("cpu")
    assert caught.value.code == "SB104"
    monkeypatch.setenv("SEGBENCH_SCAN", "triton")
    with pytest.raises(BackendUnavailable):
        selective_scan(*scan_inputs(1, 3, 2, 5), True)


def test_other_devices_use_torch() -> None:
    assert chosen_backend("mps") == "torch"
    assert chosen_backend(torch.device("meta")) == "torch"


@pytest.mark.ci
def test_optional_packages_are_not_imported_with_the_scan() -> None:
    code = (
        "import sys, segbench.networks.scan as s;"
        "print([m for m in ('numba', 'triton', 'mamba_ssm') if m in sys.modules])"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.ci
def test_the_first_scan_of_a_process_may_stand_in_inference_mode() -> None:
    code = (
        "import torch; from scan_cases import scan_inputs;"
        "from segbench.networks.scan import scans_used, selective_scan;"
        "inputs = scan_inputs(1, 3, 2, 5)\n"
        "with torch.inference_mode(), scans_used() as used:\n"
        "    selective_scan(*inputs, True)\n"
        "    selective_scan(*inputs, True, backend='numba')\n"
        "print(sorted(used))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    environment.pop("SEGBENCH_SCAN", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.stdout.strip(), done.returncode) == ("['numba']", 0), done.stderr


def test_only_scans_that_ran_are_noted() -> None:
    with scans_used() as outer:
        chosen_backend("cpu")  # asks, and probes
        assert outer == set()
        selective_scan(*scan_inputs(1, 3, 2, 5), True, backend="torch")
        with scans_used() as inner:
            selective_scan(*scan_inputs(1, 3, 2, 5), True)
    assert (outer, inner) == ({"torch"}, {"numba"})


def test_the_whole_reason_of_mamba_ssm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError(
            "selective_scan_cuda is not available.\nInstall with:\n  MAMBA_KEEP_CUDA_BUILD=TRUE"
        )

    monkeypatch.setattr(choice, "_obstacle", lambda *arguments: None)
    monkeypatch.setattr(choice, "_difference", broken)
    report = choice._probe.__wrapped__("mamba_ssm", "cuda")
    assert not report.probe
    assert report.reason == (
        "RuntimeError: selective_scan_cuda is not available. Install with: MAMBA_KEEP_CUDA_BUILD=TRUE"
    )
    monkeypatch.setattr(scan, "scan_backends_report", lambda where: [report])
    (row, _) = diagnosis._scan_backends("cpu")
    assert row == ("mamba_ssm", "not available", report.reason)


def test_the_command_that_builds_mamba_ssms_kernel_is_where_users_look() -> None:
    """A plain installation of newer releases has no kernel; causal-conv1d is not used."""
    root = Path(__file__).resolve().parents[2]
    guide = (root / "docs" / "how-to" / "use-a-gpu-or-cluster.md").read_text(encoding="utf-8")
    assert "MAMBA_KEEP_CUDA_BUILD=TRUE pip install mamba-ssm --no-build-isolation" in guide
    assert "causal-conv1d" not in guide + (root / "pyproject.toml").read_text(encoding="utf-8")
