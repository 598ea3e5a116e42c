"""Statistics over per-case scores: pure functions of numpy arrays, numpy and scipy only.

Every result is a frozen dataclass with read-only arrays; every random routine takes a seed; NaN or inf in any
input is a `StatsError` that names the positions.
"""

from segbench.stats.claims import Reported, false_order
from segbench.stats.comparison import Comparison, compare_models
from segbench.stats.differ import Omnibus, models_differ
from segbench.stats.errors import NotEnoughSeeds, StatsError
from segbench.stats.hodges_lehmann import hodges_lehmann
from segbench.stats.intervals import Interval, mean_interval
from segbench.stats.multiple import holm, shaffer
from segbench.stats.paired import WilcoxonResult, wilcoxon_signed_rank
from segbench.stats.rank_models import RankStability, rank_models
from segbench.stats.retraining import NullCheck, null_check
from segbench.stats.slices import slices_differ
from segbench.stats.two_level import TwoLevelResult, detectable_difference, two_level_test

__all__ = [
    "Comparison",
    "Interval",
    "NotEnoughSeeds",
    "NullCheck",
    "Omnibus",
    "RankStability",
    "Reported",
    "StatsError",
    "TwoLevelResult",
    "WilcoxonResult",
    "compare_models",
    "detectable_difference",
    "false_order",
    "hodges_lehmann",
    "holm",
    "mean_interval",
    "models_differ",
    "null_check",
    "rank_models",
    "shaffer",
    "slices_differ",
    "two_level_test",
    "wilcoxon_signed_rank",
]
