"""What `segbench doctor` finds out: environment, scan backends, metric engine, device."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from segbench.core.catalogue import ExitCode
from segbench.core.environment import cache_dir, data_dir, machine, results_dir, thread_count, tilde, versions
from segbench.core.text import bytes_words

Row = tuple[str, str, str]


@dataclass(slots=True)
class Diagnosis:
    """Findings by section; a failed limit makes the exit code 6."""

    sections: list[tuple[str, list[Row]]] = field(default_factory=list[tuple[str, list[Row]]])
    documents: dict[str, Any] = field(default_factory=dict[str, Any])
    failed: bool = False

    @property
    def exit_code(self) -> int:
        """0, or 6 when a limit was passed."""
        return ExitCode.GATE if self.failed else ExitCode.DONE

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "schema_version": 1,
            "ok": not self.failed,
            "sections": {
                title: [dict(zip(("what", "state", "detail"), row, strict=True)) for row in rows]
                for title, rows in self.sections
            },
            **self.documents,
        }


def diagnose(*, metrics: bool = False, device: str | None = None) -> Diagnosis:
    """Look at the environment, and run the proofs that were asked for.

    Args:
        metrics: Compare the metric engine with its oracle and with other libraries.
        device: "cpu" or "cuda": probe every scan backend there, and what the device computes.
    """
    report = Diagnosis()
    report.sections.append(("environment", _environment()))
    report.sections.append(("packages", _packages()))
    if find_spec("torch") is not None:
        report.sections.append(("scan backends", _scan_backends(device)))
    if device is not None:
        from segbench.runs.doctor.device_check import check_device

        found = check_device(device)
        report.sections.append((f"device {device}", [(each.what, each.state, each.detail) for each in found]))
        report.failed |= not all(each.ok for each in found)
    if metrics:
        from segbench.metrics.selfcheck import run_selfcheck

        check = run_selfcheck()
        report.sections.append(
            ("metric engine", [(str(what), str(state), str(detail)) for what, state, detail in check.rows])
        )
        report.documents["metrics"] = check.as_dict()
        report.failed |= not check.ok
    return report


def _environment() -> list[Row]:
    facts = machine()
    memory = facts["memory_bytes"]
    size = bytes_words(memory) if isinstance(memory, int) else "unknown"
    return [
        ("processor", str(facts["cpu"]), f"{facts['cores']} cores, {size}, {facts['system']}"),
        ("threads", str(thread_count()), "SEGBENCH_THREADS"),
        ("data", tilde(data_dir()), "is here" if data_dir().is_dir() else "does not exist yet"),
        ("results", tilde(results_dir()), "is here" if results_dir().is_dir() else "does not exist yet"),
        ("cache", tilde(cache_dir()), "is here" if cache_dir().is_dir() else "does not exist yet"),
    ]


def _packages() -> list[Row]:
    found = versions()
    optional = {
        "mamba-ssm": "extra mamba",
        "medpy": "extra reference",
        "triton": "comes with CUDA builds of torch",
    }
    rows: list[Row] = [(name, version, "") for name, version in found.items()]
    return rows + [(name, "absent", why) for name, why in optional.items() if name not in found]


def _scan_backends(device: str | None) -> list[Row]:
    from segbench.networks.scan import chosen_backend, scan_backends_report

    where = device or "cpu"
    rows: list[Row] = []
    for entry in scan_backends_report(where):
        facts = [entry.reason or "", f"version {entry.version}" if entry.version else ""]
        if entry.max_error is not None:
            facts.append(f"max error {entry.max_error:.1e}")
        rows.append(
            (entry.backend, "works" if entry.probe else "not available", ", ".join(filter(None, facts)))
        )
    return [*rows, ("auto", str(chosen_backend(where)), f"what a model uses on {where}")]
