"""One finding about comparability: its code, its severity, its words and the runs it concerns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segbench.report.markup import one_line
from segbench.report.runs import Run

SEVERITIES = ("error", "warn", "info")
SEVERITY: Mapping[str, str] = {
    "recipe-differs": "warn",
    "split-differs": "error",
    "profile-differs": "error",
    "cases-differ": "warn",
    "leak": "error",
    "below-floor": "warn",
    "single-seed": "warn",
    "cannot-rank": "warn",
    "few-cases": "warn",
    "few-datasets": "info",
    "inference-differs": "warn",
    "budget-differs": "warn",
    "missing-cases": "error",
    "penalty-unknown": "error",
    "demo-data": "info",
    "modified-code": "warn",
    "unfinished-run": "warn",
    "degraded-run": "warn",
    "prediction-is-reference": "warn",
}
MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class Guard:
    """One finding.

    Attributes:
        code: of the list in `SEVERITY`.
        severity: error, warn or info.
        message: what, in one line.
        runs: ids of the runs concerned, sorted.
        dataset: where it applies, empty for the whole report.
        metric: which metric it touches, empty for all.
    """

    code: str
    severity: str
    message: str
    runs: tuple[str, ...] = ()
    dataset: str = ""
    metric: str = ""

    def as_json(self) -> dict[str, Any]:
        """The object of report.json."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "runs": list(self.runs),
            "dataset": self.dataset,
        }


def guard(
    code: str,
    message: str,
    runs: Iterable[Run] = (),
    *,
    dataset: str = "",
    metric: str = "",
    severity: str | None = None,
) -> Guard:
    """A finding with its usual severity."""
    ids = tuple(sorted({run.run_id for run in runs}))
    return Guard(code, severity or SEVERITY[code], one_line(message), ids, dataset, metric)


def listed_names(names: Sequence[str]) -> str:
    """Names in a row, the first ten of them and how many more."""
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"
