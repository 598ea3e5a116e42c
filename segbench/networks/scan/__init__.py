"""The selective scan of Mamba-1: one operator, several backends, chosen at run time.

`selective_scan` is the operator; `chosen_backend` says what `auto` means on a device (for run records) and
`scan_backends_report` what each backend can do here (for `segbench doctor`).
"""

from segbench.networks.scan.api import selective_scan
from segbench.networks.scan.choice import BACKENDS, BackendReport, chosen_backend, scan_backends_report

__all__ = ["BACKENDS", "BackendReport", "chosen_backend", "scan_backends_report", "selective_scan"]
