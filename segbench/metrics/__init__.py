"""What every number of a segmentation comparison means, computed exactly and fast.

Nothing in this room imports torch or pandas. The public names are `evaluate_case`, `CaseScores`, the registry
(`METRICS`, `MetricInfo`), `summarise` with `Summary`, and `load_profile` with `MetricProfile`.
"""

from segbench.metrics.evaluate import evaluate_case
from segbench.metrics.profiles import MetricProfile, load_profile
from segbench.metrics.registry import METRICS, MetricInfo
from segbench.metrics.scores import CaseScores
from segbench.metrics.summary import Summary, summarise

__all__ = [
    "METRICS",
    "CaseScores",
    "MetricInfo",
    "MetricProfile",
    "Summary",
    "evaluate_case",
    "load_profile",
    "summarise",
]
