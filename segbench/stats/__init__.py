"""Statistics over per-case scores: pure functions of numpy arrays, numpy and scipy only.

Every result is a frozen dataclass with read-only arrays; every random routine takes a seed; NaN or inf in any
input is a `StatsError` that names the positions.
"""

from segbench.stats.comparison import Comparison, compare_models
from segbench.stats.differ import Omnibus, models_differ
from segbench.stats.discrimination import DiscriminationResult, discrimination
from segbench.stats.equivalence import EquivalenceResult, equivalence_test, verdict_from_estimate
from segbench.stats.errors import NotEnoughSeeds, StatsError
from segbench.stats.hodges_lehmann import hodges_lehmann
from segbench.stats.intervals import Interval, mean_interval, median_interval
from segbench.stats.multiple import benjamini_hochberg, bergmann_hommel, holm, shaffer
from segbench.stats.omnibus import FriedmanResult, NemenyiResult, critical_difference, friedman, nemenyi
from segbench.stats.paired import (
    WilcoxonResult,
    cohen_dz,
    probability_superior,
    rank_biserial,
    wilcoxon_signed_rank,
)
from segbench.stats.rank_models import rank_models
from segbench.stats.ranking import Ranking, RankStability, rank_cases, rank_stability
from segbench.stats.retraining import NullCheck, null_check
from segbench.stats.schemes import SCHEMES
from segbench.stats.subgroups import InteractionResult, subgroup_interaction
from segbench.stats.two_level import TwoLevelResult, detectable_difference, two_level_test

__all__ = [
    "SCHEMES",
    "Comparison",
    "DiscriminationResult",
    "EquivalenceResult",
    "FriedmanResult",
    "InteractionResult",
    "Interval",
    "NemenyiResult",
    "NotEnoughSeeds",
    "NullCheck",
    "Omnibus",
    "RankStability",
    "Ranking",
    "StatsError",
    "TwoLevelResult",
    "WilcoxonResult",
    "benjamini_hochberg",
    "bergmann_hommel",
    "cohen_dz",
    "compare_models",
    "critical_difference",
    "detectable_difference",
    "discrimination",
    "equivalence_test",
    "friedman",
    "hodges_lehmann",
    "holm",
    "mean_interval",
    "median_interval",
    "models_differ",
    "nemenyi",
    "null_check",
    "probability_superior",
    "rank_biserial",
    "rank_cases",
    "rank_models",
    "rank_stability",
    "shaffer",
    "subgroup_interaction",
    "two_level_test",
    "verdict_from_estimate",
    "wilcoxon_signed_rank",
]
