"""The selective scan of Mamba-1: one operator, several backends, chosen at run time.

`selective_scan` is the operator; `chosen_backend` says what `auto` means on a device (for run records) and
`scan_backends_report` what each backend can do here (for `segbench doctor`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segbench.networks.scan.choice import (
    BACKENDS,
    BackendReport,
    chosen_backend,
    named_scans,
    scan_backends_report,
    scans_used,
)

if TYPE_CHECKING:
    from segbench.networks.scan.api import selective_scan

__all__ = ["BACKENDS", "BackendReport", "chosen_backend", "named_scans", "scan_backends_report", "scans_used",
           "selective_scan"]  # fmt: skip


def __getattr__(name: str) -> Any:
    # The operator is marked for torch.compile, whose machinery costs a second and 70 MiB to import: networks
    # without a scan, and those who only ask for a backend's name, do without it.
    if name != "selective_scan":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segbench.networks.scan.api import selective_scan

    return selective_scan
